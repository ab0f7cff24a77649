"""The scores of additive attention, of one step or of all, in bounded memory.

Axes: T steps, B batch, S memory positions, A units.
"""

import tensorflow as tf

LARGEST = 2**25  # numbers, 128 MiB: steps are compared in as many chunks as that takes


def additive(v, keys, q, *more):
    """`v . tanh(keys + q + ...)`: `[..., B, S]` from `q [..., B, A]`, the rest `[B, S, A]`."""
    if q.shape.rank == 3:
        return _all_steps(v, keys, q)
    z = keys + q[:, None]
    for term in more:
        z += term
    return _times(tf.tanh(z), v)


def _times(t, v):
    """`t [..., A] @ v [A]`, as one product of a matrix, which is faster than a sum over an axis."""
    sizes = [known or tf.shape(t)[k] for k, known in enumerate(t.shape)]
    return tf.reshape(tf.matmul(tf.reshape(t, [-1, sizes[-1]]), v[:, None]), sizes[:-1])


def _all_steps(v, keys, q):
    """All steps, `[T, B, S]`: what they are compared in, `[T, B, S, A]`, is not kept but made
    again for the gradient."""
    T = q.shape[0] or tf.shape(q)[0]
    sizes = [known or tf.shape(keys)[k] for k, known in enumerate(keys.shape)]
    size = LARGEST // (sizes[0] * sizes[1] * sizes[2])
    size = max(1, size) if isinstance(size, int) else tf.maximum(size, 1)

    @tf.custom_gradient
    def compare(v, keys, q):
        def one(q):
            return _times(tf.tanh(keys + q[:, :, None]), v), ()

        scores, _ = _in_chunks(one, T, size, (q,), ())

        def grad(d):
            def back(q, d, d_v, d_keys):
                t = tf.tanh(keys + q[:, :, None])
                dz = d[..., None] * v * (1 - t * t)
                flat = tf.reshape(t, [-1, t.shape[-1]])
                d_v += tf.linalg.matvec(flat, tf.reshape(d, [-1]), transpose_a=True)
                d_keys += tf.reduce_sum(dz, axis=0)
                return tf.reduce_sum(dz, axis=2), (d_v, d_keys)

            start = (tf.zeros_like(v), tf.zeros_like(keys))
            d_q, (d_v, d_keys) = _in_chunks(back, T, size, (q, d), start)
            return d_v, d_keys, tf.ensure_shape(d_q, q.shape)

        return tf.ensure_shape(scores, [q.shape[0], *keys.shape[:2]]), grad

    return compare(v, keys, q)


def _in_chunks(function, T, size, xs, carry):
    """`function(*chunks of xs, *carry) -> (part, carry)` for each `size` steps: parts together."""
    if isinstance(T, int) and isinstance(size, int):
        found = []
        for k in range(0, T, size):
            part, carry = function(*(x[k : k + size] for x in xs), *carry)
            found.append(part)
        return tf.concat(found, axis=0), carry
    # Whole chunks, by their number: XLA has no slices of a size that it does not know. All of one
    # size, the smallest for that number, since what is missing at the end is computed as well.
    chunks = tf.maximum(-(-T // size), 1)
    size = tf.maximum(-(-T // chunks), 1)

    def split(x):
        x = tf.pad(x, [[0, chunks * size - T]] + (x.shape.rank - 1) * [[0, 0]])
        sizes = tf.concat([[chunks, size], tf.shape(x)[1:]], axis=0)
        return tf.ensure_shape(tf.reshape(x, sizes), [None, None, *x.shape[1:]])

    xs = tuple(map(split, xs))
    array = tf.TensorArray(xs[0].dtype, chunks, infer_shape=False)

    def body(i, array, *carry):
        part, carry = function(*(x[i] for x in xs), *carry)
        return i + 1, array.write(i, part), *carry

    _, array, *carry = tf.while_loop(
        lambda i, *_: i < chunks, body, (tf.constant(0), array, *carry)
    )
    parts = array.stack()
    sizes = tf.concat([[chunks * size], tf.shape(parts)[2:]], axis=0)
    return tf.reshape(parts, sizes)[:T], tuple(carry)

"""Linear recurrences, `h = a * h + b`, in parallel over time.

The sequence is cut into chunks, and all chunks run side by side, as if they were rows of the
batch: each from a state of zeros, together with the product A of its a. What the state before a
chunk adds to a step of it is A times that state, and the states between chunks are a linear
recurrence again, over the chunks. Blelloch, "Prefix Sums and Their Applications", CMU-CS-90-190
(1990), in two levels. Nothing overflows, however long the sequence: A is a product of numbers
from 0 to 1.

Axes: T time (leading), C chunks, L steps of a chunk, B batch, U units.
"""

import tensorflow as tf

from keras_rnnx.engine import xla
from keras_rnnx.engine.backward import Full
from keras_rnnx.engine.masking import select
from keras_rnnx.engine.masking import with_steps
from keras_rnnx.engine.parts import in_parts
from keras_rnnx.engine.plan import LEAST_STEPS
from keras_rnnx.engine.plan import WIDEST
from keras_rnnx.engine.run import run


def worth_chunks(T, B, U, plan):
    """Whether chunks are faster than one step after the other: a boolean, or a tensor of one.

    T, B: ints or scalars. Only a plain graph can decide when the sizes come.
    """
    if plan.backend not in LEAST_STEPS or plan.backward != Full():
        return False
    if plan.backend == "compiled" and not (isinstance(T, int) and isinstance(B, int)):
        return False
    long, narrow = T >= LEAST_STEPS[plan.backend], B * U <= WIDEST
    known = isinstance(long, bool) and isinstance(narrow, bool)
    if known or long is False or narrow is False:
        return bool(long and narrow) if known else False
    return tf.logical_and(long, narrow) if xla.may_choose() else False


def run_in_chunks(a, b, h, chunks, *, plan, mask=None, steps=None, last_only, zero_masked):
    """The linear recurrence of `a, b [T, B, U]` from the state `h [B, U]`.

    Args:
        chunks: how many there are, an int or a scalar.
        plan, mask, steps, last_only, zero_masked: see `engine.run`.

    Returns:
        The outputs, which are the states, `[T, B, U]` or `[B, U]`, and the last state.
    """
    T = a.shape[0] or tf.shape(a)[0]
    mask = with_steps(mask, steps, a)
    if mask is not None:  # the state stays
        a, b = select(mask, a, tf.ones_like(a)), select(mask, b, tf.zeros_like(b))
    products, states = _inside(_cut(a, chunks, 1), _cut(b, chunks, 0), chunks, plan)
    starts, last = _between(products[-1], states[-1], h, plan)
    if last_only:
        outputs = last
    else:
        outputs = tf.transpose(products * starts + states, [1, 0, 2, 3])  # [C, L, B, U]
        outputs = tf.reshape(outputs, tf.concat([[-1], tf.shape(h)], axis=0))[:T]
        outputs = tf.ensure_shape(outputs, a.shape)
    if mask is not None:
        keep = mask if zero_masked else tf.cumsum(tf.cast(mask, tf.int32)) > 0
        outputs = select(keep[-1] if last_only else keep, outputs, tf.zeros([], outputs.dtype))
    return outputs, last


def _cut(a, chunks, fill):
    """`[T, B, U] -> [L, C, B, U]`, steps beyond the last one filled."""
    T, B, U = a.shape[0] or tf.shape(a)[0], a.shape[1] or tf.shape(a)[1], a.shape[2]
    length = -(-T // chunks)
    a = tf.pad(a, [[0, chunks * length - T], [0, 0], [0, 0]], constant_values=fill)
    return tf.transpose(tf.reshape(a, [chunks, length, B, U]), [1, 0, 2, 3])


def _inside(a, b, chunks, plan):
    """`(A, h)` after every step of every chunk, each chunk from zeros: `[L, C, B, U]` each."""
    L, _, B, U = (known or tf.shape(a)[k] for k, known in enumerate(a.shape))
    rows = lambda v: tf.reshape(v, [L, chunks * B, U])
    a, b = rows(a), rows(b)
    start = (tf.ones_like(a[0]), tf.zeros_like(a[0]))

    def loop(x, mask, states):
        return run(_both, x, {}, states, plan=plan)

    outputs, _ = in_parts(loop, plan.parts, (a, b), None, start, last_only=False)
    return [tf.reshape(v, [L, chunks, B, U]) for v in outputs]


def _between(a, b, h, plan):
    """The state before each chunk, `[C, B, U]`, and the one after the last."""
    starts, (last,) = run(_before, (a, b), {}, (h,), plan=plan)
    return starts, last


def _both(weights, product, x, states, constants):
    a, b = x
    A, h = states
    new = (a * A, a * h + b)
    return new, new


def _before(weights, product, x, states, constants):
    a, b = x
    (h,) = states
    return h, (a * h + b,)

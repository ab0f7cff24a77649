"""Padding time, so that loops over sequences of every length compile a few times."""

import tensorflow as tf

from keras_rnnx.engine.masking import extent


def pad_time(x, mask, compiled):
    """`(x, mask, steps)` with `x`, a tree of `[T, B, ...]`, and `mask [T, B]` padded if need be.

    A known T stays as it is. An unknown one is padded to a bucket if the loop is `compiled`, for
    which each length is another shape; the loop still stops at the real number of steps. At least
    one step is left: XLA compiles no slice of nothing, although the loop would never take it.
    """
    first = tf.nest.flatten(x)[0]
    known = first.shape[0]
    if known:
        return x, mask, known
    steps = tf.shape(first)[0] if known is None else known
    extra = (bucket(steps) if compiled else tf.maximum(steps, 1)) - steps

    def pad(a):
        return tf.pad(a, [[0, extra]] + [[0, 0]] * (a.shape.rank - 1))

    return tf.nest.map_structure(pad, x), None if mask is None else pad(mask), steps


def until_last(function, x, mask):
    """`function(x)` of the steps up to the last real one of any row, and zeros after it.

    x: tree of `[T, B, ...]`, as is what the function returns.
    """
    _, last = extent(tf.reduce_any(mask, axis=1))

    def pad(a):
        known = tf.pad(a, [[0, tf.shape(mask)[0] - last]] + [[0, 0]] * (a.shape.rank - 1))
        return tf.ensure_shape(known, [mask.shape[0], *a.shape[1:]])

    return tf.nest.map_structure(pad, function(tf.nest.map_structure(lambda a: a[:last], x)))


def bucket(steps):
    """The padded length for `steps`: 1 to 16, then in steps of at most 12.5 %."""
    powers = tf.constant([2**k for k in range(4, 31)])
    step = tf.bitwise.left_shift(1, tf.reduce_sum(tf.cast(steps > powers, tf.int32)))
    return tf.maximum((steps + step - 1) // step * step, 1)

"""Masks: the only place that knows how padding acts.

A mask is `[T, B]` booleans, True where a step is real. In a step that is off, the states stay and
the output is the previous one again (zeros before the first real step), or zeros if so asked.
"""

import tensorflow as tf


def extent(mask):
    """The first real step and the one after the last, over the leading axis of `mask`.

    A row without a real step has an extent of 0 steps.
    """
    steps = tf.shape(mask)[0]
    any_real = tf.reduce_any(mask, axis=0)
    first = tf.argmax(mask, axis=0, output_type=tf.int32)
    last = steps - tf.argmax(tf.reverse(mask, [0]), axis=0, output_type=tf.int32)
    return first, tf.where(any_real, last, first)


def zero_padding(x, mask):
    """`x` with its padded steps set to 0, so that a NaN in the padding reaches no sum or gradient.

    `x` and `mask` share their two leading axes, whichever way round these are.
    """
    if mask is None:
        return x
    return select(mask, x, tf.zeros_like(x))


def select(keep, new, old):
    """`new` where `keep` is on, else `old`; `keep` covers the leading axes of both."""
    missing = new.shape.rank - keep.shape.rank
    shape = tf.concat([tf.shape(keep), tf.ones([missing], tf.int32)], axis=0)
    if keep.shape.is_fully_defined():
        shape = keep.shape.as_list() + missing * [1]
    return tf.where(tf.reshape(keep, shape), new, old)


def swap_time_and_batch(x):
    """`[B, T, ...] <-> [T, B, ...]`."""
    return tf.transpose(x, [1, 0, *range(2, x.shape.rank)])

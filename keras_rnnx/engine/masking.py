"""Masks: the only place that knows how padding acts.

A mask is `[T, B]` booleans, True where a step is real. In a step that is off, the states stay and
the output is the previous one again (zeros before the first real step), or zeros if so asked.
"""

import tensorflow as tf


def extent(mask):
    """The first real step and the one after the last, over the leading axis of `mask`.

    A row without a real step has an extent of 0 steps.
    """
    real = tf.cast(mask, tf.int32)
    first = tf.argmax(real, axis=0, output_type=tf.int32)
    last = tf.shape(mask)[0] - tf.argmax(tf.reverse(real, [0]), axis=0, output_type=tf.int32)
    return first, tf.where(tf.reduce_any(mask, axis=0), last, first)


def begun(mask, axis):
    """Whether there was a real step yet, this one included, with the time along `axis`."""
    return tf.cumsum(tf.cast(mask, tf.int32), axis=axis) > 0


def zero_padding(x, mask):
    """`x` with its padded steps set to 0, so that a NaN in the padding reaches no sum or gradient.

    `x` and `mask` share their two leading axes, whichever way round these are.
    """
    if mask is None:
        return x
    return select(mask, x, tf.zeros_like(x))


def with_steps(mask, steps, x):
    """`mask [T, B]` of the first `steps` steps of `x [T, B, ...]` only, None where all are real.

    steps: None and an int stand for all: only a scalar is fewer than there are (see `pad_time`).
    """
    if steps is None or isinstance(steps, int):
        return mask
    sizes = tf.shape(x)
    real = tf.repeat((tf.range(sizes[0]) < steps)[:, None], sizes[1], axis=1)
    return real if mask is None else tf.logical_and(mask, real)


def real_steps_first(x, mask):
    """`x [T, B, ...]` with the real steps of each row at its start, and how many there are."""
    real = tf.cast(mask, tf.int32)
    return _by_row(x, tf.argsort(1 - real, axis=0, stable=True)), tf.reduce_sum(real, axis=0)


def back_to_places(outputs, mask, zero_masked):
    """`outputs [T, B, ...]` of steps that `real_steps_first` has moved, moved back."""
    place = tf.cumsum(tf.cast(mask, tf.int32), axis=0) - 1  # of the last real step until now
    outputs = _by_row(outputs, tf.maximum(place, 0))
    return select(mask if zero_masked else place >= 0, outputs, tf.zeros_like(outputs))


def resets_of_real_steps(reset, mask):
    """`(reset [T, B], after [B])`: a reset where no step is real counts for the next real one;
    `after` says which rows have one after their last real step."""
    more = lambda a: tf.pad(a, [[0, 1], [0, 0]])  # a masked step at the end, if only that
    reset, mask = more(reset), more(mask)
    count = tf.cumsum(tf.cast(reset, tf.int32), axis=0)
    at_real, real = real_steps_first(count, mask)
    known = tf.concat([tf.zeros_like(count[:1]), at_real], axis=0)  # at the j-th real step
    before = tf.cumsum(tf.cast(mask, tf.int32), axis=0, exclusive=True)
    at_last = _by_row(known, real[None])[0]
    return (count > _by_row(known, before))[:-1], count[-1] > at_last


def _by_row(a, steps):
    """`a[steps[t, b], b]` for every t and b."""
    rows = tf.broadcast_to(tf.range(tf.shape(a)[1]), tf.shape(steps))
    gathered = tf.gather_nd(a, tf.stack([steps, rows], axis=-1))
    return tf.ensure_shape(gathered, [steps.shape[0], *a.shape[1:]])


def last_real(outputs, mask):
    """`outputs [B, T, ...]` of the last real step of each row, zeros where there is none."""
    outputs = tf.pad(outputs, [[0, 0], [1, 0]] + [[0, 0]] * (outputs.shape.rank - 2))
    if mask is None:
        return outputs[:, -1]
    places = tf.where(mask, tf.range(1, tf.shape(mask)[1] + 1), 0)
    last = tf.maximum(tf.reduce_max(places, axis=1), 0)
    return tf.gather(outputs, last, axis=1, batch_dims=1)


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

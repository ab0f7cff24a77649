"""Batches of sequences of about one length, in few shapes, for `tf.data`.

How the layers learn which steps of a batch are real:

* token ids: `keras.layers.Embedding(..., mask_zero=True)`, with 0 for padding only;
* features: `keras.layers.Masking()`, if no real step consists of zeros;
* any: `bucket_by_length(..., with_lengths=True)`, then
  `mask = tf.sequence_mask(lengths, tf.shape(x)[1])` and `layer(x, mask=mask)`.
"""

import numbers
from collections.abc import Callable
from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from keras_rnnx.annotations import Tensor


def bucket_by_length(
    dataset: tf.data.Dataset,
    batch_size: int | None = None,
    tokens_per_batch: int | None = None,
    max_length: int | None = None,
    boundaries: Iterable[int] | None = None,
    length: Callable[..., Tensor] | None = None,
    noise: float = 0.0,
    shuffle: int = 0,
    seed: int | None = None,
    drop_remainder: bool = False,
    padding_values: Any = 0,
    with_lengths: bool = False,
) -> tf.data.Dataset:
    """Batches elements of about one length, padded to one of a few lengths.

    For sequences of many lengths: padding costs time, and each new shape costs a compilation. On
    the stock `tf.data.Dataset.bucket_by_sequence_length`.

    An element goes to the first bucket that it fits in, and each of its time axes is padded at the
    end to the length of the bucket. A batch comes out when its bucket is full.

    Args:
        dataset: its elements are a tensor, or a tuple or dict of tensors. A first axis of unknown
            size is a time axis, `[T, ...]`; what has none (a label) is batched as it is.
        batch_size: rows of a batch. This or `tokens_per_batch`.
        tokens_per_batch: the most padded steps of a batch, rows * length, so that short sequences
            come in batches of more rows.
        max_length: the longest length there is. The buckets are 16, 24, 32, 48, 64, 96, ... (the
            powers of 2 and halfway between) below it, and it. This or `boundaries`.
        boundaries: the lengths of the buckets, ascending. An element of that length fits.
        length: function from an element (unpacked if it is a tuple, as in `Dataset.map`) to its
            length. None: that of its longest time axis, of input and target alike, since all are
            padded to the same length. It may not be less.
        noise: an element goes to a bucket for up to `1 + noise` times its length, at random and
            anew in each pass. Without it a batch holds one length; where sequences are also
            bucketed by the target, all targets of a batch end together, which may hinder training.
        shuffle: size of the buffer of `Dataset.shuffle`, before the buckets; 0 does not shuffle.
        seed: of `shuffle` and `noise`.
        drop_remainder: drop the rows that do not fill a batch when the data ends. There are at most
            as many shapes as buckets then; otherwise up to one smaller batch more per bucket.
        padding_values: one value for all tensors (0 is also the empty string and False), or one
            for each, nested as an element is.
        with_lengths: batches are `(batch, lengths)`, with `lengths [B]` int32: what `length` gave.

    Returns:
        A `tf.data.Dataset` of batches, nested as the elements are: `[B, T, ...]` for `[T, ...]`,
        `[B, ...]` for the rest.

    Masks: none, see `keras_rnnx.data` for how to get one from the ids or from `with_lengths`.

    Raises:
        ValueError: for arguments or elements that do not go together.
        tf.errors.InvalidArgumentError: while iterating, for an element longer than the last bucket
            or than its `length`.

    Example:

    >>> import tensorflow as tf, keras_rnnx
    >>> words = tf.data.Dataset.from_generator(
    ...     lambda: [[1, 2], [3, 4, 5, 6], [7]],
    ...     output_signature=tf.TensorSpec([None], tf.int32),
    ... )
    >>> for batch in keras_rnnx.bucket_by_length(words, batch_size=2, boundaries=[2, 4]):
    ...     print(batch.numpy().tolist())
    [[1, 2], [7, 0]]
    [[3, 4, 5, 6]]
    """
    buckets = _buckets(max_length, boundaries)
    rows = _rows(buckets, batch_size, tokens_per_batch)
    spec = dataset.element_spec
    has_time = _find_time_axes(spec)
    _check_number("noise", noise, numbers.Real, "a number of at least 0, such as 0.2")
    _check_number("shuffle", shuffle, numbers.Integral, "a number of elements, or 0")

    def measure(*element):
        """The element, its length, and the length that decides on the bucket."""
        sizes = [tf.shape(x)[0] for x, timed in zip(tf.nest.flatten(element), has_time) if timed]
        longest = tf.reduce_max(sizes)
        steps = longest if length is None else tf.cast(length(*element), tf.int32)
        checks = [
            tf.debugging.Assert(longest <= steps, [_TOO_SHORT, longest, steps]),
            tf.debugging.Assert(steps <= buckets[-1], [_TOO_LONG, steps, buckets[-1]]),
        ]
        with tf.control_dependencies(checks):
            steps = tf.identity(steps)
        return element if type(spec) is tuple else element[0], steps, steps

    def stretch(measured, random):
        element, steps, _ = measured
        factor = 1.0 + noise * tf.cast(random, tf.float32) / 2**32
        stretched = tf.cast(tf.cast(steps, tf.float32) * factor, tf.int32)
        return element, steps, tf.minimum(stretched, buckets[-1])

    if shuffle:
        dataset = dataset.shuffle(shuffle, seed=seed)
    dataset = dataset.map(measure)
    if noise:
        random = tf.data.Dataset.random(seed, rerandomize_each_iteration=True)
        dataset = tf.data.Dataset.zip(dataset, random).map(stretch)
    dataset = dataset.bucket_by_sequence_length(
        lambda element, steps, bucketed_by: bucketed_by,
        [bucket + 1 for bucket in buckets],  # the stock ones are the first lengths that do not fit
        [*rows, 1],  # the last of these is for longer elements, and stays empty
        padding_values=(_padding(padding_values, spec), 0, 0),
        pad_to_bucket_boundary=True,
        drop_remainder=drop_remainder,
    )
    return dataset.map(lambda batch, steps, _: (batch, steps) if with_lengths else batch)


_TOO_SHORT = (
    "bucket_by_length got an element whose longest time axis is longer than its `length`, expected "
    "at most as long. Let `length` return the largest of the two. Longest axis and length:"
)
_TOO_LONG = (
    "bucket_by_length got an element longer than the last bucket, expected at most as long. Give a "
    "larger max_length or last boundary, or filter the dataset. Length and last bucket:"
)


def _buckets(max_length, boundaries):
    """The lengths of the buckets."""
    _check_one_of(max_length=max_length, boundaries=boundaries)
    if boundaries is None:
        _check_positive("max_length", max_length)
        powers = [2**k for k in range(4, max_length.bit_length())]
        growing = [size for power in powers for size in (power, power + power // 2)]
        return [size for size in growing if size < max_length] + [int(max_length)]
    boundaries = list(boundaries)
    for boundary in boundaries:
        _check_positive("boundaries", boundary)
    if not boundaries or boundaries != sorted(set(boundaries)):
        raise ValueError(
            f"boundaries is {boundaries}, expected ascending lengths, the last one that of the "
            "longest element, for example [16, 32, 64]."
        )
    return [int(boundary) for boundary in boundaries]


def _rows(buckets, batch_size, tokens_per_batch):
    """How many rows the batches of each bucket have."""
    _check_one_of(batch_size=batch_size, tokens_per_batch=tokens_per_batch)
    if batch_size is not None:
        _check_positive("batch_size", batch_size)
        return [int(batch_size)] * len(buckets)
    _check_positive("tokens_per_batch", tokens_per_batch)
    if tokens_per_batch < buckets[-1]:
        raise ValueError(
            f"tokens_per_batch is {tokens_per_batch}, expected at least the length of the last "
            f"bucket, {buckets[-1]}: one row of that is more already. Give a larger one."
        )
    return [int(tokens_per_batch) // bucket for bucket in buckets]


def _find_time_axes(spec):
    """Whether each tensor of an element has a time axis."""
    flat = tf.nest.flatten(spec)
    for one in flat:
        dense = isinstance(one, tf.TensorSpec) or getattr(one, "ragged_rank", None) == 0
        known = dense and one.shape.rank is not None
        if not known or not all(size is not None for size in one.shape[1:]):
            raise ValueError(
                f"bucket_by_length got elements with {one}, expected dense tensors [T, ...] in "
                "which only the first axis may have an unknown size. Set the shape in "
                "`Dataset.map`, for example with tf.ensure_shape(x, [None, 16])."
            )
    has_time = [one.shape.rank > 0 and one.shape[0] is None for one in flat]
    if not any(has_time):
        raise ValueError(
            f"bucket_by_length got elements {spec}, expected a first axis of unknown size, [T, "
            "...], in at least one tensor. Sequences of one length need no buckets: use "
            "`Dataset.batch`."
        )
    return has_time


def _padding(values, spec):
    """The padding of each tensor, in its dtype, nested as `spec` is."""
    flat = tf.nest.flatten(values)
    if not tf.nest.is_nested(values):
        flat = len(tf.nest.flatten(spec)) * [values]
    elif len(flat) != len(tf.nest.flatten(spec)):
        raise ValueError(
            f"padding_values is {values!r}, expected one value, or as many as an element has "
            f"tensors, nested as in {spec}."
        )

    def one(value, dtype):
        if dtype == tf.string:
            return tf.constant(value if isinstance(value, (str, bytes)) else "")
        return tf.cast(value, dtype)

    typed = [one(value, s.dtype) for value, s in zip(flat, tf.nest.flatten(spec))]
    return tf.nest.pack_sequence_as(spec, typed)


def _check_one_of(**options):
    if sum(value is not None for value in options.values()) != 1:
        (first, a), (second, b) = options.items()
        raise ValueError(
            f"bucket_by_length got {first}={a!r} and {second}={b!r}, expected one of the two. Give "
            "one and leave the other out."
        )


def _check_positive(name, value):
    _check_number(name, value, numbers.Integral, "a positive integer, such as 64", least=1)


def _check_number(name, value, kind, expected, least=0):
    if isinstance(value, bool) or not isinstance(value, kind):
        raise TypeError(f"{name} is {value!r}, expected {expected}.")
    if not value >= least:
        raise ValueError(f"{name} is {value!r}, expected {expected}.")

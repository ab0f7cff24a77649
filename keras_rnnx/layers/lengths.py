"""Where a batch says how long its sequences are: masks, lengths, ragged tensors, as one mask."""

import keras
import tensorflow as tf

from keras_rnnx import engine


def with_mask(layer, sequences, mask, sequence_length):
    """`(sequences [B, T, ...], mask [B, T] or None)` of what the caller gave; both must hold.

    A mask that Keras attached to the sequences counts where none is given.
    """
    attached = getattr(keras.tree.flatten(sequences)[0], "_keras_mask", None)
    sequences, row_lengths = _dense(layer, sequences)
    mask = attached if mask is None else mask
    flat = [m for m in keras.tree.flatten(mask) if m is not None]
    first = keras.tree.flatten(sequences)[0]
    mask = tf.reshape(tf.cast(flat[0], tf.bool), tf.shape(first)[:2]) if flat else None
    for lengths in (row_lengths, sequence_length):
        if lengths is not None:
            real = _steps_before(layer, lengths, first)
            mask = real if mask is None else tf.logical_and(mask, real)
    return sequences, mask


def is_ragged(sequences):
    return any(isinstance(s, tf.RaggedTensor) for s in keras.tree.flatten(sequences))


def attach(mask, outputs):
    """Give `outputs` a mask that Keras hands on to the next layer."""
    for output in keras.tree.flatten(outputs):
        output._keras_mask = mask


def _dense(layer, sequences):
    """A ragged tensor as a dense one and its lengths."""
    ragged = [s for s in keras.tree.flatten(sequences) if isinstance(s, tf.RaggedTensor)]
    if not ragged:
        return keras.tree.map_structure(tf.convert_to_tensor, sequences), None
    if engine.is_enclosed():
        raise ValueError(
            f"{layer.name} got a RaggedTensor under jit_compile=True, and XLA has none. Pass a "
            "dense tensor with sequence_length=..., or compile the model with jit_compile=False."
        )
    for one in ragged:
        if one.ragged_rank != 1:
            raise ValueError(
                f"{layer.name} got a RaggedTensor of shape {tuple(one.shape)} with "
                f"{one.ragged_rank} ragged axes, expected (batch, time, features), ragged in time "
                "only. Make the others dense, for example with `to_tensor`."
            )
    dense = lambda s: s.to_tensor() if isinstance(s, tf.RaggedTensor) else tf.convert_to_tensor(s)
    return keras.tree.map_structure(dense, sequences), ragged[0].row_lengths()


def _steps_before(layer, lengths, sequences):
    """`[B, T]` booleans: the steps of each row before its length."""
    lengths = tf.convert_to_tensor(lengths)
    batch = sequences.shape[0]
    known = None in (lengths.shape.rank, batch) or lengths.shape.is_compatible_with([batch])
    if not lengths.dtype.is_integer or lengths.shape.rank not in (1, None) or not known:
        raise ValueError(
            f"{layer.name} got sequence_length of shape {tuple(lengths.shape)} and type "
            f"{lengths.dtype.name} with a batch of {batch}, expected one integer per sample: the "
            "number of steps of each sequence, (batch,)."
        )
    values, steps = tf.get_static_value(lengths), sequences.shape[1]
    if values is not None and values.size and steps is not None:  # otherwise it would cost time
        if values.min() < 0 or values.max() > steps:
            raise ValueError(
                f"{layer.name} got sequence_length from {values.min()} to {values.max()}, expected "
                f"0 to {steps}: the sequences have {steps} steps, padding included."
            )
    steps = tf.range(tf.shape(sequences)[1], dtype=lengths.dtype)
    return steps < lengths[:, None]


def ragged(outputs, mask):
    """`outputs [B, T, ...]` as a ragged tensor of the real steps of each row."""
    if mask is None:
        return tf.RaggedTensor.from_tensor(outputs)
    return tf.ragged.boolean_mask(outputs, mask)

"""What CTC takes: logits of which some steps are real, and labels of which some places are."""

import tensorflow as tf

from keras_rnnx import engine


def real_steps(name, logits, mask=None, sequence_length=None):
    """`(logits [B, T, C], real [B, T] or None)`: in at least float32, with zeros as padding.

    A mask that Keras attached to the logits counts where none is given.
    """
    mask = getattr(logits, "_keras_mask", None) if mask is None else mask
    logits = tf.convert_to_tensor(logits)
    if logits.shape.rank != 3 or logits.shape[2] is None or not logits.dtype.is_floating:
        raise ValueError(
            f"{name} got logits of shape {tuple(logits.shape)} and type {logits.dtype.name}, "
            "expected floats (batch, time, classes) with a known number of classes, the blank "
            "among them."
        )
    logits = tf.cast(logits, tf.float64 if logits.dtype == tf.float64 else tf.float32)
    real = None
    if mask is not None:
        real = tf.cast(mask, tf.bool)
        if not real.shape.is_compatible_with(logits.shape[:2]):
            raise ValueError(
                f"{name} got a mask of shape {tuple(real.shape)} with logits of shape "
                f"{tuple(logits.shape)}, expected (batch, time), True where a step is real."
            )
    if sequence_length is not None:
        _check_lengths(name, "sequence_length", sequence_length, logits)
        within = tf.sequence_mask(sequence_length, tf.shape(logits)[1])
        real = within if real is None else real & within
    return engine.zero_padding(logits, real), real


def real_labels(name, labels, logits, label_length=None, blank=0):
    """`(labels [B, L] int32 with the real ones first, count [B])`; blanks after them."""
    labels = tf.convert_to_tensor(labels)
    if labels.shape.rank != 2 or not labels.shape[:1].is_compatible_with(logits.shape[:1]):
        raise ValueError(
            f"{name} got labels of shape {tuple(labels.shape)} with logits of shape "
            f"{tuple(logits.shape)}, expected ids (batch, labels)."
        )
    labels = tf.cast(labels, tf.int32)
    real = (labels >= 0) & (labels != blank)
    if label_length is not None:
        _check_lengths(name, "label_length", label_length, logits)
        real &= tf.sequence_mask(label_length, tf.shape(labels)[1])
    labels = _known(name, tf.where(real, labels, blank), logits.shape[2])
    order = tf.argsort(tf.cast(~real, tf.int32), axis=1, stable=True)
    count = tf.reduce_sum(tf.cast(real, tf.int32), axis=1)
    return tf.gather(labels, order, axis=1, batch_dims=1), count


def blank_of(name, blank, classes):
    """The id of the blank; a negative one counts from the end."""
    if isinstance(blank, bool) or not isinstance(blank, int) or not -classes <= blank < classes:
        raise ValueError(
            f"{name} got blank={blank!r} with logits of {classes} classes, expected an integer "
            f"from {-classes} to {classes - 1}."
        )
    return blank % classes


def _check_lengths(name, argument, lengths, logits):
    lengths = tf.convert_to_tensor(lengths)
    if not lengths.dtype.is_integer or not lengths.shape.is_compatible_with(logits.shape[:1]):
        raise ValueError(
            f"{name} got {argument} of shape {tuple(lengths.shape)} and type "
            f"{lengths.dtype.name} with a batch of {logits.shape[0]}, expected one integer per "
            "sample, (batch,)."
        )


def _known(name, labels, classes):
    """The labels; one that the logits have not is refused, in a graph when it runs."""
    message = f"{name} got a label that is no class: the logits have {classes} classes, and the"
    message += f" labels are expected from 0 to {classes - 1}, negative ones as padding."
    value = tf.get_static_value(labels)
    if value is not None and (value >= classes).any():
        raise ValueError(f"{message} The largest is {value.max()}.")
    if value is not None:
        return labels
    with tf.control_dependencies([tf.debugging.assert_less(labels, classes, message)]):
        return tf.identity(labels)

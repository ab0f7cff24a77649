"""The loss of sequences of tokens."""

from typing import Literal

import keras
import tensorflow as tf

from keras_rnnx.annotations import Tensor
from keras_rnnx.replicas import mean_over_all


@keras.saving.register_keras_serializable(package="keras_rnnx")
class SequenceLoss(keras.losses.Loss):
    """Cross-entropy of the real tokens of sequences.

        q = (1 - label_smoothing) * one_hot(y) + label_smoothing / V
        loss = -sum_v q[v] log softmax(logits)[v]

    Label smoothing: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision",
    CVPR 2016 (arXiv:1512.00567).

    Args:
        average: `"tokens"`, the mean over the real tokens of the batch; `"sequences"`, the sum over
            the tokens of a sequence, and the mean of that over those with a real token; `None`, the
            sum over all.
        label_smoothing: at least 0 and less than 1.
        padding: id of the targets that do not count, or None: all do.
        name: of the loss.

    Call arguments:
        y_true: `[B, T]` ids.
        y_pred: `[B, T, V]` logits.
        sample_weight: `[B]` or `[B, T]`, which multiply the loss, as in Keras, and not the count
            that it is divided by; or None.

    Returns:
        A float32 scalar; 0 where no token is real. A Keras mask of the logits is not looked at: the
        targets say what counts.

    Raises:
        ValueError: for another average, or targets and logits that do not go together.

    Example:

    >>> import numpy as np
    >>> from keras_rnnx.seq2seq import SequenceLoss
    >>> loss = SequenceLoss()(np.array([[1, 2, 0]]), np.zeros((1, 3, 4), "float32"))
    >>> round(float(loss), 4)  # log 4 for each of two tokens
    1.3863
    """

    def __init__(
        self,
        average: Literal["tokens", "sequences"] | None = "tokens",
        label_smoothing: float = 0.0,
        padding: int | None = 0,
        name: str | None = "sequence_loss",
    ) -> None:
        super().__init__(name=name)
        if average not in ("tokens", "sequences", None):
            raise ValueError(f'average is {average!r}, expected "tokens", "sequences" or None.')
        if not 0 <= label_smoothing < 1:
            raise ValueError(
                f"label_smoothing is {label_smoothing}, expected at least 0 and less than 1."
            )
        self.average, self.label_smoothing, self.padding = average, label_smoothing, padding

    def __call__(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> Tensor:
        y, logits = tf.cast(y_true, tf.int32), tf.cast(y_pred, tf.float32)
        if logits.shape.rank != 3 or not y.shape.is_compatible_with(logits.shape[:2]):
            raise ValueError(
                f"SequenceLoss got targets of shape {tuple(y.shape)} and logits of shape "
                f"{tuple(logits.shape)}, expected ids [B, T] and logits [B, T, V]."
            )
        real = tf.ones_like(logits[..., 0]) if self.padding is None else None
        real = tf.cast(y != self.padding, tf.float32) if real is None else real
        losses = self.per_token(y, logits) * real
        if sample_weight is not None:
            weight = tf.cast(sample_weight, tf.float32)
            losses *= weight if weight.shape.rank == 2 else tf.reshape(weight, [-1, 1])
        total = tf.reduce_sum(losses)
        if self.average is None:
            return total
        per_row = tf.cast(tf.reduce_any(real > 0, axis=1), tf.float32)
        count = tf.reduce_sum(real if self.average == "tokens" else per_row)
        return mean_over_all(total, count)

    def per_token(self, y: Tensor, logits: Tensor) -> Tensor:
        """The loss of each token, `[B, T]`, whether it is real or not."""
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits)
        if not self.label_smoothing:
            return losses
        uniform = -tf.reduce_mean(tf.nn.log_softmax(logits), axis=-1)
        return (1 - self.label_smoothing) * losses + self.label_smoothing * uniform

    def get_config(self):
        return {
            "average": self.average,
            "label_smoothing": self.label_smoothing,
            "padding": self.padding,
            "name": self.name,
        }

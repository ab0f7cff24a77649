"""The label error rate, while a model trains with `CTCLoss`."""

import keras
import tensorflow as tf

from keras_rnnx.annotations import Dtype
from keras_rnnx.annotations import Tensor
from keras_rnnx.heads.ctc import has_steps
from keras_rnnx.heads.ctc_decoding import greedy
from keras_rnnx.heads.ctc_decoding import steps_first
from keras_rnnx.heads.ctc_inputs import blank_of
from keras_rnnx.heads.ctc_inputs import real_labels
from keras_rnnx.heads.ctc_inputs import real_steps
from keras_rnnx.seq2seq import ErrorRate


@keras.saving.register_keras_serializable(package="keras_rnnx")
class LabelErrorRate(ErrorRate):
    """`keras_rnnx.seq2seq.ErrorRate` of logits, decoded by the best symbol of each step.

    For `model.compile(loss=CTCLoss(), metrics=[LabelErrorRate()])`. Of labels that a `CTCDecoder`
    found, `ErrorRate(end=-1, padding=-1)` is the rate: `update_state(labels, found["ids"])`, with
    -1 as padding of both.

    Args:
        blank: id of the blank, an int; a negative one counts from the end.
        name, dtype: as of Keras' metrics.

    `update_state(y_true [B, L] labels, y_pred [B, T, C] logits, sample_weight=None [B])`: labels
    and the mask of the logits as `CTCLoss` takes them.

    Masks: masked steps are left out. A row without a real step does not count.

    TensorFlow's edit distance is none for XLA: a model with this metric is compiled with
    `jit_compile=False`; the loss compiles itself.

    Raises:
        ValueError: as `CTCLoss`.

    Example:

    >>> import numpy as np
    >>> from keras_rnnx.heads import LabelErrorRate
    >>> metric = LabelErrorRate()
    >>> metric.update_state(np.array([[1, 2, -1]]), np.eye(3, dtype="float32")[None, [1, 1, 0, 1]])
    >>> float(metric.result())  # 1 1, and the labels are 1 2
    0.5
    """

    def __init__(
        self, blank: int = 0, name: str | None = "label_error_rate", dtype: Dtype | None = None
    ) -> None:
        super().__init__(end=-1, name=name, padding=-1, dtype=dtype)
        self.blank = blank

    def update_state(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        logits, real = real_steps("LabelErrorRate", y_pred)
        blank = blank_of("LabelErrorRate", self.blank, logits.shape[2])
        labels, count = real_labels("LabelErrorRate", y_true, logits, None, blank)
        counts = tf.sequence_mask(count, tf.shape(labels)[1]) & has_steps(logits, real)[:, None]
        ids, _, _ = greedy(*steps_first(logits, real), blank)
        super().update_state(tf.where(counts, labels, -1), ids[:, 0], sample_weight)

    def get_config(self):
        return {"blank": self.blank, "name": self.name}

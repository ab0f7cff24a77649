"""The loss of a CRF, and a Keras model that ends in one."""

from typing import Any
from typing import Literal

import keras
import tensorflow as tf

from keras_rnnx.annotations import Tensor
from keras_rnnx.heads.crf_layer import evidence
from keras_rnnx.heads.crf_layer import without_evidence
from keras_rnnx.replicas import mean_over_all


@keras.saving.register_keras_serializable(package="keras_rnnx")
class CRFLoss(keras.losses.Loss):
    """Minus the log-probability of the true tags, for the output of a `CRF` layer.

    A prediction is the tags that the layer gave, on which hang potentials, mask and transitions: so
    it has to come straight from the layer, and not from `predict`.

    Args:
        average: `"sequences"`, the mean over those with a real step; `"tokens"`, the sum divided by
            the number of real steps; None, the sum.
        name: of the loss.

    Call arguments:
        y_true: `[B, T]` integers. Where one is below 0 there is no step, whatever the mask says.
        y_pred: `[B, T]`, the output of a `CRF`.
        sample_weight: `[B]`, which multiplies the loss, as in Keras, and not the count that it is
            divided by; or None. (`class_weight` of `fit` means one class for each sample, and
            Keras computes nothing sensible of it for sequences of tags.)

    Returns:
        A float32 or float64 scalar; 0 where no step is real.

    Raises:
        ValueError: for another average, for predictions that no CRF gave, for a weight of steps.

    Example:

    >>> import numpy as np
    >>> from keras_rnnx.heads import CRF, CRFLoss
    >>> crf = CRF(2, use_kernel=False, transitions=np.zeros((2, 2)))
    >>> loss = CRFLoss()(np.array([[1, 0, -1]]), crf(np.zeros((1, 3, 2), "float32")))
    >>> round(float(loss), 4)  # log 2 for each of two steps
    1.3863
    """

    def __init__(
        self,
        average: Literal["sequences", "tokens"] | None = "sequences",
        name: str | None = "crf_loss",
    ) -> None:
        super().__init__(name=name)
        if average not in ("tokens", "sequences", None):
            raise ValueError(f'average is {average!r}, expected "tokens", "sequences" or None.')
        self.average = average

    def __call__(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> Tensor:
        if is_stand_in(y_pred):
            with tf.control_dependencies([tf.debugging.Assert(False, [without_evidence(y_pred)])]):
                return tf.zeros([])
        found = evidence(y_pred)
        tags = tf.cast(y_true, tf.int32)
        losses = -found.log_likelihood(tags)
        real = tags >= 0 if found.mask is None else found.mask & (tags >= 0)
        if self.average == "sequences":
            real = tf.reduce_any(real, axis=1)
        if sample_weight is not None:
            losses *= self._of_rows(tf.cast(sample_weight, losses.dtype))
        total = tf.reduce_sum(losses)
        if self.average is None:
            return total
        return mean_over_all(total, tf.reduce_sum(tf.cast(real, total.dtype)))

    def _of_rows(self, weight):
        if weight.shape.rank == 2 and weight.shape[1] == 1:
            weight = weight[:, 0]
        if weight.shape.rank not in (0, 1):
            raise ValueError(
                f"{self.name} got sample_weight of shape {tuple(weight.shape)}, expected (batch,): "
                "a sequence has one loss. Steps that do not count have labels below 0."
            )
        return weight

    def get_config(self):
        return {"average": self.average, "name": self.name}


def is_stand_in(tensor):
    """Whether it is an argument of the graph that is being traced.

    Under a strategy of `tf.distribute` Keras traces the loss once for its shapes alone, apart from
    the model. That graph never runs; if one does, it says what is missing.
    """
    return getattr(getattr(tensor, "op", None), "type", None) == "Placeholder"


@keras.saving.register_keras_serializable(package="keras_rnnx")
class CRFModel(keras.Model):
    """A functional model whose output is that of a `CRF` layer.

    What `keras.Model` does, with the loss chosen already; beside the tags it gives their
    probabilities.

    Args:
        inputs, outputs, name: as of a functional `keras.Model`.

    `compile(optimizer, loss=None, ...)` takes `CRFLoss()` for None. `predict(x)` gives tags
    `[B, T]`, -1 where a step is not real. Saves, exports and serves as any functional model.

    Example:

    >>> import keras, keras_rnnx, numpy as np
    >>> from keras_rnnx.heads import CRF, CRFModel
    >>> ids = keras.Input((None,), dtype="int32")
    >>> h = keras.layers.Embedding(50, 8, mask_zero=True)(ids)
    >>> h = keras_rnnx.Bidirectional(keras_rnnx.LSTM(6, return_sequences=True))(h)
    >>> model = CRFModel(ids, CRF(3)(h))
    >>> model.compile("adam")
    >>> x, y = np.array([[7, 8, 9], [5, 6, 0]]), np.array([[0, 1, 2], [0, 0, 0]])
    >>> _ = model.fit(x, y, verbose=0)
    >>> model.predict(x, verbose=0)[1, 2], model.marginals(x).shape
    (np.int32(-1), TensorShape([2, 3, 3]))
    """

    def compile(self, optimizer: Any = "rmsprop", loss: Any = None, **kwargs: Any) -> None:
        super().compile(optimizer, CRFLoss() if loss is None else loss, **kwargs)

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def marginals(self, x: Any) -> Tensor:
        """The probability of each tag at each step, `[B, T, K]`; of a masked step all are 0."""
        return evidence(self(x)).marginals()

    def log_likelihood(self, x: Any, tags: Tensor) -> Tensor:
        """The log-probability `[B]` of `tags [B, T]`; where one is below 0 there is no step."""
        return evidence(self(x)).log_likelihood(tf.cast(tags, tf.int32))

"""Pooling over time: one vector for each sequence, from its real steps only."""

from typing import Any

import keras
import tensorflow as tf

from keras_rnnx import engine
from keras_rnnx.annotations import Tensor
from keras_rnnx.layers import checks


class OverTime(keras.layers.Layer):
    """Base: from `[B, T, F]` to `[B, F]`. A subclass says how, in `pool(x, real)`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def __call__(self, sequences: Tensor, *args: Any, **kwargs: Any) -> Any:
        shape = getattr(sequences, "shape", None)
        if shape is not None and getattr(shape, "rank", 3) is not None:
            checks.sequences(self, tuple(shape))
        return super().__call__(sequences, *args, **kwargs)

    def call(self, sequences: Tensor, mask: Tensor | None = None) -> Any:
        x = tf.cast(sequences, self.compute_dtype)
        if mask is None:
            real = tf.ones(tf.shape(x)[:2], tf.bool)
        else:
            real = tf.cast(mask, tf.bool)
            checks.mask(self, tuple(real.shape), tuple(x.shape))
            x = engine.zero_padding(x, real)
        return self.pool(x, real)

    def pool(self, x: Tensor, real: Tensor) -> Tensor:
        """`[B, F]` from `x [B, T, F]`, whose padding is 0, and `real [B, T]` booleans."""
        raise NotImplementedError

    def compute_output_shape(self, sequences_shape):
        return (sequences_shape[0], sequences_shape[2])

    def compute_mask(self, sequences, mask=None):
        """None: no time axis is left."""
        return None


@keras.saving.register_keras_serializable(package="keras_rnnx")
class MeanOverTime(OverTime):
    """The mean of the real steps.

    What `keras.layers.GlobalAveragePooling1D` computes, which gives NaN for a row without a real
    step.

        y = sum_t real[t] x[t] / sum_t real[t]

    Args:
        **kwargs: of `keras.layers.Layer`.

    Call arguments:
        sequences: `[B, T, F]`.
        mask: `[B, T]` booleans, True where a step is real, in any pattern.

    Returns:
        `[B, F]`.

    Masks: masked steps do not count; what they hold, NaN included, changes neither outputs nor
    gradients. A row without a real step gives zeros. The output has no mask.

    In half precision the sum is kept in float32.

    Raises:
        ValueError: for input or mask of another shape than expected.

    Example:

    >>> import numpy as np, keras_rnnx
    >>> x = np.array([[[1.0], [3.0], [8.0]]], "float32")
    >>> mask = np.array([[True, True, False]])
    >>> keras_rnnx.MeanOverTime()(x, mask=mask).numpy()
    array([[2.]], dtype=float32)
    """

    def pool(self, x: Tensor, real: Tensor) -> Tensor:
        wide = _wide(x)
        count = tf.reduce_sum(tf.cast(real, wide.dtype), axis=1)
        mean = tf.math.divide_no_nan(tf.reduce_sum(wide, axis=1), count[:, None])
        return tf.cast(mean, x.dtype)


@keras.saving.register_keras_serializable(package="keras_rnnx")
class MaxOverTime(OverTime):
    """The largest value of each feature over the real steps.

    `keras.layers.GlobalMaxPooling1D` knows no masks: it takes the padding for values. Collobert et
    al., "Natural Language Processing (Almost) from Scratch", JMLR 12 (2011), "max layer".

        y[f] = max_t x[t, f]    over the real t

    Args:
        **kwargs: of `keras.layers.Layer`.

    Call arguments:
        sequences: `[B, T, F]`.
        mask: `[B, T]` booleans, True where a step is real, in any pattern.

    Returns:
        `[B, F]`.

    Masks: masked steps do not count; what they hold, NaN included, changes neither outputs nor
    gradients. A row without a real step gives zeros. The output has no mask.

    Raises:
        ValueError: for input or mask of another shape than expected.

    Example:

    >>> import numpy as np, keras_rnnx
    >>> x = np.array([[[-1.0], [-3.0], [0.0]]], "float32")
    >>> mask = np.array([[True, True, False]])
    >>> keras_rnnx.MaxOverTime()(x, mask=mask).numpy()
    array([[-1.]], dtype=float32)
    """

    def pool(self, x: Tensor, real: Tensor) -> Tensor:
        least = tf.constant(-float("inf"), x.dtype)
        top = tf.reduce_max(tf.where(real[..., None], x, least), axis=1)
        return engine.select(tf.reduce_any(real, axis=1), top, tf.zeros_like(top))


@keras.saving.register_keras_serializable(package="keras_rnnx")
class LastOverTime(OverTime):
    """The last real step.

    For the outputs of a layer with `return_sequences=True` that are also used step by step: the
    same as its output with `return_sequences=False`.

        y = x[t]    for the largest real t

    Args:
        **kwargs: of `keras.layers.Layer`.

    Call arguments:
        sequences: `[B, T, F]`.
        mask: `[B, T]` booleans, True where a step is real, in any pattern.

    Returns:
        `[B, F]`.

    Masks: masked steps do not count, at the end or before; what they hold, NaN included, changes
    neither outputs nor gradients. A row without a real step gives zeros. The output has no mask.

    Raises:
        ValueError: for input or mask of another shape than expected.

    Example:

    >>> import numpy as np, keras_rnnx
    >>> x = np.array([[[1.0], [3.0], [8.0]]], "float32")
    >>> mask = np.array([[True, True, False]])
    >>> keras_rnnx.LastOverTime()(x, mask=mask).numpy()
    array([[3.]], dtype=float32)
    """

    def pool(self, x: Tensor, real: Tensor) -> Tensor:
        return engine.last_real(x, real)


@keras.saving.register_keras_serializable(package="keras_rnnx")
class AttentionOverTime(OverTime):
    """A weighted mean of the real steps, with weights that are learned.

    For long sequences of which a few steps decide. Yang et al., "Hierarchical Attention Networks
    for Document Classification", NAACL 2016, equations 5 to 7.

        score[t] = v . tanh(W x[t] + b)
        a[t] = exp(score[t]) / sum_s exp(score[s])    over the real s
        y = sum_t a[t] x[t]

    Args:
        units: size of the space in which the steps are scored, that of b and v.
        return_weights: return the weights `a` too.
        **kwargs: of `keras.layers.Layer`.

    Call arguments:
        sequences: `[B, T, F]`.
        mask: `[B, T]` booleans, True where a step is real, in any pattern.

    Returns:
        `[B, F]`; with `return_weights` a tuple of that and of the weights, `[B, T]`, which add up
        to 1.

    Weights: `kernel [F, units]` (W), `bias [units]` (b) and `context [units]` (v).

    Masks: masked steps have weight 0; what they hold, NaN included, changes neither outputs nor
    gradients. A row without a real step gives zeros, and weights of zero. The outputs have no mask.

    In half precision scores, softmax and sums are kept in float32.

    Raises:
        ValueError: for input or mask of another shape than expected.
        TypeError: if `units` is no integer.

    Example:

    >>> import numpy as np, keras_rnnx
    >>> x = np.ones((2, 5, 3), "float32")
    >>> y, weights = keras_rnnx.AttentionOverTime(4, return_weights=True)(x)
    >>> y.shape, weights.shape
    (TensorShape([2, 3]), TensorShape([2, 5]))
    """

    def __init__(self, units: int, return_weights: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        checks.positive("units", units)
        self.units = units
        self.return_weights = return_weights

    def build(self, sequences_shape):
        checks.known_features(self, sequences_shape)
        features = sequences_shape[-1]
        self.kernel = self.add_weight((features, self.units), "glorot_uniform", name="kernel")
        self.bias = self.add_weight((self.units,), "zeros", name="bias")
        self.context = self.add_weight((self.units,), "glorot_uniform", name="context")

    def pool(self, x: Tensor, real: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        hidden = _wide(tf.matmul(x, tf.cast(self.kernel, x.dtype)))
        hidden = tf.tanh(hidden + tf.cast(self.bias, hidden.dtype))
        score = tf.reduce_sum(hidden * tf.cast(self.context, hidden.dtype), axis=-1)
        # Not -inf: a row of these alone would have NaN for a softmax.
        weights = tf.nn.softmax(tf.where(real, score, score.dtype.min), axis=1)
        weights = tf.where(real, weights, tf.zeros_like(weights))
        pooled = tf.cast(tf.reduce_sum(weights[..., None] * _wide(x), axis=1), x.dtype)
        return (pooled, tf.cast(weights, x.dtype)) if self.return_weights else pooled

    def compute_output_shape(self, sequences_shape):
        pooled = super().compute_output_shape(sequences_shape)
        return (pooled, tuple(sequences_shape[:2])) if self.return_weights else pooled

    def compute_mask(self, sequences, mask=None):
        """None for each output: the weights of masked steps are zeros."""
        return [None, None] if self.return_weights else None

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "return_weights": self.return_weights,
        }


def _wide(x):
    """`x` in at least float32, for sums."""
    return tf.cast(x, tf.float64 if x.dtype == tf.float64 else tf.float32)

"""Monte-Carlo dropout: how sure a model is, from its answers under noise."""

import contextlib
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_rnnx.annotations import Array
from keras_rnnx.layers import everything


def mc_predict(
    model: keras.Model,
    x: Array,
    samples: int = 32,
    batch_size: int = 32,
    quantiles: float | Sequence[float] | None = None,
) -> tuple[Array, ...]:
    """Mean and spread of a model's predictions with its noise switched on.

    Gal and Ghahramani, "Dropout as a Bayesian Approximation: Representing Model Uncertainty in
    Deep Learning", ICML 2016. Every sample of noise is one of the whole model; batch normalization
    keeps its inference behaviour.

    Args:
        model: a Keras model with dropout, zoneout or other noise in it.
        x: input or tree of inputs, arrays of N rows each.
        samples: how many times each row is predicted.
        batch_size: rows at a time.
        quantiles: numbers of 0 to 1, or one, without an axis of its own, or None. The tails need
            many samples: 0.025 more than 40.

    Returns:
        `(mean, spread)`, float64 arrays or trees as the model's output is: the mean and the
        standard deviation over the samples, `[N, ...]`; with `quantiles` a third one, of the
        quantiles of the samples, `[len(quantiles), N, ...]`.

    Raises:
        ValueError: if all samples agree, since then nothing in the model is random (one sample has
            a spread of 0 and no such check); for no rows, or for different numbers of them; for
            quantiles that are not of 0 to 1.
        TypeError: for a `tf.data.Dataset` or a ragged tensor.

    Example:

    >>> import keras, keras_rnnx, numpy as np
    >>> model = keras.Sequential([keras.Input((None, 3)), keras_rnnx.LSTM(4, dropout=0.5)])
    >>> mean, spread = keras_rnnx.mc_predict(model, np.ones((5, 7, 3), "float32"), samples=8)
    >>> mean.shape, spread.shape
    ((5, 4), (5, 4))
    """
    if samples < 1 or batch_size < 1:
        raise ValueError(
            f"mc_predict got samples={samples} and batch_size={batch_size}, expected at least 1 of "
            "each."
        )
    if quantiles is not None and not all(0 <= q <= 1 for q in np.atleast_1d(quantiles)):
        raise ValueError(f"mc_predict got quantiles={quantiles}, expected numbers of 0 to 1.")
    if isinstance(x, (tf.data.Dataset, tf.RaggedTensor)):
        raise TypeError(
            f"mc_predict got a {type(x).__name__}, expected arrays [N, ...], or a dict or list of "
            "them."
        )
    x = keras.tree.map_structure(np.asarray, x)
    counts = {len(a) if a.ndim else None for a in keras.tree.flatten(x)}
    if len(counts) != 1 or counts & {0, None}:
        raise ValueError(
            f"mc_predict got inputs of {counts} rows, expected arrays of as many rows each, at "
            "least 1."
        )
    rows = len(keras.tree.flatten(x)[0])
    predict = tf.function(lambda batch: model(batch, training=True), autograph=False)
    parts = []
    with _as_trained(model), _restored(model) as restore:
        for first in range(0, rows, batch_size):
            # The last batch is filled up, for one shape compiles once.
            chosen = np.minimum(np.arange(first, first + batch_size), rows - 1)
            real = min(batch_size, rows - first)
            batch = keras.tree.map_structure(lambda a, chosen=chosen: a[chosen], x)
            found = []
            for _ in range(samples):
                restore()
                found.append(predict(batch))
            stack = lambda *y, real=real: np.stack([np.asarray(a, "float64")[:real] for a in y])
            parts.append(keras.tree.map_structure(stack, *found))
    joined = keras.tree.map_structure(lambda *p: np.concatenate(p, axis=1), *parts)
    mean = keras.tree.map_structure(lambda a: a.mean(axis=0), joined)
    spread = keras.tree.map_structure(lambda a: a.std(axis=0), joined)
    if samples > 1 and not any(np.any(a) for a in keras.tree.flatten(spread)):
        raise ValueError(
            f"mc_predict got {model.name!r}, and all {samples} samples agree: nothing in it is "
            "random in training. Give its layers dropout, zoneout or weight_dropout."
        )
    if quantiles is None:
        return mean, spread
    among = keras.tree.map_structure(lambda a: np.quantile(a, quantiles, axis=0), joined)
    return mean, spread, among


@contextlib.contextmanager
def _as_trained(model):
    """Batch normalization as at inference, although the rest is called as in training."""
    layers = everything(model)
    frozen = [one for one in layers if isinstance(one, keras.layers.BatchNormalization)]
    was = [one.trainable for one in frozen]
    for one in frozen:
        one.trainable = False  # to Keras this means its moving statistics
    try:
        yield
    finally:
        for one, trainable in zip(frozen, was, strict=True):
            one.trainable = trainable


@contextlib.contextmanager
def _restored(model):
    """Gives a function that puts what a call changes, beside seeds, back to its value of now."""
    recurrent = [one for one in everything(model) if getattr(one, "stateful", False)]
    kept = [v for one in recurrent for v in keras.tree.flatten(getattr(one, "states", None) or [])]
    changing = [*model.non_trainable_weights, *(v for v in kept if hasattr(v, "assign"))]
    values = [np.array(keras.ops.convert_to_numpy(v)) for v in changing]

    def restore():
        for variable, value in zip(changing, values, strict=True):
            variable.assign(value)

    try:
        yield restore
    finally:
        restore()

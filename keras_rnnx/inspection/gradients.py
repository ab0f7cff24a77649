"""How strongly the loss pulls at each step of each layer."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from keras_rnnx import training
from keras_rnnx.annotations import Tensor
from keras_rnnx.inspection import quietly


def gradient_flow(
    model: keras.Model, x: Tensor, y: Tensor, loss: str | Callable[..., Tensor] | None = None
) -> dict[str, np.ndarray]:
    """The norm of the loss's gradient at each time step of each recurrent layer.

    It is the gradient with respect to the layer's input at that step, over the whole batch, as in
    `GradientMonitor`: it takes every path on which the step acts on the loss, through all later
    steps too. Where it falls towards the first step, the layer learns little from what was long
    ago; where it rises, gradients explode. Pascanu, Mikolov and Bengio, "On the difficulty of
    training recurrent neural networks", ICML 2013. The model is called as at inference, stateful
    layers begin with zeros, and it is left as it was.

    Args:
        model: a Keras model.
        x, y: one batch of inputs and of targets.
        loss: function `loss(y, y_pred)`, a Keras loss or its name, of which the mean is taken;
            None takes what the compiled model minimizes.

    Returns:
        `{layer: [T] float64 array}`, layers named as in `record`, in the order of their inputs.

    Masks: a step that is masked in every row is NaN; rows in which it is masked add nothing.

    Raises:
        ValueError: without a loss, without a recurrent layer of this package, or where none of them
            has a gradient.
        TypeError: for something else than a model and one batch.

    Example:

    >>> import keras, keras_rnnx, numpy as np
    >>> from keras_rnnx.inspection import gradient_flow
    >>> lstm = keras_rnnx.LSTM(4, name="lstm")
    >>> model = keras.Sequential([keras.Input((None, 3)), lstm, keras.layers.Dense(1)])
    >>> flow = gradient_flow(model, np.ones((2, 5, 3)), np.ones((2, 1)), loss="mse")
    >>> flow["lstm"].shape, bool(flow["lstm"][0] < flow["lstm"][-1])
    ((5,), True)
    """
    x = quietly.tensors(model, x, "gradient_flow")
    y = quietly.tensors(model, y, "gradient_flow")
    quietly.recurrent_layers(model, "gradient_flow")
    given = {}
    if loss is not None:
        each = keras.losses.get(loss)
        given["compute_loss"] = lambda x, y, y_pred, **_: _mean(each(y, y_pred), y_pred)
    elif not model.compiled:
        raise ValueError(
            f"gradient_flow got {model.name!r}, which has not been compiled and so has no loss: "
            'pass one, for example loss="mse".'
        )
    with quietly.undisturbed(model), quietly.instead(model, **given):
        found = training.norms.Norms(model, x, y).measure()
    flow = {n.name: np.where(n.real, n.steps, np.nan) for n in found if n.steps is not None}
    if not flow:
        raise ValueError(
            f"gradient_flow got {model.name!r}, and the loss has no gradient at any of its "
            "recurrent layers: does its output depend on them?"
        )
    return flow


def _mean(losses, y_pred):
    """The mean of losses `[B]` or `[B, T]`, of the latter over the real steps of the outputs."""
    mask = getattr(y_pred, "_keras_mask", None)
    if mask is None or losses.shape.rank < 2:
        return tf.reduce_mean(losses)
    real = tf.cast(mask, losses.dtype)
    return tf.math.divide_no_nan(tf.reduce_sum(losses * real), tf.reduce_sum(real))

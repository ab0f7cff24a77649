"""Whole models of Keras with the recurrent layers of this package in them, and back."""

import keras
import numpy as np
import tensorflow as tf

from keras_rnnx import layers
from keras_rnnx.annotations import Tensor
from keras_rnnx.interop import keras_layers
from keras_rnnx.interop.keras_layers import NoCounterpart

STOCK = (keras.layers.RNN, keras.layers.Bidirectional)


def accelerate(
    model: keras.Model, verify: Tensor | None = None, verbose: bool = True
) -> keras.Model:
    """A copy of a Keras model in which the recurrent layers are those of this package.

    Weights, kept states and outputs are the same; the model that was given is left as it is. A
    compiled model's copy is compiled the same way, and goes on training where it was: the
    optimizer's state is copied too.

    Replaced are `LSTM`, `GRU`, `SimpleRNN`, `RNN` over their cells and `Bidirectional` around
    these, in nested models and `TimeDistributed` too. Other layers are copied. A lookup table
    (`TextVectorization`, `StringLookup`) is not trained, and both models use it.

    Args:
        model: a Functional or Sequential model that has its weights.
        verify: inputs of the model; both models are called with them and compared.
        verbose: print what was replaced, what was not and why.

    Returns:
        A new model of the same kind, with the same names.

    Raises:
        ValueError: for a subclassed model, whose code nobody can rewrite: it is told which of its
            layers to replace. With `verify`, where an output differs by more than 1e-5 of the
            largest.

    Example:

    >>> import keras, keras_rnnx, numpy as np
    >>> layers = [keras.Input((None, 3)), keras.layers.LSTM(8, name="lstm")]
    >>> x = np.ones((2, 5, 3), "float32")
    >>> fast = keras_rnnx.accelerate(keras.Sequential(layers), verify=x)
    lstm: keras_rnnx.LSTM in place of keras.layers.LSTM
    >>> type(fast.layers[0]).__module__.split(".")[0]
    'keras_rnnx'
    """
    said = []

    def wanted(layer):
        if isinstance(layer, STOCK):
            return True
        inside = [one.name for one in layers.everything(layer) if isinstance(one, STOCK)]
        if inside:
            kind = type(layer).__name__
            said.append(
                f"{layer.name}: kept. It is a {kind}, which holds {', '.join(inside)}: replace "
                "them in its code."
            )
        return False

    def replace(layer):
        try:
            made = keras_layers.ours(layer)
        except NoCounterpart as why:
            said.append(f"{layer.name}: kept. {why}")
            return again(layer)
        kind = type(layer).__name__
        said.append(
            f"{layer.name}: keras_rnnx.{type(made).__name__} in place of keras.layers.{kind}"
        )
        return made

    made = _rebuilt(model, wanted, replace)
    if not said:
        said.append(f"{model.name} has no recurrent layer of Keras: nothing was replaced.")
    if model.compiled:
        said.extend(_compile_like(made, model))
    if verbose:
        print("\n".join(said))
    if verify is not None:
        _compare(model, made, verify)
    return made


def to_keras_model(model):
    """A copy of a model without layers of this package; the reverse of `accelerate`."""
    ours = lambda layer: type(layer).__module__.split(".")[0] == "keras_rnnx"
    made = _rebuilt(model, ours, keras_layers.keras_layer)
    if model.compiled:
        _compile_like(made, model)
    return made


def is_model(thing):
    """Whether it is a Functional or Sequential model, of which a copy can be made."""
    return isinstance(thing, keras.Sequential) or type(thing).__name__ == "Functional"


def _rebuilt(model, wanted, replace):
    """The copy, with `replace(layer)` in place of each layer that is wanted."""
    _check(model)

    def copy(layer):
        if hasattr(layer, "get_vocabulary"):
            return layer
        if type(layer) is keras.layers.TimeDistributed:
            options = {"name": layer.name, "dtype": layer.dtype_policy}
            return keras.layers.TimeDistributed(copy(layer.layer), **options)
        if is_model(layer):
            return clone(layer)
        return replace(layer) if wanted(layer) else again(layer)

    def clone(model):
        # Keras would compile the copy too, and fail where a loss is a lambda.
        compiled, model.compiled = model.compiled, False
        try:
            made = keras.models.clone_model(model, clone_function=copy)
        finally:
            model.compiled = compiled
        if not made.built:
            made.build(model.input_shape)
        return made

    made = clone(model)
    _copy_states(model, made)
    return made


def again(layer):
    """A layer of the same configuration."""
    own = {type(one).__name__: type(one) for one in layers.everything(layer)}
    with keras.saving.custom_object_scope(own):  # classes that nobody registered
        return type(layer).from_config(layer.get_config())


def _check(model):
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"Expected a model of Keras 3, got {type(model).__name__} of {type(model).__module__}. "
            "A single layer, or the path of a file with a model (that of a model of tf_keras too), "
            "is for keras_rnnx.interop.from_keras."
        )
    if not is_model(model):
        found = [one for one in layers.everything(model) if isinstance(one, STOCK)]
        names = ", ".join(f"{one.name} ({type(one).__name__})" for one in found) or "none"
        raise ValueError(
            f"{model.name} is a {type(model).__name__}, a model of a class of its own, which only "
            f"its author can rebuild. Its recurrent layers of Keras are: {names}. Make them of "
            "keras_rnnx in the class, build it, and copy the weights with set_weights."
        )
    if not model.built:
        raise ValueError(f"{model.name} has no weights yet. Build it, or call it on some data.")


def _copy_states(model, made):
    """Weights, and all else that changes in a layer, from one model to its copy."""
    for old, new in zip(model.layers, made.layers, strict=True):
        while type(old) is keras.layers.TimeDistributed:
            old, new = old.layer, new.layer
        if old is new:
            continue
        if is_model(old):
            _copy_states(old, new)
        elif type(old) is type(new):
            for a, b in zip(old.variables, new.variables, strict=True):
                b.assign(a)
        else:
            keras_layers.copy_state(old, new)


def _compile_like(made, model):
    """Compile a copy as its model is; sentences where that is not possible."""
    own = [
        one
        for one in keras.tree.flatten([model.loss, model.optimizer])
        if callable(one) and hasattr(one, "__name__")
    ]
    config = dict(model.get_compile_config())
    if model.optimizer is not None:  # to save a model as .h5 takes it out of there
        config["optimizer"] = keras.saving.serialize_keras_object(model.optimizer)
    try:
        with keras.saving.custom_object_scope({one.__name__: one for one in own}):
            made.compile_from_config(config)
    except (TypeError, ValueError) as why:
        return [f"{model.name}: the copy is not compiled, {str(why).splitlines()[0]}"]
    old, new = model.optimizer, made.optimizer
    if old is None or not old.built:
        return []
    new.build(made.trainable_variables)
    if len(old.variables) != len(new.variables):  # Keras reads none from .h5 files
        return [
            f"{model.name}: the optimizer of the copy begins anew, that of the model has "
            f"{len(old.variables)} variables of {len(new.variables)}."
        ]
    for a, b in zip(old.variables, new.variables, strict=True):
        b.assign(a)
    return []


def _compare(model, made, x):
    kept = [_kept_states(one) for one in (model, made)]
    expected, found = (keras.tree.flatten(one(x, training=False)) for one in (model, made))
    for states in kept:
        for variable, value in states:
            variable.assign(value)
    for k, (a, b) in enumerate(zip(expected, found, strict=True)):
        a, b = np.asarray(tf.convert_to_tensor(a)), np.asarray(tf.convert_to_tensor(b))
        worst = np.abs(a - b).max(initial=0)
        if not worst <= 1e-5 * max(np.abs(a).max(initial=0), 1):
            raise ValueError(
                f"Output {k} of the copy differs from that of {model.name} by up to {worst:.2e}, "
                "more than 1e-5 of the largest number in it. Please report this with the model's "
                "configuration."
            )


def _kept_states(model):
    """`[(variable, value)]` of the kept states of stateful layers."""
    found = []
    for layer in layers.everything(model):
        if getattr(layer, "stateful", False) and hasattr(layer, "reset_state"):
            states = keras.tree.flatten(layer.states or [])
            found += [(s, tf.convert_to_tensor(s).numpy()) for s in states if s is not None]
    return found

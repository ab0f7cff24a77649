"""Recurrent layers of Keras as layers of this package, and back."""

import inspect

import keras
import numpy as np
import tensorflow as tf

from keras_rnnx import layers
from keras_rnnx.cells import LAYOUTS
from keras_rnnx.engine import read_backward

NAMED = ("LSTM", "GRU", "SimpleRNN")
OLD = {"CuDNNLSTM": "LSTM", "CuDNNGRU": "GRU"}  # of Keras 2, for GPUs
# How a layer runs, not what it computes.
EXECUTION = ("jit_compile", "backward", "batch_parts", "use_cudnn", "implementation")


class NoCounterpart(ValueError):
    """The other framework has nothing that computes the same: the message says why.

    Example:

    >>> import keras, keras_rnnx
    >>> try:
    ...     keras_rnnx.interop.from_keras(keras.layers.Dense(3, name="head"))
    ... except keras_rnnx.interop.NoCounterpart as why:
    ...     print(str(why).split(".")[0])
    head is a Dense, for which keras_rnnx has no layer
    """


# -- from Keras -----------------------------------------------------------------------------------


def stock_name(layer):
    """The class of a layer that is Keras' own, or tf_keras'; None for all others."""
    cls = type(layer)
    return cls.__name__ if cls.__module__.split(".")[0] in ("keras", "tf_keras") else None


def from_layer(layer):
    """A layer of this package for a recurrent one of Keras, with weights and kept states."""
    made = ours(layer)
    if layer.built:
        build(made, layer)
        copy_state(layer, made)
    return made


def ours(layer):
    """A layer of this package, without weights, that computes what this one of Keras does."""
    name = OLD.get(stock_name(layer), stock_name(layer))
    if name in NAMED:
        return getattr(layers, name).from_config(_readable(layer.get_config()))
    if name == "RNN":
        config = _readable(layer.get_config())
        cells = [_our_cell(cell, layer) for cell in _cells(layer.cell)]
        cell = cells if stock_name(layer.cell) == "StackedRNNCells" else cells[0]
        return layers.RNN(cell, **{n: v for n, v in config.items() if n != "cell"})
    if name == "Bidirectional":
        config = _readable(layer.get_config())
        config = {n: config[n] for n in ("name", "trainable", "dtype", "merge_mode")}
        ways = map(ours, (layer.forward_layer, layer.backward_layer))
        return layers.Bidirectional(next(ways), backward_layer=next(ways), **config)
    raise NoCounterpart(
        f"{layer.name} is a {type(layer).__name__}, for which keras_rnnx has no layer. It has them "
        "for Keras' LSTM, GRU, SimpleRNN, RNN over their cells, and Bidirectional around these."
    )


def _cells(cell):
    return list(cell.cells) if hasattr(cell, "cells") else [cell]


def _our_cell(cell, layer):
    name = stock_name(cell)
    if name not in {f"{kind}Cell" for kind in NAMED}:
        raise NoCounterpart(
            f"{layer.name} runs a {type(cell).__name__}, a cell that is not Keras' own: "
            "keras_rnnx.RNN takes it too, and runs it no faster. Write it as a CellSpec."
        )
    return getattr(layers, name).from_config(_readable(cell.get_config()))


def _readable(config):
    """A configuration of Keras 3, of one of Keras 3 or 2."""
    config = dict(config)
    dtype = config.get("dtype")
    if isinstance(dtype, dict):  # a policy, of the other Keras perhaps
        config["dtype"] = dtype["config"]["name"]
    return config


def build(made, layer):
    """Build a layer of ours for the shapes of one of Keras that is built."""
    kept = _kept(layer)
    batch = int(kept[0].shape[0]) if kept else None
    made.build((batch, None, weights(layer)[0].shape[0]))


def copy_state(layer, made):
    """Give a built layer of ours the weights and the kept states of one of Keras, or back."""
    made.set_weights(weights(layer))
    kept, own = _kept(layer), _kept(made)
    for old, new in zip(kept, own, strict=True) if kept and own else ():
        new.assign(tf.convert_to_tensor(old).numpy())


def _kept(layer):
    """The variables of the kept states of a stateful layer, flat."""
    if not getattr(layer, "stateful", False):
        return []
    ways = [layer.forward_layer, layer.backward_layer] if hasattr(layer, "forward_layer") else None
    states = [one.states for one in ways] if ways else layer.states
    return [s for s in keras.tree.flatten(states) if s is not None] if states else []


def weights(layer):
    """The arrays of a layer of Keras, as `set_weights` of ours takes them."""
    if stock_name(layer) == "Bidirectional":
        return weights(layer.forward_layer) + weights(layer.backward_layer)
    kind = OLD.get(stock_name(layer))
    return layer.get_weights() if kind is None else from_cudnn_weights(kind, layer.get_weights())


def from_cudnn_weights(kind, arrays):
    """Of Keras 2's CuDNNLSTM or CuDNNGRU, as those of LSTM or GRU.

    Their kernels are read by cuDNN as they lie in memory, `[U, D]` for each gate whatever their
    shape says; and they have two biases `[G*U]` in one.
    """
    kernel, recurrent, bias = arrays
    gates = len(LAYOUTS["keras2_cudnn"][kind.lower()].gates)
    turned = lambda a: np.hstack(
        [gate.reshape(gate.shape[1], -1).T for gate in np.split(a, gates, axis=1)]
    )
    biases = bias.reshape(2, -1)
    both = LAYOUTS["keras"][kind.lower()].biases == 2
    return [turned(kernel), turned(recurrent), biases if both else biases.sum(axis=0)]


# -- to Keras -------------------------------------------------------------------------------------


def to_layer(layer):
    """A layer of Keras for one of this package, with weights and kept states."""
    made = keras_layer(layer)
    if layer.built:
        build(made, layer)
        made.built = True
        copy_state(layer, made)
    return made


def keras_layer(layer):
    """A layer of Keras, without weights, that computes what this one of this package does."""
    name = type(layer).__name__
    if type(layer) is layers.Bidirectional:
        config = _for_keras(layer, ("merge_mode",), given=("layer", "weights", "backward_layer"))
        ways = map(keras_layer, (layer.forward_layer, layer.backward_layer))
        return keras.layers.Bidirectional(next(ways), backward_layer=next(ways), **config)
    if type(layer) is layers.RNN:
        cells = [_keras_cell(cell, layer) for cell in layer.cells]
        config = _for_keras(layer, _parameters(keras.layers.RNN) - {"cell"}, given=("cell",))
        return keras.layers.RNN(cells if len(cells) > 1 else cells[0], **config)
    if type(layer) is layers.TimeDistributed:
        inside = layer.layer
        ours = type(inside).__module__.split(".")[0] == "keras_rnnx"
        inside = keras_layer(inside) if ours else type(inside).from_config(inside.get_config())
        config = _for_keras(layer, (), given=("layer", "fold"))
        return keras.layers.TimeDistributed(inside, **config)
    if name in (*NAMED, "Embedding") and type(layer) is getattr(layers, name):
        cls = getattr(keras.layers, name)
        known = _parameters(cls) | (_parameters(keras.layers.RNN) if name in NAMED else set())
        return cls.from_config(_for_keras(layer, known))
    advice = " Convert its `layers` one by one." if type(layer) is layers.Stack else ""
    raise NoCounterpart(f"{layer.name} is a {name}, for which Keras has no layer.{advice}")


def _keras_cell(cell, layer):
    name = type(cell).__name__
    if not isinstance(cell, layers.Cell):
        return type(cell).from_config(cell.get_config())  # a Keras cell as it is
    if name not in {f"{kind}Cell" for kind in NAMED} or type(cell) is not getattr(layers, name):
        raise NoCounterpart(f"{layer.name} runs a {name}, for which Keras has no cell.")
    cls = getattr(keras.layers, name)
    return cls.from_config(_for_keras(cell, _parameters(cls)))


def _for_keras(layer, known, given=()):
    """The configuration of a layer as far as Keras knows it; refused where the rest matters.

    given: names of arguments that the caller sees to.
    """
    known = {*known, "name", "trainable", "dtype"}
    for name, value in beyond(layer, {*known, *given}).items():
        raise NoCounterpart(f"{layer.name} has {name}={value!r}, which Keras does not have.")
    config = layer.get_config()
    if config.get("stateful") == "any_batch":
        raise NoCounterpart(
            f'{layer.name} has stateful="any_batch", and Keras keeps states of a fixed batch only.'
        )
    return {n: v for n, v in config.items() if n in known}


def beyond(layer, known):
    """`{name: value}` of a layer's arguments that are not known elsewhere and not at default.

    How a layer runs does not count, unless it changes gradients.
    """
    own = inspect.signature(type(layer)).parameters
    of_all = inspect.signature(layers.RNN).parameters
    defaults = {n: p.default for n, p in {**of_all, **own}.items()}
    defaults |= {n: value for n, value in layers.COMMON.items() if n not in own}
    found = {}
    for name, value in layer.get_config().items():
        asked = name in defaults and name not in known and name not in EXECUTION
        if asked and value != defaults[name]:
            found[name] = value
    backward = read_backward(getattr(layer, "backward", "full"))
    if backward.truncate is not None or backward.clip_norm is not None:
        found["backward"] = backward
    return found


def _parameters(cls):
    return {n for n in inspect.signature(cls.__init__).parameters if n not in ("self", "kwargs")}

"""What is inside a model: its layers, the recurrent ones, and the variables that change unseen."""

import keras
import numpy as np
import tensorflow as tf

from keras_rnnx.layers import RNN
from keras_rnnx.layers import children


def layers(model):
    """`(name, layer)` of everything below `model`, inner layers before those that hold them.

    A name is that of the layer after those around it, `"encoder/lstm"`. A recurrent layer stands
    for its cells. Layers of a model come in the order of `model.layers`.
    """
    found, seen = [], {id(model)}

    def visit(layer, prefix):
        for child in children(layer):
            if id(child) in seen:
                continue
            seen.add(id(child))
            name = f"{prefix}{child.name}"
            if not is_recurrent(child):
                visit(child, f"{name}/")
            found.append((name, child))

    visit(model, "")
    return found


def is_recurrent(layer):
    """Whether a layer repeats a cell over time, this package's or Keras'."""
    return isinstance(layer, (RNN, keras.layers.RNN))


def kept_variables(model):
    """The variables of the kept states of all stateful layers of a model."""
    stateful = (layer for _, layer in layers(model) if is_recurrent(layer) and layer.stateful)
    return [v for layer in stateful for v in keras.tree.flatten(layer.states or [])]


def values(variables):
    """Copies of the values of variables."""
    return [np.array(tf.convert_to_tensor(v).numpy()) for v in variables]


def assign(variables, copies):
    """Give variables the values that `values` took."""
    for variable, value in zip(variables, copies, strict=True):
        variable.assign(value)


def zero(variables):
    """Set variables to zeros."""
    assign(variables, [np.zeros_like(value) for value in values(variables)])


def zero_rows(variables, rows):
    """Set the rows of kept states to zeros where `rows`, `[B]` booleans, is True."""
    for variable, value in zip(variables, values(variables), strict=True):
        value[rows[: len(value)]] = 0  # with "any_batch" it may have fewer rows, the rest are zeros
        variable.assign(value)

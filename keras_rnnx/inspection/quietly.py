"""A model called to look inside, which then is as if nobody had looked."""

import contextlib

import keras
import tensorflow as tf

from keras_rnnx import training


def recurrent_layers(model, purpose):
    """`(name, layer)` of this package's recurrent layers in a model, named after those around.

    purpose: the function that asks, for the error where there is none.
    """
    found = [
        (n, layer) for n, layer in training.inside.layers(model) if training.norms.is_ours(layer)
    ]
    if not found:
        raise ValueError(
            f"{purpose} got {model.name!r}, which has no recurrent layer of keras_rnnx. Those of "
            "keras.layers are not looked into: keras_rnnx.accelerate(model) puts ours there."
        )
    return found


def tensors(model, x, purpose):
    """The tree `x` as tensors; a model that has no weights yet is called once, to make them."""
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"{purpose} got a {type(model).__name__}, expected a Keras model: put a layer into "
            "keras.Sequential([keras.Input(...), layer])."
        )
    if isinstance(x, tf.data.Dataset):
        raise TypeError(f"{purpose} got a Dataset, expected one batch of inputs: next(iter(data)).")
    is_tensor = lambda a: isinstance(a, (tf.Tensor, tf.RaggedTensor))
    x = keras.tree.map_structure(lambda a: a if is_tensor(a) else tf.convert_to_tensor(a), x)
    if not model.built:
        model(x, training=False)
    return x


@contextlib.contextmanager
def undisturbed(model):
    """In here stateful layers begin with zeros; afterwards all variables are as before."""
    inside = training.inside
    unseen = [v for v in model.variables if not v.trainable] + model.metrics_variables
    states = inside.kept_variables(model)
    before = inside.values(unseen + states)
    inside.zero(states)
    try:
        yield
    finally:
        inside.assign(unseen + states, before)
        known = {id(v) for v in unseen}  # metrics may have been used for the first time
        inside.zero([v for v in model.metrics_variables if id(v) not in known])


@contextlib.contextmanager
def instead(thing, **attributes):
    """In here an object has other attributes, methods among them."""
    before = {name: vars(thing)[name] for name in attributes if name in vars(thing)}
    for name, value in attributes.items():
        setattr(thing, name, value)
    try:
        yield
    finally:
        for name in attributes:
            delattr(thing, name)
        for name, value in before.items():
            setattr(thing, name, value)


def here(tensor):
    """Whether a tensor is one of the graph that is being made, not of a loop within it."""
    current = tf.compat.v1.get_default_graph()
    return getattr(tensor, "graph", current) is current

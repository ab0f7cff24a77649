"""A model as a graph of constants, for what converts it further."""

import keras
import tensorflow as tf

from keras_rnnx import engine


def traced(model, call, specs):
    """The function `call(*tensors) -> {name: tensor}` traced with the model's weights as constants.

    Nothing in it is left of variables, of cuDNN, or of functions that must be compiled.
    """
    values = [(variable, variable.numpy()) for variable in model.variables]

    def with_constants(*tensors):
        constants = [(variable, tf.constant(value)) for variable, value in values]
        with keras.StatelessScope(state_mapping=constants), engine.portable():
            return call(*tensors)

    function = tf.function(with_constants, input_signature=specs, autograph=False)
    function.get_concrete_function()
    return function


def save(function, path):
    """Write the traced function as a SavedModel with one signature."""
    module = tf.Module()
    module.serve = function
    tf.saved_model.save(module, str(path), signatures=function)

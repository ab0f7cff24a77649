"""State kept between the calls of a stateful layer."""

import keras
import tensorflow as tf


class KeptStates(tf.Module):
    """The last states of a layer, as variables of a fixed or of any batch size.

    A `tf.Module`, so that TensorFlow saves what an exported graph reads while Keras, as with its
    own stateful layers, counts no weights.

    With `any_batch` a batch reads and writes the first rows, as many as it has; the others stay.
    Rows that no batch has had so far are zeros.

    weigh: function that makes a weight of the layer from zeros, which Keras then counts and saves.
    """

    def __init__(self, zeros, any_batch, weigh=None):
        super().__init__()
        self.any_batch = any_batch
        self.variables_tree = keras.tree.map_structure(weigh or self._make, zeros)

    def _make(self, zeros):
        value = zeros[:0] if self.any_batch else zeros
        shape = [None, *zeros.shape[1:]] if self.any_batch else zeros.shape
        return tf.Variable(value, trainable=False, shape=shape, name="rnn_state")

    @property
    def batch_size(self):
        """The fixed batch size, or None."""
        return None if self.any_batch else keras.tree.flatten(self.variables_tree)[0].shape[0]

    def read(self, batch):
        return keras.tree.map_structure(lambda v: self._rows(v, batch), self.variables_tree)

    def _rows(self, variable, batch):
        value = tf.convert_to_tensor(variable)
        if not self.any_batch:
            return value
        missing = tf.maximum(batch - tf.shape(value)[0], 0)
        return tf.pad(value, [[0, missing], *[[0, 0]] * (value.shape.rank - 1)])[:batch]

    def write(self, states):
        for variable, new in zip(
            keras.tree.flatten(self.variables_tree), keras.tree.flatten(states), strict=True
        ):
            new = tf.cast(new, variable.dtype)
            if self.any_batch:
                new = tf.concat([new, tf.convert_to_tensor(variable)[tf.shape(new)[0] :]], axis=0)
            variable.assign(new)

    def reset(self, states=None):
        """Zeros, or the given states."""
        if states is not None:
            self.write(keras.tree.map_structure(tf.convert_to_tensor, states))
            return
        for variable in keras.tree.flatten(self.variables_tree):
            value = tf.convert_to_tensor(variable)
            variable.assign(value[:0] if self.any_batch else tf.zeros_like(value))

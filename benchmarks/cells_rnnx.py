"""The cells of `cells_keras.py` in keras_rnnx: two that it has, and one as a user writes it.

Axes: B batch, U units.  x [B, 4U] projected input; h, c [B, U].
"""

import dataclasses

import tensorflow as tf

import keras_rnnx


def LayerNormLSTM(units):
    return keras_rnnx.LayerNormLSTMCell(units)


def ZoneoutLSTM(units):
    return keras_rnnx.LSTMCell(units, recurrent_dropout=0.2, zoneout=(0.1, 0.2))


def PeepholeLSTM(units):
    """A cell of one's own, although `LSTMCell(units, peephole=True)` would do."""
    return keras_rnnx.CustomCell(PeepholeSpec(units))


@dataclasses.dataclass(frozen=True)
class PeepholeSpec(keras_rnnx.CellSpec):
    gates = 4

    @property
    def state_sizes(self):
        return (self.units, self.units)

    def weights(self, input_dim):
        peephole = keras_rnnx.Weight((3, self.units), "bias")
        return {**super().weights(input_dim), "peephole": peephole}

    def prepare(self, weights):
        return {**super().prepare(weights), "peephole": weights["peephole"]}

    def step(self, weights, product, x, states, constants):
        h, c = states
        p_i, p_f, p_o = tf.unstack(weights["peephole"])
        i, f, g, o = tf.split(product("recurrent_kernel", h, plus=x), 4, axis=-1)
        c = tf.sigmoid(f + p_f * c) * c + tf.sigmoid(i + p_i * c) * tf.tanh(g)
        h = tf.sigmoid(o + p_o * c) * tf.tanh(c)
        return h, (h, c)

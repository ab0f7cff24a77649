"""The cells of `cells_keras.py` as a user of keras_rnnx writes them.

Axes: B batch, D input features, U units.  x [B, 4U] projected input; h, c [B, U].
"""

import dataclasses

import tensorflow as tf

import keras_rnnx
from keras_rnnx.cells import LSTMSpec
from keras_rnnx.cells import Weight
from keras_rnnx.cells import standardized
from keras_rnnx.regularization import Zoneout


@dataclasses.dataclass(frozen=True)
class LayerNormSpec(LSTMSpec):
    def weights(self, input_dim):
        sizes = {"gain_x": 4, "gain_h": 4, "gain_c": 1, "shift_c": 1}
        more = {name: Weight((size * self.units,), "bias") for name, size in sizes.items()}
        return {**super().weights(input_dim), **more}

    def project(self, weights, x):
        rows = tf.reshape(tf.tensordot(x, weights["kernel"], 1), [-1, 4 * self.units])
        z = weights["gain_x"] * standardized(rows) + weights["bias"]
        return tf.reshape(z, [tf.shape(x)[0], tf.shape(x)[1], 4 * self.units])

    def prepare(self, weights):
        return {name: weights[name] for name in weights if name not in ("kernel", "gain_x", "bias")}

    def step(self, weights, product, x, states, constants):
        h, c = states
        z = x + weights["gain_h"] * standardized(product("recurrent_kernel", h))
        i, f, g, o = tf.split(z, 4, axis=-1)
        c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
        h = tf.sigmoid(o) * tf.tanh(weights["gain_c"] * standardized(c) + weights["shift_c"])
        return h, (h, c)


@dataclasses.dataclass(frozen=True)
class PeepholeSpec(LSTMSpec):
    def weights(self, input_dim):
        return {**super().weights(input_dim), "peephole": Weight((3, self.units), "bias")}

    def prepare(self, weights):
        return {**super().prepare(weights), "peephole": weights["peephole"]}

    def step(self, weights, product, x, states, constants):
        h, c = states
        p_i, p_f, p_o = tf.unstack(weights["peephole"])
        i, f, g, o = tf.split(product("recurrent_kernel", h, plus=x), 4, axis=-1)
        c = tf.sigmoid(f + p_f * c) * c + tf.sigmoid(i + p_i * c) * tf.tanh(g)
        h = tf.sigmoid(o + p_o * c) * tf.tanh(c)
        return h, (h, c)


class LayerNormLSTM(keras_rnnx.LSTMCell):
    def make_spec(self):
        return LayerNormSpec(self.units)


class PeepholeLSTM(keras_rnnx.LSTMCell):
    def make_spec(self):
        return PeepholeSpec(self.units)


class ZoneoutLSTM(keras_rnnx.LSTMCell):
    def __init__(self, units):
        super().__init__(units, recurrent_dropout=0.2)

    def regularized(self, training):
        return Zoneout(super().regularized(training), (0.1, 0.2), training)

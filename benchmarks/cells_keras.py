"""Cells that no peer has fused, written as a user would write them for `keras.layers.RNN`.

Axes: B batch, D input features, U units.  x [B, D]; h, c [B, U]; gates in Keras' order i, f, g, o.
"""

import keras
from keras import ops


class LayerNormLSTM(keras.layers.LSTMCell):
    """Ba, Kiros and Hinton, "Layer Normalization", arXiv:1607.06450."""

    def build(self, shape):
        super().build(shape)
        self.gain_x = self.add_weight(shape=(4 * self.units,), name="gain_x")
        self.gain_h = self.add_weight(shape=(4 * self.units,), name="gain_h")
        self.gain_c = self.add_weight(shape=(self.units,), name="gain_c")
        self.shift_c = self.add_weight(shape=(self.units,), name="shift_c")

    def call(self, x, states, training=False):
        h, c = states
        z = self.gain_x * norm(x @ self.kernel) + self.gain_h * norm(h @ self.recurrent_kernel)
        i, f, g, o = ops.split(z + self.bias, 4, axis=-1)
        c = ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(g)
        h = ops.sigmoid(o) * ops.tanh(self.gain_c * norm(c) + self.shift_c)
        return h, [h, c]


def norm(a):
    mean, variance = ops.moments(a, axes=-1, keepdims=True)
    return (a - mean) * ops.rsqrt(variance + 1e-5)


class ZoneoutLSTM(keras.layers.LSTMCell):
    """Krueger et al., "Zoneout", arXiv:1606.01305, beside Keras' recurrent dropout."""

    zoneout_h, zoneout_c = 0.1, 0.2

    def __init__(self, units):
        super().__init__(units, recurrent_dropout=0.2)

    def call(self, x, states, training=False):
        _, new = super().call(x, states, training=training)
        rates = (self.zoneout_h, self.zoneout_c)
        h, c = (self.keep(*pair, training) for pair in zip(rates, states, new, strict=True))
        return h, [h, c]

    def keep(self, rate, old, new, training):
        if not training:
            return rate * old + (1 - rate) * new
        noise = keras.random.uniform(ops.shape(old), seed=self.seed_generator)
        return ops.where(noise < rate, old, new)


class PeepholeLSTM(keras.layers.LSTMCell):
    """Gers and Schmidhuber, "Recurrent nets that time and count", 2000; as in arXiv:1308.0850."""

    def build(self, shape):
        super().build(shape)
        self.peephole = self.add_weight(shape=(3, self.units), name="peephole")

    def call(self, x, states, training=False):
        h, c = states
        i, f, g, o = ops.split(x @ self.kernel + h @ self.recurrent_kernel + self.bias, 4, axis=-1)
        i, f = ops.sigmoid(i + self.peephole[0] * c), ops.sigmoid(f + self.peephole[1] * c)
        c = f * c + i * ops.tanh(g)
        h = ops.sigmoid(o + self.peephole[2] * c) * ops.tanh(c)
        return h, [h, c]

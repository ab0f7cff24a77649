"""Long short-term memory.

Hochreiter and Schmidhuber, "Long Short-Term Memory", Neural Computation 9 (1997); forget gate:
Gers, Schmidhuber and Cummins, "Learning to Forget", Neural Computation 12 (2000).

Axes: B batch, U units.  x [B, 4U] projected input; h, c [B, U] states; gates in Keras' order
i (input), f (forget), g (candidate), o (output).
"""

import dataclasses
from collections.abc import Callable

import keras
import tensorflow as tf

from keras_rnnx.cells.base import HALF
from keras_rnnx.cells.base import CellSpec
from keras_rnnx.cells.base import Weight


@dataclasses.dataclass(frozen=True)
class LSTMSpec(CellSpec):
    """LSTM with forget gate, without peepholes.

    Equations (`x` is the projected input, `x W + b`):

        i, f, g, o = self.gates(product("recurrent_kernel", h, plus=x))
        c = f * c + i * g
        h = o * self.activation(c)

    where `gates` applies `recurrent_activation` to i, f, o and `activation` to g.
    """

    activation: Callable = keras.activations.tanh
    recurrent_activation: Callable = keras.activations.sigmoid
    use_bias: bool = True

    @property
    def state_sizes(self):
        return (self.units, self.units)

    def weights(self, input_dim):
        weights = {
            "kernel": Weight((input_dim, 4 * self.units), "kernel"),
            "recurrent_kernel": Weight((self.units, 4 * self.units), "recurrent"),
        }
        if self.use_bias:
            weights["bias"] = Weight((4 * self.units,), "bias")
        return weights

    def step(self, weights, product, x, states, constants):
        h, c = states
        i, f, g, o = self.gates(product("recurrent_kernel", h, plus=x))
        c = f * c + i * g
        h = o * self.activation(c)
        return h, (h, c)

    def gates(self, z):
        """The four activated gates `[B, U]` of the pre-activations `z [B, 4U]`."""
        standard = (self.activation, self.recurrent_activation) == (
            keras.activations.tanh,
            keras.activations.sigmoid,
        )
        if standard and z.dtype not in HALF:
            # One sigmoid over all gates, with tanh(v) = 2 sigmoid(2 v) - 1 for the candidate: XLA
            # on a CPU evaluates separate functions once per consumer, twice the time of the cell.
            # In half precision the identity loses the candidate's accuracy near 0.
            scale = tf.repeat(tf.constant([1, 1, 2, 1], z.dtype), self.units)
            i, f, g, o = tf.split(tf.sigmoid(z * scale), 4, axis=-1)
            return i, f, 2 * g - 1, o
        i, f, g, o = tf.split(z, 4, axis=-1)
        gate = self.recurrent_activation
        return gate(i), gate(f), self.activation(g), gate(o)

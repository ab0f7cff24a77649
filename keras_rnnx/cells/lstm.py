"""Long short-term memory.

Hochreiter and Schmidhuber, "Long Short-Term Memory", Neural Computation 9 (1997); forget gate:
Gers, Schmidhuber and Cummins, "Learning to Forget", Neural Computation 12 (2000).

Axes: B batch, U units.  x [B, 4U] projected input; h, c [B, U] states; gates in Keras' order
i (input), f (forget), g (candidate), o (output).
"""

import dataclasses
from collections.abc import Callable

import keras

from keras_rnnx.cells.base import CellSpec
from keras_rnnx.cells.base import Weight


@dataclasses.dataclass(frozen=True)
class LSTMSpec(CellSpec):
    """LSTM with forget gate, without peepholes.

    Equations (`x` is the projected input, `x W + b`; `gate` is the recurrent activation):

        i, f, g, o = product("recurrent_kernel", h, plus=x, pieces=4)
        c = gate(f) * c + gate(i) * self.activation(g)
        h = gate(o) * self.activation(c)
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
        i, f, g, o = product("recurrent_kernel", h, plus=x, pieces=4)
        gate = self.recurrent_activation
        c = gate(f) * c + gate(i) * self.activation(g)
        h = gate(o) * self.activation(c)
        return h, (h, c)

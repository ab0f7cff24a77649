"""Long short-term memory.

Hochreiter and Schmidhuber, "Long Short-Term Memory", Neural Computation 9 (1997); forget gate:
Gers, Schmidhuber and Cummins, "Learning to Forget", Neural Computation 12 (2000).

Projection of the output: Sak, Senior and Beaufays, "Long Short-Term Memory Based Recurrent Neural
Network Architectures for Large Vocabulary Speech Recognition", arXiv:1402.1128 (2014).

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
        with projection_units
            h = product("projection_kernel", h)
    """

    activation: Callable = keras.activations.tanh
    recurrent_activation: Callable = keras.activations.sigmoid
    use_bias: bool = True
    projection_units: int | None = None  # size of h, where it is not that of c

    not_recurrent = ("projection_kernel",)

    @property
    def state_sizes(self):
        return (self.projection_units or self.units, self.units)

    def weights(self, input_dim):
        weights = {
            "kernel": Weight((input_dim, 4 * self.units), "kernel"),
            "recurrent_kernel": Weight((self.state_sizes[0], 4 * self.units), "recurrent"),
        }
        if self.use_bias:
            weights["bias"] = Weight((4 * self.units,), "bias")
        if self.projection_units:
            weights["projection_kernel"] = Weight((self.units, self.projection_units), "kernel")
        return weights

    def prepare(self, weights):
        prepared = super().prepare(weights)
        if self.projection_units:
            prepared["projection_kernel"] = weights["projection_kernel"]
        return prepared

    def step(self, weights, product, x, states, constants):
        h, c = states
        i, f, g, o = product("recurrent_kernel", h, plus=x, pieces=4)
        gate = self.recurrent_activation
        c = gate(f) * c + gate(i) * self.activation(g)
        h = gate(o) * self.activation(c)
        if self.projection_units:
            h = product("projection_kernel", h)
        return h, (h, c)

"""The plain recurrent cell.

Elman, "Finding Structure in Time", Cognitive Science 14 (1990).

Axes: B batch, U units.  x [B, U] projected input, h [B, U] state.
"""

import dataclasses
from collections.abc import Callable

import keras

from keras_rnnx.cells.base import CellSpec
from keras_rnnx.cells.base import Weight


@dataclasses.dataclass(frozen=True)
class SimpleSpec(CellSpec):
    """Plain (Elman) recurrence, any activation.

    Equations (`x` is the projected input, `x W + b`):

        h = self.activation(product("recurrent_kernel", h, plus=x))
    """

    activation: Callable = keras.activations.tanh
    use_bias: bool = True

    @property
    def state_sizes(self):
        return (self.units,)

    def weights(self, input_dim):
        weights = {
            "kernel": Weight((input_dim, self.units), "kernel"),
            "recurrent_kernel": Weight((self.units, self.units), "recurrent"),
        }
        if self.use_bias:
            weights["bias"] = Weight((self.units,), "bias")
        return weights

    def step(self, weights, product, x, states, constants):
        (h,) = states
        h = self.activation(product("recurrent_kernel", h, plus=x))
        return h, (h,)

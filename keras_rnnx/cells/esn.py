"""The echo state network's reservoir.

Jaeger, "The 'echo state' approach to analysing and training recurrent neural networks", GMD Report
148 (2001); the leak as in Lukosevicius, "A Practical Guide to Applying Echo State Networks" (2012).

Axes: B batch, U units.  x [B, U] projected input, h [B, U] state.
"""

import dataclasses
from collections.abc import Callable

import keras

from keras_rnnx.cells.base import CellSpec


@dataclasses.dataclass(frozen=True)
class ESNSpec(CellSpec):
    """A leaky plain recurrence.

    Equations (`x` is the projected input, `x W + b`):

        new = self.activation(product("recurrent_kernel", h, plus=x))
        h = (1 - self.leaky) * h + self.leaky * new
    """

    activation: Callable = keras.activations.tanh
    leaky: float = 1.0

    def step(self, weights, product, x, states, constants):
        (h,) = states
        new = self.activation(product("recurrent_kernel", h, plus=x))
        h = (1 - self.leaky) * h + self.leaky * new
        return h, (h,)

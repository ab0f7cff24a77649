"""The echo state network's reservoir.

Jaeger, "The 'echo state' approach to analysing and training recurrent neural networks", GMD Report
148 (2001); the leak as in Lukosevicius, "A Practical Guide to Applying Echo State Networks" (2012).

Axes: B batch, U units.  x [B, U] projected input, h [B, U] state.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras

from keras_rnnx.annotations import Tensor
from keras_rnnx.cells.base import CellSpec
from keras_rnnx.cells.base import Product


@dataclasses.dataclass(frozen=True)
class ESNSpec(CellSpec):
    """A leaky plain recurrence.

    Equations (`x` is the projected input, `x W + b`):

        new = self.activation(product("recurrent_kernel", h, plus=x))
        h = (1 - self.leaky) * h + self.leaky * new
    """

    activation: Callable = keras.activations.tanh
    leaky: float = 1.0

    def step(
        self,
        weights: dict[str, Tensor],
        product: Product,
        x: Tensor,
        states: tuple[Tensor, ...],
        constants: dict[str, Any],
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        (h,) = states
        new = self.activation(product("recurrent_kernel", h, plus=x))
        h = (1 - self.leaky) * h + self.leaky * new
        return h, (h,)

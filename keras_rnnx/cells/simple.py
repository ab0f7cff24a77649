"""The plain recurrent cell.

Elman, "Finding Structure in Time", Cognitive Science 14 (1990).

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
class SimpleSpec(CellSpec):
    """Plain (Elman) recurrence, any activation.

    Equations (`x` is the projected input, `x W + b`):

        h = self.activation(product("recurrent_kernel", h, plus=x))
    """

    activation: Callable = keras.activations.tanh

    def step(
        self,
        weights: dict[str, Tensor],
        product: Product,
        x: Tensor,
        states: tuple[Tensor, ...],
        constants: dict[str, Any],
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        (h,) = states
        h = self.activation(product("recurrent_kernel", h, plus=x))
        return h, (h,)

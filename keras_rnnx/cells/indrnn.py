"""The independently recurrent cell.

Li et al., "Independently Recurrent Neural Network (IndRNN): Building a Longer and Deeper RNN",
CVPR 2018 (arXiv:1803.04831).

Axes: B batch, U units.  x [B, U] projected input, h [B, U] state.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras

from keras_rnnx.annotations import Tensor
from keras_rnnx.cells.base import CellSpec
from keras_rnnx.cells.base import Product
from keras_rnnx.cells.base import Weight


@dataclasses.dataclass(frozen=True)
class IndRNNSpec(CellSpec):
    """A recurrence in which every unit sees its own past only.

    Equations (`x` is the projected input, `x W + b`):

        h = self.activation(x + weights["recurrent_kernel"] * h)
    """

    activation: Callable = keras.activations.relu

    recurrent = {}  # a vector, no matrix

    def weights(self, input_dim: int) -> dict[str, Weight]:
        recurrent = Weight((self.units,), "recurrent")
        return {**super().weights(input_dim), "recurrent_kernel": recurrent}

    def step(
        self,
        weights: dict[str, Tensor],
        product: Product,
        x: Tensor,
        states: tuple[Tensor, ...],
        constants: dict[str, Any],
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        (h,) = states
        h = self.activation(x + weights["recurrent_kernel"] * h)
        return h, (h,)

"""Gated recurrent unit.

Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine
Translation", EMNLP 2014 (arXiv:1406.1078). Its first version applies the reset gate after the
recurrent product (`reset_after`, what cuDNN and PyTorch compute), the last one before it.

Axes: B batch, U units.  x [B, 3U] projected input, h [B, U] state; gates in Keras' order
z (update), r (reset), n (candidate).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_rnnx.annotations import Tensor
from keras_rnnx.cells.base import CellSpec
from keras_rnnx.cells.base import Product
from keras_rnnx.cells.base import Weight


@dataclasses.dataclass(frozen=True)
class GRUSpec(CellSpec):
    """GRU, the reset gate after or before the recurrent product.

    Equations (`x` is the projected input, `x W + b`; `gate` is the recurrent activation):

        xz, xr, xn = tf.split(x, 3, axis=-1)
        with reset_after
            pz, pr, pn = product("recurrent_kernel", h, bias=bias, pieces=3)
            z, r = gate(xz + pz), gate(xr + pr)
            n = self.activation(xn + r * pn)
        without
            pz, pr = product("gates", h, pieces=2)
            z, r = gate(xz + pz), gate(xr + pr)
            n = self.activation(xn + product("candidate", r * h))
        both
            h = z * h + (1 - z) * product.candidate(n)

    With `reset_after` the recurrent product has a bias of its own.
    """

    activation: Callable = keras.activations.tanh
    recurrent_activation: Callable = keras.activations.sigmoid
    reset_after: bool = True

    gates = 3
    gate_names = "zrn"
    has_candidate = True

    @property
    def recurrent(self) -> dict[str, int]:
        return super().recurrent if self.reset_after else {"gates": 2, "candidate": 1}

    def weights(self, input_dim: int) -> dict[str, Weight]:
        weights = super().weights(input_dim)
        if self.use_bias and self.reset_after:
            # Row 0 belongs to the input product, row 1 to the recurrent one.
            weights["bias"] = Weight((2, 3 * self.units), "bias")
        return weights

    def input_bias(self, weights: dict[str, Tensor]) -> Tensor | None:
        both = self.use_bias and self.reset_after
        return weights["bias"][0] if both else weights.get("bias")

    def prepare(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        recurrent = weights["recurrent_kernel"]
        if not self.reset_after:
            return {
                "gates": recurrent[:, : 2 * self.units],
                "candidate": recurrent[:, 2 * self.units :],
            }
        if not self.use_bias:
            return {"recurrent_kernel": recurrent}
        return {"recurrent_kernel": recurrent, "recurrent_bias": weights["bias"][1]}

    def step(
        self,
        weights: dict[str, Tensor],
        product: Product,
        x: Tensor,
        states: tuple[Tensor, ...],
        constants: dict[str, Any],
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        (h,) = states
        gate = self.recurrent_activation
        xz, xr, xn = tf.split(x, 3, axis=-1)
        if self.reset_after:
            bias = "recurrent_bias" if self.use_bias else None
            pz, pr, pn = product("recurrent_kernel", h, bias=bias, pieces=3)
            z, r = gate(xz + pz), gate(xr + pr)
            n = self.activation(xn + r * pn)
        else:
            pz, pr = product("gates", h, pieces=2)
            z, r = gate(xz + pz), gate(xr + pr)
            n = self.activation(xn + product("candidate", r * h))
        h = z * h + (1 - z) * product.candidate(n)
        product.show(z=z, r=r, n=n)
        return h, (h,)

"""Gated recurrent unit.

Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine
Translation", EMNLP 2014 (arXiv:1406.1078). Its first version applies the reset gate after the
recurrent product (`reset_after`, what cuDNN and PyTorch compute), the last one before it.

Axes: B batch, U units.  x [B, 3U] projected input, h [B, U] state; gates in Keras' order
z (update), r (reset), n (candidate).
"""

import dataclasses
from collections.abc import Callable

import keras
import tensorflow as tf

from keras_rnnx.cells.base import CellSpec
from keras_rnnx.cells.base import Weight
from keras_rnnx.cells.base import affine


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
            h = z * h + (1 - z) * n

    With `reset_after` the recurrent product has a bias of its own.
    """

    activation: Callable = keras.activations.tanh
    recurrent_activation: Callable = keras.activations.sigmoid
    use_bias: bool = True
    reset_after: bool = True

    @property
    def state_sizes(self):
        return (self.units,)

    def weights(self, input_dim):
        weights = {
            "kernel": Weight((input_dim, 3 * self.units), "kernel"),
            "recurrent_kernel": Weight((self.units, 3 * self.units), "recurrent"),
        }
        if self.use_bias:
            # Row 0 belongs to the input product, row 1 to the recurrent one.
            shape = (2, 3 * self.units) if self.reset_after else (3 * self.units,)
            weights["bias"] = Weight(shape, "bias")
        return weights

    def project(self, weights, x):
        bias = weights.get("bias")
        if bias is not None and self.reset_after:
            bias = bias[0]
        return affine(x, weights["kernel"], bias)

    def prepare(self, weights):
        recurrent = weights["recurrent_kernel"]
        if not self.reset_after:
            return {
                "gates": recurrent[:, : 2 * self.units],
                "candidate": recurrent[:, 2 * self.units :],
            }
        if not self.use_bias:
            return {"recurrent_kernel": recurrent}
        return {"recurrent_kernel": recurrent, "recurrent_bias": weights["bias"][1]}

    def step(self, weights, product, x, states, constants):
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
        h = z * h + (1 - z) * n
        return h, (h,)

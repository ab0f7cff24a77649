"""Gated linear recurrences: the gates depend on the input alone, so that the state is linear.

    h = a * h + b        a, b [B, U] from the input of the step

All a and b of a sequence are known beforehand, and the recurrence can run in parallel over time
(`keras_rnnx.engine.scan`).

minLSTM and minGRU: Feng et al., "Were RNNs All We Needed?", arXiv:2410.01201 (2024), with values of
any sign. RG-LRU: De et al., "Griffin: Mixing Gated Linear Recurrences with Local Attention for
Efficient Language Models", arXiv:2402.19427 (2024).

Axes: B batch, T time, D input features, U units.
"""

import dataclasses
from typing import Any

import tensorflow as tf

from keras_rnnx.annotations import Tensor
from keras_rnnx.cells.base import CellSpec
from keras_rnnx.cells.base import Product
from keras_rnnx.cells.base import Weight
from keras_rnnx.cells.base import affine


@dataclasses.dataclass(frozen=True)
class LinearSpec(CellSpec):
    """Base: `project` gives `(a, b)`, with `0 <= a <= 1`."""

    recurrent = {}

    def weights(self, input_dim: int) -> dict[str, Weight]:
        weights = super().weights(input_dim)
        del weights["recurrent_kernel"]
        return weights

    def prepare(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        return {}

    def step(
        self,
        weights: dict[str, Tensor],
        product: Product,
        x: tuple[Tensor, Tensor],
        states: tuple[Tensor, ...],
        constants: dict[str, Any],
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        a, b = x
        (h,) = states
        h = a * h + b
        product.show(a=a, b=b)
        return h, (h,)


@dataclasses.dataclass(frozen=True)
class MinGRUSpec(LinearSpec):
    """Minimal GRU. z is the share of what is new, as in the paper, and not of what stays.

    Equations:

        z, n = tf.split(affine(x, kernel, bias), 2, axis=-1)
        a = tf.sigmoid(-z)
        b = tf.sigmoid(z) * n
    """

    gates = 2
    gate_names = "zn"

    def project(self, weights: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        kernel, bias = weights["kernel"], weights.get("bias")
        z, n = tf.split(affine(x, kernel, bias), 2, axis=-1)
        a = tf.sigmoid(-z)
        b = tf.sigmoid(z) * n
        return a, b


@dataclasses.dataclass(frozen=True)
class MinLSTMSpec(LinearSpec):
    """Minimal LSTM: the share of forget and input gate in their sum.

    `sigmoid(f) / (sigmoid(f) + sigmoid(i))` is 0 / 0 where both are small.

    Equations, the same as one sigmoid:

        f, i, n = tf.split(affine(x, kernel, bias), 3, axis=-1)
        keep = tf.nn.softplus(-i) - tf.nn.softplus(-f)
        a = tf.sigmoid(keep)
        b = tf.sigmoid(-keep) * n
    """

    gates = 3
    gate_names = "fin"

    def project(self, weights: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        kernel, bias = weights["kernel"], weights.get("bias")
        f, i, n = tf.split(affine(x, kernel, bias), 3, axis=-1)
        keep = tf.nn.softplus(-i) - tf.nn.softplus(-f)
        a = tf.sigmoid(keep)
        b = tf.sigmoid(-keep) * n
        return a, b


@dataclasses.dataclass(frozen=True)
class RGLRUSpec(LinearSpec):
    """Real-gated linear recurrent unit, over an input of as many features as units.

    Equations:

        r, i = tf.split(tf.sigmoid(affine(x, kernel, bias)), 2, axis=-1)
        log_a = self.c * r * tf.math.log_sigmoid(decay)
        a = tf.exp(log_a)
        b = tf.sqrt(tf.maximum((1 + a * a) * tf.tanh(-log_a), tiny)) * i * x

    `decay` is the paper's Lambda, one number per unit. `(1 + a^2) tanh(-log a)` is the paper's
    `1 - a^2`, exact where a is near 1, of operations that every runtime has.
    """

    c: float = 8.0

    gates = 2
    gate_names = "ri"

    def weights(self, input_dim: int) -> dict[str, Weight]:
        if input_dim != self.units:
            raise ValueError(
                f"RG-LRU of {self.units} units got an input of {input_dim} features, expected as "
                f"many as units. Put a Dense({self.units}) before it."
            )
        return {**super().weights(input_dim), "decay": Weight((self.units,), "gain")}

    def project(self, weights: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        kernel, bias = weights["kernel"], weights.get("bias")
        r, i = tf.split(tf.sigmoid(affine(x, kernel, bias)), 2, axis=-1)
        x = x[1] if isinstance(x, (list, tuple)) else x  # with dropout by gate, as gate i sees it
        decay = tf.cast(weights["decay"], x.dtype)
        tiny = 6e-5 if x.dtype == tf.float16 else 1e-30  # a root has no slope at 0
        log_a = self.c * r * tf.math.log_sigmoid(decay)
        a = tf.exp(log_a)
        b = tf.sqrt(tf.maximum((1 + a * a) * tf.tanh(-log_a), tiny)) * i * x
        return a, b

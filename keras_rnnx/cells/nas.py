"""The cell that a search found.

Zoph and Le, "Neural Architecture Search with Reinforcement Learning", ICLR 2017
(arXiv:1611.01578); as in TensorFlow Addons, but with the states in the order h, c.

Axes: B batch, U units.  x [B, 8U] projected input; h, c [B, U] states.
"""

import dataclasses
from typing import Any

import tensorflow as tf

from keras_rnnx.annotations import Tensor
from keras_rnnx.cells.base import CellSpec
from keras_rnnx.cells.base import Product
from keras_rnnx.cells.base import Weight


@dataclasses.dataclass(frozen=True)
class NASSpec(CellSpec):
    """NAS cell.

    Equations (`x` is the projected input, `x W`; the bias goes with the recurrent product, which
    matters where the two are multiplied):

        p = product("recurrent_kernel", h, bias=bias, pieces=8)
        x = tf.split(x, 8, axis=-1)
        a = tf.tanh(tf.sigmoid(x[0] + p[0]) * tf.nn.relu(x[1] + p[1]))
        b = tf.tanh(tf.sigmoid(x[2] + p[2]) + tf.nn.relu(x[3] * p[3]))
        d = tf.tanh(tf.tanh(x[4] + p[4]) * tf.sigmoid(x[5] + p[5]))
        e = tf.sigmoid(tf.tanh(x[6] + p[6]) + tf.sigmoid(x[7] + p[7]))
        c = tf.tanh(a + c) * b
        h = tf.tanh(c * tf.tanh(d + e))
        with projection_units
            h = product("projection_kernel", h)
    """

    use_bias: bool = False
    projection_units: int | None = None

    gates = 8

    @property
    def state_sizes(self) -> tuple[int, ...]:
        return (self.projection_units or self.units, self.units)

    def weights(self, input_dim: int) -> dict[str, Weight]:
        weights = super().weights(input_dim)
        if self.projection_units:
            weights["projection_kernel"] = Weight((self.units, self.projection_units), "kernel")
        return weights

    def input_bias(self, weights: dict[str, Tensor]) -> Tensor | None:
        return None

    def prepare(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: weights[name] for name in weights if name != "kernel"}

    def step(
        self,
        weights: dict[str, Tensor],
        product: Product,
        x: Tensor,
        states: tuple[Tensor, ...],
        constants: dict[str, Any],
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        h, c = states
        bias = "bias" if self.use_bias else None
        p = product("recurrent_kernel", h, bias=bias, pieces=8)
        x = tf.split(x, 8, axis=-1)
        a = tf.tanh(tf.sigmoid(x[0] + p[0]) * tf.nn.relu(x[1] + p[1]))
        b = tf.tanh(tf.sigmoid(x[2] + p[2]) + tf.nn.relu(x[3] * p[3]))
        d = tf.tanh(tf.tanh(x[4] + p[4]) * tf.sigmoid(x[5] + p[5]))
        e = tf.sigmoid(tf.tanh(x[6] + p[6]) + tf.sigmoid(x[7] + p[7]))
        c = tf.tanh(a + c) * b
        h = tf.tanh(c * tf.tanh(d + e))
        if self.projection_units:
            h = product("projection_kernel", h)
        product.show(a=a, b=b, d=d, e=e)
        return h, (h, c)

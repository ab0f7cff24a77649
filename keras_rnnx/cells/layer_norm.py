"""Recurrent cells with layer normalization.

Ba, Kiros and Hinton, "Layer Normalization", arXiv:1607.06450 (2016). `standardized` is a row of
mean 0 and variance 1, over all gates of a product together, as in the paper's LSTM and in haste.

Axes: B batch, U units.  x projected input, h, c [B, U] states; gates in Keras' order.
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
from keras_rnnx.cells.base import affine
from keras_rnnx.cells.norm import standardized


@dataclasses.dataclass(frozen=True)
class NormalizedSpec(CellSpec):
    """Base: what is in `normalize` is standardized, and then multiplied by a gain of its own.

    A product has no shift of its own: the bias, which is added afterwards, is one.
    """

    normalize: tuple[str, ...] = ("input", "recurrent")
    epsilon: float = 1e-5

    def weights(self, input_dim: int) -> dict[str, Weight]:
        gains = [name for name in ("input", "recurrent") if name in self.normalize]
        shape = (self.gates * self.units,)
        return {**super().weights(input_dim), **{f"{n}_gain": Weight(shape, "gain") for n in gains}}

    def project(self, weights: dict[str, Tensor], x: Tensor) -> Tensor:
        if "input" not in self.normalize:
            return super().project(weights, x)
        z = affine(x, weights["kernel"])
        gain = tf.cast(weights["input_gain"], z.dtype)
        z = gain * tf.reshape(self._standardized(tf.reshape(z, [-1, z.shape[-1]])), tf.shape(z))
        bias = self.input_bias(weights)
        return z if bias is None else z + tf.cast(bias, z.dtype)

    @property
    def affine_input(self) -> bool:
        return "input" not in self.normalize

    def prepare(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        used = ("recurrent_kernel", "recurrent_gain", "cell_gain", "cell_shift")
        return {name: weights[name] for name in used if name in weights}

    def normalized(self, name: str, a: Tensor, weights: dict[str, Tensor]) -> Tensor:
        """`a [B, N]` standardized, with its gain, if that is asked for."""
        if name not in self.normalize:
            return a
        return weights[f"{name}_gain"] * self._standardized(a)

    def _standardized(self, a):
        return standardized(a, self.epsilon)


@dataclasses.dataclass(frozen=True)
class LayerNormLSTMSpec(NormalizedSpec):
    """LSTM whose products and cell state are normalized.

    Equations (`x` is the projected input, `gain * standardized(x W) + b`; `gate` is the recurrent
    activation):

        z = x + self.normalized("recurrent", product("recurrent_kernel", h), weights)
        i, f, g, o = tf.split(z, 4, axis=-1)
        i, f, o = gate(i), gate(f), gate(o)
        g = self.activation(g)
        c = f * c + i * product.candidate(g)
        seen = self.normalized("cell", c, weights) + weights["cell_shift"]
        h = o * self.activation(seen)
        with carry="normalized"
            c = seen

    Ba et al. (equations 20 to 22) and haste carry c as it is, TensorFlow Addons what was
    normalized.
    """

    normalize: tuple[str, ...] = ("input", "recurrent", "cell")
    activation: Callable = keras.activations.tanh
    recurrent_activation: Callable = keras.activations.sigmoid
    carry: str = "raw"

    gates = 4
    gate_names = "ifgo"
    has_candidate = True

    @property
    def state_sizes(self) -> tuple[int, ...]:
        return (self.units, self.units)

    def weights(self, input_dim: int) -> dict[str, Weight]:
        weights = super().weights(input_dim)
        if "cell" in self.normalize:
            weights["cell_gain"] = Weight((self.units,), "gain")
            weights["cell_shift"] = Weight((self.units,), "bias")
        return weights

    def step(
        self,
        weights: dict[str, Tensor],
        product: Product,
        x: Tensor,
        states: tuple[Tensor, ...],
        constants: dict[str, Any],
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        h, c = states
        gate = self.recurrent_activation
        z = x + self.normalized("recurrent", product("recurrent_kernel", h), weights)
        i, f, g, o = tf.split(z, 4, axis=-1)
        i, f, o = gate(i), gate(f), gate(o)
        g = self.activation(g)
        c = f * c + i * product.candidate(g)
        seen = c
        if "cell" in self.normalize:
            seen = self.normalized("cell", c, weights) + weights["cell_shift"]
        h = o * self.activation(seen)
        if self.carry == "normalized":
            c = seen
        product.show(i=i, f=f, g=g, o=o)
        return h, (h, c)


@dataclasses.dataclass(frozen=True)
class LayerNormGRUSpec(NormalizedSpec):
    """GRU (reset after the product) whose products are normalized, as in haste.

    Equations (`x` is the projected input, `gain * standardized(x W) + b`; `gate` is the recurrent
    activation):

        p = self.normalized("recurrent", product("recurrent_kernel", h), weights)
        p = p + weights["recurrent_bias"]
        xz, xr, xn = tf.split(x, 3, axis=-1)
        pz, pr, pn = tf.split(p, 3, axis=-1)
        z, r = gate(xz + pz), gate(xr + pr)
        n = self.activation(xn + r * pn)
        h = z * h + (1 - z) * product.candidate(n)

    Ba et al. standardize the two gates and the candidate apart.
    """

    activation: Callable = keras.activations.tanh
    recurrent_activation: Callable = keras.activations.sigmoid

    gates = 3
    gate_names = "zrn"
    has_candidate = True

    def weights(self, input_dim: int) -> dict[str, Weight]:
        weights = super().weights(input_dim)
        if self.use_bias:  # row 0 belongs to the input product, row 1 to the recurrent one
            weights["bias"] = Weight((2, 3 * self.units), "bias")
        return weights

    def input_bias(self, weights: dict[str, Tensor]) -> Tensor | None:
        return weights["bias"][0] if self.use_bias else None

    def prepare(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        prepared = super().prepare(weights)
        return {**prepared, "recurrent_bias": weights["bias"][1]} if self.use_bias else prepared

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
        p = self.normalized("recurrent", product("recurrent_kernel", h), weights)
        if self.use_bias:
            p = p + weights["recurrent_bias"]
        xz, xr, xn = tf.split(x, 3, axis=-1)
        pz, pr, pn = tf.split(p, 3, axis=-1)
        z, r = gate(xz + pz), gate(xr + pr)
        n = self.activation(xn + r * pn)
        h = z * h + (1 - z) * product.candidate(n)
        product.show(z=z, r=r, n=n)
        return h, (h,)


@dataclasses.dataclass(frozen=True)
class LayerNormSimpleSpec(CellSpec):
    """Plain recurrence whose sum of both products is normalized (equation 4 of Ba et al.).

    Equations (`x` is the input's product, `x W`):

        a = product("recurrent_kernel", h, plus=x)
        h = self.activation(weights["gain"] * standardized(a, self.epsilon) + weights["bias"])
    """

    activation: Callable = keras.activations.tanh
    epsilon: float = 1e-5

    def weights(self, input_dim: int) -> dict[str, Weight]:
        return {**super().weights(input_dim), "gain": Weight((self.units,), "gain")}

    def input_bias(self, weights: dict[str, Tensor]) -> Tensor | None:
        return None  # it comes after the normalization

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
        (h,) = states
        a = product("recurrent_kernel", h, plus=x)
        if self.use_bias:
            h = self.activation(weights["gain"] * standardized(a, self.epsilon) + weights["bias"])
        else:
            h = self.activation(weights["gain"] * standardized(a, self.epsilon))
        return h, (h,)

"""Long short-term memory.

Hochreiter and Schmidhuber, "Long Short-Term Memory", Neural Computation 9 (1997); forget gate:
Gers, Schmidhuber and Cummins, "Learning to Forget", Neural Computation 12 (2000).

Peepholes: Gers, Schraudolph and Schmidhuber, "Learning Precise Timing with LSTM Recurrent
Networks", JMLR 3 (2002). Coupled input and forget gate: Greff et al., "LSTM: A Search Space
Odyssey", IEEE TNNLS 28 (2017), arXiv:1503.04069. Projection, and clipping of cell and projection:
Sak, Senior and Beaufays, "Long Short-Term Memory Based Recurrent Neural Network Architectures for
Large Vocabulary Speech Recognition", arXiv:1402.1128 (2014).

Axes: B batch, U units.  x [B, 4U] projected input; h, c [B, U] states; gates in Keras' order
i (input), f (forget), g (candidate), o (output).
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
class LSTMSpec(CellSpec):
    """LSTM with forget gate.

    Equations (`x` is the projected input, `x W + b`; `gate` is the recurrent activation):

        i, f, g, o = product("recurrent_kernel", h, plus=x, pieces=4)
        i, f = gate(i), gate(f)
        g = self.activation(g)
        c = f * c + i * product.candidate(g)
        o = gate(o)
        h = o * self.activation(c)
        with peephole, before the gate of each
            i = i + p_i * c
            f = f + p_f[0] * c
            o = o + p_o * c
        with coupled gates
            i, g, o = product("recurrent_kernel", h, plus=x, pieces=3)
            f = 1 - i
        with cell_clip
            c = tf.clip_by_value(c, -self.cell_clip, self.cell_clip)
        with projection_units
            h = product("projection_kernel", h)
        with projection_clip
            h = tf.clip_by_value(h, -self.projection_clip, self.projection_clip)
    """

    activation: Callable = keras.activations.tanh
    recurrent_activation: Callable = keras.activations.sigmoid
    projection_units: int | None = None  # size of h, where it is not that of c
    peephole: bool = False  # the gates see c: i and f the old one, o the new one
    coupled: bool = False  # no forget gate of its own
    cell_clip: float | None = None
    projection_clip: float | None = None

    has_candidate = True

    @property
    def gates(self) -> int:  # type: ignore[override]  # a constant of other cells
        return 3 if self.coupled else 4

    @property
    def gate_names(self) -> str:  # type: ignore[override]  # as `gates`
        return "igo" if self.coupled else "ifgo"

    @property
    def state_sizes(self) -> tuple[int, ...]:
        return (self.projection_units or self.units, self.units)

    def weights(self, input_dim: int) -> dict[str, Weight]:
        weights = super().weights(input_dim)
        if self.peephole:  # of i, f and o
            weights["peephole_kernel"] = Weight((self.gates - 1, self.units), "kernel")
        if self.projection_units:
            weights["projection_kernel"] = Weight((self.units, self.projection_units), "kernel")
        return weights

    def prepare(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        used = ("recurrent_kernel", "peephole_kernel", "projection_kernel")
        return {name: weights[name] for name in used if name in weights}

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
        if self.coupled:
            i, g, o = product("recurrent_kernel", h, plus=x, pieces=3)
        else:
            i, f, g, o = product("recurrent_kernel", h, plus=x, pieces=4)
        if self.peephole:
            p_i, *p_f, p_o = tf.unstack(weights["peephole_kernel"])
            i = i + p_i * c
            if not self.coupled:
                f = f + p_f[0] * c
        if self.coupled:
            i = gate(i)
            f = 1 - i
        else:
            i, f = gate(i), gate(f)
        g = self.activation(g)
        c = f * c + i * product.candidate(g)
        if self.cell_clip:
            c = tf.clip_by_value(c, -self.cell_clip, self.cell_clip)
        if self.peephole:
            o = o + p_o * c
        o = gate(o)
        h = o * self.activation(c)
        if self.projection_units:
            h = product("projection_kernel", h)
        if self.projection_clip:
            h = tf.clip_by_value(h, -self.projection_clip, self.projection_clip)
        product.show(i=i, f=f, g=g, o=o)
        return h, (h, c)

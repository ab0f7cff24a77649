"""How a query is compared with the positions of a memory: each attention is a frozen description.

Axes: B batch, S memory positions, M memory features, Q query features, A units of the comparison.
More axes, T steps, may lead those of the query: the same lines serve one step and all at once.
"""

import dataclasses
import numbers
from collections.abc import Callable
from typing import Literal
from typing import TypeAlias

import keras
import tensorflow as tf

from keras_rnnx.annotations import Initializer
from keras_rnnx.annotations import Tensor
from keras_rnnx.attention.additive import additive
from keras_rnnx.attention.alignment import Monotonic
from keras_rnnx.attention.base import Attention
from keras_rnnx.cells import Weight
from keras_rnnx.cells import affine

Alignment: TypeAlias = Literal["softmax", "hardmax"] | Monotonic


def _positive(name, value):
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value <= 0:
        raise ValueError(f"{name} is {value!r}, expected a positive integer.")


@keras.saving.register_keras_serializable(package="keras_rnnx")
@dataclasses.dataclass(frozen=True)
class LuongAttention(Attention):
    """Multiplicative attention: compares a query with a memory by products.

        dot       s = q . m                         query and memory of one size
        general   s = q . (m Wm)
        concat    s = v . tanh(q Wq + m Wm)         of `units`

    Luong, Pham and Manning, "Effective Approaches to Attention-based Neural Machine Translation",
    EMNLP 2015 (arXiv:1508.04025).

    Args:
        score: `"dot"`, `"general"` or `"concat"`.
        units: size of the comparison, for `"concat"` only.
        scale: multiply the scores by a trained number, which begins with 1.
        alignment: `"softmax"`, `"hardmax"` or `Monotonic(...)`.

    Masked positions of the memory get no alignment; without a real one, alignments and context are
    zeros.

    Raises:
        ValueError: for another score or alignment, or units that the score has none of; for
            `"dot"`, when built, if query and memory have not the same size.

    Example:

    >>> import keras_rnnx
    >>> from keras_rnnx.attention import LuongAttention
    >>> cell = keras_rnnx.AttentionCell(keras_rnnx.GRUCell(8), LuongAttention("general"))
    """

    score: Literal["dot", "general", "concat"] = "general"
    units: int | None = None
    scale: bool = False
    alignment: Alignment = "softmax"

    def __post_init__(self):
        if self.score not in ("dot", "general", "concat"):
            raise ValueError(f'score is {self.score!r}, expected "dot", "general" or "concat".')
        if self.score == "concat":
            _positive("units", self.units)
        elif self.units is not None:
            raise ValueError(
                f'units is {self.units!r}, which score="concat" has and {self.score!r} has not: '
                "the keys have the size of the query. Leave units out."
            )
        self._check_alignment()

    def check(self, query_size: int, memory_size: int) -> None:
        if self.score == "dot" and query_size != memory_size:
            raise ValueError(
                f'LuongAttention(score="dot") got a query of size {query_size} and a memory of '
                f'size {memory_size}, expected one size. Use score="general".'
            )

    def weights(self, query_size: int, memory_size: int) -> dict[str, Weight]:
        weights, units = {}, self.units or query_size
        if self.score == "concat":
            weights["query_kernel"] = Weight((query_size, units), "kernel")
            weights["attention_v"] = Weight((units,), "kernel")
        if self.score != "dot":
            weights["memory_kernel"] = Weight((memory_size, units), "kernel")
        if self.scale:
            weights["score_scale"] = Weight((), "gain")
        return {**weights, **self._alignment_weights()}

    @property
    def starts(self) -> dict[str, Initializer]:
        return self._alignment_starts()

    def keys(self, weights: dict[str, Tensor], memory: Tensor) -> Tensor | None:
        return None if self.score == "dot" else affine(memory, weights["memory_kernel"])

    def scores(
        self,
        weights: dict[str, Tensor],
        product: Callable[..., Tensor],
        query: Tensor,
        constants: dict[str, Tensor],
        kept: dict[str, Tensor],
    ) -> Tensor:
        if self.score == "concat":
            q = product("query_kernel", query)
            s = additive(weights["attention_v"], constants["keys"], q)
        else:
            s = product("memory" if self.score == "dot" else "keys", query, transpose=True)
        return weights["score_scale"] * s if self.scale else s


@keras.saving.register_keras_serializable(package="keras_rnnx")
@dataclasses.dataclass(frozen=True)
class BahdanauAttention(Attention):
    """Additive attention: compares a query with a memory by a layer of `units`.

        s = v . tanh(q Wq + m Wm)
        s = g v / |v| . tanh(q Wq + m Wm + b)                 normalize
        s = v . tanh(q Wq + m Wm + c Wc)                      coverage

    c is the sum of a position's alignments so far. Bahdanau, Cho and Bengio, "Neural Machine
    Translation by Jointly Learning to Align and Translate", ICLR 2015 (arXiv:1409.0473);
    weight normalization: Salimans and Kingma, NeurIPS 2016 (arXiv:1602.07868), where g begins as
    1 / sqrt(units); coverage:
    See, Liu and Manning, "Get To The Point", ACL 2017 (arXiv:1704.04368).

    Args:
        units: size of the comparison.
        normalize: weight normalization of v, and a bias.
        coverage: let the scores see how much each position was attended to before.
        alignment: `"softmax"`, `"hardmax"` or `Monotonic(...)`.

    Masked positions of the memory get no alignment; without a real one, alignments and context are
    zeros.

    Raises:
        ValueError: for units that are no positive integer, or another alignment.

    Example:

    >>> import keras_rnnx, numpy as np
    >>> from keras_rnnx.attention import BahdanauAttention
    >>> cell = keras_rnnx.AttentionCell(keras_rnnx.GRUCell(8), BahdanauAttention(16))
    >>> decoder = keras_rnnx.RNN(cell, return_sequences=True)
    >>> memory = np.ones((2, 7, 6), "float32")
    >>> decoder(np.ones((2, 5, 3), "float32"), constants={"memory": memory}).shape
    TensorShape([2, 5, 14])
    """

    units: int
    _: dataclasses.KW_ONLY
    normalize: bool = False
    coverage: bool = False
    alignment: Alignment = "softmax"

    def __post_init__(self):
        _positive("units", self.units)
        self._check_alignment()

    @property
    def state_names(self) -> tuple[str, ...]:
        return (*super().state_names, *(("total",) if self.coverage else ()))

    def weights(self, query_size: int, memory_size: int) -> dict[str, Weight]:
        weights = {
            "query_kernel": Weight((query_size, self.units), "kernel"),
            "memory_kernel": Weight((memory_size, self.units), "kernel"),
            "attention_v": Weight((self.units,), "kernel"),
        }
        if self.normalize:
            weights["attention_g"] = Weight((), "gain")
            weights["attention_b"] = Weight((self.units,), "bias")
        if self.coverage:
            weights["coverage_kernel"] = Weight((self.units,), "kernel")
        return {**weights, **self._alignment_weights()}

    @property
    def starts(self) -> dict[str, Initializer]:
        starts = self._alignment_starts()
        if self.normalize:
            starts["attention_g"] = keras.initializers.Constant(self.units**-0.5)
        return starts

    def keys(self, weights: dict[str, Tensor], memory: Tensor) -> Tensor:
        return affine(memory, weights["memory_kernel"], weights.get("attention_b"))

    def prepare(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        prepared = {n: w for n, w in weights.items() if n not in ("attention_b", "attention_g")}
        if self.normalize:
            v = weights["attention_v"]
            prepared["attention_v"] = (
                weights["attention_g"] * v * tf.math.rsqrt(tf.reduce_sum(v * v))
            )
        return prepared

    def scores(
        self,
        weights: dict[str, Tensor],
        product: Callable[..., Tensor],
        query: Tensor,
        constants: dict[str, Tensor],
        kept: dict[str, Tensor],
    ) -> Tensor:
        more = self.seen(weights, kept)
        q = product("query_kernel", query)
        return additive(weights["attention_v"], constants["keys"], q, *more)

    def seen(self, weights: dict[str, Tensor], kept: dict[str, Tensor]) -> list[Tensor]:
        """What is added for the alignments before, `[B, S, A]` each."""
        if not self.coverage:
            return []
        return [kept["total"][..., None] * weights["coverage_kernel"]]


@keras.saving.register_keras_serializable(package="keras_rnnx")
@dataclasses.dataclass(frozen=True)
class LocationAttention(BahdanauAttention):
    """Additive attention that sees where the step before was, for long and repetitive memories.

        f = conv(a', filters)                                 over the memory positions
        s = v . tanh(q Wq + m Wm + f U)

    a' are the alignments of the step before, zeros before the first. Chorowski, Bahdanau, Serdyuk,
    Cho and Bengio, "Attention-Based Models for Speech Recognition", NeurIPS 2015
    (arXiv:1506.07503); `cumulative`: Shen et al., "Natural TTS Synthesis by Conditioning WaveNet on
    Mel Spectrogram Predictions", ICASSP 2018 (arXiv:1712.05884).

    Args:
        units, normalize, coverage, alignment: as those of `BahdanauAttention`.
        filters: number of filters of the convolution.
        kernel_size: its width in memory positions.
        cumulative: a' is the sum of the alignments of all steps before.

    Raises:
        ValueError: for units, filters or a kernel_size that are no positive integers, or another
            alignment.

    Example:

    >>> from keras_rnnx.attention import LocationAttention
    >>> LocationAttention(16, filters=8, kernel_size=5).state_names
    ('previous',)
    """

    _: dataclasses.KW_ONLY
    filters: int = 32
    kernel_size: int = 31
    cumulative: bool = False

    def __post_init__(self):
        super().__post_init__()
        _positive("filters", self.filters)
        _positive("kernel_size", self.kernel_size)

    @property
    def state_names(self) -> tuple[str, ...]:
        names = set(super().state_names) | {"total" if self.cumulative else "previous"}
        return tuple(sorted(names))

    def weights(self, query_size: int, memory_size: int) -> dict[str, Weight]:
        return {
            **super().weights(query_size, memory_size),
            "location_filters": Weight((self.kernel_size, self.filters), "kernel"),
            "location_kernel": Weight((self.filters, self.units), "kernel"),
        }

    def prepare(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        prepared = dict(super().prepare(weights))
        # Both are linear, so one matrix takes each position's neighbourhood to its units.
        filters, kernel = prepared.pop("location_filters"), prepared.pop("location_kernel")
        return {**prepared, "location": tf.matmul(filters, kernel)}

    def seen(self, weights: dict[str, Tensor], kept: dict[str, Tensor]) -> list[Tensor]:
        before = kept["total" if self.cumulative else "previous"]
        left = (self.kernel_size - 1) // 2
        padded = tf.pad(before, [[0, 0], [left, self.kernel_size - 1 - left]])
        S = before.shape[-1] or tf.shape(before)[-1]
        around = tf.stack([padded[:, k : k + S] for k in range(self.kernel_size)], axis=-1)
        rows = tf.matmul(tf.reshape(around, [-1, self.kernel_size]), weights["location"])
        features = tf.reshape(rows, [-1, S, self.units])
        return [features, *super().seen(weights, kept)]

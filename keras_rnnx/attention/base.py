"""What every attention is: weights, scores, and alignments made of them.

Axes: B batch, S memory positions, M memory features, Q query features, A units of the comparison.
More axes, T steps, may lead those of the query: the same lines serve one step and all at once.
"""

import abc
import dataclasses
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any
from typing import TYPE_CHECKING

import keras
import tensorflow as tf

from keras_rnnx.annotations import Initializer
from keras_rnnx.annotations import Tensor
from keras_rnnx.attention.alignment import Monotonic
from keras_rnnx.attention.alignment import hardmax
from keras_rnnx.attention.alignment import softmax
from keras_rnnx.cells import Weight

ALIGNMENTS = {"softmax": softmax, "hardmax": hardmax}


@keras.saving.register_keras_serializable(package="keras_rnnx")
@dataclasses.dataclass(frozen=True)
class Attention(abc.ABC):
    """Base of the attentions; equal settings make equal (and hashable) ones.

        keys             = keys(weights, memory)                        once a sequence
        prepared         = prepare(weights)                             once a sequence
        s                = scores(prepared, product, query, keys, ...)  [B, S], every step
        a                = the alignments of s: softmax, hardmax or monotonic
        context          = product("memory", a)                         [B, M]

    `product` and what it is for: see `keras_rnnx.CellSpec`. What a step knows of the ones before
    it is in its states, `[B, S]` each, which begin as zeros.

    An attention of your own says its weights and its scores; register the class.

    Example:

    >>> import dataclasses, keras, keras_rnnx
    >>> from keras_rnnx.attention import Attention
    >>> @keras.saving.register_keras_serializable(package="example")
    ... @dataclasses.dataclass(frozen=True)
    ... class Bilinear(Attention):  # s = (q Wq) . m
    ...     alignment: str = "softmax"
    ...     def weights(self, query_size, memory_size):
    ...         return {"query_kernel": keras_rnnx.Weight((query_size, memory_size), "kernel")}
    ...     def scores(self, weights, product, query, constants, kept):
    ...         return product("memory", product("query_kernel", query), transpose=True)
    >>> cell = keras_rnnx.AttentionCell(keras_rnnx.GRUCell(8), Bilinear())
    """

    if TYPE_CHECKING:

        @property
        def alignment(self) -> Any:
            """A field of each attention: "softmax", "hardmax" or `Monotonic(...)`."""

    def check(self, query_size: int, memory_size: int) -> None:
        """Refuse sizes that do not go together; here none."""
        return None

    @abc.abstractmethod
    def weights(self, query_size: int, memory_size: int) -> dict[str, Weight]:
        """The weights by name: `{name: Weight}`."""

    @property
    def starts(self) -> dict[str, Initializer]:
        """The initializers of weights that begin in a way of their own, by name."""
        return {}

    @property
    def is_monotonic(self) -> bool:
        """Whether alignments move forward only."""
        return isinstance(self.alignment, Monotonic)

    @property
    def state_names(self) -> tuple[str, ...]:
        """What a step keeps for the next, of "previous" and "total" alignments."""
        return ("previous",) if self.is_monotonic else ()

    def keys(self, weights: dict[str, Tensor], memory: Tensor) -> Tensor | None:
        """What queries are compared with, `[B, S, A]`, or None for the memory itself."""
        return None

    def prepare(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """The weights that `scores` uses, as it uses them."""
        return weights

    @abc.abstractmethod
    def scores(
        self,
        weights: dict[str, Tensor],
        product: Callable[..., Tensor],
        query: Tensor,
        constants: dict[str, Tensor],
        kept: dict[str, Tensor],
    ) -> Tensor:
        """`[..., B, S]` from the query `[..., B, Q]`; kept: the states by name."""

    def attend(
        self,
        weights: dict[str, Tensor],
        product: Callable[..., Tensor],
        query: Tensor,
        constants: dict[str, Tensor],
        states: Sequence[Tensor],
        noise: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """`(context, alignments, new states)` of one step, or of all if there are no states.

        `noise` is added to the scores of a monotonic alignment.
        """
        kept = dict(zip(self.state_names, states, strict=True))
        if self.is_monotonic:  # zeros stand for a start at the first position
            first = tf.one_hot(0, tf.shape(states[0])[-1], dtype=states[0].dtype)
            kept["previous"] += first
        scores = self.scores(weights, product, query, constants, kept)
        mask = constants.get("mask")
        if self.is_monotonic:
            scores += weights["score_bias"]
            scores = scores if noise is None else scores + noise
            a = self.alignment.align(scores, mask, kept["previous"])
        else:
            a = ALIGNMENTS[self.alignment](scores, mask)
        new = {"previous": a - first if self.is_monotonic else a}
        if "total" in kept:
            new["total"] = kept["total"] + a
        return product("memory", a), a, tuple(new[name] for name in self.state_names)

    def get_config(self):
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {name: keras.saving.serialize_keras_object(v) for name, v in fields.items()}

    @classmethod
    def from_config(cls, config):
        read = keras.saving.deserialize_keras_object
        return cls(**{name: read(value) for name, value in config.items()})

    def _check_alignment(self):
        if not self.is_monotonic and self.alignment not in list(ALIGNMENTS):
            raise ValueError(
                f'alignment is {self.alignment!r}, expected "softmax", "hardmax" or '
                "keras_rnnx.attention.Monotonic(...)."
            )

    def _alignment_weights(self):
        return {"score_bias": Weight((), "bias")} if self.is_monotonic else {}

    def _alignment_starts(self):
        if not self.is_monotonic:
            return {}
        return {"score_bias": keras.initializers.Constant(self.alignment.score_bias)}

"""What a hypothesis may go on with: rules that lower the scores of next tokens, never raise them.

Axes: B batch, K hypotheses of a sample, V tokens of the vocabulary, T the longest length.
"""

import dataclasses
import math
import numbers
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from typing import TypeAlias

import keras
import tensorflow as tf

from keras_rnnx.annotations import Tensor

# `(scores, ids, t) -> scores`, see `BannedTokens`.
TokenRule: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
TokenRules: TypeAlias = TokenRule | Sequence[TokenRule] | None


@dataclasses.dataclass(frozen=True)
class Rules:
    """The rules of one search; see `beam_search` for what they mean.

    `prefix` (see `as_prefix`), ids and -1 where nothing is forced, comes with the call.
    """

    end: int
    min_length: int = 0
    no_repeat_ngram: int = 0
    constraints: tuple = ()

    @classmethod
    def of(cls, end, min_length, no_repeat_ngram, constraint):
        """From the arguments of a search."""
        for name, value in {"min_length": min_length, "no_repeat_ngram": no_repeat_ngram}.items():
            if not isinstance(value, numbers.Integral) or value < 0:
                raise ValueError(f"{name} is {value!r}, expected an integer of 0 or more.")
        return cls(int(end), min_length, no_repeat_ngram, as_tuple(constraint))

    def __call__(self, scores, ids, t, prefix=None):
        """`scores [B, K, V]` of the tokens at position `t`, those that may not come at -inf.

        ids: `[B, K, T]`, of which the first `t` of each are known.
        """
        V = scores.shape[-1]
        ruled = scores
        if self.min_length:
            early = tf.logical_and(t < self.min_length, tf.range(V) == self.end)
            ruled = tf.where(early, -math.inf, ruled)
        if self.no_repeat_ngram:
            ruled = self._without_repeats(ruled, ids, t)
        for constraint in self.constraints:
            flat = tf.reshape(ruled, [-1, V])
            lowered = constraint(flat, tf.reshape(ids, [-1, tf.shape(ids)[-1]]), t)
            lowered = tf.reshape(tf.cast(lowered, scores.dtype), tf.shape(scores))
            ruled = tf.minimum(ruled, lowered)
        if prefix is None:
            return ruled
        forced = prefix[:, tf.minimum(t, tf.shape(prefix)[1] - 1)][:, None, None]
        only = tf.where(tf.range(V) == forced, scores, -math.inf)
        return tf.where(forced < 0, ruled, only)  # what is forced is not asked about other rules

    def _without_repeats(self, scores, ids, t):
        """Without the tokens that would end an n-gram for the second time."""
        n = self.no_repeat_ngram
        sizes = tf.shape(ids)
        padded = tf.pad(ids, [[0, 0], [0, 0], [0, n]], constant_values=-1)
        same = tf.range(sizes[2])[None, None] + n - 1 < t  # [.., T]: n-grams that are whole
        for i in range(n - 1):
            latest = ids[:, :, tf.maximum(t - (n - 1) + i, 0)][..., None]
            same = tf.logical_and(same, padded[:, :, i : i + sizes[2]] == latest)
        same = tf.broadcast_to(same, sizes)
        following = tf.maximum(padded[:, :, n - 1 : n - 1 + sizes[2]], 0)
        rows = tf.repeat(tf.range(sizes[0] * sizes[1]), sizes[2])
        where = tf.stack([rows, tf.reshape(following, [-1])], axis=-1)
        lowered = tf.reshape(tf.where(same, -math.inf, math.inf), [-1])
        flat = tf.reshape(scores, [-1, scores.shape[-1]])
        return tf.reshape(tf.tensor_scatter_nd_min(flat, where, lowered), tf.shape(scores))


def as_tuple(constraint):
    """The constraints of None, one or several."""
    if constraint is None:
        return ()
    return tuple(constraint) if isinstance(constraint, (list, tuple)) else (constraint,)


def as_prefix(prefix):
    """`[B, P + 1]` ids that are forced, of which the last forces nothing; or None."""
    if prefix is None:
        return None
    return tf.pad(tf.cast(prefix, tf.int32), [[0, 0], [0, 1]], constant_values=-1)


@keras.saving.register_keras_serializable(package="keras_rnnx")
@dataclasses.dataclass(frozen=True)
class BannedTokens:
    """A constraint for decoding: these tokens never come.

    A constraint is any hashable object with `__call__(scores, ids, t)`: log-probabilities `[N, V]`
    of the tokens at position `t` and the ids `[N, T]` of the hypotheses, of which the first `t` are
    known, give scores `[N, V]`. It may lower them, down to -inf; what it raises stays as it was.
    Register the class with `keras.saving.register_keras_serializable`, so that models keep it.

    Args:
        tokens: tuple of ids.

    Example:

    >>> from keras_rnnx.seq2seq import BannedTokens
    >>> import tensorflow as tf
    >>> BannedTokens((1,))(tf.zeros([1, 3]), tf.zeros([1, 5], tf.int32), 0).numpy().tolist()
    [[0.0, -inf, 0.0]]
    """

    tokens: Iterable[int]

    def __post_init__(self):
        object.__setattr__(self, "tokens", tuple(int(token) for token in self.tokens))

    def __call__(self, scores: Tensor, ids: Tensor, t: int | Tensor) -> Tensor:
        banned = tf.reduce_any(tf.range(scores.shape[-1])[:, None] == self.tokens, axis=1)
        return tf.where(banned, -math.inf, scores)

    def get_config(self):
        return {"tokens": list(self.tokens)}

    @classmethod
    def from_config(cls, config):
        return cls(tuple(config["tokens"]))

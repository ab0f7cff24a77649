"""From scores to alignments: how much of each memory position a step attends to.

Axes: B batch, S memory positions; more axes may lead, such as T steps.
"""

import dataclasses
import numbers
from typing import Literal
from typing import TypeAlias

import keras
import tensorflow as tf

from keras_rnnx.annotations import Tensor

MODES = ("recursive", "parallel", "hard")
Mode: TypeAlias = Literal["recursive", "parallel", "hard"]


def softmax(scores, mask=None):
    """`exp(s) / sum exp(s)` over the real positions; zeros elsewhere, and in rows without any."""
    wide = tf.cast(scores, tf.float32) if scores.dtype.size < 4 else scores
    if mask is None:
        return tf.cast(tf.nn.softmax(wide), scores.dtype)
    shared = tf.nn.softmax(tf.where(mask, wide, wide.dtype.min))
    return tf.cast(tf.where(mask, shared, tf.zeros_like(shared)), scores.dtype)


def hardmax(scores: Tensor, mask: Tensor | None = None) -> Tensor:
    """1 at the highest score, the first one of equals, and 0 elsewhere; without a gradient.

    Args:
        scores: `[..., S]`.
        mask: `[..., S]` booleans, True where a position is real, or None. A row without a real
            position is all zeros.

    Returns:
        `[..., S]` in the dtype of the scores.

    Example:

    >>> from keras_rnnx.attention import hardmax
    >>> import tensorflow as tf
    >>> hardmax(tf.constant([[0.1, 0.7, 0.2]])).numpy().tolist()
    [[0.0, 1.0, 0.0]]
    """
    scores = tf.convert_to_tensor(scores)
    if mask is not None:
        scores = tf.where(mask, scores, scores.dtype.min)
    # A small S is known to compiled loops only, so the depth is asked of the tensor.
    depth = scores.shape[-1] or tf.shape(scores)[-1]
    chosen = tf.one_hot(tf.argmax(scores, axis=-1), depth, dtype=scores.dtype)
    return chosen if mask is None else tf.where(mask, chosen, tf.zeros_like(chosen))


def safe_cumprod(x: Tensor, axis: int = -1, exclusive: bool = False) -> Tensor:
    """Cumulative product of numbers from 0 to 1 as a sum of logarithms, whose gradient is finite.

    Args:
        x: numbers from 0 to 1; clipped to the smallest normal number from below.
        axis: along which they are multiplied.
        exclusive: begin with 1 and leave the last number out.

    Example:

    >>> from keras_rnnx.attention import safe_cumprod
    >>> import tensorflow as tf
    >>> safe_cumprod(tf.constant([0.5, 0.5, 1.0]), exclusive=True).numpy().tolist()
    [1.0, 0.5, 0.25]
    """
    x = tf.convert_to_tensor(x)
    tiny = tf.constant(x.dtype.as_numpy_dtype(_tiny(x.dtype)), x.dtype)
    logs = tf.math.log(tf.clip_by_value(x, tiny, 1))
    return tf.exp(tf.cumsum(logs, axis=axis, exclusive=exclusive))


def _tiny(dtype):
    return 1e-7 if dtype == tf.float16 else 1e-37  # the least that has all its digits


def monotonic_attention(p_choose: Tensor, previous: Tensor, mode: Mode) -> Tensor:
    """Alignments of a step that moves forward through the memory only.

    Raffel, Luong, Liu, Weiss and Eck, "Online and Linear-Time Attention by Enforcing Monotonic
    Alignments", ICML 2017 (arXiv:1704.00784). From where the step before was, positions are
    inspected one after the other, and each is chosen with its probability.

    Args:
        p_choose: `[B, S]`, the probability that each position is chosen if it is inspected; 0
            where a position is masked.
        previous: `[B, S]`, the alignments of the step before; before the first step 1 at position
            0 and 0 elsewhere.
        mode: `"recursive"`, the expected alignments by their recurrence over S, exact and slow;
            `"parallel"`, the same by cumulative sums and products, which loses digits (the
            fourth) where probabilities are close to 1; `"hard"`, the alignment itself, for
            probabilities of 0 and 1 and a `previous` of one position: what a model decodes with.

    Returns:
        `[B, S]`, which sums to at most 1: a step may run through the memory and choose nothing.

    Raises:
        ValueError: for another mode.

    Example:

    >>> from keras_rnnx.attention import monotonic_attention
    >>> import tensorflow as tf
    >>> p = tf.constant([[0.5, 0.5, 1.0]])
    >>> monotonic_attention(p, tf.constant([[1.0, 0.0, 0.0]]), "recursive").numpy().tolist()
    [[0.5, 0.25, 0.25]]
    """
    p_choose, previous = tf.convert_to_tensor(p_choose), tf.convert_to_tensor(previous)
    if mode == "recursive":
        return _recursive(p_choose, previous)
    if mode == "parallel":
        passed = safe_cumprod(1 - p_choose, exclusive=True)
        least = 1e-7 if p_choose.dtype == tf.float16 else 1e-10
        reached = tf.cumsum(previous / tf.clip_by_value(passed, least, 1), axis=-1)
        return p_choose * passed * reached
    if mode == "hard":
        inspected = p_choose * tf.cumsum(previous, axis=-1)  # from the previous position on
        return inspected * tf.math.cumprod(1 - inspected, axis=-1, exclusive=True)
    raise ValueError(f"mode is {mode!r}, expected one of {', '.join(map(repr, MODES))}.")


def _recursive(p, previous):
    """`a[j] = p[j] * q[j]`, `q[j] = (1 - p[j - 1]) * q[j - 1] + previous[j]`."""
    stay = tf.pad(1 - p[:, :-1], [[0, 0], [1, 0]])
    over_positions = tf.transpose(stay), tf.transpose(previous)
    reach = lambda q, at: at[0] * q + at[1]
    q = tf.scan(reach, over_positions, tf.zeros_like(previous[:, 0]))
    return p * tf.transpose(q)


@keras.saving.register_keras_serializable(package="keras_rnnx")
@dataclasses.dataclass(frozen=True)
class Monotonic:
    """Alignments that move forward only, for the `alignment` of an attention.

    A position is chosen with the probability `sigmoid(score + score_bias + noise)`; see
    `monotonic_attention`.

    Args:
        mode: `"recursive"`, `"parallel"` or `"hard"`.
        sigmoid_noise: standard deviation of the Gaussian noise that is added to the scores in
            training, so that they learn to be far from 0. Not in mode `"hard"`.
        score_bias: what the trained bias of the scores begins with; negative in long memories, so
            that a step does not stop at once (-4 in the paper).

    In mode `"hard"` a score above 0 is a choice, and nothing is learned: train in one of the other
    modes, and set `"hard"` in a model that gets the trained weights.

    Example:

    >>> from keras_rnnx.attention import BahdanauAttention, Monotonic
    >>> BahdanauAttention(8, alignment=Monotonic("parallel", sigmoid_noise=1.0)).alignment.mode
    'parallel'
    """

    mode: Mode = "parallel"
    sigmoid_noise: float = 0.0
    score_bias: float = 0.0

    def __post_init__(self):
        if self.mode not in MODES:
            raise ValueError(
                f"mode is {self.mode!r}, expected one of {', '.join(map(repr, MODES))}."
            )
        if not isinstance(self.sigmoid_noise, numbers.Real) or self.sigmoid_noise < 0:
            raise ValueError(f"sigmoid_noise is {self.sigmoid_noise!r}, expected 0 or more.")

    def align(self, scores: Tensor, mask: Tensor | None, previous: Tensor) -> Tensor:
        """`[B, S]` scores, which the bias and the noise are part of, as alignments.

        `mask` says where the memory is real, `previous` are the alignments of the step before.
        """
        if self.mode == "hard":
            p = tf.cast(scores > 0, scores.dtype)
        else:
            p = tf.sigmoid(scores)
        p = p if mask is None else tf.where(mask, p, tf.zeros_like(p))
        return monotonic_attention(p, previous, self.mode)

    def get_config(self):
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def coverage_loss(alignments: Tensor) -> Tensor:
    """How much steps attend to what was attended to before: a penalty for summaries.

        sum_t sum_s min(a[t, s], c[t, s])        c[t] = sum of a before t

    See, Liu and Manning, "Get To The Point", ACL 2017 (arXiv:1704.04368).

    Args:
        alignments: `[B, T, S]`.

    Returns:
        `[B]`.

    Example:

    >>> from keras_rnnx.attention import coverage_loss
    >>> coverage_loss([[[1.0, 0.0], [1.0, 0.0]]]).numpy().tolist()
    [1.0]
    """
    a = tf.convert_to_tensor(alignments)
    before = tf.cumsum(a, axis=1, exclusive=True)
    return tf.reduce_sum(tf.minimum(a, before), axis=[1, 2])

"""Linear-chain conditional random fields: scores of tag sequences, their normalizer, the best one.

A chain of tags y[1..n], one for each real step, has the score

    s(y) = start[y[1]] + sum_t x[t, y[t]] + sum_t>1 transitions[y[t-1], y[t]] + end[y[n]]

and the probability exp(s(y)) / Z, where Z is the sum of exp(s) over all chains. Lafferty, McCallum
and Pereira, "Conditional Random Fields: Probabilistic Models for Segmenting and Labeling Sequence
Data", ICML 2001. Both recurrences over time, the forward algorithm and that of Viterbi, are steps
which the engine repeats: from there come masks, compiled loops and the backward pass. The gradient
of log Z for x is the probability of each tag at each step.

Masks have any pattern: the real steps of a row are its chain, and those on both sides of a hole are
neighbours.

Axes: B batch, T time, K tags.
"""

from typing import Any
from typing import Literal

import tensorflow as tf

from keras_rnnx import engine
from keras_rnnx.annotations import Tensor
from keras_rnnx.heads.crf_chain import Chain
from keras_rnnx.heads.crf_chain import plan
from keras_rnnx.heads.crf_chain import real_steps
from keras_rnnx.heads.crf_chain import wide

FORBIDDEN = -1e30  # finite, so that no difference of two is NaN, and far below any score
NO_TAG = -1  # what stands where no step is real


def crf_score(
    tags: Tensor,
    potentials: Tensor,
    transitions: Tensor,
    mask: Tensor | None = None,
    start: Tensor | None = None,
    end: Tensor | None = None,
) -> Tensor:
    """The score of given tags, not normalized.

    Args:
        tags: `[B, T]` integers from 0 to K - 1. A step whose tag is below 0 is not real.
        potentials: `[B, T, K]`, the score of each tag at each step.
        transitions: `[K, K]`, the score of a tag (second axis) after another (first axis).
        mask: `[B, T]` booleans of any pattern, True where a step is real; None: all are.
        start, end: `[K]`, scores of the first and of the last tag, or None for zeros.

    Returns:
        `[B]`, in float32 or float64. A row without a real step has the score 0.

    Raises:
        ValueError: for shapes that do not go together.

    Example:

    >>> import numpy as np
    >>> from keras_rnnx.heads import crf_score
    >>> x, transitions = np.array([[[1.0, 2.0], [3.0, 4.0]]]), np.array([[0.1, 0.2], [0.3, 0.4]])
    >>> crf_score(np.array([[1, 0]]), x, transitions).numpy().round(1)  # 2 + 0.3 + 3
    array([5.3])
    """
    chain = Chain(potentials, transitions, mask, start, end, tags)
    order = tf.argsort(tf.cast(~chain.mask, tf.int32), axis=1, stable=True)
    tags = tf.gather(chain.tags, order, axis=1, batch_dims=1)  # those of real steps first
    count = tf.reduce_sum(tf.cast(chain.mask, tf.int32), axis=1)
    last = tf.gather(tags, tf.maximum(count - 1, 0), axis=1, batch_dims=1)
    at_steps = tf.gather(chain.x, chain.tags, axis=2, batch_dims=2)  # padding holds zeros
    between = tf.gather_nd(chain.transitions, tf.stack([tags[:, :-1], tags[:, 1:]], axis=-1))
    between = tf.where(tf.range(1, tf.shape(tags)[1]) < count[:, None], between, 0)
    score = tf.reduce_sum(at_steps, axis=1) + tf.reduce_sum(between, axis=1)
    score += tf.gather(chain.start, tags[:, 0]) + tf.gather(chain.end, last)
    return tf.where(chain.any, score, 0)


def crf_log_norm(
    potentials: Tensor,
    transitions: Tensor,
    mask: Tensor | None = None,
    start: Tensor | None = None,
    end: Tensor | None = None,
    *,
    jit_compile: Literal["auto", False] = "auto",
    backward: Literal["full", "autodiff"] = "full",
) -> Tensor:
    """The logarithm of the sum of exp(score) over all tag sequences: the forward algorithm.

        a[t, j] = x[t, j] + log sum_i exp(a[t-1, i] + transitions[i, j])

    A tag whose potential is -1e30 is left out of the sum, so that potentials filtered by sets of
    tags give the sum over the sequences of these: the score of partly known tags.

    Args:
        potentials, transitions, mask, start, end: see `crf_score`.
        jit_compile: `"auto"`, the loop compiles itself with XLA, except inside
            `keras_rnnx.portable()` and exports of `keras_rnnx.serving`; or False.
        backward: `"full"` for first derivatives by the engine's backward pass; `"autodiff"` for
            derivatives of any order, slower.

    Returns:
        `[B]`, in float32 or float64. A row without a real step gives 0.

    Raises:
        ValueError: for shapes that do not go together.

    Example:

    >>> import numpy as np
    >>> from keras_rnnx.heads import crf_log_norm
    >>> log_norm = crf_log_norm(np.zeros((1, 3, 2)), np.zeros((2, 2)))
    >>> np.exp(log_norm).round(4)  # 2 ** 3 sequences of score 0
    array([8.])
    """
    chain = Chain(potentials, transitions, mask, start, end)
    _, last = chain.run(_forward, plan(jit_compile, backward), last_only=True)
    return tf.where(chain.any, tf.reduce_logsumexp(last + chain.end, axis=1), 0)


def crf_log_likelihood(
    tags: Tensor,
    potentials: Tensor,
    transitions: Tensor,
    mask: Tensor | None = None,
    start: Tensor | None = None,
    end: Tensor | None = None,
    **options: Any,
) -> Tensor:
    """The log-probability of given tags, `crf_score` minus `crf_log_norm`.

    Args:
        tags, potentials, transitions, mask, start, end: see `crf_score`.
        **options: `jit_compile` and `backward`, see `crf_log_norm`.

    Returns:
        `[B]`, in float32 or float64; 0 for a row without a real step.

    Raises:
        ValueError: for shapes that do not go together.

    Example:

    >>> import numpy as np
    >>> from keras_rnnx.heads import crf_log_likelihood
    >>> tags, zeros = np.array([[1, 0, 1]]), np.zeros((1, 3, 2))
    >>> np.exp(crf_log_likelihood(tags, zeros, np.zeros((2, 2)))).round(4)  # one of 8
    array([0.125])
    """
    mask = real_steps(tags, mask)
    score = crf_score(tags, potentials, transitions, mask, start, end)
    return score - crf_log_norm(potentials, transitions, mask, start, end, **options)


def crf_marginals(
    potentials: Tensor,
    transitions: Tensor,
    mask: Tensor | None = None,
    start: Tensor | None = None,
    end: Tensor | None = None,
    **options: Any,
) -> Tensor:
    """The probability of each tag at each step: the forward-backward algorithm.

    The gradient of `crf_log_norm` for the potentials is just this.

    Args:
        potentials, transitions, mask, start, end: see `crf_score`.
        **options: `jit_compile` and `backward`, see `crf_log_norm`. To train through marginals,
            `backward="autodiff"`: their gradient is a second derivative.

    Returns:
        `[B, T, K]`, in float32 or float64; of each real step they add up to 1, of others all are 0.

    Raises:
        ValueError: for shapes that do not go together.

    Example:

    >>> import numpy as np
    >>> from keras_rnnx.heads import crf_marginals
    >>> crf_marginals(np.log([[[1.0, 3.0]]]), np.zeros((2, 2))).numpy().round(2)
    array([[[0.25, 0.75]]])
    """
    potentials = wide(potentials)
    with tf.GradientTape() as tape:
        tape.watch(potentials)
        log_norm = crf_log_norm(potentials, transitions, mask, start, end, **options)
    return tape.gradient(log_norm, potentials)


def crf_decode(
    potentials: Tensor,
    transitions: Tensor,
    mask: Tensor | None = None,
    start: Tensor | None = None,
    end: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The tag sequence of the largest score: the algorithm of Viterbi.

        d[t, j] = x[t, j] + max_i (d[t-1, i] + transitions[i, j])

    Viterbi, "Error Bounds for Convolutional Codes and an Asymptotically Optimum Decoding
    Algorithm", IEEE Transactions on Information Theory 13 (1967). Potentials and transitions of
    -1e30 are never taken where there is another way: `tf.where(allowed, potentials, -1e30)` decodes
    with a set of tags for each step. Stock TensorFlow operations, without a gradient.

    Args:
        potentials, transitions, mask, start, end: see `crf_score`.

    Returns:
        `(tags, score)`: int32 `[B, T]`, -1 where a step is not real, and their scores `[B]`. Among
        sequences of one score, the smaller tags are preferred from the end on.

    Raises:
        ValueError: for shapes that do not go together.

    Example:

    >>> import numpy as np
    >>> from keras_rnnx.heads import crf_decode
    >>> x, stay = np.array([[[3.0, 0.0], [0.0, 1.0], [2.0, 0.0]]]), np.array([[0.0, -2], [-2, 0]])
    >>> tags, score = crf_decode(x, stay)
    >>> tags.numpy(), score.numpy()
    (array([[0, 0, 0]], dtype=int32), array([5.]))
    """
    chain = Chain(potentials, transitions, mask, start, end)
    stock = plan(jit_compile=False)
    before, last = chain.run(_viterbi, stock)
    score = last + chain.end
    # From the last step back to the first: the tag before each is where its maximum came from.
    at_last = tf.cast(tf.argmax(score, axis=1)[:, None], score.dtype)
    tags, _ = engine.run(
        _back,
        before[::-1],
        {"into": tf.transpose(chain.transitions)},
        (at_last,),
        plan=stock,
        mask=engine.swap_time_and_batch(chain.mask)[::-1],
    )
    tags = engine.swap_time_and_batch(tf.cast(tags[::-1, :, 0], tf.int32))
    tags = tf.where(chain.mask, tags, NO_TAG)[:, : chain.steps]
    return tags, tf.where(chain.any, tf.reduce_max(score, axis=1), 0)


def _forward(weights, product, x, states, constants):
    (a,) = states
    paths = a[:, :, None] + weights["transitions"]
    most = tf.stop_gradient(tf.reduce_max(paths, axis=1))
    a = x + most + tf.math.log(tf.reduce_sum(tf.exp(paths - most[:, None]), axis=1))
    return a, (a,)


def _viterbi(weights, product, x, states, constants):
    """Its output is d before the step, which the way back asks for."""
    (d,) = states
    return d, (x + tf.reduce_max(d[:, :, None] + weights["transitions"], axis=1),)


def _back(weights, product, before, states, constants):
    """The state is the tag of the step, `[B, 1]`, as a number of the dtype of the scores."""
    (tag,) = states
    into = tf.gather(weights["into"], tf.cast(tag[:, 0], tf.int32))
    return tag, (tf.cast(tf.argmax(before + into, axis=1)[:, None], tag.dtype),)

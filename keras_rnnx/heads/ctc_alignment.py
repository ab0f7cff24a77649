"""Forced alignment: where in time the labels of a sequence are."""

from typing import NamedTuple

import tensorflow as tf

from keras_rnnx import engine
from keras_rnnx.annotations import Tensor
from keras_rnnx.heads.ctc_inputs import blank_of
from keras_rnnx.heads.ctc_inputs import real_labels
from keras_rnnx.heads.ctc_inputs import real_steps
from keras_rnnx.heads.ctc_lattice import NEVER
from keras_rnnx.heads.ctc_lattice import Lattice
from keras_rnnx.heads.ctc_lattice import best_step


class Alignment(NamedTuple):
    """The best path of each sequence that spells its labels.

    Attributes:
        ids: `[B, T]` int32, the symbol of each step, a label or the blank; -1 where the mask is
            off, and in rows that no path spells.
        places: `[B, T]` int32, which of the real labels of the row the step belongs to, from 0; -1
            at blanks and where `ids` is -1.
        scores: `[B]`, the log-probability of the path; -inf where no path spells the labels.

    Example:

    >>> import numpy as np
    >>> from keras_rnnx.heads import forced_align
    >>> found = forced_align(np.array([[1]]), np.array([[[0.0, 9.0], [9.0, 0.0], [9.0, 0.0]]]))
    >>> found.places.numpy().tolist()  # the only label is at the first step
    [[0, -1, -1]]
    """

    ids: Tensor
    places: Tensor
    scores: Tensor


def forced_align(
    labels: Tensor,
    logits: Tensor,
    mask: Tensor | None = None,
    sequence_length: Tensor | None = None,
    label_length: Tensor | None = None,
    blank: int = 0,
) -> Alignment:
    """The most probable path of each sequence among those that spell its labels.

    The recurrence of `ctc_loss` with a maximum in place of the sum (Viterbi, IEEE Transactions on
    Information Theory 13, 1967), and back along the ways that it took.

    Args:
        labels, logits, mask, sequence_length, label_length, blank: as those of `ctc_loss`.

    Returns:
        An `Alignment`. Among equally good paths the one that comes to each state latest.

    Masks: masked steps are left out; what they hold, NaN included, changes nothing. A row without
    a real step has a score of 0 if it has no labels, else of -inf.

    Not differentiable; stock operations only.

    Raises:
        ValueError: as `ctc_loss`.

    Example:

    >>> import numpy as np
    >>> from keras_rnnx.heads import forced_align
    >>> logits = np.log([[[0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.2, 0.6, 0.2], [0.1, 0.2, 0.7]]])
    >>> found = forced_align(np.array([[1, 2]]), logits)
    >>> found.ids.numpy().tolist(), found.places.numpy().tolist()
    ([[0, 1, 1, 2]], [[-1, 0, 0, 1]])
    """
    logits, real = real_steps("forced_align", logits, mask, sequence_length)
    blank = blank_of("forced_align", blank, logits.shape[2])
    labels, count = real_labels("forced_align", labels, logits, label_length, blank)
    log_p = tf.stop_gradient(tf.nn.log_softmax(logits))
    lattice = Lattice.of(labels, count, log_p, real, blank)
    plan = engine.Plan("plain", False, ())
    ways, (scores,) = lattice.run(best_step, plan, zero_masked=True)
    ends = tf.where(lattice.ends(), scores, scores.dtype.min)
    states = _back(ways[: tf.shape(lattice.emissions)[0]], lattice, plan, tf.argmax(ends, axis=1))
    scores = tf.reduce_max(ends, axis=1)
    spelled = scores > NEVER / 2
    known = spelled[:, None]
    known &= tf.ones(tf.shape(states), tf.bool) if real is None else real
    ids = tf.gather(lattice.symbols, states, axis=1, batch_dims=1)
    places = tf.where(states % 2 == 1, states // 2, -1)
    scores = tf.where(spelled, scores, -float("inf"))
    return Alignment(tf.where(known, ids, -1), tf.where(known, places, -1), scores)


def _back(ways, lattice, plan, last):
    """`[B, T]` states of the paths that end in the states `last [B]`, by the ways they came."""
    backward = lambda a: None if a is None else tf.reverse(a, [0])
    states, _ = engine.run(
        _step_back,
        backward(ways),
        {},
        (tf.cast(last, tf.int32),),
        plan=plan,
        mask=backward(lattice.real),
    )
    return tf.transpose(backward(states))


def _step_back(weights, product, ways, states, constants):
    """The state of this step, and that of the step before it."""
    (state,) = states
    return state, (state - tf.gather(ways, state, axis=1, batch_dims=1),)

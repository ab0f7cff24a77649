"""Attention of a decoder in NumPy float64, written from the equations of the papers.

Axes: B batch, T steps of the decoder, S positions of the memory, D input features, Q query,
M memory, K units of the score, A attention vector.

An attention is a score and a rule that makes alignments of scores:
    attention = Attention(bahdanau(wq, wm, v))
    state = attention.start(B, S)
    context, alignments, state = attention.step(query [B, Q], memory [B, S, M], mask [B, S], state)
`run` decodes a whole sequence with it. A mask of None means that every position is real. What is
masked out is never read: it counts as zeros, even where it holds NaN.
"Peer" says what a library does otherwise: TFA is TensorFlow Addons.
"""

from typing import NamedTuple

import numpy as np
from oracles import sigmoid


class State(NamedTuple):
    """What a step leaves for the next one."""

    previous: np.ndarray  # [B, S], alignments of the step before
    total: np.ndarray  # [B, S], sum of the alignments of all steps so far
    step: int  # number of steps so far


class Decoded(NamedTuple):
    """What `run` gives. vector and attention_states are those after the last step."""

    outputs: np.ndarray  # [B, T, U], of the cell
    vectors: np.ndarray  # [B, T, A], attention vectors
    contexts: np.ndarray  # [B, T, sum of M]
    alignments: list  # one [B, T, S] for each attention
    states: tuple  # of the cell
    vector: np.ndarray  # [B, A]
    attention_states: list


def float64(*arrays):
    return [np.asarray(a, "float64") for a in arrays]


# Scores: score(query [B, Q], memory [B, S, M], state) -> [B, S].


def luong_dot(scale=1.0):
    """Luong et al. 2015, dot: q . m, so Q = M. Scaled, as in TFA: g (q . m) with a scalar g."""
    return lambda query, memory, state: (
        scale * np.array([[q @ m for m in row] for q, row in zip(query, memory)])
    )


def luong_general(w, scale=1.0):
    """Luong et al. 2015, general: q . (m W), W [M, Q]."""
    (w,) = float64(w)
    return lambda query, memory, state: (
        scale * np.array([[q @ (m @ w) for m in row] for q, row in zip(query, memory)])
    )


def additive(query, memory, wq, wm, v, extra):
    """v . tanh(q Wq + m Wm + extra), where extra is anything that fits [B, S, K]."""
    extra = np.broadcast_to(extra, (*memory.shape[:2], len(v)))
    scores = np.zeros(memory.shape[:2])
    for b in range(memory.shape[0]):
        for s in range(memory.shape[1]):
            scores[b, s] = v @ np.tanh(query[b] @ wq + memory[b, s] @ wm + extra[b, s])
    return scores


def luong_concat(wq, wm, v, scale=1.0):
    """Luong et al. 2015, concat: v . tanh([q, m] W), where Wq [Q, K] are the upper rows of W."""
    wq, wm, v = float64(wq, wm, v)
    return lambda query, memory, state: scale * additive(query, memory, wq, wm, v, 0)


def bahdanau(wq, wm, v, g=None, b=0.0):
    """Bahdanau et al. 2015: v . tanh(q Wq + m Wm), Wq [Q, K], Wm [M, K], v [K], no bias.

    With g (a scalar) and b [K]: g v/|v| . tanh(q Wq + m Wm + b), the weight norm of Salimans and
    Kingma 2016, as Raffel et al. 2017 and TFA's normalize=True have it.
    """
    wq, wm, v, b = float64(wq, wm, v, b)
    if g is not None:
        v = g * v / np.sqrt(np.sum(v**2))
    return lambda query, memory, state: additive(query, memory, wq, wm, v, b)


def convolve(sequences, kernel):
    """Keras' Conv1D of [B, S] with kernel [width, 1, filters], padding "same": [B, S, filters].

    A cross-correlation: the kernel is not turned around. Of the width - 1 zeros of the padding
    the left side gets the smaller half, so an even kernel looks one position further ahead.
    """
    width, _, filters = kernel.shape
    left = (width - 1) // 2
    length = sequences.shape[1]
    features = np.zeros((*sequences.shape, filters))
    for s in range(length):
        for k in range(width):
            at = s - left + k
            if 0 <= at < length:
                features[:, s] += sequences[:, at, None] * kernel[k, 0]
    return features


def location(wq, wm, v, kernel, u, b=0.0, cumulative=False, wc=0.0):
    """Chorowski et al. 2015: v . tanh(q Wq + m Wm + f U + b), f = F * previous alignments.

    kernel [width, 1, filters], U [filters, K]. At the first step those alignments are `start`'s.
    cumulative=True convolves the sum of all alignments so far, as Shen et al. 2018 (Tacotron 2) do.
    With wc [K] there is the term of `coverage` too.
    """
    wq, wm, v, kernel, u, b, wc = float64(wq, wm, v, kernel, u, b, wc)

    def score(query, memory, state):
        features = convolve(state.total if cumulative else state.previous, kernel)
        return additive(query, memory, wq, wm, v, features @ u + state.total[:, :, None] * wc + b)

    return score


def coverage(wq, wm, v, wc, b=0.0):
    """See et al. 2017, eq. 11: v . tanh(q Wq + m Wm + c wc + b), c [B, S] the sum of alignments.

    wc [K]. c is of the steps before this one, so 0 at the first step.
    """
    wq, wm, v, wc, b = float64(wq, wm, v, wc, b)

    def score(query, memory, state):
        return additive(query, memory, wq, wm, v, state.total[:, :, None] * wc + b)

    return score


def coverage_loss(alignments):
    """See et al. 2017, eq. 12: sum_s min(a, c) for alignments [B, T, S], a loss a step: [B, T].

    c is the sum of the alignments of the steps before, so the first step has the loss 0.
    """
    loss = np.zeros(alignments.shape[:2])
    total = np.zeros(alignments[:, 0].shape)
    for t in range(alignments.shape[1]):
        loss[:, t] = np.minimum(alignments[:, t], total).sum(axis=1)
        total = total + alignments[:, t]
    return loss


# From scores [B, S] to alignments [B, S].


def softmax(scores, mask):
    """Softmax over the real positions, 0 elsewhere. A row without a real position is all 0.

    Peer: TFA puts the smallest float in the place of a masked score, so such a row is uniform.
    """
    alignments = np.zeros(scores.shape)
    for b, real in enumerate(mask):
        if real.any():
            e = np.exp(scores[b, real] - scores[b, real].max())
            alignments[b, real] = e / e.sum()
    return alignments


def hardmax(scores, mask):
    """1 at the real position of the greatest score, the first of equals; else as `softmax`."""
    alignments = np.zeros(scores.shape)
    for b, real in enumerate(mask):
        if real.any():
            positions = np.flatnonzero(real)
            alignments[b, positions[np.argmax(scores[b, positions])]] = 1
    return alignments


def monotonic_recursive(p, previous):
    """Raffel et al. 2017: the probability that a position is chosen, by its exact recurrence.

    q_j is the probability that position j is looked at: it was attended by the step before, or
    position j - 1 was looked at and not chosen. What the sum lacks to 1: nothing is chosen.
    """
    alignments = np.zeros(p.shape)
    q, p_before = np.zeros(len(p)), np.zeros(len(p))
    for j in range(p.shape[1]):
        q = (1 - p_before) * q + previous[:, j]
        alignments[:, j] = p[:, j] * q
        p_before = p[:, j]
    return alignments


def monotonic_parallel(p, previous):
    """The same in closed form: p r cumsum(previous / r), r_j = prod of 1 - p_i over i < j.

    Under the fraction r is clipped to 1e-10, as in TFA: where r is below that, because p was near 1
    at many positions or 1 at one, alignments come out too small.
    """
    r = np.cumprod(np.concatenate([np.ones((len(p), 1)), 1 - p[:, :-1]], axis=1), axis=1)
    return p * r * np.cumsum(previous / np.clip(r, 1e-10, 1), axis=1)


def monotonic_hard(p, previous):
    """Test time: the first position with p > 0.5 at or after the one attended by the step before.

    Nothing chosen: all 0, and from then on nothing is ever chosen, as in the soft modes, where all
    mass is gone. `previous` has to be one-hot or all 0: of anything else the paper says nothing.

    Peer: TFA has c = (p > 0.5) cumsum(previous), then c cumprod_exclusive(1 - c): the same here.
    """
    alignments = np.zeros(p.shape)
    for b in range(len(p)):
        attended = np.flatnonzero(previous[b])
        assert len(attended) == 0 or (len(attended) == 1 and previous[b, attended[0]] == 1)
        for j in range(attended[0], p.shape[1]) if len(attended) else ():
            if p[b, j] > 0.5:
                alignments[b, j] = 1
                break
    return alignments


class Attention:
    """A score, and `softmax` or `hardmax`. No alignments before the first step: all 0."""

    def __init__(self, score, normalise=softmax):
        self.score, self.normalise = score, normalise

    def start(self, batch, length):
        return State(np.zeros((batch, length)), np.zeros((batch, length)), 0)

    def align(self, scores, mask, state):
        return self.normalise(scores, mask)

    def step(self, query, memory, mask, state):
        query, memory = float64(query, memory)
        mask = np.ones(memory.shape[:2], bool) if mask is None else np.asarray(mask, bool)
        memory = np.where(mask[:, :, None], memory, 0)
        alignments = self.align(self.score(query, memory, state), mask, state)
        context = np.zeros((memory.shape[0], memory.shape[2]))
        for s in range(memory.shape[1]):
            context += alignments[:, s, None] * memory[:, s]
        return context, alignments, State(alignments, state.total + alignments, state.step + 1)


class Monotonic(Attention):
    """Raffel et al. 2017: p = sigmoid(score + score_bias + noise), 0 where masked.

    Before the first step the alignments are one-hot at position 0, masked or not. They do not count
    into the sum of all alignments. mode is one of the three functions above. noise [T, B, S] has
    the noise of each step, already scaled.
    """

    def __init__(self, score, mode=monotonic_recursive, score_bias=0.0, noise=None):
        self.score, self.mode, self.score_bias, self.noise = score, mode, score_bias, noise

    def start(self, batch, length):
        state = super().start(batch, length)
        state.previous[:, 0] = 1
        return state

    def align(self, scores, mask, state):
        noise = 0 if self.noise is None else self.noise[state.step]
        p = np.where(mask, sigmoid(scores + self.score_bias + noise), 0)
        return self.mode(p, state.previous)


# The decoder.


def run(
    cell, attentions, memories, masks, xs, states, order, wa=None, activation=np.tanh, after=None
):
    """Decode xs [B, T, D] with cell(x, states) -> (output, states): see `Decoded`.

    The lists `attentions`, `memories` and `masks` belong together; every attention has the same
    query, and their contexts are put side by side.

    order "output": output = cell(x), the query is that output.
    order "input_feeding" (Luong et al. 2015, sec. 3.3; TFA's AttentionWrapper): the cell reads
    [x, attention vector of the step before], zeros at the first step; the query is its output.
    order "bahdanau" (Bahdanau et al. 2015): the query is states[0] of the step before, the cell
    reads [x, context of this step].

    The attention vector is activation([output, contexts] Wa), or the contexts without Wa.
    `after` goes on where another `run` stopped; `states` are then its states.
    """
    xs, *states = float64(xs, *states)
    wa = None if wa is None else np.asarray(wa, "float64")
    if after is None:
        pairs = zip(attentions, memories, strict=True)
        attention_states = [attention.start(len(xs), m.shape[1]) for attention, m in pairs]
        size = sum(m.shape[2] for m in memories) if wa is None else wa.shape[1]
        vector = np.zeros((len(xs), size))
    else:
        attention_states, vector = after.attention_states, after.vector

    def attend(query):
        each = zip(attentions, memories, masks, attention_states, strict=True)
        steps = [attention.step(query, *others) for attention, *others in each]
        contexts, alignments, new = zip(*steps)
        return np.concatenate(contexts, axis=1), alignments, list(new)

    history = []
    for t in range(xs.shape[1]):
        x = xs[:, t]
        if order == "bahdanau":
            context, alignments, attention_states = attend(states[0])
            output, states = cell(np.concatenate([x, context], axis=1), tuple(states))
        else:
            if order == "input_feeding":
                x = np.concatenate([x, vector], axis=1)
            else:
                assert order == "output", order
            output, states = cell(x, tuple(states))
            context, alignments, attention_states = attend(output)
        vector = context
        if wa is not None:
            vector = activation(np.concatenate([output, context], axis=1) @ wa)
        history.append((output, vector, context, *alignments))
    outputs, vectors, contexts, *alignments = (np.stack(h, axis=1) for h in zip(*history))
    return Decoded(outputs, vectors, contexts, alignments, tuple(states), vector, attention_states)

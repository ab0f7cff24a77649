"""Decoding with any step function: beam search in one loop of the graph.

Axes: B batch, K hypotheses of a sample, N = B * K rows of a step, V tokens, T longest length,
S memory positions.
"""

import math
from typing import Any
from typing import NamedTuple

import tensorflow as tf

from keras_rnnx.annotations import Tensor
from keras_rnnx.seq2seq import in_graph
from keras_rnnx.seq2seq.in_graph import Step
from keras_rnnx.seq2seq.rules import Rules
from keras_rnnx.seq2seq.rules import TokenRules
from keras_rnnx.seq2seq.rules import as_prefix


class Decoded(NamedTuple):
    """What decoding gives: for each sample its hypotheses, the best first.

    Attributes:
        ids: `[B, K, T]`, filled with the end token after the end.
        lengths: `[B, K]`, how many tokens come before the end token; the longest length where none
            came.
        scores: `[B, K]` float32; -inf where there are fewer hypotheses than asked for.
        alignments: `[B, K, T, S]`, or a list of those, or None if the step gives none.

    Example:

    >>> from keras_rnnx.seq2seq import Decoded
    >>> Decoded(ids=None, lengths=None, scores=None, alignments=None)._fields
    ('ids', 'lengths', 'scores', 'alignments')
    """

    ids: Tensor
    lengths: Tensor
    scores: Tensor
    alignments: Any

    def named(self) -> dict[str, Tensor]:
        """As a dict, without alignments where there are none or several."""
        return {name: a for name, a in self._asdict().items() if tf.is_tensor(a)}


def beam_search(
    step: Step,
    state: Any,
    constants: Any = (),
    *,
    start: int | Tensor,
    end: int,
    beam_width: int | Tensor = 4,
    max_length: int | Tensor = 50,
    length_penalty: float | Tensor = 0.0,
    coverage_penalty: float | Tensor = 0.0,
    min_length: int = 0,
    no_repeat_ngram: int = 0,
    prefix: Tensor | None = None,
    constraint: TokenRules = None,
    memory_mask: Tensor | None = None,
    jit_compile: bool = False,
) -> Decoded:
    """The most probable sequences of a model that is asked for one token after the other.

    Each step keeps the `beam_width` best hypotheses that go on; of those that end, the ones among
    the `beam_width` best of all candidates, until as many have ended. The score of a hypothesis is

        log p / ((5 + length) / 6) ** length_penalty
            + coverage_penalty * sum_s log(min(sum_t a[t, s], 1))

    with the end token in the length, a the alignments (the first ones of several), and s over the
    real positions of the memory (a sum counts as 1e-10 at least). Wu et al., "Google's Neural
    Machine Translation System", arXiv:1609.08144 (2016), eq. 14.

    It stops when no hypothesis that goes on can have a better score than the worst that has ended,
    in any length that is left, so that stopping changes no result. At the longest length those that
    have not ended compete as they are. Without length penalty a `beam_width` of 1 is greedy search.

    Args:
        step: function `(ids [N], state, constants) -> (logits [N, V], state)`, or with alignments
            `[N, S]` as a third result, or a list of those. Called eagerly, the search is compiled
            as one graph for each step function, so pass the same object again.
        state: tree of `[B, ...]`, before the first step.
        constants: tree of `[B, ...]`, what each step gets of its sample, such as the memory.
        start: the token before the first, an id or `[B]` ids.
        end: id of the token that ends a sequence.
        beam_width: K, an int or a scalar tensor; or a tensor `[B]`, of each sample its own, and
            then K is the largest.
        max_length: T, the longest length, the end token included; in the same ways.
        length_penalty: number, in the same ways.
        coverage_penalty: 0 or more, a number or a scalar tensor; needs alignments.
        min_length: how many tokens come before the end token at least.
        no_repeat_ngram: n; no n tokens in a row come twice. 0 allows it.
        prefix: `[B, P]` ids that every hypothesis begins with; -1 forces nothing, so that rows may
            have shorter ones.
        constraint: object that lowers the scores of next tokens, see `BannedTokens`; or a list.
        memory_mask: `[B, S]` booleans for the coverage penalty, or None.
        jit_compile: compile the search with XLA, where it is called eagerly: several times as fast,
            and compiled anew, for seconds, for each shape and each beam_width and max_length, which
            then are ints. For many batches of one shape.

    Returns:
        A `Decoded`. T is the longest length that occurs in it.

    Raises:
        ValueError: for a beam width or a longest length below 1, a start or end outside the
            vocabulary, or a coverage penalty below 0 or without alignments.

    Example:

    >>> from keras_rnnx.seq2seq import beam_search
    >>> import tensorflow as tf
    >>> bigrams = tf.math.log([[0.1, 0.6, 0.3], [0.5, 0.1, 0.4], [1.0, 1.0, 1.0]])
    >>> step = lambda ids, state, constants: (tf.gather(bigrams, ids), state)
    >>> found = beam_search(step, tf.zeros([1, 1]), start=0, end=2, beam_width=2, max_length=4)
    >>> found.ids[0].numpy().tolist(), found.lengths[0].numpy().tolist()
    ([[2, 2], [1, 2]], [0, 1])
    """
    in_graph.check_count("beam_width", beam_width)
    in_graph.check_count("max_length", max_length)
    rules = Rules.of(end, min_length, no_repeat_ngram, constraint)
    inputs = {
        "state": state,
        "constants": constants,
        "start": tf.cast(start, tf.int32),
        "width": in_graph.number("beam_width", beam_width, jit_compile, by_sample=True),
        "longest": in_graph.number("max_length", max_length, jit_compile, by_sample=True),
        "length_penalty": tf.cast(length_penalty, tf.float32),
        "prefix": as_prefix(prefix),
        "memory_mask": memory_mask,
    }
    covers = tf.is_tensor(coverage_penalty) or coverage_penalty != 0
    if covers:
        if not tf.is_tensor(coverage_penalty) and coverage_penalty < 0:
            raise ValueError(f"coverage_penalty is {coverage_penalty}, expected 0 or more.")
        weight = tf.cast(coverage_penalty, tf.float32)
        message = "coverage_penalty is below 0, expected 0 or more."
        inputs["coverage_penalty"] = in_graph.required(weight, weight >= 0, message)
    return in_graph.shortened(in_graph.call(_search, step, rules, inputs, jit_compile))


class _Hypotheses(NamedTuple):
    """Rows of hypotheses `[B, K, ...]`, alive or ended."""

    ids: Any  # [B, K, T]
    scores: Any  # [B, K]: log p while alive, the final score when ended
    lengths: Any  # [B, K]
    path: Any  # [B, K, T]: in which row of the beam each step's alignments are
    cover: Any  # [B, K, S]: sum of the alignments, or [B, K, 0]

    def take(self, index):
        """Those at `index [B, K']`."""
        return _Hypotheses(*(tf.gather(a, index, axis=1, batch_dims=1) for a in self))

    def joined(self, other):
        return _Hypotheses(*(tf.concat(pair, axis=1) for pair in zip(self, other)))

    def best(self, count):
        _, index = tf.math.top_k(self.scores, count)
        return self.take(index)

    def where(self, condition, other):
        """These where `condition [B]`, else others."""
        wide = lambda a: tf.reshape(condition, [-1] + (a.shape.rank - 1) * [1])
        return _Hypotheses(*(tf.where(wide(a), a, b) for a, b in zip(self, other)))


def _search(step, rules, inputs):
    """The search as a graph: the fields of `Decoded`."""
    return _Search(step, rules, inputs).run()


class _Search:
    """One beam search: what is the same for all its steps, and the loop."""

    def __init__(self, step, rules, inputs):
        self.step, self.rules = step, rules
        self.K, self.widths = in_graph.largest(inputs["width"])
        self.T, self.longests = in_graph.largest(inputs["longest"])
        self.prefix, self.mask = inputs["prefix"], inputs["memory_mask"]
        self.length_weight = inputs["length_penalty"]
        self.cover_weight = inputs.get("coverage_penalty")
        state, constants = inputs["state"], inputs["constants"]
        self.B = in_graph.batch_of(state, constants, inputs["start"])
        self.start = tf.broadcast_to(inputs["start"], [self.B])
        # One step by itself shows the sizes of what it gives.
        shown, _, self.shown = in_graph.one_step(step, self.start, state, constants)
        self.V = shown.shape[-1]
        self.start = in_graph.check_tokens(self.V, self.start, rules.end)
        if self.cover_weight is not None and not self.shown:
            raise ValueError(
                "coverage_penalty was given to a search whose step gives no alignments: leave it "
                "out, or let the step give them as a third result."
            )
        self.stores = in_graph.Stores(self.shown, self.B * self.K, self.T)
        # Penalties by length, and the largest of those that are to come.
        lengths = tf.cast(tf.range(self.T + 1), tf.float32)
        self.penalties = ((5.0 + lengths) / 6.0) ** self.length_weight[..., None]
        self.largest = tf.maximum(self.penalties, self.penalties[..., -1:])
        repeated = lambda a: in_graph.rows_repeated(a, self.K)
        self.constants = tf.nest.map_structure(repeated, constants)
        self.state = tf.nest.map_structure(repeated, state)

    def run(self):
        B, K, T = self.B, self.K, self.T
        covers = self.cover_weight is not None
        none = tf.fill([B, K], -math.inf)
        empty = _Hypotheses(
            ids=tf.fill([B, K, T], self.rules.end),
            scores=none,
            lengths=tf.zeros([B, K], tf.int32),
            path=tf.zeros([B, K, T if self.shown else 0], tf.int32),
            cover=tf.zeros([B, K, tf.shape(self.shown[0])[-1] if covers else 0]),
        )
        # At first there is one hypothesis, in the first row; the other rows would only repeat it.
        alive = empty._replace(scores=tf.where(tf.range(K) == 0, 0.0, none))
        loop = (tf.constant(0), alive, empty, in_graph.rows_repeated(self.start, K))
        loop = (*loop, tf.zeros([B], tf.bool), self.stores.start())
        carry = (loop, self.state)
        (_, alive, ended, _, done, stores), _ = tf.while_loop(
            lambda loop, state: (loop[0] < T) & ~tf.reduce_all(loop[4]),
            self.body,
            carry,
            shape_invariants=in_graph.invariants(carry),
        )
        # Those that have not ended compete as they are, in the rows that were not done.
        scores = self.final_scores(alive.scores, alive.cover, T)
        alive = alive._replace(
            scores=tf.where(done[:, None], -math.inf, scores), lengths=tf.fill([B, K], T)
        )
        best = self.within_widths(ended.joined(alive).best(K))
        return self.result(best, self.stores.stack(stores))

    def body(self, loop, state):
        t, alive, ended, last, done, stores = loop
        B, K, V = self.B, self.K, self.V
        scores, new, alignments = in_graph.one_step(self.step, last, state, self.constants)
        scores = tf.reshape(scores, [B, K, V])
        stores = self.stores.write(stores, t, alignments)
        cover = alive.cover
        if self.cover_weight is not None:
            cover += tf.reshape(tf.cast(alignments[0], tf.float32), tf.shape(cover))
        scores = self.rules(scores, alive.ids, t, self.prefix)

        # The candidates, the best first: twice as many as go on, since half of them may end.
        totals = tf.reshape(alive.scores[..., None] + scores, [B, K * V])
        totals, index = tf.math.top_k(totals, 2 * K)
        parents, tokens = index // V, index % V
        now = tf.range(self.T) == t
        candidates = alive._replace(cover=cover).take(parents)
        candidates = candidates._replace(
            ids=tf.where(now, tokens[..., None], candidates.ids),
            path=tf.where(now, parents[..., None], candidates.path)
            if self.shown
            else candidates.path,
            scores=totals,
        )
        ends = tokens == self.rules.end
        finals = self.final_scores(totals, candidates.cover, t + 1)
        counts = ends & (tf.range(2 * K) < (K if self.widths is None else self.widths[:, None]))
        finals = tf.where(counts, finals, -math.inf)
        finished = candidates._replace(scores=finals, lengths=tf.fill([B, 2 * K], t))
        ended = ended.where(done, self.within_widths(ended.joined(finished).best(K)))

        _, index = tf.math.top_k(tf.where(ends, -math.inf, totals), K)
        alive = candidates._replace(scores=tf.where(ends, -math.inf, totals)).take(index)
        alive = self.within_widths(alive)
        parents = tf.gather(parents, index, axis=1, batch_dims=1)
        last = tf.reshape(tf.gather(tokens, index, axis=1, batch_dims=1), [-1])
        new = tf.nest.map_structure(lambda a: in_graph.rows_taken(a, parents), new)
        done |= self.cannot_improve(alive.scores[:, 0], self.worst(ended), t + 1)
        if self.longests is not None:
            ended, done = self.at_longest(alive, ended, done, t + 1)
        return (t + 1, alive, ended, last, done, stores), in_graph.as_shaped(new, state)

    def within_widths(self, hypotheses):
        """Of each sample as many as it may have."""
        if self.widths is None:
            return hypotheses
        kept = tf.range(self.K) < self.widths[:, None]
        return hypotheses._replace(scores=tf.where(kept, hypotheses.scores, -math.inf))

    def worst(self, ended):
        if self.widths is None:
            return ended.scores[:, -1]
        return tf.gather(ended.scores, self.widths - 1, axis=1, batch_dims=1)

    def at_longest(self, alive, ended, done, length):
        """Samples whose own longest length this is: what has not ended competes as it is."""
        over = (self.longests == length) & ~done
        scores = self.final_scores(alive.scores, alive.cover, length)
        left = alive._replace(
            scores=tf.where(over[:, None], scores, -math.inf),
            lengths=tf.fill([self.B, self.K], length),
        )
        return self.within_widths(ended.joined(left).best(self.K)), done | over

    def final_scores(self, log_p, cover, length):
        """The scores of hypotheses of this length, the end token included."""
        scores = log_p / tf.gather(self.penalties, length, axis=-1)[..., None]
        if self.cover_weight is None:
            return scores
        logs = tf.math.log(tf.clip_by_value(cover, 1e-10, 1.0))
        if self.mask is not None:
            logs = tf.where(self.mask[:, None], logs, 0.0)
        return scores + self.cover_weight * tf.reduce_sum(logs, axis=-1)

    def cannot_improve(self, best, worst, length):
        """Whether the best that goes on, of this length, can beat the worst that has ended.

        Log-probabilities only fall, and a negative one scores best under the largest penalty that
        is to come, at one end of the lengths that are left. The coverage adds nothing above 0.
        """
        longest = self.T if self.longests is None else self.longests
        following, each = tf.minimum(length + 1, longest), self.largest.shape.rank - 1
        if self.longests is None:
            largest = tf.gather(self.largest, following, axis=-1)
        else:
            largest = tf.gather(self.largest, following, axis=each, batch_dims=each)
        return (best / largest <= worst) | tf.math.is_inf(best)

    def result(self, best, stores):
        """The fields of `Decoded`, for all T steps."""
        exists = tf.math.is_finite(best.scores)
        lengths = tf.where(exists, best.lengths, 0)
        at = tf.range(self.T)
        ids = tf.where(at < lengths[..., None], best.ids, self.rules.end)
        real = (at <= lengths[..., None]) & exists[..., None]
        if self.longests is not None:
            real &= at < self.longests[:, None, None]
        path = tf.transpose(best.path, [0, 2, 1])  # [B, T, K]
        found = []
        for rows in stores:  # [T, N, S]
            rows = tf.reshape(rows, [self.T, self.B, self.K, tf.shape(rows)[-1]])
            rows = tf.gather(tf.transpose(rows, [1, 0, 2, 3]), path, axis=2, batch_dims=2)
            rows = tf.transpose(rows, [0, 2, 1, 3])  # [B, K, T, S]
            found.append(tf.where(real[..., None], rows, tf.zeros_like(rows)))
        return Decoded(ids, lengths, best.scores, in_graph.one_or_list(found))

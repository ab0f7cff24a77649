"""What a beam search must find, in plain Python, by trying every sequence of ids there is.

And what sampling must draw, and toy models to ask, whose every step depends on all ids before.

A model is a function log_probs(ids) -> [V], the log-probabilities of the next token after a tuple
of ids, () at the start: there is no start token in the ids. A hypothesis is the tuple of all its
ids, with the end token if it has one. Its length is the number of its ids, the end token included.
There are about V ** max_length hypotheses, so V and max_length have to be small.
"""

import dataclasses
import functools
import math

import numpy as np

V, S, END = 4, 5, 1  # of toys: vocabulary, positions of the memory, the end token
CODES = 97  # the ids before are the digits of a number, known modulo this: `Toy.code`


@dataclasses.dataclass(frozen=True)
class Toy:
    """A random model of one row. Of its vocabulary only the first `words` tokens ever come."""

    seed: int
    start: int = 2  # the token before the first
    words: int = V
    scale: float = 1.0
    hurry: float = 0.0  # how much is added to the logit of the end token
    real: int = S  # positions of the memory
    dtype: str = "float32"  # that the tables are rounded to

    mask = property(lambda self: np.arange(S) < self.real)

    @functools.cached_property
    def tables(self):
        """Logits `[CODES, V]` and attention `[CODES, S]`, some of which is just 0."""
        rng = np.random.default_rng(self.seed)
        logits = rng.normal(scale=self.scale, size=(CODES, V))
        logits[:, END] += self.hurry
        logits[:, self.words :] = -np.inf
        attention = rng.uniform(0, 0.7, (CODES, S)) * (rng.random((CODES, S)) > 0.4)
        return [table.astype(self.dtype).astype("float32") for table in (logits, attention)]

    def code(self, ids):
        return functools.reduce(lambda code, i: (code * 5 + i + 1) % CODES, (self.start, *ids), 0)

    def log_probs(self, ids):
        logits = self.tables[0][self.code(ids)].astype("float64")
        return logits - np.log(np.sum(np.exp(logits)))

    def attend(self, ids):
        return self.tables[1][self.code(ids)]


def every_hypothesis(log_probs, vocabulary, end, max_length):
    """All hypotheses as (ids, sum of log-probabilities): their probabilities add up to 1.

    Those that end, of at most max_length ids, and those of just max_length ids that do not end.
    Ordered by length, the ones that do not end last, and then by ids.
    """
    ended, alive = [], [((), 0.0)]
    for _ in range(max_length):
        longer = []
        for ids, total in alive:
            step = log_probs(ids)
            for token in range(vocabulary):
                hypothesis = (*ids, token), total + float(step[token])
                (ended if token == end else longer).append(hypothesis)
        alive = longer
    return ended + alive


def length_penalty(length, weight):
    """Wu et al. 2016, eq. 14: ((5 + length) / 6) ** weight, 1 for a weight of 0."""
    return ((5 + length) / 6) ** weight


def coverage_penalty(attention, mask=None):
    """Wu et al. 2016, eq. 14: sum over positions s of log(min(sum over t of a_ts, 1)).

    attention [T, S], a row for each id, the end token included. Only real positions of `mask` [S]
    count. It is 0 if all are covered. A sum counts as 1e-10 at least, where Wu et al. have -inf.

    Peer: TensorFlow Addons takes a sum of just 0 for padding, so it costs nothing.
    """
    penalty = 0.0
    for s in range(len(attention[0])):
        if mask is None or mask[s]:
            covered = sum(float(row[s]) for row in attention)
            penalty += math.log(min(max(covered, 1e-10), 1.0))
    return penalty


def final_score(
    log_prob, length, length_weight=0.0, coverage_weight=0.0, attention=None, mask=None
):
    """Wu et al. 2016, eq. 14: log P / length penalty + weight of the coverage * its penalty.

    Peer: TensorFlow Addons leaves the end token out of the length in the step in which it comes,
    and counts it from the next step on.
    """
    score = log_prob / length_penalty(length, length_weight)
    if coverage_weight:
        score += coverage_weight * coverage_penalty(attention, mask)
    return score


def permitted(ids, end, min_length=0, no_repeat_ngram=0, prefix=(), banned=()):
    """Whether every token of a hypothesis was allowed when it was chosen.

    `prefix` is forced: ids start with it, or are the start of it; -1 forces nothing. What is forced
    is exempt from the other rules, but its n-grams count as seen. Elsewhere
    - the end token is not one of the first min_length ids (the prefix counts among them), so there
      are at least min_length ids before it;
    - no n-gram of no_repeat_ngram ids comes twice, overlaps included; 0 is no such rule;
    - no token is in `banned`, a collection, or a function of the ids before it that gives one.
    """
    n = no_repeat_ngram
    for at, token in enumerate(ids):
        before = ids[:at]
        if at < len(prefix) and prefix[at] >= 0:
            if token != prefix[at]:
                return False
            continue
        if token == end and at < min_length:
            return False
        if token in (banned(before) if callable(banned) else banned):
            return False
        seen = [before[i : i + n] for i in range(len(before) - n + 1)]
        if n and at + 1 >= n and ids[at + 1 - n : at + 1] in seen:
            return False
    return True


def best(
    log_probs,
    vocabulary,
    end,
    max_length,
    k,
    length_weight=0.0,
    coverage_weight=0.0,
    attend=None,
    mask=None,
    **rules,
):
    """The k hypotheses of the best final score: (ids, log-probability, score), best first.

    attend(ids) -> [S] is the attention of the step that reads `ids` and chooses the next one, the
    first of its steps being attend(()). `rules` are those of `permitted`: they only take hypotheses
    away, the log-probabilities of the others stay as they are, that of a forced prefix included.
    A hypothesis of probability 0 is none. Equal scores stay in the order of `every_hypothesis`.
    """
    found = []
    for ids, total in every_hypothesis(log_probs, vocabulary, end, max_length):
        if total > -math.inf and permitted(ids, end, **rules):
            attention = [attend(ids[:t]) for t in range(len(ids))] if coverage_weight else None
            score = final_score(total, len(ids), length_weight, coverage_weight, attention, mask)
            found.append((ids, total, score))
    return sorted(found, key=lambda hypothesis: -hypothesis[2])[:k]


def python_beam_search(
    log_probs,
    vocabulary,
    end,
    width,
    max_length,
    length_weight=0.0,
    coverage_weight=0.0,
    attend=None,
    mask=None,
    **rules,
):
    """Beam search with a pool of ended hypotheses, as `best` gives them: at most `width`.

    A step makes all permitted continuations of the `width` hypotheses alive. Of the first `width`
    of them by log-probability those that end go to the pool; of all that do not end the first
    `width` stay alive (fewer if there are not as many). The final scores of the pool say which are
    the best. At max_length the ones alive compete with it as they are, without an end token.

    It never stops before max_length: that stopping early changes no result is for the test.

    Of equal candidates the one of the better hypothesis is first, then the one of the lower id. Of
    equal scores in the pool the older one is first.
    """

    def scored(hypotheses):
        for ids, p in hypotheses:
            attention = [attend(ids[:t]) for t in range(len(ids))] if coverage_weight else None
            score = final_score(p, len(ids), length_weight, coverage_weight, attention, mask)
            yield ids, p, score

    alive, pool = [((), 0.0)], []
    for _ in range(max_length):
        candidates = []
        for ids, total in alive:
            step = log_probs(ids)
            for token in range(vocabulary):
                candidate = (*ids, token), total + float(step[token])
                if candidate[1] > -math.inf and permitted(candidate[0], end, **rules):
                    candidates.append(candidate)
        candidates.sort(key=lambda candidate: -candidate[1])
        pool += [candidate for candidate in candidates[:width] if candidate[0][-1] == end]
        alive = [candidate for candidate in candidates if candidate[0][-1] != end][:width]
    return sorted(scored(pool + alive), key=lambda hypothesis: -hypothesis[2])[:width]


def drawn(log_probs, temperature=1.0, top_k=None, top_p=None):
    """The model log_probs(ids) that ids are drawn from, token after token.

    The probabilities with the temperature, of the top_k likeliest only (Fan et al. 2018), and of
    the fewest likeliest whose sum is top_p or more only (Holtzman et al. 2020): of these all, or
    just the likeliest if top_p is 0.
    """

    def changed(ids):
        tempered = [math.exp(float(p) / temperature) for p in log_probs(ids)]
        order = sorted(range(len(tempered)), key=lambda token: -tempered[token])
        kept, before = [], 0.0
        for token in order[:top_k]:
            if not kept or top_p is None or before < top_p:
                kept.append(token)
            before += tempered[token] / sum(tempered)
        whole = sum(tempered[token] for token in kept)
        chances = [p / whole if token in kept else 0.0 for token, p in enumerate(tempered)]
        return [math.log(p) if p else -math.inf for p in chances]

    return changed


def edit_distance(a, b):
    """Levenshtein 1966: the fewest insertions, deletions and substitutions that make b of a."""
    row = list(range(len(b) + 1))  # the distances of the empty beginning of a to those of b
    for i, token in enumerate(a, start=1):
        above, row = row, [i]
        for j, other in enumerate(b, start=1):
            row.append(min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (token != other)))
    return row[-1]

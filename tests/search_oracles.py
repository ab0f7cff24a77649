"""What a beam search must find, in plain Python, by trying every sequence of ids there is.

A model is a function log_probs(ids) -> [V], the log-probabilities of the next token after a tuple
of ids, () at the start: there is no start token in the ids. A hypothesis is the tuple of all its
ids, with the end token if it has one. Its length is the number of its ids, the end token included.
There are about V ** max_length hypotheses, so V and max_length have to be small.
"""

import math


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
    count. It is 0 if all are covered, and -inf if one has no attention at all.

    Peer: TensorFlow Addons takes a sum of just 0 for padding, so it costs nothing.
    """
    penalty = 0.0
    for s in range(len(attention[0])):
        if mask is None or mask[s]:
            covered = sum(float(row[s]) for row in attention)
            penalty += math.log(min(covered, 1.0)) if covered > 0 else -math.inf
    return penalty


def final_score(
    log_prob, length, length_weight=0.0, coverage_weight=0.0, attention=None, mask=None
):
    """Wu et al. 2016, eq. 14: log P / length penalty + weight of the coverage * its penalty.

    Peer: TensorFlow Addons leaves the end token out of the length in the step in which it comes,
    and counts it from the next step on.
    """
    score = log_prob / length_penalty(length, length_weight)
    if coverage_weight:  # a weight of 0 times a penalty of -inf must not be NaN
        score += coverage_weight * coverage_penalty(attention, mask)
    return score


def permitted(ids, end, min_length=0, no_repeat_ngram=0, prefix=(), banned=()):
    """Whether every token of a hypothesis was allowed when it was chosen.

    `prefix` is forced: ids start with it. What is forced is exempt from the other rules, but its
    n-grams count as seen. After it
    - the end token is not one of the first min_length ids (the prefix counts among them), so there
      are at least min_length ids before it;
    - no n-gram of no_repeat_ngram ids comes twice, overlaps included; 0 is no such rule;
    - no token is in `banned`, a collection, or a function of the ids before it that gives one.
    """
    if ids[: len(prefix)] != tuple(prefix):
        return False
    n = no_repeat_ngram
    for at in range(len(prefix), len(ids)):
        before, token = ids[:at], ids[at]
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


def python_beam_search(log_probs, vocabulary, end, width, max_length, length_weight=0.0):
    """Beam search with a pool of ended hypotheses: at most `width` of what `best` gives.

    A step makes all continuations of the `width` hypotheses alive, and takes the best 2 * width of
    them by log-probability. At most `width` of these end, as each hypothesis has one end, so
    `width` are left to go on with (fewer if there are not as many continuations). All of the
    2 * width that end go to the pool, not only those among the first `width`; the pool keeps its
    best `width` by score. Of the others the first `width` stay alive.

    The search stops when the pool is full and no hypothesis alive can get a score above the worst
    in it. Log-probabilities only fall, so the best that one can get is what it has now, under the
    kindest length penalty of the lengths it may yet reach. At max_length the ones alive compete
    with the pool as they are, without an end token.

    Of equal candidates the one of the better hypothesis is first, then the one of the lower id. Of
    equal scores in the pool the older one is first.
    """

    def rank(hypotheses):
        return sorted(hypotheses, key=lambda hypothesis: -hypothesis[2])[:width]

    def scored(hypotheses):
        return [(ids, p, final_score(p, len(ids), length_weight)) for ids, p in hypotheses]

    alive, pool = [((), 0.0)], []
    for length in range(1, max_length + 1):
        candidates = []
        for ids, total in alive:
            step = log_probs(ids)
            for token in range(vocabulary):
                candidates.append(((*ids, token), total + float(step[token])))
        candidates = [candidate for candidate in candidates if candidate[1] > -math.inf]
        candidates = sorted(candidates, key=lambda candidate: -candidate[1])[: 2 * width]
        ended = [candidate for candidate in candidates if candidate[0][-1] == end]
        alive = [candidate for candidate in candidates if candidate[0][-1] != end][:width]
        pool = rank(pool + scored(ended))
        if length == max_length:
            return rank(pool + scored(alive))
        lengths = range(length + 1, max_length + 1)
        hopes = [final_score(p, n, length_weight) for _, p in alive for n in lengths]
        if len(pool) == width and all(hope <= pool[-1][2] for hope in hopes):
            return pool
    return pool


def edit_distance(a, b):
    """Levenshtein 1966: the fewest insertions, deletions and substitutions that make b of a."""
    row = list(range(len(b) + 1))  # the distances of the empty beginning of a to those of b
    for i, token in enumerate(a, start=1):
        above, row = row, [i]
        for j, other in enumerate(b, start=1):
            row.append(min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (token != other)))
    return row[-1]

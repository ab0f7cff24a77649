"""A thinned product of options in which every pair of values still meets.

Nearly all faults of option tables need two options at most, so this finds them at a hundredth of
the cost of the full product.
"""

import itertools
import random


def pairwise(options, allowed=lambda case: True, seed=0):
    """options: dict name -> values. Yields dicts; every allowed pair is in one of them."""
    names = list(options)
    rng = random.Random(seed)

    def pairs_of(case):
        items = [(n, case[n]) for n in names]
        return set(itertools.combinations(items, 2))

    def complete(start):
        """Random full cases that hold the pairs of `start`."""
        for _ in range(60):
            case = {n: start.get(n, rng.choice(values)) for n, values in options.items()}
            if allowed(case):
                yield case

    missing = set()
    for a, b in itertools.combinations(names, 2):
        for va, vb in itertools.product(options[a], options[b]):
            missing.add(((a, va), (b, vb)))
    order = sorted(missing, key=repr)
    for pair in order:
        if pair not in missing:
            continue
        best = max(complete(dict(pair)), key=lambda c: len(pairs_of(c) & missing), default=None)
        missing.discard(pair)
        if best is not None:
            missing -= pairs_of(best)
            yield best

"""Do all peers compute the same numbers?"""

import numpy as np

from benchmarks import data

TOLERANCE = 1e-4  # float32


def compare(rows, numbers):
    """{label: (difference, which number)}: the worst against the first row of the same net.

    numbers: {label: list of arrays}; a floor has none and is not compared.
    """
    references, found = {}, {}
    for row in rows:
        if not numbers[row.label]:
            continue
        reference = references.setdefault(row.case, numbers[row.label])
        pairs = zip(data.names(row.case), reference, numbers[row.label], strict=True)
        found[row.label] = max(
            (difference(*(valid(row.case, name, a) for a in (one, other))), name)
            for name, one, other in pairs
        )
    return found


def difference(reference, other):
    """Largest difference over largest value; infinite if shapes differ or a value is no number."""
    if np.shape(reference) != np.shape(other) or not np.all(np.isfinite(other)):
        return np.inf
    return float(np.max(np.abs(reference - other)) / np.max(np.abs(reference)))


def valid(case, name, array):
    """Peers fill padded outputs in different ways: only real steps are compared."""
    if name != "output" or not case.padded:
        return array
    return array * data.mask(data.inputs(case)[2], case.T)[:, :, None]


def mismatches(differences):
    """{label: sentence} of those that differ."""
    return {
        label: f"{name} differs by {worst:.1e} of its largest value, allowed are {TOLERANCE:.0e}"
        for label, (worst, name) in differences.items()
        if worst > TOLERANCE
    }

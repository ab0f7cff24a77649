"""Names of tags, and which tag may follow which in the schemes that entities are written in.

A tag is `O`, outside of all entities, or a prefix and a type, such as `B-PER`. The schemes:

    BIO     B begins an entity, I goes on with it
    IOB1    I for all of an entity; B only where it follows another one of its type
    BIOES   B begins, I goes on, E ends; S for an entity of one step

Ramshaw and Marcus, "Text Chunking using Transformation-Based Learning", WVLC 1995 (IOB1); Tjong
Kim Sang and Veenstra, "Representing Text Chunks", EACL 1999 (BIO, there IOB2); Ratinov and Roth,
"Design Challenges and Misconceptions in Named Entity Recognition", CoNLL 2009 (BIOES, there BILOU).
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from keras_rnnx.annotations import Array

# Whether a tag may follow another one; `same` says that both have one type. The edges are O.
SCHEMES = {
    "BIO": lambda before, after, same: after != "I" or (same and before in "BI"),
    "IOB1": lambda before, after, same: after != "B" or (same and before in "BI"),
    "BIOES": lambda before, after, same: (
        same and after in "IE" if before in "BI" else after not in "IE"
    ),
}
PREFIXES = {"BIO": "BI", "IOB1": "BI", "BIOES": "BIES"}


def allowed_transitions(
    tags: Sequence[str], scheme: Literal["BIO", "IOB1", "BIOES"] = "BIO"
) -> Array:
    """Which tag may follow which, for `CRF(allowed=...)`.

    Args:
        tags: list of K names, `"O"` or a prefix and a type: `"B-PER"`.
        scheme: `"BIO"`, `"IOB1"` or `"BIOES"`.

    Returns:
        `[K + 1, K + 1]` booleans: whether a tag (second axis) may follow another (first axis). The
        last row is for the first step, the last column for the last one.

    Raises:
        ValueError: for another scheme, and for names that are none of it.

    Example:

    >>> from keras_rnnx.heads import allowed_transitions
    >>> allowed_transitions(["O", "B-PER", "I-PER"]).astype(int)
    array([[1, 1, 0, 1],
           [1, 1, 1, 1],
           [1, 1, 1, 1],
           [1, 1, 0, 1]])
    """
    if scheme not in SCHEMES:
        raise ValueError(f"scheme is {scheme!r}, expected one of {', '.join(SCHEMES)}.")
    parts = [*parts_of(tags, PREFIXES[scheme]), ("O", None)]
    may = SCHEMES[scheme]
    return np.array([[may(p, q, a == b) for q, b in parts] for p, a in parts])


def parts_of(tags, prefixes="BIES"):
    """`(prefix, type)` of each name."""
    if isinstance(tags, str) or not all(isinstance(tag, str) for tag in tags):
        raise ValueError(f'tags is {tags!r}, expected a list of names, such as ["O", "B-PER"].')
    parts = []
    for tag in tags:
        prefix, _, kind = tag.partition("-")
        if tag != "O" and (prefix not in tuple(prefixes) or not kind):
            raise ValueError(
                f'tags has {tag!r}, expected "O" or a type behind one of '
                f"{', '.join(f'{p}-' for p in prefixes)}: {prefixes[0]}-PER."
            )
        parts.append((prefix, kind))
    return parts

"""Where documents come from: an order of their own for each pass over them, and any one again.

A document is a pair `(inputs [T, ...], targets [T, ...])`. `read(turn, number)` gives the one at
place `number` of pass `turn`, None behind the last.
"""

from collections.abc import Callable
from collections.abc import Iterable
from typing import Any
from typing import TypeAlias

import numpy as np

from keras_rnnx.annotations import Array

# What `TruncatedBPTT` takes. Anything with `len` and `[]`, too, for which there is no type.
Documents: TypeAlias = Array | Iterable[Any] | Callable[[int], Iterable[Any]]


def source(documents, targets, lanes, shuffle, seed):
    """What `TruncatedBPTT` was given, as a source of documents for so many lanes."""
    if hasattr(documents, "shape"):
        documents = _cut(documents, targets, lanes)
    elif targets is not None:
        if len(documents) != len(targets):
            raise ValueError(
                f"TruncatedBPTT got {len(documents)} documents and {len(targets)} targets, "
                "expected as many targets as documents."
            )
        documents = list(zip(documents, targets))
    if hasattr(documents, "__len__") and hasattr(documents, "__getitem__"):
        if len(documents) < lanes:
            raise ValueError(
                f"TruncatedBPTT got {len(documents)} documents for batch_size={lanes}, expected a "
                "document or more for each row of the batch: take a smaller batch_size, or give "
                "one series as arrays, which is cut into rows."
            )
        return Listed(documents, shuffle, seed)
    if shuffle:
        raise ValueError(
            f"TruncatedBPTT got shuffle=True and {type(documents).__name__} documents, whose "
            "number is unknown: shuffle in the function (it gets the number of the pass), or give "
            "a list."
        )
    if callable(documents):
        return Told(documents)
    if hasattr(documents, "__iter__"):
        return Told(_once(documents))
    raise TypeError(
        f"TruncatedBPTT got documents of {type(documents).__name__}, expected arrays [T, ...] for "
        "inputs and targets, a list of pairs (inputs, targets), or a function or iterator that "
        "gives such pairs."
    )


def _cut(inputs, targets, lanes):
    """One series as one document for each lane."""
    if not hasattr(targets, "shape"):
        raise ValueError(
            f"TruncatedBPTT got an array for inputs and {type(targets).__name__} for targets, "
            "expected an array with one target for each step."
        )
    inputs, targets = _pair((inputs, targets), "the series")
    if len(inputs) < lanes:
        raise ValueError(
            f"TruncatedBPTT got a series of {len(inputs)} steps for batch_size={lanes}, expected "
            "a step or more for each row: take a smaller batch_size."
        )
    return list(zip(np.array_split(inputs, lanes), np.array_split(targets, lanes)))


def _once(iterator):
    """An iterator as a function of the pass; only the first can be had."""
    iterator = iter(iterator)
    opened = []

    def documents(turn):
        if opened:
            raise ValueError(
                f"TruncatedBPTT wanted pass {turn} over the documents and got an iterator, which "
                "can be read once: give a function that returns a new iterator, or train for "
                "fewer batches."
            )
        opened.append(True)
        return iterator

    return documents


def _pair(document, where):
    """A document as two arrays of the same length."""
    if not isinstance(document, (tuple, list)) or len(document) != 2:
        raise ValueError(
            f"TruncatedBPTT got a {type(document).__name__} for {where}, expected a pair "
            "(inputs [T, ...], targets [T, ...])."
        )
    inputs, targets = (np.asarray(part) for part in document)
    lengths = tuple(len(part) if part.ndim else 0 for part in (inputs, targets))
    if lengths[0] != lengths[1] or lengths[0] == 0:
        raise ValueError(
            f"TruncatedBPTT got {lengths[0]} steps of inputs and {lengths[1]} of targets for "
            f"{where}, expected one target for each step, and at least one step."
        )
    return inputs, targets


class Source:
    """Base of the sources: holds every document to the shapes of the first."""

    kind = None  # shapes and dtypes of a step

    def checked(self, document, turn, number):
        where = f"document {number} of pass {turn}"
        inputs, targets = _pair(document, where)
        kind = tuple((part.shape[1:], part.dtype.name) for part in (inputs, targets))
        self.kind = self.kind or kind
        if kind != self.kind:
            raise ValueError(
                f"TruncatedBPTT got steps of {kind} in {where}, expected {self.kind} as in the "
                "first document: give all documents the same shapes and dtypes."
            )
        return inputs, targets


class Listed(Source):
    """Documents that can be had by number: a list, or anything with `len` and `[]`."""

    def __init__(self, documents, shuffle, seed):
        self.documents = documents
        self.shuffle = shuffle
        self.seed = seed
        self._order = None, None

    def order(self, turn):
        """The documents' numbers in pass `turn`; a function of the seed and of the pass."""
        count = len(self.documents)
        if not self.shuffle:
            return range(count)
        if self._order[0] != turn:
            self._order = turn, np.random.default_rng([self.seed, turn]).permutation(count)
        return self._order[1]

    def read(self, turn, number):
        if number >= len(self.documents):
            return None
        index = int(self.order(turn)[number])
        return self.checked(self.documents[index], turn, number)

    def chunks(self, steps):
        """How many chunks of `steps` all documents have together."""
        lengths = (len(self.documents[i][0]) for i in range(len(self.documents)))
        return sum(-(-length // steps) for length in lengths)


class Told(Source):
    """Documents that a function tells one after another: `function(pass) -> iterable`.

    To go back to a document, the pass is told again from its start.
    """

    def __init__(self, function):
        self.function = function
        self.turn = self.number = self.iterator = None

    def read(self, turn, number):
        if self.turn != turn or number < self.number:
            self.iterator = iter(self.function(turn))
            self.turn, self.number = turn, 0
        while True:
            try:
                document = next(self.iterator)
            except StopIteration:
                return None
            self.number += 1
            if self.number > number:
                return self.checked(document, turn, number)

    def chunks(self, steps):
        raise ValueError(
            "TruncatedBPTT.fit got steps_per_epoch=None, and a function or iterator says not how "
            "many documents there are: give steps_per_epoch, the batches of an epoch."
        )

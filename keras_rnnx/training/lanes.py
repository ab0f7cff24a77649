"""The rows of the batches: documents one after another in each, cut into chunks."""

import dataclasses
import threading
from typing import Any

import numpy as np


@dataclasses.dataclass
class Lane:
    """A document on its way through a row, up to step `offset`."""

    turn: int
    number: int
    offset: int
    inputs: np.ndarray
    targets: np.ndarray


@dataclasses.dataclass(frozen=True)
class Batch:
    """A batch, the rows whose document begins in it, and where the lanes stand after it."""

    inputs: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    begins: np.ndarray
    position: dict[str, Any]


class Lanes:
    """Makes batches. A row whose document has ended takes the next one of the source.

    After the last document of a pass comes the first of the next, without a gap, so that no row
    is ever empty.
    """

    def __init__(self, source, batch_size, steps, padding, position=None):
        self.source = source
        self.steps = steps
        self.padding = padding
        self.lanes = [None] * batch_size
        self.next = [0, 0]  # pass and number of the next document
        if position is not None:
            self._go_to(position)

    def _go_to(self, position):
        held = [(place, row) for row, place in enumerate(position["lanes"]) if place is not None]
        # In the order of the documents: a source that can only tell them does so once.
        for (turn, number, offset), row in sorted(held):
            document = self.source.read(turn, number)
            if document is None or len(document[0]) <= offset:
                raise ValueError(
                    f"The checkpoint stands at step {offset} of document {number} of pass {turn}, "
                    "which the documents do not have: resume with the documents it was made with."
                )
            self.lanes[row] = Lane(turn, number, offset, *document)
        self.next = list(position["next"])

    def position(self):
        """Where the lanes stand, in numbers."""
        lanes = [lane and (lane.turn, lane.number, lane.offset) for lane in self.lanes]
        return {"next": list(self.next), "lanes": lanes}

    def _next_document(self):
        turn, number = self.next
        document = self.source.read(turn, number)
        if document is None:
            turn, number = turn + 1, 0
            document = self.source.read(turn, number)
        if document is None:
            raise ValueError(
                f"TruncatedBPTT got no document in pass {turn}, expected one or more in every pass."
            )
        self.next = [turn, number + 1]
        return Lane(turn, number, 0, *document)

    def batch(self):
        """The next batch."""
        begins = np.array([lane is None for lane in self.lanes])
        self.lanes = [lane or self._next_document() for lane in self.lanes]
        first = self.lanes[0]
        shape = (len(self.lanes), self.steps)
        inputs = np.full((*shape, *first.inputs.shape[1:]), self.padding, first.inputs.dtype)
        targets = np.zeros((*shape, *first.targets.shape[1:]), first.targets.dtype)
        weights = np.zeros(shape, "float32")
        for row, lane in enumerate(self.lanes):
            end = min(lane.offset + self.steps, len(lane.inputs))
            count = end - lane.offset
            inputs[row, :count] = lane.inputs[lane.offset : end]
            targets[row, :count] = lane.targets[lane.offset : end]
            weights[row, :count] = 1
            lane.offset = end
            if end == len(lane.inputs):
                self.lanes[row] = None
        return Batch(inputs, targets, weights, begins, self.position())


class Ahead:
    """Batches by number, made in order by whoever asks first, kept until they are forgotten.

    `fit` reads ahead in threads of its own; the callback wants to know about a batch before it is
    trained. Both ask here.
    """

    def __init__(self, lanes, first):
        self.lanes = lanes
        self.made = first
        self.batches = {}
        self.failure = None
        self.lock = threading.Lock()

    def __getitem__(self, number):
        with self.lock:
            try:
                while self.failure is None and self.made <= number:
                    self.batches[self.made] = self.lanes.batch()
                    self.made += 1
            except Exception as failure:
                self.failure = failure
            if number >= self.made:
                raise self.failure
            return self.batches[number]

    def iterate(self, start, stop):
        """Inputs, targets and weights of the batches from `start` on.

        It ends without a word where a batch cannot be made, or is forgotten: the callback, which
        runs in the thread of `fit`, is the one to complain.
        """
        for number in range(start, stop):
            try:
                batch = self[number]
            except Exception:
                return
            yield batch.inputs, batch.targets, batch.weights

    def forget(self, number):
        """Drop a batch and those before."""
        with self.lock:
            self.batches = {n: batch for n, batch in self.batches.items() if n > number}

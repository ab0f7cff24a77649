"""What is timed: a case is one net, one size and one kind of work.

Axes: B batch, T time, D input features, U units.
"""

import dataclasses
import re

SIZES = (
    (1, 100, 128, 256),
    (32, 100, 128, 256),
    (128, 28, 28, 128),
    (64, 200, 256, 512),
    (1, 1000, 64, 128),
)
ONE, BATCH = SIZES[0], SIZES[1]
GATES = {"SimpleRNN": 1, "GRU": 3, "LSTM": 4}
UNFUSED = ("LayerNormLSTM", "ZoneoutLSTM", "PeepholeLSTM")
LONG = (16, 8192, 128, 128)  # what checkpoints are for
GROWTH = tuple((8, 128 * 2**k, 64, 128) for k in range(7))
NEW_SHAPES = (0.5, 0.6, 0.7)  # of T: shapes that the net has not met yet


@dataclasses.dataclass(frozen=True)
class Case:
    group: str  # inference, training, growth, compile, memory or fit: one chart each
    cell: str
    B: int
    T: int
    D: int
    U: int
    layers: int = 1
    bidirectional: bool = False
    padded: bool = False  # lengths uniform on 1..T instead of T
    quick: bool = False

    @property
    def net(self):
        stack = f"{self.layers}-layer-" * (self.layers > 1)
        return "padded-" * self.padded + stack + "bidirectional-" * self.bidirectional + self.cell

    @property
    def size(self):
        return f"{self.B}x{self.T}x{self.D}x{self.U}"

    @property
    def name(self):
        return f"{self.group}/{self.net}/{self.size}"

    @property
    def trains(self):
        return self.group != "inference"

    @property
    def noisy(self):
        return self.cell == "ZoneoutLSTM"

    @property
    def directions(self):
        return 2 if self.bidirectional else 1

    @property
    def gates(self):
        return GATES.get(self.cell, 4)

    def input_sizes(self):
        """D of each layer of the stack."""
        return [self.D] + [self.U * self.directions] * (self.layers - 1)


def all_cases():
    works = ("inference", "training")
    nets = [(work, cell) for work in works for cell in ("LSTM", "GRU", "SimpleRNN")]
    quick = {
        ("inference", "LSTM"): (ONE, BATCH),
        ("training", "LSTM"): (ONE, BATCH),
        ("training", "GRU"): (BATCH,),
    }
    cases = [Case(*net, *size, quick=size in quick.get(net, ())) for net in nets for size in SIZES]
    cases += [
        Case(work, "LSTM", *size, bidirectional=True) for work in works for size in (ONE, BATCH)
    ]
    cases += [Case(work, "LSTM", *size, layers=3) for work in works for size in (ONE, BATCH)]
    cases += [
        Case(work, cell, *BATCH, padded=True, quick=(work, cell) == ("training", "LSTM"))
        for work in works
        for cell in ("LSTM", "GRU")
    ]
    cases += [
        Case("training", cell, *size, quick=cell == "PeepholeLSTM" and size == ONE)
        for cell in UNFUSED
        for size in (ONE, BATCH)
    ]
    cases += [Case("growth", "LSTM", *size, quick=size[1] <= 256) for size in GROWTH]
    cases += [
        Case("compile", cell, *size, quick=cell == "LSTM" and size == BATCH)
        for cell in ("LSTM", "GRU")
        for size in (ONE, BATCH)
    ]
    cases += [Case("memory", "LSTM", *LONG)]
    return cases + fit_cases()


def fit_cases():
    return [Case("fit", "LSTM", *size, quick=size == ONE) for size in (BATCH, ONE)]


@dataclasses.dataclass(frozen=True)
class Row:
    """One peer at work on one case; the label is its name in the table."""

    label: str
    peer: str
    case: Case


def rows_of(case, peers):
    """A padded case holds every peer a second time, with full batches, to be compared with."""
    rows = [Row(peer, peer, case) for peer in peers]
    if case.padded:
        full = dataclasses.replace(case, padded=False)
        rows += [Row(f"{peer} (full)", peer, full) for peer in peers]
    return rows


def select(pattern, table):
    """Keep the rows whose path, group/net/size/label, holds the pattern, and their cases' floors.

    table: list of (case, rows)
    """
    kept = []
    for case, rows in table:
        chosen = {row.label for row in rows if re.search(pattern, f"{case.name}/{row.label}")}
        if chosen:
            floors = {row.label for row in rows if row.peer.startswith("floor")}
            kept.append((case, [row for row in rows if row.label in chosen | floors]))
    return kept

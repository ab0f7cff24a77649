"""A recurrent layer whose steps hand out what they show.

Around each cell's spec there is one whose loop gives more: beside the output all that the step
passes to `product.show`, and the new states. `leave`, which gets what the loop gave, keeps these
and hands on the output, so that the layer and the model around it notice nothing.
"""

import contextlib
import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_rnnx.attention import AttentionCell
from keras_rnnx.cells import Around
from keras_rnnx.inspection import quietly
from keras_rnnx.layers import Cell


@dataclasses.dataclass(frozen=True)
class Shown(Around):
    """A spec that also tells `note(start=...)`, the states before the first step, and
    `note(gates=..., states=..., output=...)` of all steps, trees of `[T, B, ...]`."""

    note: Callable = dataclasses.field(compare=False)
    has_alignments: bool = False  # the output inside is (output, *alignments),
    gives_alignments: bool = False  # and is so outside too

    def enter(self, *arguments):
        drawn, constants, states = self.spec.enter(*arguments)
        self.note(start=tuple(states))
        return drawn, constants, states

    def step(self, weights, product, x, states, constants):
        showing = _Showing(product)
        output, new = self.spec.step(weights, showing, x, states, constants)
        return (output, showing.values, tuple(new)), new

    def leave(self, given, output, states):
        output, gates, after = output
        output, states = self.spec.leave(given, output, states)
        alignments = tuple(output[1:]) if self.has_alignments else ()
        self.note(gates=gates, states=after, alignments=alignments)
        return output[0] if self.has_alignments and not self.gives_alignments else output, states


class _Showing:
    """`product` of a step, which keeps what it is shown."""

    def __init__(self, product):
        self.product, self.values = product, {}

    def __call__(self, *arguments, **options):
        return self.product(*arguments, **options)

    def candidate(self, g):
        return self.product.candidate(g)

    def show(self, **values):
        self.values.update(values)


class Call:
    """One call of a layer: `tensors` in the graph, and what they are called as arrays."""

    def __init__(self, layer, name):
        self.layer, self.name = layer, name
        several = len(layer.cells) > 1
        self.cells = [f"{name}/{k}" if several else name for k in range(len(layer.cells))]
        self.tensors = {"output": None, "mask": None, "cells": [{} for _ in self.cells]}

    @property
    def prefixes(self):
        """The layer's name, and those of its cells."""
        return list(dict.fromkeys([self.name, *self.cells]))

    def mask(self, found):
        """`[B, T]`, where steps are real, in the order of the input."""
        if found["mask"] is None:
            return np.ones(found["output"].shape[:2], bool)
        return found["mask"]

    def arrays(self, found):
        """`(name, kind, array)` of all that was noted, `found` being the tensors as arrays."""
        mask = self.mask(found)
        T, turn = mask.shape[1], slice(None, None, -1 if self.layer.go_backwards else 1)
        in_order = mask[:, turn]  # as the loop went

        def by_row(a):  # without the steps that the loop was padded by
            return np.swapaxes(a[:T], 0, 1)

        for cell, prefix, one in zip(self.layer.cells, self.cells, found["cells"], strict=True):
            if not one:
                continue
            for name, a in _in_order(cell, one["gates"]).items():
                yield f"{prefix}/{name}", "gate", _only(in_order, by_row(a))[:, turn]
            for name, a, start in zip(_state_names(cell), one["states"], one["start"]):
                yield f"{prefix}/{name}", "state", _held(in_order, by_row(a), start)[:, turn]
            for k, a in enumerate(one["alignments"]):
                suffix = f"_{k + 1}" if len(one["alignments"]) > 1 else ""
                alignments = _only(in_order, by_row(a))[:, turn]
                yield f"{prefix}/alignments{suffix}", "alignments", alignments
        yield f"{self.name}/output", "output", found["output"][:, turn]


@contextlib.contextmanager
def shown(layer, name, calls):
    """While in here, calls of a recurrent layer are noted as `calls[name]`, a `Call`."""
    run = layer._run

    def looked(x, states, mask, *others, last_only=None):
        call = Call(layer, name)
        with contextlib.ExitStack() as stack:
            # Checkpoints have another order of axes, and nothing is differentiated here.
            stack.enter_context(quietly.instead(layer, backward="full"))
            for cell, noted in zip(layer.cells, call.tensors["cells"], strict=True):
                if isinstance(cell, Cell):
                    stack.enter_context(_shown(cell, noted))
            output, last = run(x, states, mask, *others, last_only=False)
        first = tf.nest.flatten(output)[0]
        call.tensors.update(output=first, mask=mask)
        calls[name] = call
        if last_only or (last_only is None and not layer.return_sequences):
            output = tf.nest.map_structure(lambda a: a[:, -1], output)
        return output, last

    with quietly.instead(layer, _run=looked):
        yield


def _shown(cell, noted):
    """In here a cell's spec notes what it shows."""
    regularized, attends = cell.regularized, isinstance(cell, AttentionCell)

    def spec(training):
        inside = regularized(training)
        if not attends:
            return Shown(inside, noted.update)
        inside = dataclasses.replace(inside, return_alignments=True)
        return Shown(inside, noted.update, True, cell.return_alignments)

    # Attention of all steps at once would show none of them.
    return quietly.instead(cell, regularized=spec, recurrence=lambda: cell)


def _in_order(cell, gates):
    """The gates in the order of the kernel's columns, others after them."""
    known = [name for name in cell.spec.gate_names if name in gates]
    return {name: gates[name] for name in [*known, *(n for n in gates if n not in known)]}


def _state_names(cell):
    count = len(cell.state_size)
    own = getattr(cell, "least_states", count)  # those of the cell that an AttentionCell is around
    return ["h", "c"][: min(own, 2)] + [f"state_{k}" for k in range(min(own, 2), count)]


def _only(mask, a):
    """`a [B, T, ...]`, NaN in masked steps."""
    mask = mask.reshape(mask.shape + (a.ndim - 2) * (1,))
    return np.where(mask, a, np.asarray(np.nan, a.dtype))


def _held(mask, a, start):
    """`a [B, T, U]`, in masked steps what it was before, at first `start [B, U]`."""
    before, held = start, np.empty_like(a)
    for t in range(a.shape[1]):
        before = held[:, t] = np.where(mask[:, t, None], a[:, t], before)
    return held

"""What goes into a loop and what it keeps: flat tuples of tensors, and the trees they stand for."""

from typing import Any
from typing import NamedTuple

import tensorflow as tf

from keras_rnnx.engine.arrays import at


class Data(NamedTuple):
    """The tensors of one run, flat. `xs` may be longer than `steps` (padding to a bucket)."""

    steps: Any  # int, or a scalar tensor
    xs: tuple  # [T, B, ...] each
    mask: Any  # [T, B] bool, or None
    weights: tuple
    states: tuple  # [B, ...] each
    constants: tuple
    previous: tuple | None = None  # [B, ...] each, the outputs before the first step; None: zeros
    row: Any = None  # from which row on a part of the batch goes, where xs hold the whole batch

    @property
    def length(self):
        """T, a number if it is known."""
        return self._size(0)

    @property
    def batch(self):
        """B, a number if it is known."""
        return self._size(1)

    def _size(self, axis):
        size = self.xs[0].shape[axis]
        return tf.shape(self.xs[0])[axis] if size is None else size

    def mask_at(self, t):
        """The mask of step t in a list, which is empty if there is none."""
        return [] if self.mask is None else [at(self.mask, t)]

    def cast_weights(self):
        """The weights in the dtype of the computation, which is that of the states."""
        dtype = self.states[0].dtype
        return tuple(tf.cast(w, dtype) if w.dtype.is_floating else w for w in self.weights)


class Saved(NamedTuple):
    """What the saving loop keeps for the backward pass, all `[T, B, ...]`."""

    states: tuple  # before each step
    products: tuple


class Structure:
    """The structure of a tree, comparable and hashable."""

    def __init__(self, tree):
        self.tree = tf.nest.map_structure(lambda _: 0, tree)

    def pack(self, flat):
        return tf.nest.pack_sequence_as(self.tree, list(flat))

    def __eq__(self, other):
        return repr(self.tree) == repr(other.tree)

    def __hash__(self):
        return hash(repr(self.tree))


def cut(items, *sizes):
    """`items` in pieces of these sizes and a rest."""
    pieces, start = [], 0
    for size in sizes:
        pieces.append(tuple(items[start : start + size]))
        start += size
    return (*pieces, tuple(items[start:]))


def spread(gradients, positions, tensors):
    """Gradients added up at their positions, which may be None; None where there is none."""
    found = {}
    for i, gradient in zip(positions, gradients, strict=True):
        if i is None:
            continue
        found[i] = found[i] + gradient if i in found else gradient
    return tuple(found.get(i) for i in range(len(tensors)))

"""Sizes and shapes in trees: of states, outputs and nested inputs."""

import keras
import tensorflow as tf


def cell_states(cell, batch):
    """The states of a cell before the first step, as it says itself or zeros: a list."""
    make = getattr(cell, "get_initial_state", None)
    if make is not None:
        states = make(batch_size=batch)
        return list(states) if isinstance(states, (list, tuple)) else [states]
    dtype = getattr(cell, "compute_dtype", keras.config.floatx())
    sizes = cell.state_size
    sizes = list(sizes) if isinstance(sizes, (list, tuple)) else [sizes]
    return map_sizes(lambda size: keras.ops.zeros((batch, *size), dtype=dtype), sizes)


def output_size(cell):
    """What the cell says of its output, or the size of its first state."""
    size = getattr(cell, "output_size", None)
    if size is None:
        size = cell.state_size
        size = size[0] if isinstance(size, (list, tuple)) else size
    return size


def map_sizes(function, sizes):
    """`function((n, ...))` of every size in a tree; a size is an int or a tuple of ints."""
    if isinstance(sizes, dict):
        return {key: map_sizes(function, size) for key, size in sizes.items()}
    if isinstance(sizes, tuple) and is_shape(sizes):
        return function(sizes)
    if isinstance(sizes, (list, tuple)):
        return [map_sizes(function, size) for size in sizes]
    return function((sizes,))


def is_shape(shape):
    return all(size is None or isinstance(size, int) for size in shape)


def map_shapes(function, shapes):
    """`function(shape)` of every shape in a tree of them."""
    if isinstance(shapes, dict):
        return {key: map_shapes(function, shape) for key, shape in shapes.items()}
    if is_shape(shapes):
        return function(tuple(shapes))
    return [map_shapes(function, shape) for shape in shapes]


def first_shape(shapes):
    found = []
    map_shapes(found.append, shapes)
    return found[0]


def shapes_of(tree):
    return keras.tree.map_structure(lambda a: tuple(tf.convert_to_tensor(a).shape), tree)

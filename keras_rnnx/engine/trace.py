"""What a step does, found by tracing it once: its shapes, and what it may not do."""

from typing import Any
from typing import NamedTuple

import tensorflow as tf


class Trace(NamedTuple):
    """Result of `trace`."""

    specs: Any  # the tree of the function's results, as TensorSpecs
    notes: Any  # whatever else the function returned
    unread: tuple  # of the flattened arguments: whether the function makes no use of it


def trace(function, *arguments, strict=True):
    """Trace `function(*arguments) -> (tree of tensors, notes)` in a graph of its own.

    If `strict`, raises a `ValueError` if it uses a differentiable tensor that is not an argument,
    whose gradient would be lost, or draws random numbers, which the backward pass would draw again
    and otherwise. TensorFlow's own differentiation minds neither.
    """
    notes = []

    def run(*arguments):
        results, note = function(*arguments)
        notes.append(note)
        return results

    specs = tf.nest.map_structure(spec_of, arguments)
    graph = tf.function(run, autograph=False).get_concrete_function(*specs)
    if strict:
        _check(graph)
    unread = tuple(not placeholder.consumers() for placeholder in graph.inputs)
    return Trace(tf.nest.map_structure(spec_of, graph.structured_outputs), notes[-1], unread)


def _check(graph):
    for tensor in graph.captured_inputs:
        if tensor.dtype.is_floating or tensor.dtype in (tf.resource, tf.variant):
            raise ValueError(captured("a tensor", tensor))
    for op in graph.graph.get_operations():
        if op.op_def is not None and op.op_def.is_stateful and "Random" in op.type:
            raise ValueError(
                f"The step draws random numbers (op {op.type}). The backward pass repeats each "
                "step and would draw others: draw before the loop and hand them to the step in "
                "`constants`."
            )


def spec_of(tensor):
    return tf.TensorSpec(tensor.shape, tensor.dtype)


def refuse_enclosed(step):
    """Refuse a step whose closure holds a tensor: TensorFlow may copy a small one into the graph
    as a constant, and then nothing shows that its gradient is lost."""
    function = getattr(step, "__func__", step)
    for cell in getattr(function, "__closure__", None) or ():
        for tensor in tf.nest.flatten(cell.cell_contents):
            if isinstance(tensor, (tf.Tensor, tf.Variable)) and tensor.dtype.is_floating:
                raise ValueError(captured("a tensor", tensor))


def captured(name, tensor):
    return (
        f"The step uses {name} of shape {tuple(tensor.shape)} from outside its arguments, and its "
        "gradient would be lost. Hand it to the step as a weight or in `constants`, or choose "
        'backward="autodiff".'
    )

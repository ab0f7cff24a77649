"""One cell over a sequence: a cell of this package on the engine, any other in an ordinary loop."""

import inspect

import keras
import tensorflow as tf

from keras_rnnx import engine
from keras_rnnx.cells import GRUSpec
from keras_rnnx.cells import LSTMSpec
from keras_rnnx.layers.cell import Cell
from keras_rnnx.regularization import draw_kept
from keras_rnnx.regularization import drop


KINDS = {LSTMSpec: "lstm", GRUSpec: "gru"}  # specs that cuDNN computes, by its names


def run_cell(cell, x, states, training, options):
    """One cell over `x [T, B, D]`: outputs, `[T, B, U]` or the last one, and last states.

    With checkpoints `x`, mask and outputs are `[B, T, ...]`, which spares copies of them.
    """
    nested = isinstance(states, (list, tuple))
    dtype = getattr(cell, "compute_dtype", x.dtype)
    states = keras.tree.map_structure(
        lambda s: tf.cast(s, dtype), list(states) if nested else [states]
    )
    options = dict(options)
    x = engine.zero_padding(x, options["mask"])
    if isinstance(cell, Cell):
        output, last = _run_own(cell, tf.cast(x, dtype), tuple(states), training, options)
    else:
        output, last = _run_foreign(cell, x, states, training, options)
    return output, list(last) if nested else last[0]


def _run_own(cell, x, states, training, options):
    """A cell of this package: noise, projection, engine."""
    spec, weights, seed = cell.regularized(training), cell.tensors(), cell.seed_generator.next
    plan, mask = options.pop("plan"), options.pop("mask")
    time_axis = 1 if plan.backward.checkpointed else 0
    sizes = tf.shape(x)
    steps, batch = sizes[time_axis], sizes[1 - time_axis]
    if training and 0 < cell.dropout < 1:  # a rate of 1 drops nothing, as in Keras
        kept = draw_kept(seed(), [batch, x.shape[-1]], cell.dropout)
        x = drop(x, tf.expand_dims(kept, time_axis), cell.dropout)
    drawn, constants = spec.noise(seed, steps, batch)
    if plan.backend == "cudnn":
        del options["unroll"]
        return engine.cudnn.run_masked(
            KINDS[type(spec)], x, weights, states, training=plan.saves, mask=mask, **options
        )
    prepared = spec.prepare(weights)
    if plan.backward.checkpointed:
        del options["unroll"], options["steps"]
        return engine.run_in_segments(
            spec.step, x, drawn, prepared, states, constants, plan=plan, mask=mask,
            project=spec.project, input_weights=weights, **options
        )
    for noise in drawn:
        x = (x, noise)

    options.update(plan=plan, project=spec.project, input_weights=weights)

    def run(x, mask, by_sample):
        states, constants = by_sample
        return engine.run(spec.step, x, prepared, states, constants, mask=mask, **options)

    return engine.in_parts(run, plan.parts, x, mask, (states, constants), options["last_only"])


def no_cudnn(cell, training, **options):
    """Why cuDNN cannot compute this cell, or None. options: those of the layer that count."""
    if not isinstance(cell, Cell):
        return f"cuDNN computes LSTM and GRU, not {type(cell).__name__}."
    spec = cell.regularized(training)
    return engine.cudnn.obstacle(
        KINDS.get(type(spec), type(spec).__name__),
        activation=getattr(spec, "activation", None),
        recurrent_activation=getattr(spec, "recurrent_activation", None),
        reset_after=getattr(spec, "reset_after", True),
        dtype=cell.compute_dtype,
        **options,
    )


def _run_foreign(cell, x, states, training, options):
    """Any other Keras cell: an ordinary loop."""
    takes_training = "training" in inspect.signature(cell.call).parameters
    keywords = {"training": training} if takes_training else {}
    call = cell if callable(cell) else cell.call

    def step(weights, product, x, states, constants):
        output, new = call(x, list(states), **keywords)
        return output, new if isinstance(new, (list, tuple)) else [new]

    size = output_size(cell)
    shape = [x.shape[1], size] if isinstance(size, int) else [x.shape[1], *size]
    dtype = getattr(cell, "compute_dtype", x.dtype)
    draws = training and hasattr(cell, "get_dropout_mask")
    if draws:  # Keras' own cells cache their masks: drawn here, outside the loop, and dropped after
        cell.get_dropout_mask(tf.zeros(tf.shape(x)[1:], x.dtype))
        cell.get_recurrent_dropout_mask(states[0])
    try:
        return engine.run(step, x, {}, states, outputs=tf.TensorSpec(shape, dtype), **options)
    finally:
        if draws:
            cell.reset_dropout_mask()
            cell.reset_recurrent_dropout_mask()


def output_size(cell):
    """What the cell says of its output, or the size of its first state."""
    size = getattr(cell, "output_size", None)
    if size is None:
        size = cell.state_size
        size = size[0] if isinstance(size, (list, tuple)) else size
    return size

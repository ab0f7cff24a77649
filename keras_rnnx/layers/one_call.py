"""The layers of a stack and both directions as one call of cuDNN."""

import keras
import tensorflow as tf

from keras_rnnx import engine
from keras_rnnx.layers.rnn import RNN
from keras_rnnx.layers.sequence import KINDS
from keras_rnnx.layers.shapes import cell_states
from keras_rnnx.layers.streams import stream


def obstacle(layers, training, resets=False):
    """Why one call cannot run the layers: a sentence, or empty where nobody expects it; else None.

    Args:
        layers: from bottom to top, each a tuple of its directions: `(layer,)`, or `(forward,
            backward)` whose outputs are concatenated for the next.
        training: whether the call is for training.
        resets: whether the call resets states.
    """
    ways = [way for layer in layers for way in layer]
    if len(ways) == 1 or not all(isinstance(way, RNN) and len(way.cells) == 1 for way in ways):
        return ""
    for way in ways:
        reason = way.no_cudnn(way.cells[0], training, tf.executing_eagerly(), resets)
        if reason is not None:
            return reason
    first = ways[0].cell
    for way in ways:
        if type(way.cell.spec) is not type(first.spec) or way.cell.units != first.units:
            return "The layers differ in kind or size, and one call of cuDNN has equal ones."
        if way.compute_dtype != first.compute_dtype:
            return "The layers differ in dtype, and one call of cuDNN has one."
        if way.cell.acts("dropout", training):
            return "The layers drop inputs of their own, and one call of cuDNN draws otherwise."
        if way.cell.acts("weight_dropout", training):
            return "The layers drop weights, each its own."
        if way.stateful or stream(way) is not None:
            return "The layers keep states of their own."
        if way.activity_regularizer is not None:
            return "A layer has an activity_regularizer, and asks for its own outputs."
    turns = [[way.go_backwards for way in layer] for layer in layers]
    if any(turn not in ([False], [False, True]) for turn in turns):
        return "A layer goes backwards by itself, and in one call of cuDNN the first goes forward."
    if len({len(layer) for layer in layers}) > 1:
        return "Some layers have one direction and some two."
    if len({way.zero_output_for_mask for way in layers[-1]}) > 1:
        return "The two directions differ in zero_output_for_mask."
    return None


def run(layers, x, initial_state, mask, training):
    """The outputs of each direction of the last layer and the last states of all, flat.

    Args:
        layers: as in `obstacle`, which has found none.
        x: `[B, T, D]`.
        initial_state: flat list of the states of all layers, or None.
        mask: `[B, T]` booleans or None.

    Returns:
        A list of `[B, T, U]` for each direction, in the order of x; of `[B, U]` if the last layer
        returns its last output only.
    """
    ways = [way for layer in layers for way in layer]
    last, dtype = ways[-1], ways[0].compute_dtype
    x = engine.swap_time_and_batch(tf.cast(x, dtype))
    mask = None if mask is None else engine.swap_time_and_batch(mask)
    if initial_state is None:
        batch = tf.shape(x)[1]
        initial_state = [s for way in ways for s in cell_states(way.cell, batch)]
    states = iter([tf.cast(state, dtype) for state in initial_state])
    outputs, states = engine.cudnn.run_masked(
        KINDS[type(ways[0].cell.spec)],
        engine.zero_padding(x, mask),
        [way.cell.tensors() for way in ways],
        [[next(states) for _ in way.state_size] for way in ways],
        directions=len(layers[0]),
        training=bool(training),
        mask=mask,
        last_only=not last.return_sequences,
        zero_masked=last.zero_output_for_mask,
    )
    if last.return_sequences:
        outputs = [engine.swap_time_and_batch(one) for one in outputs]
    return outputs, keras.tree.flatten(states)

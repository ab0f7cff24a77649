"""Random inputs, weights and masks, and what tests do with a layer over and over.

The sizes all differ and no bias is zero: square shapes and zero biases hide real faults.
"""

import keras
import numpy as np
import tensorflow as tf

B, T, D, U = 3, 7, 4, 5
MASK_KINDS = ("none", "right", "left", "holes", "full", "empty_rows")


def make_mask(kind, batch=B, steps=T):
    """[B, T] bool, or None for the kind "none"."""
    if kind == "none":
        return None
    time = np.arange(steps)
    lengths = np.array([[steps], [max(1, steps // 2)], [1]])[np.arange(batch) % 3]
    if kind == "right":
        return time < lengths
    if kind == "left":
        return (time < lengths)[:, ::-1].copy()
    if kind == "holes":
        mask = np.random.default_rng(11).random((batch, steps)) > 0.4
        mask[0, 0], mask[1, 0], mask[1, -1] = True, False, False
        return mask
    if kind == "full":
        return np.ones((batch, steps), bool)
    if kind == "empty_rows":
        mask = time < lengths
        mask[1] = False
        return mask
    raise ValueError(f"unknown mask kind {kind!r}, expected one of {MASK_KINDS}")


def inputs(seed=0, batch=B, steps=T, features=D, dtype="float32"):
    return np.random.default_rng(seed).normal(size=(batch, steps, features)).astype(dtype)


def weights_like(layer, seed=1):
    """Random weights, biases among them, for a layer that is built."""
    rng = np.random.default_rng(seed)
    return [rng.normal(scale=0.5, size=w.shape) for w in layer.get_weights()]


def states_like(sizes, seed=2, batch=B, dtype="float32"):
    """Random initial states, nested as `sizes` is."""
    rng = np.random.default_rng(seed)
    return keras.tree.map_structure(
        lambda size: rng.normal(scale=0.7, size=(batch, size)).astype(dtype), sizes
    )


def relative(actual, expected):
    """The largest difference over the largest value."""
    actual, expected = np.asarray(actual, "float64"), np.asarray(expected, "float64")
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    if not expected.size:
        return 0.0
    difference = np.max(np.abs(actual - expected))
    return difference / (np.max(np.abs(expected)) or 1.0)


def assert_close(actual, expected, tolerance, what):
    assert np.all(np.isfinite(np.asarray(actual, "float64"))), f"{what}: not finite"
    error = relative(actual, expected)
    assert error <= tolerance, f"{what}: relative difference {error:.1e}, allowed {tolerance:.0e}"


def assert_all_close(actual, expected, tolerance, names):
    assert len(actual) == len(expected) == len(names)
    for a, e, name in zip(actual, expected, names, strict=True):
        assert (a is None) == (e is None), f"{name}: {a} against {e}"
        if a is not None:
            assert_close(a, e, tolerance, name)


def loss_of(outputs):
    """A number whose gradient is different for every element of every output."""
    total = 0.0
    for output in keras.tree.flatten(outputs):
        places = tf.range(tf.size(output), dtype=tf.int32)
        factor = tf.reshape(tf.cos(tf.cast(places, tf.float64)), tf.shape(output))
        output = tf.cast(output, tf.float64)
        total += tf.reduce_sum(factor * (output + 0.3 * tf.square(output)))
    return total


def outputs_and_gradients(layer, **call_arguments):
    """A function (x, mask, states) -> (flat outputs, gradients of loss_of).

    Gradients in the order: x, initial states, weights.
    """

    def compute(x, mask, states):
        flat = [] if states is None else keras.tree.flatten(states)
        variables = [w.value for w in layer.trainable_weights]
        with tf.GradientTape() as tape:
            tape.watch([x, *flat])
            outputs = layer(x, mask=mask, initial_state=states, **call_arguments)
            loss = loss_of(outputs)
        return keras.tree.flatten(outputs), tape.gradient(loss, [x, *flat, *variables])

    return compute


def as_tensors(x, mask=None, states=None):
    states = keras.tree.map_structure(tf.constant, states) if states is not None else None
    return tf.constant(x), None if mask is None else tf.constant(mask), states


def in_mode(function, mode):
    """`function(x, mask, states)` as called in one of the ways in which a user may call it."""
    if mode == "eager":
        return lambda *arguments: function(*as_tensors(*arguments))
    if mode in ("function", "xla"):
        traced = tf.function(function, jit_compile=mode == "xla")
        return lambda *arguments: traced(*as_tensors(*arguments))
    if mode == "unknown":
        return lambda *arguments: _with_unknown_sizes(function)(*as_tensors(*arguments))
    raise ValueError(f"unknown mode {mode!r}, expected one of {MODES}")


def _with_unknown_sizes(function):
    """A traced function that knows neither the batch nor the time."""

    def call(x, mask, states):
        def loosen(tensor, known):
            return tf.TensorSpec([None] * known + tensor.shape[known:], tensor.dtype)

        flat = [] if states is None else keras.tree.flatten(states)
        arguments = [x, *([] if mask is None else [mask]), *flat]
        signature = [loosen(a, 1 if any(a is s for s in flat) else 2) for a in arguments]

        def spread(x, *rest):
            rest = list(rest)
            m = None if mask is None else rest.pop(0)
            s = None if states is None else keras.tree.pack_sequence_as(states, rest)
            return function(x, m, s)

        return tf.function(spread, input_signature=signature)(*arguments)

    return call


def run_in_mode(function, mode, x, mask=None, states=None):
    return in_mode(function, mode)(x, mask, states)


MODES = ("eager", "function", "unknown", "xla")


def arrays(tensors):
    return [None if t is None else np.asarray(t) for t in tensors]

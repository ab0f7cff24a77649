"""Batches in parts that run side by side: the same numbers as the whole batch, and as Keras'."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import (
    D,
    U,
    arrays,
    assert_all_close,
    in_mode,
    inputs,
    make_mask,
    outputs_and_gradients,
    states_like,
)

import keras_rnnx as rnnx
from benchmarks.cells_rnnx import ZoneoutLSTM
from keras_rnnx.engine.parts import row_limits

T = 13  # enough for the quarters in which gradients of matrices are summed
ROWS = 35  # enough for four parts, and not divided by any number of them
MASKS = (None, "right", "left", "holes", "empty_rows")
SLOW = lambda value: pytest.param(value, marks=pytest.mark.slow)
SEQUENCES = {"return_sequences": True, "return_state": True}


def computed(layer, mask, mode="function", rows=ROWS, states=None):
    compute = in_mode(outputs_and_gradients(layer, training=True), mode)
    x = inputs(batch=rows, steps=T)
    mask = None if mask is None else make_mask(mask, batch=rows, steps=T)
    outputs, gradients = map(arrays, compute(x, mask, states))
    return outputs + gradients


def assert_same(actual, expected):
    names = [str(k) for k in range(len(expected))]
    assert_all_close(actual, expected, 1e-5, names)


@pytest.mark.quick
@pytest.mark.parametrize("batch", range(1, 70))
@pytest.mark.parametrize("parts", (1, 2, 3))
def test_row_limits(batch, parts):
    """Every row is in one part, parts are alike, and an unknown batch is cut like a known one."""
    limits = row_limits(batch, parts)
    sizes = np.diff(limits)
    assert limits[0] == 0 and limits[-1] == batch and len(sizes) <= parts
    assert sizes.max() - sizes.min() <= 1 and (len(sizes) == 1 or sizes.min() >= 8)
    unknown = [int(limit) for limit in row_limits(tf.constant(batch), parts)]
    assert [size for size in np.diff(unknown) if size] == list(sizes)


@pytest.mark.parametrize("mode", ("function", "unknown"))
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(
    "options",
    (SEQUENCES, SLOW({}), SLOW({**SEQUENCES, "zero_output_for_mask": True})),
)
@pytest.mark.parametrize("name", (SLOW("LSTM"), "GRU"))
@pytest.mark.thin(10)
def test_parts_equal_the_whole(name, options, mask, mode):
    found = []
    for parts in (1, 2, 3):
        layer = getattr(rnnx, name)(U, batch_parts=parts, **options)
        layer.build((None, None, D))
        keras.utils.set_random_seed(5)
        layer.set_weights([np.random.normal(size=w.shape) for w in layer.get_weights()])
        found.append(computed(layer, mask, mode))
    for other in found[1:]:
        assert_same(other, found[0])


@pytest.mark.quick
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("name", (SLOW("LSTM"), "GRU", SLOW("SimpleRNN")))
@pytest.mark.thin(2)
def test_parts_equal_keras(name, mask):
    """From given states, whose gradients come out right too."""
    ours = getattr(rnnx, name)(U, batch_parts=2, **SEQUENCES)
    theirs = getattr(keras.layers, name)(U, **SEQUENCES)
    for layer in (ours, theirs):
        layer.build((None, T, D))
    theirs.set_weights(ours.get_weights())
    states = states_like(ours.state_size, batch=ROWS)
    assert_same(computed(ours, mask, states=states), computed(theirs, mask, states=states))


@pytest.mark.parametrize("rows", (1, 15, 16, 0))
@pytest.mark.thin(4)
def test_few_rows_of_an_unknown_batch(rows):
    """Parts for which there are no rows are empty and add nothing."""
    layers = [rnnx.GRU(U, batch_parts=parts, **SEQUENCES) for parts in (3, 1)]
    for layer in layers:
        layer.build((None, None, D))
    layers[1].set_weights(layers[0].get_weights())
    mask = "right" if rows else None
    assert_same(*(computed(layer, mask, "unknown", rows) for layer in layers))


@pytest.mark.parametrize("mask", (None, "holes"))
@pytest.mark.thin(2)
def test_noise_does_not_depend_on_parts(mask):
    """It is drawn for the whole batch, and follows its rows."""
    found = []
    for parts in (1, 2):
        keras.utils.set_random_seed(3)
        layer = rnnx.RNN(ZoneoutLSTM(U), batch_parts=parts, **SEQUENCES)
        layer.build((None, T, D))
        found.append(computed(layer, mask))
    assert_same(*found)


@pytest.mark.quick
def test_loop_ends_with_the_longest_row():
    """A plain graph stops too: it counts how often the step is taken."""
    taken = []

    def step(weights, product, x, states, constants):
        tf.py_function(lambda: taken.append(1), [], [])
        return x + states[0], (x + states[0],)

    from keras_rnnx import engine

    mask = np.zeros((9, 2), bool)
    mask[2:4, 0] = mask[3:6, 1] = True

    @tf.function(autograph=False)
    def run(x):
        plan = engine.Plan("plain", False, ())
        return engine.run(step, x, {}, (tf.zeros([2, 3]),), plan=plan, mask=tf.constant(mask))

    x = np.ones((9, 2, 3), "float32")
    outputs, (last,) = run(x)
    assert len(taken) == 4
    np.testing.assert_array_equal(last[:, 0], [2, 3])
    np.testing.assert_array_equal(outputs[:, 0, 0], [0, 0, 1, 2, 2, 2, 2, 2, 2])
    np.testing.assert_array_equal(outputs[:, 1, 0], [0, 0, 0, 1, 2, 3, 3, 3, 3])


@pytest.mark.quick
def test_only_compiled_calls_of_a_graph_are_split():
    layer = rnnx.LSTM(U)
    assert layer.plan(training=True).parts == 2
    assert "batch_parts=2" in layer.plan(training=True).reasons[-1]
    for call in ({"training": False}, {"training": True, "eager": True}):
        assert layer.plan(**call).parts == 1
    seen = []
    tf.function(lambda: seen.append(layer.plan(training=True).parts), jit_compile=True)()
    assert seen == [1]


@pytest.mark.quick
@pytest.mark.parametrize("value, error", ((0, ValueError), (1.5, TypeError), (True, TypeError)))
def test_bad_number_of_parts(value, error):
    with pytest.raises(error, match="`batch_parts`, expected a positive integer"):
        rnnx.LSTM(U, batch_parts=value)


@pytest.mark.quick
@pytest.mark.parametrize("jit_compile", ("auto", False))
@pytest.mark.parametrize("rows", (3, ROWS))
@pytest.mark.thin(4)
def test_batch_without_a_real_step(rows, jit_compile):
    """No step is taken, nor read ahead: zeros, the states as they were, and no gradient of x."""
    layer = rnnx.LSTM(U, jit_compile=jit_compile, **SEQUENCES)
    layer.build((None, T, D))
    compute = in_mode(outputs_and_gradients(layer, training=True), "function")
    states = states_like(layer.state_size, batch=rows)
    x, mask = inputs(batch=rows, steps=T), np.zeros((rows, T), bool)
    (outputs, *last), gradients = map(arrays, compute(x, mask, states))
    assert not outputs.any() and not gradients[0].any()
    for state, start in zip(last, states, strict=True):
        np.testing.assert_array_equal(state, start)

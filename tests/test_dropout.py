"""Noise: one mask per sample for the whole sequence, its statistics, and its way back.

How noise behaves in fit, across modes, replicas and seeds: test_fit.py.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import B, D, T, U, assert_all_close, inputs, outputs_and_gradients, weights_like
from subject import rnnx

NAMED = ("LSTM", "GRU", "SimpleRNN")
RATE = 0.4
WAYS = {
    "eager": lambda f: f,
    "function": tf.function,
    "xla": lambda f: tf.function(f, jit_compile=True),
}


def copying_layer(units, **options):
    """h' = x + h on this layer is easily read: no bias, no activation, no mixing of units."""
    layer = rnnx.SimpleRNN(units, activation=None, use_bias=False, return_sequences=True, **options)
    layer.build((None, None, units))
    return layer


def read_input_mask(seed, batch=500, steps=4, way="eager"):
    """[batch, steps, U]: what comes of an input of ones."""
    layer = copying_layer(U, dropout=RATE, seed=seed)
    layer.set_weights([np.eye(U), np.zeros((U, U))])
    return np.asarray(WAYS[way](lambda x: layer(x, training=True))(tf.ones([batch, steps, U])))


def read_recurrent_mask(seed, batch=500, steps=4, way="eager"):
    """[batch, steps, U]: what comes of a first state of ones and no input."""
    layer = copying_layer(U, recurrent_dropout=RATE, seed=seed)
    layer.set_weights([np.zeros((U, U)), np.eye(U)])
    run = WAYS[way](lambda x, h: layer(x, initial_state=[h], training=True))
    found = np.asarray(run(tf.zeros([batch, steps, U]), tf.ones([batch, U])))
    # Each step multiplies the state by the mask and by the scale that keeps its mean.
    return found * (1 - RATE) ** np.arange(steps)[:, None]


@pytest.mark.parametrize("read", [read_input_mask, read_recurrent_mask])
@pytest.mark.parametrize("way", WAYS)
def test_one_mask_per_sample_for_the_whole_sequence(read, way):
    found = read(seed=1, way=way)
    kept = 1 / (1 - RATE)
    near = lambda value: np.isclose(found, value, rtol=1e-5)
    assert (near(0) | near(kept)).all(), "a unit is dropped or scaled up, nothing between"
    assert (found == 0).any() and near(kept).any()
    assert np.allclose(found, found[:, :1], rtol=1e-5), "the mask changed on the way"
    rows = {tuple(row) for row in (found[:, 0] > 0)}
    assert len(rows) == 2**U, "500 samples of 5 units meet all 32 masks"


@pytest.mark.parametrize("read", [read_input_mask, read_recurrent_mask])
def test_statistics(read):
    """Rate per unit, and no correlation of two units or of two samples, to 5 deviations."""
    batch = 4000
    kept = read(seed=2, batch=batch, steps=1)[:, 0] > 0
    deviation = np.sqrt(RATE * (1 - RATE) / batch)
    assert np.all(np.abs(kept.mean(axis=0) - (1 - RATE)) < 5 * deviation)
    centred = (kept - (1 - RATE)) / np.sqrt(RATE * (1 - RATE))
    for other in (np.roll(centred, 1, axis=0), np.roll(centred, 1, axis=1)):
        assert np.all(np.abs((centred * other).mean(axis=0)) < 5 / np.sqrt(batch))


def test_input_and_recurrent_mask_differ():
    layer = copying_layer(U, dropout=0.5, recurrent_dropout=0.5, seed=1)
    layer.set_weights([np.eye(U), np.eye(U)])
    first, second = np.moveaxis(np.asarray(layer(tf.ones([200, 2, U]), training=True)), 1, 0)
    stopped = second - first == 0  # what came in with the first step goes no further
    share = np.mean(stopped[first > 0])
    assert 0.4 < share < 0.6, "the state is dropped where the input is, or where it is not"


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("jit_compile", ["auto", False])
@pytest.mark.thin(3)
def test_backward_pass_uses_the_masks_of_the_forward_pass(name, jit_compile):
    """Against TensorFlow's own differentiation of the loop, on the same noise."""
    both = []
    for backward in ("full", "autodiff"):
        layer = getattr(rnnx, name)(
            U, dropout=0.4, recurrent_dropout=0.3, seed=5, return_sequences=True,
            backward=backward, jit_compile=jit_compile, dtype="float64",
        )  # fmt: skip
        layer.build((B, T, D))
        layer.set_weights(weights_like(layer))
        x = tf.constant(inputs(dtype="float64"))
        outputs, gradients = outputs_and_gradients(layer, training=True)(x, None, None)
        both.append([*outputs, *gradients])
    assert_all_close(*both, 1e-10, ["output", "x", *(w.path for w in layer.weights)])


def test_cells_of_a_stack_draw_masks_of_their_own():
    cells = [
        rnnx.SimpleRNNCell(U, activation=None, use_bias=False, dropout=0.5, seed=seed)
        for seed in (1, 2)
    ]
    layer = rnnx.RNN(cells, return_state=True)
    layer.build((None, 1, U))
    layer.set_weights([np.eye(U), np.zeros((U, U))] * 2)
    _, first, second = layer(tf.ones([300, 1, U]), training=True)
    first, second = np.asarray(first) > 0, np.asarray(second) > 0
    assert not np.array_equal(first, second)
    assert abs(np.mean(first) - 0.5) < 0.07 and abs(np.mean(second) - 0.25) < 0.07


def test_rates_of_zero_and_one_are_as_in_keras():
    for rate in (0.0, 1.0):
        both = []
        for namespace in (rnnx, keras.layers):
            layer = namespace.LSTM(U, dropout=rate)
            layer.build((B, T, D))
            layer.set_weights(weights_like(layer))
            both.append(np.asarray(layer(inputs(), training=True)))
        np.testing.assert_allclose(*both, rtol=1e-5, atol=1e-6)

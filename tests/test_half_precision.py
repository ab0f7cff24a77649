"""float16 and bfloat16: no worse than Keras, and sums over many rows in float32."""

import descriptors
import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import inputs, make_mask, outputs_and_gradients
from subject import rnnx

POLICIES = ("mixed_float16", "mixed_bfloat16")
ROWS, STEPS, FEATURES = 16, 30, 12
LAYERS = ("simple", "lstm", "lstm_activations", "gru", "gru_before", "rnn_stack", "both_lstm")
policies = pytest.mark.parametrize("policy", POLICIES)


def in_policy(name, namespace, dtype, **own):
    options = {"return_sequences": True, "return_state": True, "dtype": dtype, **own}
    return descriptors.BY_NAME[name].build(namespace, options, shape=(ROWS, STEPS, FEATURES))


def results(layer, x, mask):
    """Outputs and gradients, in one traced function, as float64 arrays."""
    outputs, gradients = tf.function(outputs_and_gradients(layer, training=True))(x, mask, None)
    return [np.asarray(tf.cast(a, tf.float64)) for a in [*outputs, *gradients]]


def mean_error(found, exact):
    """The mean difference over the mean value: thousands of roundings, so no matter of luck."""
    return np.mean(np.abs(found - exact)) / np.mean(np.abs(exact))


@policies
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(
    "mask_kind, own", [("none", {}), ("holes", {"jit_compile": False})], ids=["compiled", "plain"]
)
def test_error_is_at_most_one_and_a_half_times_that_of_keras(name, policy, mask_kind, own):
    mask = make_mask(mask_kind, ROWS, STEPS)
    # All three see the same inputs and weights: numbers that half precision holds exactly.
    half = {"mixed_float16": tf.float16, "mixed_bfloat16": tf.bfloat16}[policy]
    exact_numbers = lambda a: np.asarray(tf.cast(tf.cast(a, half), tf.float64))
    x = exact_numbers(inputs(batch=ROWS, steps=STEPS, features=FEATURES))
    layers = (
        in_policy(name, rnnx, policy, **own),
        in_policy(name, keras.layers, policy),
        in_policy(name, keras.layers, "float64"),
    )
    for layer in layers:
        layer.set_weights([exact_numbers(0.5 * w) for w in layers[2].get_weights()])
    ours, theirs = (results(layer, tf.cast(x, half), mask) for layer in layers[:2])
    exact = results(layers[2], tf.constant(x), mask)
    outputs = descriptors.BY_NAME[name].expected(
        layers[2].get_weights(), x, mask, None, {"return_sequences": True, "return_state": True}
    )
    for found, oracle in zip(exact, outputs, strict=False):
        np.testing.assert_allclose(found, oracle, atol=1e-10)
    for place, (a, k, e) in enumerate(zip(ours, theirs, exact, strict=True)):
        error, keras_error = mean_error(a, e), mean_error(k, e)
        what = "output or state" if place < len(outputs) else "gradient"
        assert error <= 1.5 * keras_error, f"{what} {place}: {error:.2e}, Keras {keras_error:.2e}"


@policies
@pytest.mark.parametrize("sequences", [False, True])
def test_outputs_and_states_are_in_half_precision_and_weights_are_not(policy, sequences):
    for name in LAYERS:
        options = {"dtype": policy, "return_state": True, "return_sequences": sequences}
        layer = descriptors.BY_NAME[name].build(rnnx, options)
        outputs = keras.tree.flatten(layer(inputs()))
        assert {o.dtype.name for o in outputs} == {policy.removeprefix("mixed_")}
        assert {w.dtype for w in layer.weights} == {"float32"}


@policies
@pytest.mark.parametrize("training", [None, True])
@pytest.mark.parametrize("own", [{}, {"jit_compile": False}], ids=["compiled", "plain"])
def test_weight_gradients_are_summed_in_float32(policy, training, own):
    """Every row and step adds the same 1, 40,000 times.

    A float16 sum of ones stays at 2,048, a bfloat16 sum at 256: then 1 is less than half a unit
    of the last place. So whoever sums in half precision gets a small part of these gradients.
    """
    rows, steps = 40, 1000
    layer = rnnx.SimpleRNN(2, activation="linear", return_sequences=True, dtype=policy, **own)
    layer.build((rows, steps, 3))
    layer.set_weights([np.zeros((3, 2)), np.zeros((2, 2)), np.full(2, 0.5)])  # so h is 0.5
    x = tf.ones([rows, steps, 3])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.cast(layer(x, training=training), tf.float32))
    found = tape.gradient(loss, [w.value for w in layer.weights])
    expected = [rows * steps, 0.5 * rows * (steps - 1), rows * steps]
    for gradient, value, what in zip(found, expected, ("kernel", "recurrent", "bias"), strict=True):
        assert gradient.dtype == tf.float32
        np.testing.assert_allclose(gradient, value, rtol=2e-3, err_msg=what)


@policies
def test_weight_gradients_beyond_float16_are_finite(policy):
    """128,000 is no float16: a sum in float32 that passes through half precision is infinite."""
    rows, steps = 128, 1000
    layer = rnnx.SimpleRNN(2, activation="linear", return_sequences=True, dtype=policy)
    layer.build((rows, steps, 3))
    layer.set_weights([np.zeros((3, 2)), np.zeros((2, 2)), np.full(2, 0.5)])
    with tf.GradientTape() as tape:
        y = layer(tf.ones([rows, steps, 3]), training=True)
        loss = tf.reduce_sum(tf.cast(y, tf.float32))
    kernel, _, bias = tape.gradient(loss, [w.value for w in layer.weights])
    np.testing.assert_allclose(kernel, rows * steps, rtol=1e-6)
    np.testing.assert_allclose(bias, rows * steps, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("mode", [tf.function, lambda f: tf.function(f, jit_compile=True)])
def test_pure_half_precision_runs(dtype, mode):
    """Weights in half precision too: gradients come in their dtype."""
    layer = descriptors.BY_NAME["lstm"].build(rnnx, {"dtype": dtype})
    x = tf.cast(inputs(), dtype)
    outputs, gradients = mode(outputs_and_gradients(layer, training=True))(x, None, None)
    assert {t.dtype.name for t in [*outputs, *gradients]} == {dtype}
    twin = descriptors.BY_NAME["lstm"].build(keras.layers, {"dtype": "float32"})
    expected, _ = outputs_and_gradients(twin)(tf.cast(x, tf.float32), None, None)
    bound = {"float16": 4e-3, "bfloat16": 3e-2}[dtype]  # four units of the last place
    np.testing.assert_allclose(tf.cast(outputs[0], tf.float32), expected[0], atol=bound)

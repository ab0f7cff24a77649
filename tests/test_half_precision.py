"""float16 and bfloat16: no worse than Keras, and sums over many rows in float32."""

import descriptors
import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import inputs, make_mask, outputs_and_gradients, weights_like
from subject import rnnx

POLICIES = ("mixed_float16", "mixed_bfloat16")
ROWS, STEPS, FEATURES = 16, 30, 12
LAYERS = ("simple", "lstm", "lstm_activations", "gru", "gru_before", "rnn_stack", "both_lstm")
SEQUENCES = {"return_sequences": True, "return_state": True}
policies = pytest.mark.parametrize("policy", POLICIES)


def in_policy(name, namespace, dtype, **own):
    options = {**SEQUENCES, "dtype": dtype, **own}
    return descriptors.BY_NAME[name].build(namespace, options, shape=(ROWS, STEPS, FEATURES))


SEEDS = range(12)  # a bias has five numbers: their roundings are a matter of luck, those of 60 less


def mean_errors(found, exact):
    """For each result the mean difference over the mean value, over all seeds."""
    differences = [[np.abs(a - e) for a, e in zip(*pair)] for pair in zip(found, exact)]
    total = lambda rows: [np.mean([np.mean(a) for a in column]) for column in zip(*rows)]
    sizes = total([[np.abs(e) for e in row] for row in exact])
    return [d / s for d, s in zip(total(differences), sizes, strict=True)]


@policies
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(
    "mask_kind, own", [("none", {}), ("holes", {"jit_compile": False})], ids=["compiled", "plain"]
)
@pytest.mark.thin(32)
def test_error_is_at_most_one_and_a_half_times_that_of_keras(name, policy, mask_kind, own):
    mask = make_mask(mask_kind, ROWS, STEPS)
    half = {"mixed_float16": tf.float16, "mixed_bfloat16": tf.bfloat16}[policy]
    layers = [
        in_policy(name, rnnx, policy, **own),
        in_policy(name, keras.layers, policy),
        in_policy(name, keras.layers, "float64"),
    ]
    compute = [tf.function(outputs_and_gradients(layer, training=True)) for layer in layers]
    found = [[], [], []]  # ours, Keras', exact: the results of each seed
    for seed in SEEDS:
        # All three see the same inputs and weights: numbers that half precision holds exactly.
        exact_numbers = lambda a: np.asarray(tf.cast(tf.cast(a, half), tf.float64))
        x = exact_numbers(inputs(seed, ROWS, STEPS, FEATURES))
        weights = [exact_numbers(0.5 * w) for w in weights_like(layers[2], seed)]
        for layer, function, results, dtype in zip(
            layers, compute, found, (half, half, tf.float64), strict=True
        ):
            layer.set_weights(weights)
            outputs, gradients = function(tf.cast(x, dtype), mask, None)
            results.append([np.asarray(tf.cast(a, tf.float64)) for a in [*outputs, *gradients]])
        oracle = descriptors.BY_NAME[name].expected(weights, x, mask, None, SEQUENCES)
        for a, e in zip(found[2][-1], oracle, strict=False):
            np.testing.assert_allclose(a, e, atol=1e-10)
    ours, theirs = mean_errors(found[0], found[2]), mean_errors(found[1], found[2])
    names = [f"output {i}" for i in range(len(oracle))] + ["gradient of x"]
    names += [f"gradient of {w.path}" for w in layers[0].weights]
    for what, error, keras_error in zip(names, ours, theirs, strict=True):
        assert error <= 1.5 * keras_error, f"{what}: {error:.2e}, Keras {keras_error:.2e}"


@policies
@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.thin(6)
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
@pytest.mark.thin(4)
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
@pytest.mark.thin(2)
def test_pure_half_precision_runs(dtype, mode):
    """Weights in half precision too: gradients come in their dtype."""
    plain = {"dtype": dtype, "recurrent_initializer": "glorot_uniform"}  # the default needs QR
    layer = descriptors.BY_NAME["lstm"].build(rnnx, plain)
    x = tf.cast(inputs(), dtype)
    outputs, gradients = mode(outputs_and_gradients(layer, training=True))(x, None, None)
    assert {t.dtype.name for t in [*outputs, *gradients]} == {dtype}
    twin = descriptors.BY_NAME["lstm"].build(keras.layers, {"dtype": "float32"})
    expected, _ = outputs_and_gradients(twin)(tf.cast(x, tf.float32), None, None)
    bound = {"float16": 4e-3, "bfloat16": 3e-2}[dtype]  # four units of the last place
    np.testing.assert_allclose(tf.cast(outputs[0], tf.float32), expected[0], atol=bound)


@pytest.mark.quick
@pytest.mark.parametrize("name", ["LayerNormLSTM", "LayerNormGRU", "LayerNormSimpleRNN"])
def test_layer_norm_of_large_products(name):
    """In float16 a square of 256 is too large already; the sums are float32."""
    import keras_rnnx

    x = 2000 * inputs()
    exact, half = (getattr(keras_rnnx, name)(8, dtype=d) for d in ("float32", "mixed_float16"))
    expected = exact(x)
    half.build(x.shape)
    half.set_weights(exact.get_weights())
    np.testing.assert_allclose(tf.cast(half(x), tf.float32), expected, atol=0.02)

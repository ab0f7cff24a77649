"""Training: fit in every way, noise, penalties, state, and cells of both packages in both RNNs."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_rnnx as rnnx

B, T, D, U = 8, 7, 4, 5
NAMES = ("LSTM", "GRU", "SimpleRNN")


def data(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(B, T, D)).astype("float32"), rng.normal(size=(B, 1)).astype("float32")


def model_of(layers, name, **options):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((None, D))
    h = keras.layers.Masking()(inputs)
    h = layers.Bidirectional(getattr(layers, name)(U, return_sequences=True, **options))(h)
    h = getattr(layers, name)(6, **options)(h)
    return keras.Model(inputs, keras.layers.Dense(1)(h))


SLOW = [pytest.param(True, name, marks=pytest.mark.slow) for name in NAMES]


@pytest.mark.parametrize("jit_compile, name", [*(("auto", name) for name in NAMES), *SLOW])
@pytest.mark.thin(5)
def test_fit_goes_where_keras_goes(name, jit_compile):
    x, y = data()
    x[::2, 4:] = 0  # masked
    weights, start = [], None
    for layers in (keras.layers, rnnx):
        model = model_of(layers, name)
        start = model.get_weights() if layers is keras.layers else start
        model.set_weights(start)
        model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=jit_compile)
        model.fit(x, y, batch_size=3, epochs=2, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    for theirs, ours in zip(*weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def run_process(name, *arguments):
    root = str(Path(rnnx.__file__).parents[1])
    result = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "processes" / name), *arguments],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


@pytest.mark.slow
def test_two_replicas(tmp_path):
    printed = run_process("replicas.py", str(tmp_path / "export"))
    assert "weights as with one device: True" in printed, printed
    assert "export answers: True" in printed, printed
    assert "replicas draw their own noise: True" in printed, printed


@pytest.mark.slow
def test_deterministic_under_op_determinism():
    assert "the same bits: True" in run_process("determinism.py")


# -- noise -----------------------------------------------------------------------------------


def linear_rnn(units, dropout=0.0, recurrent_dropout=0.0):
    """h_t = x_t + h_{t-1}, without noise."""
    return rnnx.SimpleRNN(
        units,
        activation=None,
        kernel_initializer="identity",
        recurrent_initializer="identity",
        dropout=dropout,
        recurrent_dropout=recurrent_dropout,
        return_sequences=True,
        seed=4,
    )


def test_input_dropout_is_one_mask_per_sample():
    units, rate = 400, 0.3
    x = np.ones((B, T, units), "float32")
    outputs = linear_rnn(units, dropout=rate)(x, training=True).numpy()
    steps = np.diff(outputs, axis=1, prepend=0)
    kept = steps[:, 0] > 0
    np.testing.assert_allclose(steps, kept[:, None] / (1 - rate) * np.ones_like(steps), rtol=1e-4)
    assert not np.array_equal(kept[0], kept[1])
    # 3200 draws: three standard deviations are 0.024.
    assert abs(kept.mean() - (1 - rate)) < 0.025


def test_recurrent_dropout_is_one_mask_per_sample():
    units, rate = 400, 0.5
    x = np.zeros((B, 3, units), "float32")
    start = [np.ones((B, units), "float32")]
    outputs = linear_rnn(units, recurrent_dropout=rate)(x, initial_state=start, training=True)
    kept = outputs[:, 0].numpy() > 0
    for t in range(3):
        np.testing.assert_allclose(outputs[:, t], kept * 2.0 ** (t + 1), rtol=1e-5)
    assert abs(kept.mean() - (1 - rate)) < 0.03
    assert not np.array_equal(kept[0], kept[1])


@pytest.mark.parametrize("name", NAMES)
def test_noise_is_absent_at_inference(name):
    x, _ = data()
    noisy = getattr(rnnx, name)(U, dropout=0.4, recurrent_dropout=0.4)
    quiet = getattr(rnnx, name)(U)
    quiet.build(x.shape)
    expected = quiet(x)
    noisy.build(x.shape)
    noisy.set_weights(quiet.get_weights())
    np.testing.assert_array_equal(noisy(x, training=False), expected)
    assert np.abs(noisy(x, training=True) - expected).max() > 1e-3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.thin(3)
def test_noise_is_the_same_in_every_mode(name):
    """The same seed gives the same noise: eager, in a graph, compiled, on the plain loop."""
    x, _ = data()
    results = []
    for mode in ("eager", "graph", "xla", "plain"):
        keras.utils.set_random_seed(3)
        option = False if mode == "plain" else "auto"
        layer = getattr(rnnx, name)(
            U, dropout=0.4, recurrent_dropout=0.4, seed=9, jit_compile=option
        )
        layer.build(x.shape)
        call = lambda x, layer=layer: layer(x, training=True)
        if mode in ("graph", "xla"):
            call = tf.function(call, autograph=False, jit_compile=mode == "xla")
        first, second = call(tf.constant(x)).numpy(), call(tf.constant(x)).numpy()
        assert np.abs(first - second).max() > 1e-3, "each call draws anew"
        results.append((first, second))
    for other in results[1:]:
        np.testing.assert_allclose(other, results[0], rtol=1e-5, atol=1e-6)


def test_directions_draw_their_own_noise():
    layer = rnnx.Bidirectional(linear_rnn(400, dropout=0.5), merge_mode=None)
    forward, backward = layer(np.ones((2, 1, 400), "float32"), training=True)
    assert np.any(forward != backward)


# -- penalties, state, precision -------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.thin(3)
def test_regularizers_and_constraints(name):
    x, y = data()
    roles = {"kernel": 0.1, "recurrent": 0.2, "bias": 0.3}
    options = {f"{role}_regularizer": keras.regularizers.L2(rate) for role, rate in roles.items()}
    options |= {f"{role}_constraint": keras.constraints.NonNeg() for role in roles}
    losses, start = [], None
    for layers in (keras.layers, rnnx):
        keras.utils.set_random_seed(0)
        if name != "SimpleRNN":  # Keras' SimpleRNN takes the argument and forgets it
            options["activity_regularizer"] = "l1"
        layer = getattr(layers, name)(U, **options)
        model = keras.Sequential([keras.Input((T, D)), layer, keras.layers.Dense(1)])
        start = model.get_weights() if layers is keras.layers else start
        model.set_weights(start)
        model.compile("sgd", "mse")
        losses.append(model.fit(x, y, epochs=2, verbose=0, shuffle=False).history["loss"])
        assert all((weight.numpy() >= 0).all() for weight in layer.trainable_weights)
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_activity_regularizer(name):
    x, _ = data()
    layer = getattr(rnnx, name)(U, activity_regularizer=keras.regularizers.L1(0.5))
    outputs = layer(x)
    (loss,) = layer.losses
    np.testing.assert_allclose(loss, 0.5 * np.abs(outputs).sum() / B, rtol=1e-5)


@pytest.mark.parametrize("jit_compile", ["auto", True])
@pytest.mark.thin(2)
def test_stateful_training(jit_compile):
    x, y = data()
    states = []
    for layers in (keras.layers, rnnx):
        keras.utils.set_random_seed(0)
        layer = layers.LSTM(U, stateful=True)
        model = keras.Sequential([keras.Input(batch_shape=(4, T, D)), layer, keras.layers.Dense(1)])
        model.compile("sgd", "mse", jit_compile=jit_compile)
        model.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0)
        states.append([state.numpy() for state in layer.states])
    for theirs, ours in zip(*states, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(policy):
    x, y = data()
    keras.config.set_dtype_policy(policy)
    model = model_of(rnnx, "LSTM", dropout=0.2, recurrent_dropout=0.2)
    model.compile("adam", "mse")
    history = model.fit(x, y, epochs=3, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert all(weight.dtype == "float32" for weight in model.trainable_weights)
    assert model.predict(x, verbose=0).dtype == policy.removeprefix("mixed_")


# -- cells of both packages ------------------------------------------------------------------


@keras.saving.register_keras_serializable(package="test_fit")
class Decay(keras.layers.Layer):
    """A user's own Keras cell."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = units

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units), name="kernel")
        self.decay = self.add_weight(shape=(self.units,), name="decay")

    def call(self, inputs, states):
        (h,) = states
        h = keras.ops.tanh(inputs @ self.kernel + self.decay * h)
        return h, [h]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


CELLS = {
    "LSTM": (keras.layers.LSTMCell, rnnx.LSTMCell),
    "GRU": (keras.layers.GRUCell, rnnx.GRUCell),
    "SimpleRNN": (keras.layers.SimpleRNNCell, rnnx.SimpleRNNCell),
    "Decay": (Decay, Decay),
}


def same_results(first, second, mask):
    x, _ = data()
    results = []
    for layer in (first, second):
        layer.build(x.shape)
        layer.set_weights(first.get_weights())
        for call in (layer, tf.function(layer, autograph=False)):
            with tf.GradientTape() as tape:
                outputs = call(tf.constant(x), mask=mask, training=True)
                loss = tf.add_n([tf.reduce_sum(o**2) for o in tf.nest.flatten(outputs)])
            gradients = tape.gradient(loss, layer.trainable_variables)
            results.append([a.numpy() for a in (*tf.nest.flatten(outputs), *gradients)])
    for result in results[1:]:
        for a, b in zip(result, results[0], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


MASK = tf.constant(np.random.default_rng(2).random((B, T)) > 0.4)
SEQUENCES = {"return_sequences": True, "return_state": True}


@pytest.mark.parametrize("mask", [None, MASK], ids=["no mask", "mask"])
@pytest.mark.parametrize("name", CELLS)
@pytest.mark.thin(3)
def test_keras_cells_in_our_rnn(name, mask):
    theirs = CELLS[name][0]
    same_results(keras.layers.RNN(theirs(U), **SEQUENCES), rnnx.RNN(theirs(U), **SEQUENCES), mask)


@pytest.mark.parametrize("mask", [None, MASK], ids=["no mask", "mask"])
@pytest.mark.parametrize("name", CELLS)
@pytest.mark.thin(14)
def test_our_cells_in_keras_rnn(name, mask):
    ours = CELLS[name][1]
    same_results(keras.layers.RNN(ours(U), **SEQUENCES), rnnx.RNN(ours(U), **SEQUENCES), mask)


@pytest.mark.parametrize("package", [0, 1], ids=["Keras' cells", "our cells"])
@pytest.mark.thin(2)
@pytest.mark.slow
def test_stacked_cells(package):
    cells = lambda: [CELLS[name][package](units) for name, units in (("LSTM", 5), ("GRU", 3))]
    theirs = keras.layers.RNN(keras.layers.StackedRNNCells(cells()), **SEQUENCES)
    same_results(theirs, rnnx.RNN(cells(), **SEQUENCES), MASK)


def test_cells_of_both_packages_in_one_stack():
    first = rnnx.RNN([rnnx.LSTMCell(U), keras.layers.GRUCell(3)], **SEQUENCES)
    second = rnnx.RNN([keras.layers.LSTMCell(U), rnnx.GRUCell(3)], **SEQUENCES)
    same_results(first, second, MASK)


def test_keras_cells_draw_their_noise_once_per_sequence():
    cell = keras.layers.SimpleRNNCell(
        400, None, kernel_initializer="identity", recurrent_initializer="zeros", dropout=0.5
    )
    layer = rnnx.RNN(cell, return_sequences=True)
    outputs = layer(np.ones((2, 3, 400), "float32"), training=True).numpy()
    np.testing.assert_array_equal(outputs[:, 0], outputs[:, 2])
    assert 0 < (outputs == 0).mean() < 1
    again = layer(np.ones((2, 3, 400), "float32"), training=True).numpy()
    assert np.any(again != outputs)


@pytest.mark.parametrize("stacked", [False, True])
def test_our_noisy_cells_are_refused_in_keras_rnn(stacked):
    x, _ = data()
    cell = rnnx.LSTMCell(U, dropout=0.2)
    layer = keras.layers.RNN([cell] if stacked else cell)
    layer(x, training=False)
    with pytest.raises(ValueError, match=r"use keras_rnnx.RNN\(cell\) instead"):
        layer(x, training=True)
    rnnx.RNN(rnnx.LSTMCell(U, dropout=0.2))(x, training=True)


@pytest.mark.slow
def test_one_compilation_per_bucket_of_lengths(tmp_path):
    """Twelve batches of ten lengths, two parts each: the buckets are 18, 20, 24, 36 and 40."""
    printed = run_process("compiles.py", str(tmp_path))
    assert "'save': 5" in printed and "'back': 5" in printed, printed

"""Lengths, ragged tensors, and rows that begin anew: how long a sequence is and where it starts."""

import descriptors
import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import B, D, T, U, inputs, make_mask, states_like

import keras_rnnx as rnnx

LENGTHS = np.array([7, 3, 0])
LAYERS = {
    "lstm": lambda **k: rnnx.LSTM(U, **k),
    "gru": lambda **k: rnnx.GRU(U, **k),
    "cells": lambda **k: rnnx.RNN([rnnx.LSTMCell(U), rnnx.SimpleRNNCell(U + 1)], **k),
    "keras cell": lambda **k: rnnx.RNN(keras.layers.GRUCell(U), **k),
    "both": lambda **k: rnnx.Bidirectional(rnnx.GRU(U, **k)),
    "stack": lambda **k: rnnx.Stack(rnnx.LSTM(U, **k), 2, residual=True),
}
every_layer = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)


def flat(tensors):
    return [np.asarray(t) for t in keras.tree.flatten(tensors)]


def assert_equal(found, expected):
    found, expected = flat(found), flat(expected)
    assert len(found) == len(expected)
    for f, e in zip(found, expected, strict=True):
        np.testing.assert_allclose(f, e, rtol=1e-5, atol=1e-6)


@every_layer
@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.thin(3)
def test_lengths_are_a_mask(make, sequences):
    layer, x = make(return_sequences=sequences, return_state=True), inputs()
    mask = np.arange(T) < LENGTHS[:, None]
    assert_equal(layer(x, sequence_length=LENGTHS), layer(x, mask=mask))
    holes = make_mask("holes")
    assert_equal(layer(x, sequence_length=LENGTHS, mask=holes), layer(x, mask=mask & holes))
    traced = tf.function(lambda x, n: layer(x, sequence_length=n), jit_compile=True)
    assert_equal(traced(x, LENGTHS), layer(x, mask=mask))


@every_layer
@pytest.mark.thin(3)
def test_lengths_go_on_as_the_mask_of_the_outputs(make):
    mask = np.arange(T) < LENGTHS[:, None]
    layer = make(return_sequences=True, return_state=True)
    output, *states = layer(inputs(), sequence_length=LENGTHS)
    np.testing.assert_array_equal(output._keras_mask, mask)
    assert all(getattr(s, "_keras_mask", None) is None for s in states)

    class See(keras.layers.Layer):
        def call(self, x, mask=None):
            return tf.cast(mask, tf.float32)

        def compute_output_shape(self, shape):
            return shape[:2]

    x, n = keras.Input((T, D)), keras.Input((), dtype="int32")
    model = keras.Model([x, n], See()(make(return_sequences=True)(x, sequence_length=n)))
    np.testing.assert_array_equal(model.predict([inputs(), LENGTHS], verbose=0), mask)


@every_layer
def test_ragged_is_its_dense_form_with_lengths(make):
    layer = make(return_sequences=True, return_state=True)
    ragged = tf.RaggedTensor.from_tensor(inputs(), LENGTHS)
    expected = layer(inputs(), sequence_length=LENGTHS)
    assert_equal(layer(ragged), expected)
    assert_equal(tf.function(layer)(ragged), expected)


@pytest.mark.parametrize("make", [LAYERS[n] for n in ("lstm", "both", "stack")])
def test_ragged_goes_in_and_out(make):
    layer = make(return_sequences=True, return_ragged=True)
    rows = layer(tf.RaggedTensor.from_tensor(inputs(), LENGTHS))
    assert isinstance(rows, tf.RaggedTensor) and rows.row_lengths().numpy().tolist() == [7, 3, 0]
    dense = make(return_sequences=True)
    dense.build((B, T, D))
    dense.set_weights(layer.get_weights())
    expected = np.asarray(dense(inputs(), sequence_length=LENGTHS))
    for row, full, n in zip(rows, expected, LENGTHS, strict=True):
        np.testing.assert_allclose(row, full[:n], rtol=1e-5, atol=1e-6)
    holes = make_mask("holes")
    real = layer(inputs(), mask=holes)
    np.testing.assert_array_equal(real.row_lengths(), holes.sum(axis=1))


def test_ragged_in_fit_and_predict():
    x = keras.Input((None, D), ragged=True)
    model = keras.Model(x, rnnx.LSTM(U)(x))
    model.compile("sgd", "mse")
    ragged = tf.RaggedTensor.from_tensor(inputs(), [7, 3, 1])
    before = model.predict(ragged, verbose=0)
    np.testing.assert_allclose(
        before, model.layers[-1](inputs(), sequence_length=[7, 3, 1]), rtol=1e-5, atol=1e-6
    )
    model.fit(ragged, np.ones((B, U)), verbose=0)
    assert np.abs(model.predict(ragged, verbose=0) - before).max() > 0


def test_a_mask_is_not_lost_beside_initial_states():
    """Keras looks for the attached mask of the only tensor argument, and here are two."""
    layer = rnnx.LSTM(U)
    x = keras.layers.Masking(-1.0)(np.where(make_mask("right")[..., None], inputs(), -1.0))
    states = states_like([U, U])
    assert_equal(
        layer(x, initial_state=states),
        layer(inputs(), initial_state=states, mask=make_mask("right")),
    )


@pytest.mark.quick
@pytest.mark.parametrize(
    "call, message",
    [
        (dict(sequence_length=[1.0, 2.0, 3.0]), "type float32.*expected one integer per sample"),
        (dict(sequence_length=[1, 2]), r"shape \(2,\).*batch of 3, expected one integer"),
        (dict(sequence_length=[1, 2, 9]), "from 1 to 9, expected 0 to 7: the sequences have 7"),
        (dict(sequence_length=[1, -2, 3]), "from -2 to 3, expected 0 to 7"),
        (dict(sequence_length=[[1, 2, 3]]), r"shape \(1, 3\).*expected one integer"),
        (
            dict(reset_mask=np.ones((B, T, 1))),
            r"reset_mask of shape \(3, 7, 1\).*expected \(batch,\)",
        ),
        (dict(reset_mask=np.ones(B + 1)), r"reset_mask of shape \(4,\)"),
        (
            dict(constants={"memory": np.ones((B, 2))}),
            "got constants .'memory'.*expected a dict with",
        ),
    ],
)
def test_what_does_not_go_with_the_input(call, message):
    with pytest.raises(ValueError, match=message):
        rnnx.GRU(U)(inputs(), **call)


@pytest.mark.quick
def test_ragged_is_refused_under_jit():
    ragged = tf.RaggedTensor.from_tensor(inputs(), LENGTHS)
    layer = rnnx.GRU(U)
    layer.build((B, T, D))

    @tf.function(jit_compile=True)
    def call(values, splits):
        return layer(tf.RaggedTensor.from_row_splits(values, splits, validate=False))

    with pytest.raises(ValueError, match="RaggedTensor under jit_compile=True.*sequence_length"):
        call(ragged.values, ragged.row_splits)


# -- rows that begin anew ---------------------------------------------------------------------


def documents(layer, x, borders, states):
    """Each row cut at its borders and run piece by piece, from zeros after the first."""
    outputs, last = [], []
    for row in range(B):
        cuts = [0, *(t for t in range(1, T) if borders[row, t]), T]
        state = [s[row : row + 1] for s in states]
        if borders[row, 0]:
            state = [0 * s for s in state]
        pieces = []
        for start, stop in zip(cuts[:-1], cuts[1:]):
            y, *state = layer(x[row : row + 1, start:stop], initial_state=state)
            pieces.append(y)
            last_states, state = state, [0 * s for s in state]
        outputs.append(tf.concat(pieces, axis=1))
        last.append(last_states)
    return tf.concat(outputs, 0), *(tf.concat(s, 0) for s in zip(*last, strict=True))


BORDERS = np.zeros((B, T), bool)
BORDERS[0, [0, 3]] = BORDERS[1, [1, 2, 6]] = True


@pytest.mark.parametrize(
    "name, backward, jit_compile",
    [
        ("lstm", "full", "auto"),
        ("lstm", "autodiff", "auto"),
        ("gru", "full", False),
        ("gru_before", rnnx.Checkpointed(3), "auto"),
        ("simple", rnnx.Checkpointed(3), False),
    ],
)
@pytest.mark.thin(6)
def test_resets_part_documents(name, backward, jit_compile):
    descriptor = descriptors.BY_NAME[name]
    options = {"return_sequences": True, "return_state": True, "dtype": "float64"}
    plain = descriptor.build(rnnx, options)
    layer = descriptor.build(rnnx, {**options, "backward": backward, "jit_compile": jit_compile})
    x = tf.constant(inputs(dtype="float64"))
    states = [tf.constant(s) for s in states_like(descriptor.states, dtype="float64")]

    def gradients(call, layer):
        with tf.GradientTape() as tape:
            tape.watch([x, states])
            outputs = call(layer)
            loss = tf.add_n([tf.reduce_sum(tf.sin(3 * o)) for o in outputs])
        return outputs, tape.gradient(loss, [x, states, [w.value for w in layer.trainable_weights]])

    expected = gradients(lambda layer: documents(layer, x, BORDERS, states), plain)
    found = gradients(
        lambda layer: layer(x, initial_state=states, reset_mask=BORDERS, training=True), layer
    )
    for f, e in zip(flat(found), flat(expected), strict=True):
        np.testing.assert_allclose(f, e, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("make", [LAYERS["cells"], LAYERS["keras cell"]], ids=["cells", "keras"])
def test_resets_of_other_cells(make):
    layer = make(return_sequences=True)
    found = np.asarray(layer(inputs(), reset_mask=BORDERS))
    for row in range(B):
        cuts = [0, *(t for t in range(1, T) if BORDERS[row, t]), T]
        pieces = [layer(inputs()[row : row + 1, a:b])[0] for a, b in zip(cuts[:-1], cuts[1:])]
        np.testing.assert_allclose(found[row], np.concatenate(pieces), rtol=1e-5, atol=1e-6)


def test_resets_in_both_directions():
    layer = rnnx.Bidirectional(rnnx.LSTM(U, return_sequences=True))
    found = np.asarray(layer(inputs(), reset_mask=BORDERS))
    for row in range(B):
        cuts = [0, *(t for t in range(1, T) if BORDERS[row, t]), T]
        pieces = [layer(inputs()[row : row + 1, a:b])[0] for a, b in zip(cuts[:-1], cuts[1:])]
        np.testing.assert_allclose(found[row], np.concatenate(pieces), rtol=1e-5, atol=1e-6)


def test_reset_at_a_masked_step_waits_for_the_next():
    layer = rnnx.GRU(U, return_sequences=True, return_state=True)
    x, mask = inputs(), np.ones((B, T), bool)
    mask[0, 2:4] = mask[1, 5:] = mask[2] = False
    reset = np.zeros((B, T), bool)
    reset[0, 2] = reset[1, 6] = reset[2, 0] = True  # in a hole, after the end, in an empty row
    start = states_like([U])
    output, last = layer(x, mask=mask, reset_mask=reset, initial_state=start)
    anew, _ = layer(x[:1, 4:])
    np.testing.assert_allclose(output[0, 4:], anew[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(last[1], np.zeros(U))
    np.testing.assert_allclose(last[2], np.zeros(U))
    np.testing.assert_allclose(
        output[1, :5], layer(x[1:2, :5], start[0][1:2])[0][0], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("name", ["lstm", "rnn_stack", "deep_lstm"])
def test_rows_of_a_batch_begin_anew(name):
    layer = descriptors.BY_NAME[name].build(
        rnnx, {"stateful": "any_batch", "return_sequences": True}
    )
    fresh = np.asarray(layer(inputs()))
    layer(inputs(seed=5))
    kept = np.asarray(layer(inputs(), reset_mask=[False, True, False]))
    np.testing.assert_allclose(kept[1], fresh[1], rtol=1e-5, atol=1e-6)
    assert np.abs(kept[[0, 2]] - fresh[[0, 2]]).max() > 1e-3


class Conditioned(rnnx.LSTMCell):
    """An LSTM cell of a user whose step adds a vector of each sample to its input."""

    def make_spec(self):
        import dataclasses

        from keras_rnnx.cells import LSTMSpec

        @dataclasses.dataclass(frozen=True)
        class Spec(LSTMSpec):
            constant_names = ("speaker",)

            def step(self, weights, product, x, states, constants):
                return super().step(weights, product, x + constants["speaker"], states, constants)

        return Spec(self.units)


@pytest.mark.parametrize("backward", ["full", rnnx.Checkpointed(3)])
@pytest.mark.parametrize("rows", [B, 20])
@pytest.mark.thin(6)
def test_constants_reach_every_step(backward, rows):
    """With their gradient, in parts of the batch and segments too."""
    layer = rnnx.RNN(Conditioned(U, dtype="float64"), backward=backward, dtype="float64")
    x = tf.constant(inputs(batch=rows, dtype="float64"))
    speaker = tf.constant(np.random.default_rng(3).normal(size=(rows, 4 * U)))
    with tf.GradientTape() as tape:
        tape.watch(speaker)
        output = layer(x, constants={"speaker": speaker}, training=True)
        loss = tf.reduce_sum(tf.sin(output))
    gradient = tape.gradient(loss, speaker)
    for row in (0, rows - 1):
        plain = rnnx.LSTM(U, dtype="float64")
        plain.build((1, T, D))
        weights = layer.get_weights()
        bias = tf.Variable(weights[2] + speaker[row])
        plain.set_weights([*weights[:2], bias.numpy()])
        with tf.GradientTape() as tape:
            y = plain(x[row : row + 1], training=True)
            loss = tf.reduce_sum(tf.sin(y))
        np.testing.assert_allclose(output[row], y[0], rtol=1e-10)
        np.testing.assert_allclose(
            gradient[row],
            tape.gradient(loss, plain.trainable_weights[2].value),
            rtol=1e-9,
            atol=1e-12,
        )
    with pytest.raises(ValueError, match="expected a dict with .'speaker'."):
        layer(x)


def test_nested_inputs_states_and_outputs_of_a_keras_cell():
    class Pair(keras.layers.Layer):
        state_size = [U, (2, 3)]
        output_size = [U, (2, 3)]

        def call(self, inputs, states):
            a, b = inputs
            h, c = states
            h, c = tf.tanh(a + 0.5 * h), c + b
            return [h, c], [h, c]

    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(B, T, U)).astype("f"), rng.normal(size=(B, T, 2, 3)).astype("f")
    layer = rnnx.RNN(Pair(), return_sequences=True, return_state=True)
    (h, c), *states = layer((a, b), mask=make_mask("right"))
    assert h.shape == (B, T, U) and c.shape == (B, T, 2, 3)
    real = make_mask("right")[..., None, None]
    np.testing.assert_allclose(c, np.cumsum(b * real, axis=1), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(states[1], c[:, -1])
    _, h2, c2 = layer((a, b), mask=make_mask("right"), initial_state=[0.0 * states[0], states[1]])
    np.testing.assert_allclose(h2, states[0])
    np.testing.assert_allclose(c2, 2 * states[1], rtol=1e-5, atol=1e-5)

"""Ways of going back in time: truncated, checkpointed, clipped."""

import descriptors
import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import (
    B,
    D,
    T,
    U,
    assert_all_close,
    inputs,
    loss_of,
    make_mask,
    states_like,
)

import keras_rnnx as rnnx

NAMES = ("simple", "lstm", "gru", "gru_before", "rnn_stack")
DOUBLE = {"return_sequences": True, "return_state": True, "dtype": "float64"}


def problem(name, mask_kind="none", **options):
    descriptor = descriptors.BY_NAME[name]
    layer = descriptor.build(rnnx, {**DOUBLE, **options})
    states = keras.tree.map_structure(tf.constant, states_like(descriptor.states, dtype="float64"))
    return layer, tf.constant(inputs(dtype="float64")), make_mask(mask_kind), states


def gradients(layer, x, mask, states, way=None, graph=True):
    """Outputs and gradients of x, initial states and weights."""

    def compute(x, states):
        flat = keras.tree.flatten(states)
        with tf.GradientTape() as tape:
            tape.watch([x, *flat])
            call = way or (
                lambda layer, x, mask, states: layer(x, states, mask=mask, training=True)
            )
            outputs = keras.tree.flatten(call(layer, x, mask, states))
            loss = loss_of(outputs)
        variables = [w.value for w in layer.trainable_weights]
        return outputs, tape.gradient(loss, [x, *flat, *variables])

    return (tf.function(compute) if graph else compute)(x, states)


def in_chunks(size):
    """The layer called with chunks, through whose states no gradient flows."""

    def call(layer, x, mask, states):
        outputs = []
        for start in range(0, T, size):
            rows = slice(start, start + size)
            m = None if mask is None else mask[:, rows]
            y, *states = layer(x[:, rows], states, mask=m, training=True)
            outputs.append(y)
            if start + size < T:
                states = keras.tree.map_structure(tf.stop_gradient, states)
        return tf.concat(outputs, axis=1), states

    return call


def check_equal(found, expected, tolerance=1e-12):
    for what, f, e in zip(("output", "gradient"), found, expected, strict=True):
        assert_all_close(f, e, tolerance, [f"{what} {i}" for i in range(len(e))])


@pytest.mark.parametrize(
    "name, steps, jit_compile",
    [(name, 3, "auto") for name in NAMES]
    + [("lstm", 1, "auto"), ("gru", T, "auto"), ("lstm", T + 5, False), ("gru_before", 2, False)],
)
@pytest.mark.thin(10)
def test_truncated_is_chunks_without_a_gradient_between(name, steps, jit_compile):
    plain = problem(name)
    truncated = problem(name, backward=rnnx.Truncated(steps), jit_compile=jit_compile)
    check_equal(gradients(*truncated), gradients(*plain, way=in_chunks(steps)))


@pytest.mark.parametrize("name", ["lstm", "gru_before"])
@pytest.mark.thin(2)
def test_truncated_with_a_mask(name):
    """With zeros for masked outputs nothing but the states goes from chunk to chunk."""
    options = {"zero_output_for_mask": True}
    truncated = problem(name, "holes", backward=rnnx.Truncated(3), **options)
    check_equal(gradients(*truncated), gradients(*problem(name, "holes", **options), in_chunks(3)))


def test_truncated_of_a_keras_cell():
    descriptor = descriptors.BY_NAME["lstm"]
    expected = gradients(*problem("lstm", backward=rnnx.Truncated(3)))
    cell = keras.layers.LSTMCell(U, dtype="float64")
    layer = rnnx.RNN(cell, backward=rnnx.Truncated(3), **DOUBLE)
    layer.build((B, T, D))
    layer.set_weights(descriptor.build(rnnx, DOUBLE).get_weights())
    check_equal(gradients(layer, *problem("lstm")[1:]), expected, 1e-10)


@pytest.mark.parametrize(
    "name, every",
    [
        ("lstm", 1),
        ("lstm", 3),
        ("gru_before", 7),
        ("gru", 20),
        ("simple", "sqrt"),
        ("rnn_stack", 2),
    ],
)
@pytest.mark.thin(10)
def test_checkpointed_gives_the_gradients_of_full(name, every):
    checkpointed = problem(name, "holes", backward=rnnx.Checkpointed(every))
    check_equal(gradients(*checkpointed), gradients(*problem(name, "holes")))


@pytest.mark.parametrize("rows", [16, 21])
@pytest.mark.slow
def test_checkpointed_in_parts_of_the_batch(rows):
    """Large batches run in parts that read their rows from the whole."""
    x = tf.constant(inputs(batch=rows, dtype="float64"))
    mask = make_mask("holes", batch=rows)
    states = [tf.constant(s) for s in states_like([U, U], batch=rows, dtype="float64")]
    results = []
    for options in ({"batch_parts": 1}, {"backward": rnnx.Checkpointed(2), "batch_parts": 2}):
        layer = descriptors.BY_NAME["lstm"].build(rnnx, {**DOUBLE, **options})
        assert layer.plan(training=True).parts == options["batch_parts"]
        results.append(gradients(layer, x, mask, states))
    check_equal(results[1], results[0])


@pytest.mark.parametrize("length", [0, 1, 5, 16, 17, 40])
@pytest.mark.thin(10)
def test_checkpointed_with_an_unknown_length(length):
    """Padded to whole segments and to buckets, none of which may show."""
    x = tf.constant(inputs(steps=length, dtype="float64"))
    results = []
    for backward in ("full", rnnx.Checkpointed()):
        layer = descriptors.BY_NAME["gru"].build(rnnx, {**DOUBLE, "backward": backward})

        @tf.function(input_signature=[tf.TensorSpec([None, None, D], tf.float64)])
        def compute(x, layer=layer):
            with tf.GradientTape() as tape:
                tape.watch(x)
                outputs = layer(x, training=True)
                loss = loss_of(outputs)
            return outputs, tape.gradient(loss, [x, *(w.value for w in layer.trainable_weights)])

        results.append(compute(x))
    check_equal(results[1], results[0])


@pytest.mark.parametrize("training", [None, False])
@pytest.mark.thin(2)
def test_checkpointed_where_nothing_was_kept(training):
    """Outside training the backward pass begins with the checkpoints."""
    call = lambda layer, x, mask, states: layer(x, states, mask=mask, training=training)
    checkpointed = problem("lstm", "holes", backward=rnnx.Checkpointed(3))
    assert not checkpointed[0].plan(training=training).saves
    expected = gradients(*problem("lstm", "holes"))
    for graph in (False, True):
        check_equal(gradients(*checkpointed, way=call, graph=graph), expected)


def test_checkpointed_draws_the_noise_of_full():
    results = []
    for backward in ("full", rnnx.Checkpointed(3)):
        keras.utils.set_random_seed(5)
        options = dict(dropout=0.4, recurrent_dropout=0.3, seed=7, backward=backward)
        results.append(gradients(*problem("lstm", **options)))
    check_equal(results[1], results[0])


def test_checkpointed_in_half_precision():
    """The weights' gradients are summed over segments in float32."""
    x = tf.constant(inputs(steps=60), tf.bfloat16)
    found = []
    for backward in ("full", rnnx.Checkpointed(5)):
        layer = rnnx.LSTM(U, dtype="mixed_bfloat16", backward=backward)
        layer.build((B, 60, D))
        layer.set_weights(
            [0.1 * w for w in descriptors.BY_NAME["lstm"].build(rnnx, {}).get_weights()]
        )
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.cast(layer(x, training=True), tf.float32))
        found.append(tape.gradient(loss, [w.value for w in layer.trainable_weights]))
    for a, b in zip(*found, strict=True):
        assert a.dtype == tf.float32
        np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-3)


CLIP = 16.0


def clipped_by_hand(layer, x, norm):
    """Gradients of an Elman net whose state gradients are clipped, in NumPy."""
    kernel, recurrent, bias = (w.astype("float64") for w in layer.get_weights())
    h = [np.zeros((len(x), U))]
    for t in range(T):
        h.append(np.tanh(x[:, t] @ kernel + h[-1] @ recurrent + bias))
    d_h, d_kernel, d_recurrent = np.zeros_like(h[0]), 0, 0
    clipped = 0
    for t in reversed(range(T)):
        d_h = d_h + 10 * np.cos(h[t + 1])  # of the loss, 10 sin(h) summed
        d_z = d_h * (1 - h[t + 1] ** 2)
        d_kernel, d_recurrent = d_kernel + x[:, t].T @ d_z, d_recurrent + h[t].T @ d_z
        d_h = d_z @ recurrent.T
        length = np.linalg.norm(d_h, axis=1, keepdims=True)
        clipped += np.sum(length > norm)
        d_h = d_h * np.minimum(1, norm / length)
    return d_kernel, d_recurrent, clipped


@pytest.mark.parametrize("way", [rnnx.Full, lambda **k: rnnx.Checkpointed(3, **k)])
def test_clip_norm_is_per_sample_and_step(way):
    layer = descriptors.BY_NAME["simple"].build(
        rnnx, {"return_sequences": True, "dtype": "float64", "backward": way(clip_norm=CLIP)}
    )
    x = inputs(dtype="float64")
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(10 * tf.sin(layer(x, training=True)))
    kernel, recurrent, _ = tape.gradient(loss, [w.value for w in layer.trainable_weights])
    d_kernel, d_recurrent, clipped = clipped_by_hand(layer, x, CLIP)
    assert 0 < clipped < B * T, "some are clipped and some are not"
    np.testing.assert_allclose(kernel, d_kernel, rtol=1e-10)
    np.testing.assert_allclose(recurrent, d_recurrent, rtol=1e-10)


@pytest.mark.quick
@pytest.mark.parametrize(
    "backward",
    [rnnx.Full(clip_norm=2.0), rnnx.Truncated(5), rnnx.Checkpointed("sqrt", clip_norm=1.0)],
)
def test_backward_is_saved_and_told_by_the_plan(backward):
    layer = rnnx.GRU(U, backward=backward)
    assert rnnx.GRU.from_config(layer.get_config()).backward == backward
    config = keras.saving.serialize_keras_object(layer)
    assert keras.saving.deserialize_keras_object(config).backward == backward
    plan = layer.plan(training=True)
    assert plan.backward == backward
    assert not backward.reason or plan.reasons[-1] == backward.reason


@pytest.mark.quick
@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: rnnx.Truncated(0), "steps=0, expected a positive integer"),
        (lambda: rnnx.Truncated(2.5), "steps=2.5, expected a positive integer"),
        (lambda: rnnx.Checkpointed("log"), "every='log', expected a positive integer or"),
        (lambda: rnnx.Checkpointed(True), "every=True, expected a positive integer or"),
        (lambda: rnnx.Full(clip_norm=0), "clip_norm is 0, expected a number above 0"),
        (
            lambda: rnnx.RNN(keras.layers.GRUCell(3), backward=rnnx.Checkpointed()),
            "GRUCell is not a keras_rnnx cell",
        ),
    ],
)
def test_backward_that_cannot_be(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.quick
def test_segments_divide_where_they_can():
    segment = rnnx.Checkpointed().segment
    assert segment(8192) == 128 and 8192 % 128 == 0
    assert segment(49) == 7 and segment(97) == 9 and segment(1) == 1
    known = [int(segment(tf.constant(n))) for n in (1, 4, 5, 17, 100, 8192)]
    assert known == [1, 1, 2, 4, 8, 64]

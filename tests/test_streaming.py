"""One step at a time, and sessions that keep a state for each client."""

import re
import threading

import descriptors
import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import B, D, T, U, inputs, make_mask, states_like

import keras_rnnx as rnnx

CAUSAL = sorted(d.name for d in descriptors.ALL if d.causal)


OWN = {d.name for d in descriptors.VARIANTS + descriptors.REGULARIZED}


@pytest.mark.parametrize(
    "name, graph",
    [
        pytest.param(n, graph, marks=pytest.mark.slow if graph and n in OWN else ())
        for n in CAUSAL
        for graph in (False, True)
    ],
)
@pytest.mark.thin(5)
def test_steps_are_the_sequence(name, graph):
    descriptor = descriptors.BY_NAME[name]
    layer = descriptor.build(
        rnnx, {"return_sequences": True, "return_state": True, "dtype": "float64"}
    )
    x = tf.constant(inputs(dtype="float64"))
    expected, *last = layer(x)
    step = tf.function(layer.step) if graph else layer.step
    states = layer.initial_states(B)
    for t in range(T):
        output, states = step(x[:, t], states)
        np.testing.assert_allclose(output, expected[:, t], rtol=1e-12, atol=1e-12)
    for found, e in zip(keras.tree.flatten(states), keras.tree.flatten(last), strict=True):
        np.testing.assert_allclose(found, e, rtol=1e-12, atol=1e-12)


def test_gradients_go_through_steps():
    layer = descriptors.BY_NAME["lstm"].build(rnnx, {"return_sequences": True, "dtype": "float64"})
    x = tf.constant(inputs(dtype="float64"))

    def whole(x):
        return layer(x, training=True)

    def stepwise(x):
        outputs, states = [], layer.initial_states(B)
        for t in range(T):
            output, states = layer.step(x[:, t], states, training=True)
            outputs.append(output)
        return tf.stack(outputs, axis=1)

    found = []
    for way in (whole, stepwise):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(tf.sin(3 * way(x)))
        found.append(tape.gradient(loss, [x, *(w.value for w in layer.trainable_weights)]))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def test_step_builds_a_layer():
    layer = rnnx.GRU(U)
    output, states = layer.step(inputs()[:, 0], layer.initial_states(B))
    assert output.shape == states[0].shape == (B, U)


@pytest.mark.quick
@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: rnnx.Bidirectional(rnnx.LSTM(U)).step(), "both ends, and a stream has only one"),
        (lambda: rnnx.Bidirectional(rnnx.LSTM(U)).initial_states(3), "a stream has only one"),
        (
            lambda: rnnx.GRU(U, go_backwards=True).step(inputs()[:, 0], []),
            "go_backwards=True.*first",
        ),
        (lambda: session(rnnx.Bidirectional(rnnx.LSTM(U))), "a stream has only one"),
        (lambda: session(keras.layers.LSTM(U)), "keras.layers.LSTM.*Use keras_rnnx.LSTM"),
        (
            lambda: session(rnnx.GRU(U, return_sequences=True), keras.layers.Conv1D(2, 3)),
            "Conv1D.*needs other steps",
        ),
        (
            lambda: rnnx.StreamingSession(started()).feed(1, inputs()[0]),
            "initial_state in a model that streams",
        ),
        (
            lambda: session(keras.layers.TimeDistributed(keras.layers.Dense(2))),
            "only the first step.*Use keras_rnnx.TimeDistributed",
        ),
        (lambda: session(rnnx.GRU(U, go_backwards=True)), "go_backwards=True"),
        (lambda: session(keras.layers.Dense(2)).feed(1, inputs()[0]), "no recurrent layer"),
        (
            lambda: session(rnnx.GRU(U)).feed(1, inputs()[0, 0]),
            rf"chunk of shape \[\({D},\)\], expected \[\('time', {D}\)\].*without a batch axis",
        ),
    ],
)
def test_what_cannot_stream(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def session(*layers):
    return rnnx.StreamingSession(keras.Sequential([keras.Input((None, D)), *layers]))


def started():
    x = keras.Input((None, D))
    layer = rnnx.GRU(U)
    return keras.Model(x, layer(x, initial_state=rnnx.InitialState(layer.state_size)(x)))


class Subclassed(keras.Model):
    """Uses one recurrent layer twice, each time with states of its own."""

    def __init__(self):
        super().__init__()
        self.under = rnnx.LSTM(U, return_sequences=True)
        self.shared = rnnx.GRU(U, return_sequences=True)

    def call(self, x, training=None):
        return self.shared(self.shared(self.under(x, training=training)))


def functional():
    x = keras.Input((None, D))
    y = rnnx.Stack(rnnx.GRU(U, return_sequences=True, dropout=0.5), 2, residual=True, dropout=0.5)(
        x
    )
    y = rnnx.RNN([rnnx.LSTMCell(U), rnnx.SimpleRNNCell(U + 1)], return_sequences=True)(y)
    y = rnnx.TimeDistributed(keras.layers.Dense(3))(keras.layers.LayerNormalization()(y))
    return keras.Model(x, {"a": y, "b": keras.layers.Dense(2)(y)})


MODELS = {
    "layer": lambda: rnnx.LSTM(U, return_sequences=True),
    "stateful layer": lambda: rnnx.LSTM(U, return_sequences=True, stateful="any_batch"),
    "functional": functional,
    "subclassed": Subclassed,
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.thin(2)
def test_chunks_of_a_session_are_the_sequence(name):
    model, x = MODELS[name](), inputs(steps=20)
    feed = rnnx.StreamingSession(model).feed
    expected = keras.tree.map_structure(np.asarray, model(x, training=False))
    cuts = {0: [0, 1, 2, 20], 1: [0, 13, 20], 2: [0, 20]}
    parts = {client: [] for client in cuts}
    for i in range(3):  # clients take turns
        for client, ends in cuts.items():
            if i + 1 < len(ends):
                parts[client].append(feed(client, x[client, ends[i] : ends[i + 1]]))
    for client, chunks in parts.items():
        for found, e in zip(
            zip(*map(keras.tree.flatten, chunks), strict=True),
            keras.tree.flatten(expected),
            strict=True,
        ):
            np.testing.assert_allclose(np.concatenate(found), e[client], rtol=1e-5, atol=1e-6)


def test_eight_threads_never_mix():
    layer = rnnx.LSTM(U, return_sequences=True)
    x = inputs(batch=8, steps=40)
    expected = np.asarray(layer(x))
    streams = rnnx.StreamingSession(layer)
    found, start = {}, threading.Barrier(8)

    def client(k):
        start.wait()
        rng, t, parts = np.random.default_rng(k), 0, []
        while t < 40:
            size = int(rng.integers(1, 6))
            parts.append(streams.feed(k, x[k, t : t + size]))
            t += size
        found[k] = np.concatenate(parts)

    threads = [threading.Thread(target=client, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k in range(8):
        np.testing.assert_allclose(found[k], expected[k], rtol=1e-5, atol=1e-6)


def test_states_can_be_kept_elsewhere_and_closed():
    layer = rnnx.GRU(U, return_sequences=True)
    x = inputs()[0]
    one, other = rnnx.StreamingSession(layer), rnnx.StreamingSession(layer)
    assert one.states("ann") is None
    whole = one.feed("bob", x)
    one.feed("ann", x[:4])
    other.feed("someone", x[:1])
    other.restore("ann", one.states("ann"))
    np.testing.assert_allclose(other.feed("ann", x[4:]), whole[4:], rtol=1e-5, atol=1e-6)
    one.close("ann")
    np.testing.assert_allclose(one.feed("ann", x), whole, rtol=1e-5, atol=1e-6)


def test_restored_in_a_session_that_has_seen_nothing():
    layer = rnnx.LSTM(U, return_sequences=True)
    x = inputs()[0]
    one, other = rnnx.StreamingSession(layer), rnnx.StreamingSession(layer)
    whole = one.feed("bob", x)
    one.feed("ann", x[:4])
    other.restore("ann", one.states("ann"))
    np.testing.assert_allclose(other.feed("ann", x[4:]), whole[4:], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seen", [False, True])
@pytest.mark.parametrize("shapes", [[(U,)], [(U,), (U + 1,)], [(1, U), (1, U)]])
def test_restored_from_another_model(seen, shapes):
    streams = rnnx.StreamingSession(rnnx.LSTM(U))
    if seen:
        streams.feed("bob", inputs()[0])
        streams.feed("bob", inputs()[0])
    streams.restore("ann", [np.zeros(shape, "float32") for shape in shapes])
    wanted = re.escape(f"shapes {shapes}, expected {[(U,), (U,)]}")
    with pytest.raises(ValueError, match=wanted):
        streams.feed("ann", inputs()[0])


def test_old_clients_make_room(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("keras_rnnx.streaming.time.monotonic", lambda: now[0])
    streams = rnnx.StreamingSession(rnnx.GRU(U), max_clients=2, idle_seconds=10)
    for client in ("ann", "bob", "ann", "eve"):
        streams.feed(client, inputs()[0])
    assert streams.clients == ["ann", "eve"]
    now[0] = 11.0
    fresh = streams.feed("eve", inputs()[0])
    assert streams.clients == ["eve"], "ann was idle for too long"
    np.testing.assert_array_equal(fresh, rnnx.StreamingSession(streams.model).feed(1, inputs()[0]))


# -- states that are kept, saved and learned ----------------------------------------------------


def test_kept_states_are_saved_when_asked(tmp_path):
    x = keras.Input(batch_shape=(B, None, D))
    layer = rnnx.LSTM(U, stateful=True, save_states=True)
    model = keras.Model(x, layer(x))
    expected = model.predict(inputs(), batch_size=B, verbose=0)
    again = model.predict(inputs(), batch_size=B, verbose=0)
    assert np.abs(again - expected).max() > 1e-3, "the state goes on"
    assert len(layer.non_trainable_weights) >= 2
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    third = model.predict(inputs(), batch_size=B, verbose=0)
    np.testing.assert_array_equal(loaded.predict(inputs(), batch_size=B, verbose=0), third)
    with pytest.raises(ValueError, match="save_states=True needs stateful=True"):
        rnnx.LSTM(U, save_states=True)


@pytest.mark.parametrize("keys", [None, 6])
def test_learned_initial_states(keys, tmp_path):
    layer = rnnx.LSTM(U)
    x, speaker = keras.Input((None, D)), keras.Input((), dtype="int32")
    start = rnnx.InitialState(layer.state_size, num_keys=keys, initializer="random_normal")
    output = layer(x, initial_state=start(x if keys is None else speaker))
    model = keras.Model([x, speaker], output)
    who = np.array([4, 1, 4])
    h, c = (w.numpy() for w in start.weights)
    rows = [0, 0, 0] if keys is None else who
    expected = layer(inputs(), initial_state=[h[rows], c[rows]])
    np.testing.assert_allclose(model([inputs(), who]), expected, rtol=1e-5, atol=1e-6)
    model.compile("sgd", "mse")
    model.fit([inputs(), who], np.ones((B, U)), verbose=0)
    moved = np.abs(start.weights[0].numpy() - h).max(axis=1) > 0
    assert moved.tolist() == ([True] if keys is None else [k in who for k in range(keys)])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded([inputs(), who]), model([inputs(), who]))


@pytest.mark.quick
@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: rnnx.InitialState([4, 0]), "expected a positive integer, got 0"),
        (lambda: rnnx.InitialState(4, num_keys=0), "`num_keys`, expected a positive integer"),
        (
            lambda: rnnx.InitialState(4, 3)(np.ones((3,), "float32")),
            "expected one integer per sample",
        ),
    ],
)
def test_initial_states_that_cannot_be(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_masked_steps_keep_the_state_of_a_stream():
    layer, mask = rnnx.LSTM(U, return_sequences=True, return_state=True), make_mask("holes")
    start = states_like([U, U])
    _, h, c = layer(inputs(), mask=mask, initial_state=start)
    first = layer(inputs()[:, :3], mask=mask[:, :3], initial_state=start)
    _, h2, c2 = layer(inputs()[:, 3:], mask=mask[:, 3:], initial_state=first[1:])
    np.testing.assert_allclose([h, c], [h2, c2], rtol=1e-5, atol=1e-6)


def test_stateful_layer_built_within_another():
    """Its variables are made outside the graph in which Keras traces the layer around it."""

    class Around(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = rnnx.GRU(U, stateful="any_batch")

        def call(self, x):
            return self.inner(x)

    model = keras.Sequential([keras.Input((None, D)), Around()])
    assert model.predict(inputs(), verbose=0).shape == (B, U)

"""GradientMonitor: norms against a tape of our own, the layer that is named, nothing disturbed."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_rnnx as rnnx
from keras_rnnx.training import GradientMonitor

B, T, D, U = 3, 30, 4, 5


def data(seed=0, steps=T):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(B, steps, D)), rng.normal(size=(B, 1))
    return x.astype("float32"), y.astype("float32")


def stack(layer=rnnx.SimpleRNN, scales=(1, 1), **options):
    """Two recurrent layers and a head; orthogonal recurrent weights times `scales`."""
    options = {"jit_compile": False, **options}  # compiles faster
    layers = [
        layer(U, return_sequences=True, name="lower", **options),
        layer(6, name="upper", **options),
        keras.layers.Dense(1, name="head"),
    ]
    model = keras.Sequential([keras.Input((None, D)), *layers])
    rng = np.random.default_rng(1)
    for one, scale in zip(layers, scales):
        kernel, recurrent, bias = one.get_weights()
        one.set_weights([kernel, recurrent * scale, 0.1 * rng.normal(size=bias.shape)])
    model.compile("sgd", "mse", jit_compile=False)
    return model


def trained(model, monitor, batches=1, expect=()):
    """Train with the monitor; the texts of its warnings."""
    x, y = data(1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(x, y, batch_size=B, epochs=batches, verbose=0, callbacks=[monitor])
    return [str(w.message) for w in caught if "GradientMonitor" in str(w.message)]


def test_norms_are_those_of_a_tape():
    x, y = data(steps=6)
    inputs = keras.Input((None, D))
    lstm = rnnx.LSTM(U, return_sequences=True, name="lstm")
    h = rnnx.Bidirectional(lstm, name="both")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1, name="head")(rnnx.GRU(6, name="gru")(h)))
    model.compile(keras.optimizers.SGD(0.0), "mse")
    monitor = GradientMonitor(x, y)
    model.fit(x, y, batch_size=B, verbose=0, callbacks=[monitor])

    both, gru, head = (model.get_layer(name) for name in ("both", "gru", "head"))
    with tf.GradientTape() as tape:
        h = both(x)
        tape.watch(h)
        states = gru(h)
        loss = tf.reduce_mean((head(states) - y) ** 2)
    wanted = (h, both.forward_layer.trainable_variables, gru.trainable_variables)
    by_h, forward, by_gru = tape.gradient(
        loss, tf.nest.map_structure(lambda v: getattr(v, "value", v), wanted)
    )
    norm = lambda gradients: float(tf.linalg.global_norm(gradients))
    latest = {name: values[-1] for name, values in monitor.history.items()}
    close = lambda value: pytest.approx(value, rel=1e-4)
    assert latest["gradient_norm/both/forward_lstm"] == close(norm(forward))
    assert latest["gradient_norm/gru"] == close(norm(by_gru))
    assert latest["state_norm/gru"] == close(np.linalg.norm(states) / np.sqrt(B))
    steps = np.linalg.norm(by_h, axis=(0, 2))
    np.testing.assert_allclose(monitor.step_gradient_norms["gru"], steps, rtol=1e-4)
    assert latest["step_gradient_norm/gru/first"] == close(steps[0])
    assert latest["step_gradient_norm/gru/last"] == close(steps[-1])

    # Both directions take the same input; each has a gradient of its own.
    for i, name in enumerate(("forward", "backward")):
        with tf.GradientTape() as tape:
            given = tf.constant(x)
            tape.watch(given)
            layer = getattr(both, f"{name}_layer")
            out = layer(given)
            out = tf.reverse(out, [1]) if i else out
            other = both.forward_layer(x) if i else tf.reverse(both.backward_layer(x), [1])
            h = tf.concat([other, out] if i else [out, other], axis=-1)
            loss = tf.reduce_mean((head(gru(h)) - y) ** 2)
        gradient = tape.gradient(loss, given)
        expected = np.linalg.norm(gradient, axis=(0, 2))
        found = monitor.step_gradient_norms[f"both/{name}_lstm"]
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_logs_and_history():
    x, y = data()
    monitor, model = GradientMonitor(x, y, every=2), stack(rnnx.GRU)
    history = model.fit(x, y, batch_size=1, epochs=2, verbose=0, callbacks=[monitor])
    assert monitor.history["batch"] == [0, 2, 4, 6]
    names = set(monitor.history) - {"batch"}
    assert names == {
        *(f"gradient_norm/{name}" for name in ("lower", "upper", "head")),
        *(f"state_norm/{name}" for name in ("lower", "upper")),
        *(f"step_gradient_norm/{n}/{w}" for n in ("lower", "upper") for w in ("first", "last")),
    }
    for name in names:
        assert history.history[name] == [monitor.history[name][i] for i in (1, 3)]


@pytest.mark.parametrize("layer", [rnnx.LSTM, rnnx.GRU, rnnx.SimpleRNN])
@pytest.mark.thin(3)
def test_a_healthy_net_gives_no_warning(layer):
    assert trained(stack(layer), GradientMonitor(*data(), every=1), batches=3) == []


@pytest.mark.parametrize("sick, scales", [("lower", (2.5, 1)), ("upper", (1, 2.5))])
def test_an_exploding_layer_is_named(sick, scales):
    model = stack(scales=scales, activation="relu")
    (text,) = trained(model, GradientMonitor(*data(), every=9))
    assert f"layer '{sick}'" in text and "above explode=1000" in text and "after 0 batches" in text


@pytest.mark.parametrize("scale", [1e-3, 0.3])
def test_a_vanishing_layer_is_named(scale):
    """The layer below gets what is left of the gradient, and is not to blame."""
    (text,) = trained(stack(scales=(1e-2, scale)), GradientMonitor(*data(), every=9))
    assert "layer 'upper' at step 0 of 30 has norm" in text and "below vanish=1e-07" in text


def test_the_lower_layer_can_vanish_too():
    """With the last output only, and a layer above that goes on from its last state."""
    x, y = data()
    inputs = keras.Input((None, D))
    encoder = rnnx.SimpleRNN(U, return_state=True, name="encoder")
    _, state = encoder(inputs)
    h = rnnx.SimpleRNN(U, name="decoder")(inputs[:, :3], initial_state=state)
    model = keras.Model(inputs, keras.layers.Dense(1)(h))
    model.compile("sgd", "mse")
    kernel, recurrent, bias = encoder.get_weights()
    encoder.set_weights([kernel, 0.1 * recurrent, bias])
    (text,) = trained(model, GradientMonitor(x, y))
    assert "layer 'encoder' at step 0 of 30" in text


@pytest.mark.parametrize("sick", ["lower", "upper", "head"])
@pytest.mark.thin(3)
def test_the_layer_with_nan_weights_is_named(sick):
    model = stack()
    layer = model.get_layer(sick)
    first, *rest = layer.get_weights()
    first[0, 0] = np.nan
    layer.set_weights([first, *rest])
    # After an update all weights are NaN; it stays with the first that had them.
    (text,) = trained(model, GradientMonitor(*data(), every=1), batches=2)
    assert f"weights of layer '{sick}' are NaN" in text
    layer.set_weights([first, *rest])
    with pytest.raises(ValueError, match="are NaN or infinite"):
        trained(model, GradientMonitor(*data(), every=1, on_nan="raise"))


def test_states_that_overflow_are_named():
    (text,) = trained(stack(scales=(40, 1), activation="relu"), GradientMonitor(*data(), every=9))
    assert "the last state of layer 'lower' has norm" in text


def test_masked_and_truncated_steps_are_no_vanishing():
    x, y = data()
    x[:, 20:] = 0
    for options in ({}, {"backward": rnnx.Truncated(4)}):
        inputs = keras.Input((None, D))
        h = rnnx.GRU(U, name="gru", **options)(keras.layers.Masking()(inputs))
        model = keras.Model(inputs, keras.layers.Dense(1)(h))
        model.compile("sgd", "mse")
        monitor = GradientMonitor(x, y)
        assert trained(model, monitor) == []
        steps = monitor.step_gradient_norms["gru"]
        last = monitor.history["step_gradient_norm/gru/last"][0]
        assert steps[20:].max() == 0 and last == steps[19] > 0
        assert (steps[0] == 0) == bool(options)


class Held(keras.layers.Layer):
    """Keeps a layer under a name that is nobody's business."""

    def __init__(self, inner):
        super().__init__(name="held")
        self._inner = {"it": [inner]}

    def build(self, shape):
        self._inner["it"][0].build(shape)

    def call(self, x):
        return self._inner["it"][0](x)


@pytest.mark.slow
def test_training_is_the_same_as_without():
    """Dropout seeds, kept states, batch statistics, metrics of two outputs."""

    def run(callbacks):
        keras.utils.set_random_seed(4)
        inputs = keras.Input(batch_shape=(B, None, D))
        h = rnnx.LSTM(U, dropout=0.3, recurrent_dropout=0.2, stateful=True, return_sequences=True)
        h = keras.layers.Dropout(0.2)(keras.layers.BatchNormalization()(h(inputs)))
        h = Held(rnnx.GRU(6, stateful="any_batch", name="gru"))(h)
        outputs = [keras.layers.Dense(1, name=name)(h) for name in ("one", "two")]
        model = keras.Model(inputs, outputs)
        model.compile("adam", ["mse", "mae"], metrics=[["mae"], ["mse"]])
        x, y = data()
        history = model.fit(
            x, [y, y], batch_size=B, epochs=4, shuffle=False, verbose=0, callbacks=callbacks
        )
        values = [v.numpy() for v in model.variables]
        states = [v.numpy() for layer in (model.layers[1],) for v in layer.states]
        return history.history, values + states

    x, y = data(7)
    monitor = GradientMonitor(x, (y, y), every=2)
    logs, values = run([monitor])
    plain_logs, plain = run([])
    assert "gradient_norm/held/gru" in logs and "step_gradient_norm/held/gru/first" in logs
    assert {name: logs[name] for name in plain_logs} == plain_logs
    for ours, theirs in zip(values, plain, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    "options, text",
    [
        ({"every": 0}, "every=0, expected a positive integer"),
        ({"vanish": 2.0, "explode": 1.0}, "expected numbers with 0 <= vanish < explode"),
        ({"on_nan": "stop"}, 'on_nan=\'stop\', expected "warn" or "raise"'),
    ],
)
def test_errors(options, text):
    with pytest.raises(ValueError, match=text):
        GradientMonitor(*data(), **options)

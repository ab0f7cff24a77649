"""accelerate: the same model with this package's layers, trained on from where it was."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import D, T, U, inputs, weights_like

import keras_rnnx as rnnx

IDS = np.array([[3, 1, 5, 2, 0], [4, 8, 0, 0, 0], [0, 0, 7, 7, 7]])


def text_classifier(dropout=0.1):
    layers = [
        keras.Input((None,), dtype="int32"),
        keras.layers.Embedding(9, D, mask_zero=True),
        keras.layers.LSTM(U, dropout=dropout, name="lstm"),
        keras.layers.Dense(2, activation="softmax"),
    ]
    return keras.Sequential(layers), IDS


def two_inputs_and_initial_states():
    x, h = keras.Input((None, D), name="x"), keras.Input((U,), name="h")
    c = keras.layers.Dense(U)(h)
    y, *states = keras.layers.LSTM(U, return_sequences=True, return_state=True)(
        x, initial_state=[h, c]
    )
    z = keras.layers.GRU(U)(y, initial_state=states[1])
    return keras.Model([x, h], {"y": y, "z": z}), [inputs(1), inputs(2, steps=U)[:, :, 0]]


def bidirectional_stack_with_masks():
    x = keras.Input((T, D))
    y = keras.layers.Masking(0.5)(x)
    y = keras.layers.Bidirectional(keras.layers.GRU(U, return_sequences=True), "sum")(y)
    y = keras.layers.Dropout(0.2)(y)
    y = keras.layers.RNN([keras.layers.LSTMCell(U), keras.layers.SimpleRNNCell(3)])(y)
    a = inputs(3)
    a[0, :2] = a[1, 4:] = a[2, 3] = 0.5
    return keras.Model(x, y), a


def stateful_forecaster():
    x = keras.Input(batch_shape=(3, 2, D))
    y = keras.layers.LSTM(U, stateful=True, return_sequences=True)(x)
    y = keras.layers.TimeDistributed(keras.layers.Dense(1))(
        keras.layers.GRU(U, return_sequences=True)(y)
    )
    return keras.Model(x, y), inputs(4, steps=2)


def sequence_to_sequence():
    """As Keras' guide has it: an encoder's states begin the decoder, both nested in one model."""
    source = keras.Input((None, D), name="source")
    _, h, c = keras.layers.LSTM(U, return_state=True)(source)
    encoder = keras.Model(source, [h, c], name="encoder")
    target, s1, s2 = keras.Input((None, 3)), keras.Input((U,)), keras.Input((U,))
    y = keras.layers.LSTM(U, return_sequences=True)(target, initial_state=[s1, s2])
    decoder = keras.Model([target, s1, s2], keras.layers.Dense(3)(y), name="decoder")
    given = keras.Input((None, 3), name="target")
    model = keras.Model([source, given], decoder([given, *encoder(source)]))
    return model, [inputs(5), inputs(6, features=3)]


MODELS = [
    text_classifier,
    two_inputs_and_initial_states,
    bidirectional_stack_with_masks,
    stateful_forecaster,
    sequence_to_sequence,
]


def recurrent(model):
    kinds = (keras.layers.RNN, rnnx.layers.RNN, keras.layers.Bidirectional, rnnx.Bidirectional)
    return [one for one in rnnx.layers.everything(model) if isinstance(one, kinds)]


def flat(outputs):
    return [np.array(a) for a in keras.tree.flatten(outputs)]


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.thin(4)
def test_same_answers(make, capsys):
    model, x = make()
    model.set_weights(weights_like(model, 3))
    model(x)  # gives the stateful one a state
    before = model.get_weights()
    fast = rnnx.accelerate(model, verify=x)
    assert all(type(one).__module__.startswith("keras_rnnx.") for one in recurrent(fast))
    assert all(type(one).__module__.startswith("keras.") for one in recurrent(model))
    said = capsys.readouterr().out.splitlines()
    assert len(said) >= 1 and all(": keras_rnnx." in line for line in said)
    named = lambda model: [
        one.name for one in model.layers if not isinstance(one, keras.layers.InputLayer)
    ]
    assert named(fast) == named(model)
    for _ in range(2):
        for a, b in zip(flat(fast(x)), flat(model(x)), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5 * max(np.abs(b).max(), 1))
    for weight in fast.weights:
        weight.assign(weight + 1.0)
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b), "the original is left as it is"


def test_training_goes_on_where_it_was():
    """Nobody sees in the losses that the model was replaced in between."""
    x, y = IDS.repeat(4, 0), np.arange(12) % 2

    def compiled():
        model, _ = text_classifier(dropout=0.0)
        model.set_weights(weights_like(model, 3))
        model.compile(keras.optimizers.Adam(0.05), own_loss, metrics=["accuracy"])
        model.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0)
        return model

    stay, model = compiled(), compiled()
    fast = rnnx.accelerate(model, verbose=False)
    assert int(fast.optimizer.iterations) == 6
    for a, b in zip(fast.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a, b)
    losses = [m.fit(x, y, batch_size=4, epochs=3, shuffle=False, verbose=0) for m in (fast, stay)]
    np.testing.assert_allclose(*(h.history["loss"] for h in losses), rtol=1e-4)
    assert losses[0].history["accuracy"] == losses[1].history["accuracy"]


def own_loss(y, p):
    return keras.losses.sparse_categorical_crossentropy(y, p)


class OwnCell(keras.layers.LSTMCell):
    pass


@keras.saving.register_keras_serializable(package="test_accelerate")
class Own(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = keras.layers.GRU(U, name="inner")

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x):
        return self.inner(x)


def test_what_is_kept_and_why(capsys):
    x = keras.Input((6, D), name="x")
    y = keras.layers.RNN(OwnCell(U), return_sequences=True, name="a")(x)
    z = keras.layers.Reshape((6, U, 1))(y)
    z = keras.layers.ConvLSTM1D(2, 2, name="b")(z)
    model = keras.Model(x, [z, Own(name="c")(y), keras.layers.GRU(2, name="d")(y)])
    fast = rnnx.accelerate(model, verify=inputs(1, steps=6))
    said = sorted(capsys.readouterr().out.splitlines())
    assert said[0].startswith("a: kept. a runs a OwnCell, a cell that is not Keras' own")
    assert said[1].startswith("b: kept. b is a ConvLSTM1D, for which keras_rnnx has no layer")
    assert said[2].startswith("c: kept. It is a Own, which holds inner")
    assert said[3] == "d: keras_rnnx.GRU in place of keras.layers.GRU"
    assert type(fast.get_layer("d")) is rnnx.GRU


def test_nothing_to_replace(capsys):
    model = keras.Sequential([keras.Input((D,)), keras.layers.Dense(2)])
    model.name = "plain"
    rnnx.accelerate(model, verify=inputs(1)[:, 0])
    assert capsys.readouterr().out == (
        "plain has no recurrent layer of Keras: nothing was replaced.\n"
    )


def test_lookup_tables_are_shared():
    words = keras.layers.TextVectorization()
    words.adapt(["a good film", "a bad one"])
    layers = [keras.Input((), dtype="string"), words, keras.layers.Embedding(9, D, mask_zero=True)]
    model = keras.Sequential([*layers, keras.layers.GRU(U)])
    text = tf.constant(["good", "a bad film"])
    fast = rnnx.accelerate(model, verify=text, verbose=False)
    assert fast.layers[0] is words


def test_a_loss_that_nobody_can_read(capsys):
    model, _ = text_classifier()
    model.compile("sgd", lambda y, p: keras.ops.mean(p))
    fast = rnnx.accelerate(model)
    assert not fast.compiled and model.compiled
    assert "sequential: the copy is not compiled" in capsys.readouterr().out.replace(
        model.name, "sequential"
    )


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="mine")
        self.body = keras.layers.LSTM(U, name="body")

    def call(self, x):
        return self.body(x)


@pytest.mark.parametrize(
    "make, message",
    [
        (Subclassed, r"mine is a Subclassed, .* layers of Keras are: body \(LSTM\)"),
        (lambda: keras.layers.LSTM(U), "Expected a model of Keras 3, got LSTM of keras"),
        (lambda: "model.keras", "got str of builtins. A single layer, or the path of a file"),
        (lambda: keras.Sequential([keras.layers.GRU(U)]), "has no weights yet"),
    ],
)
def test_refused(make, message):
    with pytest.raises(ValueError, match=message):
        rnnx.accelerate(make())


def test_a_model_that_differs_is_told(monkeypatch):
    model, x = text_classifier()
    ours = rnnx.interop.keras_layers.ours

    def wrong(layer):
        made = ours(layer)
        made.cell.spec = rnnx.cells.LSTMSpec(U, activation=keras.activations.relu)
        return made

    monkeypatch.setattr(rnnx.interop.keras_layers, "ours", wrong)
    model.set_weights(weights_like(model, 3))
    with pytest.raises(ValueError, match="differs from that of sequential"):
        rnnx.accelerate(model, verify=x, verbose=False)

"""Layers, models and files of Keras 3 and 2, and back: the same numbers, and what is refused."""

import importlib

import hypothesis
import hypothesis.strategies as st
import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import B, D, T, U, assert_close, inputs, loss_of, make_mask, weights_like

import keras_rnnx as rnnx
from keras_rnnx import engine
from keras_rnnx import interop

MASK = make_mask("holes")


def both_ways(layer, x, mask):
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = keras.tree.flatten(layer(x, mask=mask))
        loss = loss_of(outputs)
    return outputs + tape.gradient(loss, [x, *[w.value for w in layer.trainable_weights]])


CONFIGURATIONS = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["LSTM", "GRU", "SimpleRNN"]),
        "around": st.sampled_from([None, "Bidirectional", "RNN"]),
        "reset_after": st.booleans(),
        "activation": st.sampled_from(["tanh", "relu", "linear"]),
        "use_bias": st.booleans(),
        "return_sequences": st.booleans(),
        "return_state": st.booleans(),
        "go_backwards": st.booleans(),
        "merge_mode": st.sampled_from(["concat", "sum", "mul", "ave"]),
    }
)


def make(namespace, configuration):
    c = dict(configuration)
    kind, around, reset_after = (c.pop(n) for n in ("kind", "around", "reset_after"))
    merge_mode, back = c.pop("merge_mode"), c.pop("go_backwards")
    of_cell = {n: c.pop(n) for n in ("activation", "use_bias")}
    if kind == "GRU":
        of_cell["reset_after"] = reset_after
    if around == "RNN":
        cells = [getattr(namespace, f"{kind}Cell")(U + k, **of_cell) for k in range(2)]
        return namespace.RNN(cells, **c, go_backwards=back)
    if around is None:
        return getattr(namespace, kind)(U, **of_cell, **c, go_backwards=back)
    return namespace.Bidirectional(getattr(namespace, kind)(U, **of_cell, **c), merge_mode)


@hypothesis.settings(max_examples=15, deadline=None, derandomize=True)
@hypothesis.given(CONFIGURATIONS)
@pytest.mark.slow
def test_layers_of_keras_and_back(configuration):
    x, layer = inputs(3), make(keras.layers, configuration)
    layer.build((B, T, D))
    layer.set_weights(weights_like(layer))
    with rnnx.portable():  # each configuration would compile a loop
        ours = interop.from_keras(layer)
        assert type(ours).__module__.split(".")[0] == "keras_rnnx" and ours.name == layer.name
        mask = None if configuration["go_backwards"] else MASK  # Keras' own is wrong there
        wanted, found = both_ways(layer, x, mask), both_ways(ours, x, mask)
    for k, (a, b) in enumerate(zip(found, wanted, strict=True)):
        assert_close(a, b, 1e-5 if k < 1 else 1e-4, f"array {k}")
    back = interop.to_keras(ours)
    assert type(back) is type(layer)
    for a, b in zip(back.get_weights(), layer.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(keras.tree.flatten(back(x))[0], keras.tree.flatten(layer(x))[0])


def test_kept_states_and_policies_go_along():
    layer, x = keras.layers.LSTM(U, stateful=True, dtype="mixed_bfloat16"), inputs(1)
    layer(x)
    ours = interop.from_keras(layer)
    assert ours.dtype_policy.name == "mixed_bfloat16"
    for a, b in zip(ours.states, layer.states):
        np.testing.assert_array_equal(a, b)
    assert interop.from_keras(keras.layers.GRU(U, dropout=0.2, name="g")).dropout == 0.2


@pytest.mark.parametrize(
    "layer, message",
    [
        (keras.layers.ConvLSTM1D(3, 2), "ConvLSTM1D, for which keras_rnnx has no layer"),
        (keras.layers.Dense(3), "Dense, for which keras_rnnx has no layer"),
    ],
)
def test_no_counterpart_here(layer, message):
    with pytest.raises(interop.NoCounterpart, match=message):
        interop.from_keras(layer)


class OwnCell(keras.layers.LSTMCell):
    pass


def test_cells_that_are_not_keras_own():
    with pytest.raises(interop.NoCounterpart, match="runs a OwnCell, a cell that is not Keras'"):
        interop.from_keras(keras.layers.RNN(OwnCell(U)))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: rnnx.LSTM(U, peephole=True), "peephole=True, which Keras does not have"),
        (lambda: rnnx.GRU(U, zoneout=0.1), "zoneout=0.1"),
        (lambda: rnnx.GRU(U, dropout_mode="step"), "dropout_mode='step'"),
        (lambda: rnnx.GRU(U, stateful="any_batch"), 'stateful="any_batch"'),
        (lambda: rnnx.GRU(U, backward=rnnx.Truncated(2)), r"backward=Truncated"),
        (lambda: rnnx.GRU(U, backward=rnnx.Full(clip_norm=1.0)), r"backward=Full\(clip_norm=1.0\)"),
        (lambda: rnnx.Stack(rnnx.GRU(U), 2), "Stack, .* Convert its `layers` one by one"),
        (lambda: rnnx.NAS(U), "NAS, for which Keras has no layer"),
        (lambda: rnnx.RNN(rnnx.MinGRUCell(U)), "runs a MinGRUCell"),
        (lambda: rnnx.Embedding(9, 4, dropout=0.1), "dropout=0.1"),
    ],
)
def test_no_counterpart_in_keras(make, message):
    with pytest.raises(interop.NoCounterpart, match=message):
        interop.to_keras(make())


def test_how_a_layer_runs_is_left_out():
    layer = rnnx.LSTM(U, jit_compile=False, batch_parts=4, backward=rnnx.Checkpointed())
    assert type(interop.to_keras(layer)) is keras.layers.LSTM


def test_model_without_this_package():
    x = keras.Input((None,), dtype="int32")
    y = rnnx.Embedding(9, D, mask_zero=True)(x)
    y = rnnx.TimeDistributed(keras.layers.Dense(D))(y)
    y = rnnx.Bidirectional(rnnx.LSTM(U, return_sequences=True))(y)
    model = keras.Model(x, keras.layers.Dense(2)(rnnx.GRU(U)(y)))
    model.set_weights(weights_like(model))
    plain = interop.to_keras(model)
    names = {type(layer).__module__.split(".")[0] for layer in plain.layers}
    assert names == {"keras"}
    ids = np.array([[3, 1, 5, 2], [4, 8, 0, 0]])
    np.testing.assert_allclose(plain(ids), model(ids), atol=1e-5)
    with pytest.raises(interop.NoCounterpart, match="MeanOverTime, for which Keras has no layer"):
        pooled = keras.Model(x, rnnx.MeanOverTime()(rnnx.Embedding(9, D)(x)))
        interop.to_keras(pooled)


# -- Keras 2 --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tf_keras():
    return pytest.importorskip("tf_keras", reason="tf_keras (Keras 2) is not installed")


def sequential(k):
    layers = [
        k.layers.Embedding(10, 4, mask_zero=True, input_length=6),
        k.layers.Bidirectional(k.layers.LSTM(5, return_sequences=True)),
        k.layers.GRU(3, kernel_regularizer="l2", return_sequences=True),
        k.layers.GRU(3, reset_after=False),
        k.layers.BatchNormalization(),
        k.layers.Dense(2, trainable=False),
    ]
    return k.Sequential(layers), [np.random.default_rng(0).integers(0, 10, size=(3, 6))]


def functional(k):
    x, s = k.Input((6, 4), name="x"), k.Input((5,), name="s")
    y = k.layers.SimpleRNN(5, return_sequences=True)(x, initial_state=[s])
    y = k.layers.TimeDistributed(k.layers.Dense(3))(y)
    z = k.layers.RNN([k.layers.LSTMCell(4), k.layers.GRUCell(3)])(y)
    shared = k.layers.Bidirectional(k.layers.GRU(5, return_state=True), merge_mode="sum")
    first = shared(y, initial_state=[s, s])
    again = shared(y)
    return k.Model([x, s], [z, first[0], again[0]]), [inputs(1, 3, 6, 4), inputs(2, 3, 1, 5)[:, 0]]


def nested(k):
    inner = k.Sequential([k.layers.LSTM(4, return_sequences=True)])
    x = k.Input((None, 4))
    other = k.Model(x, k.layers.GRU(4, return_sequences=True)(x))
    outputs = [k.layers.Dense(2)(inner(x)), other(other(x)), inner(other(x))]
    return k.Model(x, outputs), [inputs(1, 3, 6, 4)]


@pytest.mark.parametrize("form", ["object", "h5", "keras"])
@pytest.mark.parametrize("make", [sequential, functional, nested])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.thin(10)
def test_models_of_keras_2(make, form, tf_keras, tmp_path):
    old, x = make(tf_keras)
    old.compile("adam", "mse")
    old.set_weights(weights_like(old, 4))
    wanted = keras.tree.flatten(old(x if len(x) > 1 else x[0]))
    source = old
    if form != "object":
        source = tmp_path / f"m.{form}"
        old.save(source)
    made = interop.from_keras(source)
    assert isinstance(made, keras.Model) and made.name == old.name
    inside = {type(one).__module__.split(".")[0] for one in rnnx.layers.everything(made)}
    assert "keras_rnnx" in inside and "tf_keras" not in inside
    found = keras.tree.flatten(made(x if len(x) > 1 else x[0]))
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_ragged_inputs_of_keras_2(tf_keras, tmp_path):
    x = tf_keras.Input((None, D), ragged=True)
    tf_keras.Model(x, tf_keras.layers.LSTM(U)(x)).save(tmp_path / "m.h5")
    with pytest.raises(interop.NoCounterpart, match="input of ragged tensors"):
        interop.from_keras(tmp_path / "m.h5")


def test_layers_of_keras_2(tf_keras):
    layer = tf_keras.layers.Bidirectional(tf_keras.layers.GRU(U, return_sequences=True))
    x = inputs(2)
    wanted = layer(x)
    np.testing.assert_allclose(interop.from_keras(layer)(x), wanted, atol=1e-5)
    with pytest.raises(ValueError, match="time_major=True is Keras 2's"):
        interop.from_keras(tf_keras.layers.LSTM(U, time_major=True))


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_weights_of_keras_2_without_a_model(tf_keras, tmp_path):
    old = tf_keras.Sequential([tf_keras.layers.LSTM(U), tf_keras.layers.Dense(2)])
    x = inputs(2)
    wanted = old(x)
    old.save_weights(tmp_path / "w.h5")
    with pytest.raises(ValueError, match="holds weights and no model"):
        interop.from_keras(tmp_path / "w.h5")
    model = keras.Sequential([keras.Input((None, D)), rnnx.LSTM(U), keras.layers.Dense(2)])
    model.load_weights(tmp_path / "w.h5")
    np.testing.assert_allclose(model(x), wanted, atol=1e-5)


def packed_by_keras_2(layer, gates):
    """The buffer that the layer gives cuDNN: its matrices as they lie in memory, by the order of
    TensorFlow's CuDNNLSTM and CuDNNGRU (tf.compat.v1.keras.layers)."""
    kernel, recurrent, bias = layer.get_weights()
    order = (1, 0, 2) if gates == 3 else (0, 1, 2, 3)
    parts = [np.split(a, gates, axis=1)[k].ravel() for a in (kernel, recurrent) for k in order]
    parts += [np.split(b, gates)[k] for b in np.split(bias, 2) for k in order]
    return np.concatenate(parts)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_layers_for_gpus_of_keras_2(kind, both, tf_keras, tmp_path):
    """cuDNN gets the same numbers from ours, packed, as from the old layer."""
    # Its public name, tf.compat.v1.keras.layers, is there only where tf.keras is Keras 2.
    module = importlib.import_module(f"tf_keras.src.layers.rnn.cudnn_{kind.lower()}")
    cls = getattr(module, f"CuDNN{kind}")
    inside = cls(U, return_sequences=True)
    layer = tf_keras.layers.Bidirectional(inside) if both else inside
    layer.build((None, None, D))
    layer.set_weights(weights_like(layer, 2))
    ours = interop.from_keras(layer)
    old = tf_keras.Sequential([tf_keras.Input((None, D)), layer])
    old.save(tmp_path / "m.h5")
    (of_file,) = interop.from_keras(tmp_path / "m.h5").layers
    for a, b in zip(of_file.get_weights(), ours.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    ways = (layer.forward_layer, layer.backward_layer) if both else (layer,)
    cells = [w.cell for w in (ours.forward_layer, ours.backward_layer)] if both else [ours.cell]
    for way, cell in zip(ways, cells):
        found = engine.cudnn.pack(kind.lower(), [cell.tensors()])
        wanted = packed_by_keras_2(way, 4 if kind == "LSTM" else 3)
        if kind == "LSTM":  # the two biases are added up
            n = 8 * U
            wanted = np.concatenate([wanted[:-n], wanted[-n:].reshape(2, -1).sum(0)])
            found = np.concatenate([found[:-n], np.reshape(found[-n:], (2, -1)).sum(0)])
        np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_files_that_hold_no_model(tmp_path):
    (tmp_path / "text").write_text("no model")
    with pytest.raises(ValueError, match="not a model that Keras saved"):
        interop.from_keras(tmp_path / "text")
    with pytest.raises(FileNotFoundError, match="no file"):
        interop.from_keras(tmp_path / "none.h5")


@pytest.mark.parametrize("ending", ["keras", "h5"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_files_of_keras_3(ending, tmp_path):
    model = keras.Sequential([keras.Input((None, D)), keras.layers.GRU(U)])
    model.save(tmp_path / f"m.{ending}")
    made = interop.from_keras(tmp_path / f"m.{ending}")
    assert type(made.layers[0]) is rnnx.GRU
    np.testing.assert_allclose(made(inputs(1)), model(inputs(1)), atol=1e-6)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_a_loss_by_name_in_an_h5_file_of_keras_3(tmp_path):
    """Keras itself refuses to load what it wrote there."""
    model = keras.Sequential([keras.Input((None, D)), keras.layers.GRU(U)])
    model.compile(keras.optimizers.Adam(0.05), "mse")
    model.fit(inputs(1), np.zeros((B, U)), verbose=0)
    model.save(tmp_path / "m.h5")
    with pytest.warns(UserWarning, match="m.h5: not compiled, Could not deserialize"):
        made = interop.from_keras(tmp_path / "m.h5")
    np.testing.assert_allclose(made(inputs(1)), model(inputs(1)), atol=1e-6)
    assert not made.compiled
    # The model that was saved has lost its optimizer where Keras tells how it is compiled.
    copy = rnnx.accelerate(model, verbose=False)
    assert isinstance(copy.optimizer, keras.optimizers.Adam)
    np.testing.assert_allclose(copy.optimizer.learning_rate, 0.05)
    assert int(copy.optimizer.iterations) == 1


@pytest.mark.parametrize("ending", ["keras", "h5"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_files_of_keras_3_with_an_optimizer(ending, tmp_path):
    model = keras.Sequential([keras.Input((None, D)), keras.layers.GRU(U)])
    model.compile("adam", keras.losses.MeanSquaredError())  # Keras cannot read "mse" in a .h5
    x, y = inputs(1), np.zeros((len(inputs(1)), U), "float32")
    model.fit(x, y, verbose=0)
    model.save(tmp_path / f"m.{ending}")
    made = interop.from_keras(tmp_path / f"m.{ending}")
    np.testing.assert_allclose(made(x), model(x), atol=1e-6)
    # Keras reads the optimizer's variables from .keras files only.
    assert int(made.optimizer.iterations) == (1 if ending == "keras" else 0)
    made.fit(x, y, verbose=0)

"""Exported models: stock ops only, and the same answers wherever they are loaded.

A reload in Python proves little about a server, so the files are read without running them, and
answered by a process that has the session loader, no XLA and nothing of ours.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import B, D, T, U, inputs, weights_like
from saved_graph import reachable, strangers
from subject import IS_KERAS, rnnx

from keras_rnnx.serving import checking, graph

NOISE = {"dropout": 0.3, "recurrent_dropout": 0.2}
# Other sizes than those of the training; the last one ends in padding (zeros are masked).
REQUESTS = [inputs(3), inputs(4, batch=1, steps=11), inputs(5, batch=5, steps=1)]
REQUESTS[0][1, 4:] = 0
REQUESTS[0][2, :] = 0


def model_of(layers):
    x = keras.Input((None, D))
    y = keras.layers.Masking()(x)
    for layer in layers:
        y = layer(y)
    return keras.Model(x, y)


def every_layer():
    options = {"return_sequences": True, **NOISE}
    return [
        rnnx.LSTM(U, **options),
        rnnx.GRU(U + 1, **options),
        rnnx.GRU(U, reset_after=False, **options),
        rnnx.SimpleRNN(U, **options),
        rnnx.Bidirectional(rnnx.LSTM(U, **options)),
        rnnx.RNN([rnnx.LSTMCell(U, **NOISE), rnnx.GRUCell(U, **NOISE)], return_sequences=True),
        rnnx.RNN(keras.layers.GRUCell(U)),
    ]


def own_layers():
    """Those that Keras does not have, and the noise that it does not have."""
    modes = {"dropout_mode": "gates", "recurrent_dropout_mode": "candidate"}
    options = {"return_sequences": True, "zoneout": 0.2, "dropout": 0.1}
    return [
        rnnx.LSTM(U, peephole=True, coupled=True, cell_clip=1.0, weight_dropout=0.3, **options),
        rnnx.VariationalLSTM(U, return_sequences=True, **modes),
        rnnx.VariationalGRU(U, return_sequences=True, recurrent_dropout_mode="step"),
        rnnx.LayerNormLSTM(U, **options),
        rnnx.LayerNormGRU(U, **options),
        rnnx.LayerNormSimpleRNN(U, **options),
        rnnx.IndRNN(U, **options),
        rnnx.NAS(U, **options),
        rnnx.ESN(U, connectivity=0.9, **options),
        rnnx.MinGRU(U, **options),
        rnnx.MinLSTM(U, return_sequences=True),
        rnnx.RGLRU(U, return_sequences=True),
    ]


@pytest.fixture(scope="module")
def trained():
    """A model of every layer after a fit, as users export it."""
    model = model_of(every_layer())
    model.set_weights(weights_like(model))
    model.compile("sgd", "mse")
    model.fit(inputs(1), np.zeros((B, U)), verbose=0)
    return model


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "model"
    trained.export(path, verbose=False)
    return path


@pytest.fixture(scope="module")
def saved(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "model"
    tf.saved_model.save(trained, str(path))
    return path


def answers_of_a_server(path, requests):
    """What the clean process answers, one dict of outputs per request."""
    (name,) = graph.read(path).signature_def["serving_default"].inputs
    found = checking.answers(path, [("serving_default", {name: x}) for x in requests])
    assert not any(isinstance(answer, str) for answer in found), found
    return found


@pytest.mark.parametrize("kind", ["exported", pytest.param("saved", marks=pytest.mark.slow)])
def test_signature_reaches_stock_pure_ops_only(kind, request):
    ops, must_compile = reachable(request.getfixturevalue(kind))
    assert "MatMul" in ops and {"While", "StatelessWhile"} & ops, "the read found no layer"
    assert not must_compile
    assert not strangers(ops)
    assert not {op for op in ops if "Random" in op}
    assert not {op for op in ops if op.startswith("Assign")}


@pytest.mark.parametrize("kind", ["exported", pytest.param("saved", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_loaded_in_python(kind, trained, request):
    loaded = tf.saved_model.load(str(request.getfixturevalue(kind)))
    serve = loaded.signatures["serving_default"]
    (name,) = serve.structured_input_signature[1]
    for x in REQUESTS:
        (answer,) = serve(**{name: tf.constant(x)}).values()
        np.testing.assert_allclose(answer, trained(x, training=False), rtol=1e-5, atol=1e-6)


@pytest.mark.slow  # test_serving_export goes through these layers as well
@pytest.mark.skipif(IS_KERAS, reason="Keras does not have these layers")
def test_our_own_layers_in_a_clean_process(tmp_path):
    """Stock, pure operations, whatever the noise, and the same answers."""
    model = model_of(own_layers())
    model.set_weights(weights_like(model))
    model.export(tmp_path / "model", verbose=False)
    ops, must_compile = reachable(tmp_path / "model")
    assert not must_compile
    assert not strangers(ops)
    assert not {op for op in ops if "Random" in op or op.startswith("Assign")}
    for x, answer in zip(REQUESTS, answers_of_a_server(tmp_path / "model", REQUESTS)):
        (output,) = answer.values()
        np.testing.assert_allclose(output, model(x, training=False), rtol=1e-4, atol=1e-5)


def test_loaded_as_a_layer_of_keras(exported, trained):
    layer = keras.layers.TFSMLayer(str(exported), call_endpoint="serving_default")
    for x in REQUESTS:
        (answer,) = keras.tree.flatten(layer(x))
        np.testing.assert_allclose(answer, trained(x, training=False), rtol=1e-5, atol=1e-6)


def test_answered_by_a_process_without_us(exported, trained, tmp_path):
    for x, answer in zip(REQUESTS, answers_of_a_server(exported, REQUESTS), strict=True):
        (output,) = answer.values()
        np.testing.assert_allclose(output, trained(x, training=False), rtol=1e-5, atol=1e-6)


def test_session_loader_refuses_a_compiled_function(tmp_path):
    """The process of these tests can fail: it has XLA off, as a server has."""
    module = tf.Module()
    module.serve = tf.function(
        lambda x: tf.tanh(x), jit_compile=True, input_signature=[tf.TensorSpec([None, T, D])]
    )
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=module.serve)
    assert reachable(tmp_path / "model")[1]
    with pytest.raises(AssertionError, match="XLA compilation disabled"):
        answers_of_a_server(tmp_path / "model", [inputs()])


def test_training_baked_in_is_exported_inside_portable(tmp_path):
    """Monte-Carlo dropout: noise is wanted at inference, a compiled loop is not."""
    x = keras.Input((None, D))
    y = rnnx.LSTM(U, return_sequences=True, **NOISE)(x, training=True)
    y = rnnx.Bidirectional(rnnx.GRU(U, **NOISE))(y, training=True)
    model = keras.Model(x, y)
    model(inputs())
    with rnnx.portable():
        model.export(tmp_path / "model", verbose=False)
    ops, must_compile = reachable(tmp_path / "model")
    assert not must_compile and not strangers(ops)
    answers = answers_of_a_server(tmp_path / "model", [inputs()] * 2)
    first, second = (next(iter(a.values())) for a in answers)
    assert first.shape == (B, 2 * U) and np.isfinite(first).all()
    assert not np.array_equal(first, second), "the noise is gone"


def test_portable_is_a_context():
    layer = rnnx.LSTM(U)
    layer.build((B, T, D))
    outside = layer.plan(training=True).backend
    with rnnx.portable():
        assert layer.plan(training=True).backend == "plain"
        assert any("portable" in reason for reason in layer.plan(training=True).reasons)
    assert layer.plan(training=True).backend == outside != "plain"


@pytest.mark.parametrize("stateful", [True, "any_batch"])
@pytest.mark.thin(2)
def test_state_goes_on_between_requests(stateful, tmp_path):
    model = keras.Sequential(
        [
            keras.Input(batch_shape=(B if stateful is True else None, None, D)),
            rnnx.LSTM(U, stateful=stateful),
        ]
    )
    model.set_weights(weights_like(model))
    model.export(tmp_path / "model", verbose=False)
    ops, must_compile = reachable(tmp_path / "model")
    assert not must_compile and not strangers(ops) and "AssignVariableOp" in ops
    requests = [inputs(1), inputs(2), inputs(3)]
    if stateful == "any_batch":
        requests[1] = requests[1][:1]
    answers = answers_of_a_server(tmp_path / "model", requests)
    model.layers[-1].reset_state()
    for x, answer in zip(requests, answers, strict=True):
        (output,) = answer.values()
        np.testing.assert_allclose(output, model(x), rtol=1e-5, atol=1e-6)


def test_export_after_a_compiled_fit(tmp_path):
    model = model_of([rnnx.GRU(U, **NOISE)])
    model.compile("sgd", "mse", jit_compile=True)
    model.fit(inputs(), np.zeros((B, U)), verbose=0)
    model.predict(inputs(), verbose=0)
    model.export(tmp_path / "model", verbose=False)
    ops, must_compile = reachable(tmp_path / "model")
    assert not must_compile and not strangers(ops)
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    np.testing.assert_allclose(loaded.serve(REQUESTS[1]), model(REQUESTS[1]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "float64"])
def test_export_in_another_precision(policy, tmp_path):
    model = keras.Sequential([keras.Input((None, D)), rnnx.GRU(U, dtype=policy)])
    model.set_weights(weights_like(model))
    model.export(tmp_path / "model", verbose=False)
    (answer,) = (
        tf.saved_model.load(str(tmp_path / "model"))
        .signatures["serving_default"](tf.constant(REQUESTS[0]))
        .values()
    )
    expected = model(REQUESTS[0])
    assert answer.dtype == expected.dtype
    np.testing.assert_allclose(
        tf.cast(answer, tf.float64), tf.cast(expected, tf.float64), rtol=1e-2, atol=1e-2
    )

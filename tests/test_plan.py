"""Which backend runs, and the reasons given."""

import threading
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_rnnx as rnnx
from keras_rnnx.engine import xla

pytestmark = pytest.mark.quick

LAYERS = (rnnx.LSTM, rnnx.GRU, rnnx.SimpleRNN)


def must_compile(layer, **call):
    """Whether the traced layer holds a function that XLA must compile."""
    layer.build((None, None, 4))
    function = tf.function(lambda x: layer(x, **call), autograph=False)
    graph = function.get_concrete_function(tf.TensorSpec([None, None, 4])).graph.as_graph_def()
    return any(f.attr["_XlaMustCompile"].b for f in graph.library.function)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(
    "options, call, backend, reason",
    [
        ({}, {"training": True}, "compiled", "Traced for training"),
        ({}, {"eager": True}, "compiled", "Called eagerly"),
        ({}, {"training": False}, "plain", "may be exported"),
        ({"jit_compile": True}, {"training": False}, "compiled", "jit_compile=True"),
        ({"jit_compile": False}, {"training": True}, "plain", "jit_compile=False"),
        ({"backward": "autodiff"}, {"training": True}, "differentiated", 'backward="autodiff"'),
    ],
)
def test_plan(layer, options, call, backend, reason):
    layer = layer(5, **options)
    plan = layer.plan(**call)
    assert plan.backend == backend
    assert any(reason in sentence for sentence in plan.reasons)
    if "eager" not in call:
        assert must_compile(layer, **call) == (backend == "compiled")


def test_training_keeps_and_inference_does_not():
    layer = rnnx.LSTM(5)
    assert layer.plan(training=True).saves
    assert not layer.plan(training=False).saves
    assert not layer.plan(training=None).saves


def test_portable_is_plain_and_ends():
    layer = rnnx.LSTM(5, dropout=0.5)
    with rnnx.portable():
        plan = layer.plan(training=True)
        assert plan.backend == "plain" and "portable() is on" in " ".join(plan.reasons)
        assert not must_compile(layer, training=True)
    assert layer.plan(training=True).backend == "compiled"
    assert must_compile(layer, training=True)


def test_portable_holds_in_its_own_thread_only():
    seen = []
    layer = rnnx.LSTM(5)
    with rnnx.portable():
        thread = threading.Thread(target=lambda: seen.append(layer.plan(training=True).backend))
        thread.start()
        thread.join()
    assert seen == ["compiled"]


def test_a_foreign_cell_says_so():
    layer = rnnx.RNN([rnnx.LSTMCell(5), keras.layers.GRUCell(3)])
    plan = layer.plan(training=True)
    assert plan.backend == "differentiated"
    assert "GRUCell is not a keras_rnnx cell" in plan.reasons[0]


def test_without_xla_the_plain_loop_runs_and_says_so(monkeypatch):
    """A stand-in for a machine where XLA is missing: compiling raises there."""
    genuine = tf.function

    def function(*arguments, jit_compile=None, **options):
        if jit_compile:
            raise tf.errors.UnimplementedError(None, None, "no XLA devices")
        return genuine(*arguments, **options)

    x = np.random.default_rng(0).normal(size=(3, 7, 4)).astype("float32")
    layer = rnnx.LSTM(5)
    expected = layer(x, training=True).numpy()
    xla.failure.cache_clear()
    monkeypatch.setattr(tf, "function", function)
    try:
        with pytest.warns(UserWarning, match="plain loop.*no XLA devices"):
            plan = layer.plan(training=True)
        assert plan.backend == "plain"
        assert "XLA does not work on this CPU: no XLA devices" in plan.reasons
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # one warning is enough
            np.testing.assert_allclose(layer(x, training=True), expected, rtol=1e-5, atol=1e-6)
    finally:
        xla.failure.cache_clear()


def test_equal_layers_share_their_compiled_loops():
    x = np.ones((3, 7, 4), "float32")
    xla.function.cache_clear()  # of what other tests have compiled
    first = rnnx.LSTM(5, name="first")
    first(x)
    size = xla.function.cache_info().currsize
    rnnx.LSTM(5, name="second")(x)
    assert xla.function.cache_info().currsize == size
    rnnx.LSTM(5, activation="relu")(x)
    assert xla.function.cache_info().currsize == size + 1

"""Bad input: one sentence that says what came, what was expected and what to do."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_rnnx as rnnx

LAYERS = (rnnx.LSTM, rnnx.GRU, rnnx.SimpleRNN)
X = np.ones((3, 7, 4), "float32")

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(
    "shape, hint",
    [((3, 4), r"x\[:, None\]"), ((4,), "batch and a feature axis"), ((3, 7, 4, 2), "Merge")],
)
def test_wrong_rank(layer, shape, hint):
    message = rf"got input of shape \({shape[0]}.*expected \(batch, time, features\).*{hint}"
    with pytest.raises(ValueError, match=message):
        layer(5)(np.ones(shape, "float32"))
    with pytest.raises(ValueError, match=r"expected \(batch, time, features\)"):
        layer(5)(keras.Input(shape[1:]))


@pytest.mark.parametrize("layer", LAYERS)
def test_wrong_feature_size(layer):
    layer = layer(5)
    layer(X)
    with pytest.raises(ValueError, match="with 6 features, but was built for 4. Pass 4"):
        layer(np.ones((3, 7, 6), "float32"))
    with pytest.raises(ValueError, match="with 6 features, but was built for 4"):
        layer(keras.Input((None, 6)))


def test_unknown_feature_size():
    with pytest.raises(ValueError, match="number of features, is unknown.*Give it in keras.Input"):
        rnnx.LSTM(5)(keras.Input((7, None)))


def test_wrong_number_of_initial_states():
    with pytest.raises(ValueError, match=r"got 1 initial state.*expected 2, of sizes \[5, 5\]"):
        rnnx.LSTM(5)(X, initial_state=[np.ones((3, 5))])
    with pytest.raises(ValueError, match="got 2 initial state.*expected 1"):
        rnnx.GRU(5)(X, initial_state=[np.ones((3, 5))] * 2)
    with pytest.raises(ValueError, match="got 2 initial states, expected 4"):
        rnnx.Bidirectional(rnnx.LSTM(5))(X, initial_state=[np.ones((3, 5))] * 2)


@pytest.mark.parametrize("shape", [(3, 6), (2, 5), (3,), (3, 5, 1)])
def test_wrong_shape_of_initial_states(shape):
    with pytest.raises(ValueError, match=r"initial state of shape .*, expected \(3, 5\)"):
        rnnx.GRU(5)(X, initial_state=[np.ones(shape)])


def test_wrong_step():
    layer = rnnx.LSTM(5)
    layer.build((None, None, 4))
    states = layer.initial_states(3)
    for shape in ((3, 6), (3, 1, 4), (4,)):
        with pytest.raises(ValueError, match=r"one step of shape .*, expected \(batch, 4\)"):
            layer.step(np.ones(shape, "float32"), states)
    with pytest.raises(ValueError, match="got 1 initial state.*expected 2"):
        layer.step(X[:, 0], states[:1])
    with pytest.raises(ValueError, match=r"state of shape \(3, 5\), expected \(2, 5\)"):
        layer.step(X[:2, 0], states)


@pytest.mark.parametrize("shape", [(3, 6), (2, 7), (3,), (3, 7, 1)])
def test_wrong_shape_of_mask(shape):
    message = r"got a mask of shape .* expected \(batch, time\) of the input, \(3, 7\)"
    with pytest.raises(ValueError, match=message):
        rnnx.LSTM(5)(X, mask=np.ones(shape, bool))


@pytest.mark.parametrize("layer", LAYERS + (rnnx.LSTMCell, rnnx.GRUCell, rnnx.SimpleRNNCell))
@pytest.mark.parametrize("units", ["64", 2.5, None, True, [4]])
def test_units_that_are_no_number(layer, units):
    with pytest.raises(TypeError, match="expected a positive integer, got .*units=64"):
        layer(units)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("units", [0, -3])
def test_units_below_one(layer, units):
    with pytest.raises(ValueError, match=f"expected a positive integer, got {units}"):
        layer(units)


@pytest.mark.parametrize("layer", LAYERS)
def test_unknown_activation(layer):
    with pytest.raises(ValueError, match="tanhh"):
        layer(5, activation="tanhh")


@pytest.mark.parametrize("layer", LAYERS)
def test_dropout_that_is_no_number(layer):
    with pytest.raises(TypeError, match="dropout is 'high', expected a number"):
        layer(5, dropout="high")


@pytest.mark.parametrize("layer", LAYERS)
def test_unroll_with_unknown_time(layer):
    with pytest.raises(ValueError, match="unroll=True and got an unknown number.*unroll=False"):
        layer(5, unroll=True)(keras.Input((None, 4)))


def test_stateful_with_unknown_batch():
    with pytest.raises(ValueError, match="unknown batch size.*any_batch"):
        rnnx.LSTM(5, stateful=True)(keras.Input((None, 4)))


def test_stateful_with_another_batch():
    layer = rnnx.LSTM(5, stateful=True)
    layer(X)
    with pytest.raises(ValueError, match="stateful for batches of 3 and got one of 2.*any_batch"):
        layer(X[:2])


@pytest.mark.parametrize(
    "options",
    [{"jit_compile": "always"}, {"backward": "half"}, {"stateful": "some"}, {"use_cudnn": "yes"}],
)
def test_unknown_option(options):
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=f"{name} is {value!r}, expected one of"):
        rnnx.LSTM(5, **options)


def test_cudnn_is_refused():
    with pytest.raises(ValueError, match='use_cudnn=True.*Use use_cudnn="auto"'):
        rnnx.LSTM(5, use_cudnn=True)(X)


def test_no_cell():
    with pytest.raises(ValueError, match="has no `call`.*Expected a keras_rnnx cell"):
        rnnx.RNN("LSTM")


def test_no_input():
    with pytest.raises(TypeError, match="without an input"):
        rnnx.LSTM(5)()


def test_bidirectional_pairs():
    with pytest.raises(ValueError, match="expected a recurrent Keras layer"):
        rnnx.Bidirectional(4)
    with pytest.raises(ValueError, match="both have go_backwards=False"):
        rnnx.Bidirectional(rnnx.LSTM(5), backward_layer=rnnx.LSTM(5))
    with pytest.raises(ValueError, match="return_sequences=False and backward_layer True"):
        back = rnnx.LSTM(5, go_backwards=True, return_sequences=True)
        rnnx.Bidirectional(rnnx.LSTM(5), backward_layer=back)
    with pytest.raises(ValueError, match="merge_mode is 'max', expected one of"):
        rnnx.Bidirectional(rnnx.LSTM(5), merge_mode="max")


def test_another_backend_is_refused(tmp_path):
    """Keras on another backend: a stand-in for keras, since no other backend is installed."""
    (tmp_path / "keras.py").write_text(
        "class backend:\n    backend = staticmethod(lambda: 'jax')\n"
    )
    root = os.path.dirname(os.path.dirname(rnnx.__file__))
    result = subprocess.run(
        [sys.executable, "-c", "import keras_rnnx"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), root])},
        capture_output=True,
        text=True,
    )
    assert result.returncode != 0
    assert (
        "ImportError: keras_rnnx needs Keras on TensorFlow, and Keras runs on 'jax'"
        in result.stderr
    )
    assert "KERAS_BACKEND" in result.stderr

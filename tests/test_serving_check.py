"""`check` finds a planted fault of each kind, and nothing where there is none."""

import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import D, U

import keras_rnnx as rnnx
from keras_rnnx import serving
from keras_rnnx.serving import exporting, wire


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    model = keras.Sequential([keras.Input((None, D)), rnnx.GRU(U)])
    return serving.export(model, tmp_path_factory.mktemp("sound"), verbose=False)


def planted(tmp_path, function, specs, state=None):
    """A SavedModel with one signature, and warm-up requests of ones."""
    module = tf.Module()
    module.state = state
    module.call = tf.function(function, input_signature=specs, autograph=False)
    path = tmp_path / "1"
    tf.saved_model.save(module, str(path), signatures=module.call)
    (path / exporting.EXTRA).mkdir()
    ones = {s.name: np.ones([2 if n is None else n for n in s.shape], "float32") for s in specs}
    wire.write_warmup(path / exporting.WARMUP, [wire.request("m", "serving_default", ones)])
    return path


X = tf.TensorSpec([None, 3], tf.float32, name="x")
VARIABLE = tf.Variable(1.0)
COUNTER = tf.Variable(0.0)


def compiled(x):
    return {"y": tf.function(tf.tanh, jit_compile=True)(x)}


def in_python(x):
    return {"y": tf.ensure_shape(tf.py_function(lambda a: a, [x], tf.float32), [None, 3])}


def cudnn(x):
    zeros = tf.zeros([1, 3, 3])
    found = tf.raw_ops.CudnnRNNV3(
        input=x[:, None], input_h=zeros, input_c=zeros, params=tf.zeros([96]),
        sequence_lengths=tf.ones([3], tf.int32), rnn_mode="lstm",
    )  # fmt: skip
    return {"y": tf.ensure_shape(found.output[:, 0], [None, 3])}


PLANTED = {
    "must compile": (compiled, [X], None),
    "no CPU kernel": (in_python, [X], None),
    "no CPU kernel ": (cudnn, [X], None),
    "random": (lambda x: {"y": x + tf.random.normal(tf.shape(x))}, [X], None),
    "random ": (lambda x: {"y": x + tf.random.truncated_normal(tf.shape(x))}, [X], None),
    "assignment": (lambda x: {"y": x + COUNTER.assign_add(1.0)}, [X], COUNTER),
    "batch axis": (lambda x: {"y": tf.transpose(x)}, [X], None),
    "batch axis ": (lambda x: {"y": x}, [tf.TensorSpec([], tf.float32, name="x")], None),
    "dtype": (lambda x: {"y": tf.cast(x, tf.bfloat16)}, [X], None),
    "no inputs": (lambda: {"y": tf.ones([2, 3])}, [], None),
}


@pytest.mark.parametrize("kind", PLANTED)
@pytest.mark.thin(5)
def test_finds_what_was_planted(kind, tmp_path):
    path = planted(tmp_path, *PLANTED[kind])
    found = [fault for fault in serving.check(path, verbose=False) if fault.kind == kind.strip()]
    assert found and found[0].signature == "serving_default"
    assert found[0].sentence[0].isupper() and found[0].sentence[-1] == "."


def test_nothing_is_found_where_nothing_is(sound, capsys):
    assert serving.check(sound) == []
    said = capsys.readouterr().out
    assert "serving_default" in said and "no faults" in said
    assert serving.check(sound.parent, verbose=False) == [], "the newest version of a model"


def of_kind(path):
    return {fault.kind for fault in serving.check(path, verbose=False)}


def copied(sound, tmp_path, name="1"):
    return shutil.copytree(sound, tmp_path / name)


def test_a_name_that_no_server_takes(sound, tmp_path):
    assert of_kind(copied(sound, tmp_path, "final")) == {"name"}


def test_answers_that_changed(sound, tmp_path):
    path = copied(sound, tmp_path)
    answers = dict(np.load(path / exporting.ANSWERS))
    answers["0/output"] = answers["0/output"] + 1e-3
    np.savez(path / exporting.ANSWERS, **answers)
    assert of_kind(path) == {"answers"}


def test_variables_that_no_session_finds(tmp_path):
    """`tf.saved_model.load` answers, a server does not: a module that holds Keras variables."""
    module, dense = tf.Module(), keras.layers.Dense(2)
    dense.build((None, 3))
    module.weights = list(dense.weights)
    module.call = tf.function(lambda x: {"y": dense(x)}, input_signature=[X], autograph=False)
    path = tmp_path / "1"
    tf.saved_model.save(module, str(path), signatures=module.call)
    (path / exporting.EXTRA).mkdir()
    ones = {"x": np.ones([2, 3], "float32")}
    wire.write_warmup(path / exporting.WARMUP, [wire.request("m", "serving_default", ones)])
    served = tf.saved_model.load(str(path)).signatures["serving_default"]
    assert served(x=tf.ones([2, 3]))["y"].shape == (2, 2)
    assert "request" in of_kind(path)


def test_an_answer_that_is_missing(sound, tmp_path):
    path = copied(sound, tmp_path)
    answers = dict(np.load(path / exporting.ANSWERS))
    del answers["0/output"]
    np.savez(path / exporting.ANSWERS, **answers)
    assert of_kind(path) == {"answers"}


def test_a_request_that_does_not_fit(sound):
    x = np.ones((1, 2, 3), "float32")
    with pytest.raises(ValueError, match=r"takes the inputs \['.*'\], got \['another'\]"):
        serving.ask(sound, {"another": x})
    with pytest.raises(ValueError, match=r"no signature 'other', only \[.*'serving_default'"):
        serving.ask(sound, {"another": x}, "other")
    rows = np.ones((2, 5, D), "float32")
    request = {"inputs": tf.constant(rows), "lengths": tf.constant([5, 2])}
    assert serving.ask(sound, request)["output"].shape == (2, U), "tensors are taken too"
    with pytest.raises(ValueError, match="refuses the request"):
        serving.ask(sound, {"inputs": rows, "lengths": [2]})  # of two rows
    with pytest.raises(TypeError, match="ask got a ndarray as inputs, expected a dict of arrays"):
        serving.ask(sound, x)


@pytest.mark.parametrize("kind", ["missing", "torn", "other inputs", "wrong width", "too many"])
@pytest.mark.thin(5)
def test_warm_up_requests_at_fault(sound, tmp_path, kind):
    path = copied(sound, tmp_path)
    file = path / exporting.WARMUP
    good = list(wire.read_warmup(file))
    request = lambda **inputs: wire.request("m", "serving_default", inputs)
    lengths, x = np.ones([1], "int32"), np.ones([1, 1, D], "float32")
    if kind == "missing":
        file.unlink()
    elif kind == "torn":
        file.write_bytes(file.read_bytes()[:-5])
    elif kind == "other inputs":
        wire.write_warmup(file, [request(x=x)])
    elif kind == "wrong width":
        wire.write_warmup(file, [request(inputs=x[..., :2], lengths=lengths)])
    else:
        wire.write_warmup(file, good * 400)
    assert of_kind(path) & {"warm-up", "request"}


@pytest.mark.slow
def test_on_the_command_line(sound, tmp_path):
    def run(path):
        command = [sys.executable, "-W", "error", "-m", "keras_rnnx.serving.check", str(path)]
        return subprocess.run(command, capture_output=True, text=True)

    done = run(sound)
    assert done.returncode == 0 and "no faults" in done.stdout, done.stderr
    done = run(copied(sound, tmp_path, "final"))
    assert done.returncode == 1 and "expected an integer" in done.stdout
    done = run(tmp_path / "nowhere")
    assert done.returncode == 2 and "is no SavedModel" in done.stderr

"""LiteRT and ONNX: the same answers, from built-in operations only."""

import re

import descriptors
import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import D, U, inputs, weights_like
from test_serving_export import ALL, CAUSAL, expected, model_of, requests_of

import keras_rnnx as rnnx
from keras_rnnx.serving import export_lite, export_onnx

STEPS, UNITS = 9, 128
FIRST = ("lstm", "rnn_stack", "both_lstm")
EACH = [pytest.param(name, marks=() if name in FIRST else pytest.mark.slow) for name in sorted(ALL)]


class Lite:
    """A LiteRT file at work."""

    def __init__(self, path):
        self.interpreter = tf.lite.Interpreter(str(path))
        self.run = self.interpreter.get_signature_runner("serving_default")

    def __call__(self, **given):
        return self.run(**given)

    def flex(self):
        """Operations that are not LiteRT's own."""
        names = [one["op_name"] for one in self.interpreter._get_ops_details()]
        assert names
        return [name for name in names if name.startswith("Flex")]


@pytest.fixture(autouse=True)
def quiet(recwarn):
    """TensorFlow says on every use that its interpreter moves to another package."""


def model_with(layer):
    x = keras.Input((None, D), name="x")
    model = keras.Model(x, {"y": keras.layers.Dense(3)(layer(x))})
    model.set_weights(weights_like(model))
    return model


@pytest.mark.parametrize("name", EACH)
@pytest.mark.thin(3)
def test_lite_whole_sequences(name, tmp_path):
    model = model_of([name])
    lite = Lite(export_lite(model, tmp_path / "m.tflite", steps=STEPS, batch=2))
    assert not lite.flex()
    x = inputs(4, batch=2, steps=STEPS)
    wanted = expected(model, {"x": x, "lengths": np.full([2], STEPS)})
    for output, value in lite(x=x).items():
        np.testing.assert_allclose(value, wanted[output], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [p for p in EACH if p.values[0] in CAUSAL])
@pytest.mark.thin(2)
def test_lite_single_steps(name, tmp_path):
    model = model_of([name])
    lite = Lite(export_lite(model, tmp_path / "m.tflite"))
    assert not lite.flex()
    x = inputs(4, batch=1, steps=STEPS)
    wanted = expected(model, {"x": x, "lengths": np.full([1], STEPS)})
    details = lite.run.get_input_details()
    states = {n: np.zeros(d["shape"], "float32") for n, d in details.items() if n != "x"}
    found = []
    for t in range(STEPS):
        answer = lite(x=x[:, t : t + 1], **states)
        states = {name: answer.pop(name) for name in states}
        found.append(answer)
    for output, value in wanted.items():
        joined = np.concatenate([one[output] for one in found], axis=1)
        np.testing.assert_allclose(joined, value, rtol=0, atol=1e-5)


# -- quantized ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def task():
    """A task that can be learned: does a row rise or fall?  (model, x, y)"""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 600)
    slope = (2 * y[:, None, None] - 1) * np.linspace(0, 1, STEPS)[:, None]
    x = (slope + rng.normal(scale=0.8, size=(600, STEPS, D))).astype("float32")
    model = keras.Sequential(
        [keras.Input((None, D)), rnnx.LSTM(UNITS), keras.layers.Dense(2, name="class")]
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, y, epochs=4, verbose=0)
    return model, x, y


def accuracy_of(lite, x, y, given="inputs"):
    right = [
        next(iter(lite(**{given: x[k : k + 1]}).values())).argmax() == y[k] for k in range(len(y))
    ]
    return np.mean(right)


@pytest.mark.slow
def test_lite_weights_in_int8(task, tmp_path, capsys):
    model, x, y = task
    accuracy = np.mean(model.predict(x, verbose=0).argmax(-1) == y)
    assert accuracy > 0.9
    path = export_lite(model, tmp_path / "m.tflite", steps=STEPS, quantize="dynamic")
    said = re.search(r"tflite: ([\d,]+) bytes .*within (\S+) of", capsys.readouterr().out)
    assert int(said[1].replace(",", "")) == path.stat().st_size and 0 < float(said[2]) < 0.1
    lite = Lite(path)
    assert not lite.flex()
    assert abs(accuracy_of(lite, x, y) - accuracy) <= 0.01
    every = lite.interpreter
    quantized = {  # the recurrent matrix is in the loop's body
        one["name"]: (np.prod(one["shape"]), len(one["quantization_parameters"]["scales"]))
        for k in range(every.num_subgraphs())
        for one in every.get_tensor_details(k)
        if one["dtype"] == np.int8
    }
    numbers, scales = map(sum, zip(*quantized.values()))
    matrices = sum(np.prod(w.shape) for w in model.weights if len(w.shape) > 1)
    assert numbers >= 0.95 * matrices, "most weights are quantized"
    assert numbers + 4 * scales <= 0.27 * 4 * numbers


@pytest.mark.parametrize("steps", [STEPS, None])
@pytest.mark.slow
def test_lite_all_in_int8(task, steps, tmp_path):
    model, x, y = task
    path = export_lite(
        model, tmp_path / "m.tflite", steps=steps, quantize="int8", calibration=x[:50]
    )
    lite = Lite(path)
    assert not lite.flex()
    details = lite.interpreter.get_tensor_details()
    assert sum(d["dtype"] == np.int8 for d in details) > 0.5 * len(details)
    if steps is not None:
        accuracy = accuracy_of(lite, x, y)
    else:
        right = []
        names = [n for n in lite.run.get_input_details() if n != "inputs"]
        for k in range(100):
            states = {n: np.zeros([1, UNITS], "float32") for n in names}
            for t in range(STEPS):
                answer = lite(inputs=x[k : k + 1, t : t + 1], **states)
                states = {n: answer.pop(n) for n in names}
            right.append(next(iter(answer.values())).argmax() == y[k])
        accuracy = np.mean(right)
    assert accuracy > 0.88


@pytest.mark.parametrize(
    "options, message",
    [
        ({"quantize": "int4"}, "quantize is 'int4', expected one of"),
        ({"quantize": "int8"}, "calibration is missing"),
        ({"calibration": inputs()}, "calibration is given"),
    ],
)
def test_what_lite_refuses(options, message, tmp_path):
    model = model_with(rnnx.GRU(U))
    with pytest.raises(ValueError, match=message):
        export_lite(model, tmp_path / "m.tflite", steps=4, **options)


def test_lite_streams_no_layer_that_looks_ahead(tmp_path):
    model = model_with(rnnx.Bidirectional(rnnx.GRU(U)))
    with pytest.raises(ValueError, match="from both ends"):
        export_lite(model, tmp_path / "m.tflite")


# -- ONNX -----------------------------------------------------------------------------------------


def runtime(path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    session = onnxruntime.InferenceSession(str(path))
    names = [output.name for output in session.get_outputs()]
    return lambda given: dict(zip(names, session.run(None, given)))


@pytest.mark.parametrize("name", EACH)
@pytest.mark.thin(3)
def test_onnx_whole_sequences(name, tmp_path):
    pytest.importorskip("tf2onnx", reason="tf2onnx is not installed")
    model = model_of([name])
    run = runtime(export_onnx(model, tmp_path / "m.onnx"))
    for lengths in ([7, 3, 1], [11], [2] * 20):
        request = requests_of(model, lengths)
        wanted = expected(model, request)
        for output, value in run(request).items():
            np.testing.assert_allclose(value, wanted[output], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [p for p in EACH if p.values[0] in CAUSAL])
@pytest.mark.thin(2)
def test_onnx_steps(name, tmp_path):
    pytest.importorskip("tf2onnx", reason="tf2onnx is not installed")
    model = model_of([name])
    run = runtime(export_onnx(model, tmp_path / "m.onnx", signature="step"))
    x = inputs(4, batch=2, steps=STEPS)
    sizes = keras.tree.flatten(descriptors.BY_NAME[name].states)
    flat = [np.zeros([2, n], "float32") for n in sizes]
    found, states = [], None
    for t in range(STEPS):
        given = {"x": x[:, t : t + 1], "lengths": np.ones([2], "int32")}
        if states is None:
            names = [n for n in input_names(tmp_path / "m.onnx") if n not in given]
            states = dict(zip(names, flat, strict=True))
        answer = run({**given, **states})
        states = {n: answer.pop(f"next_{n}") for n in states}
        found.append(answer)
    wanted = expected(model, {"x": x, "lengths": np.full([2], STEPS)})
    for output, value in wanted.items():
        joined = np.concatenate([one[output] for one in found], axis=1)
        np.testing.assert_allclose(joined, value, rtol=0, atol=1e-5)


def input_names(path):
    import onnx

    return [one.name for one in onnx.load(path).graph.input]

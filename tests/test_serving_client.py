"""Clients against a server: TensorFlow Serving where it is installed, else a double of it."""

import re
import shutil
import socket
import subprocess
import sys
import threading
import time

import keras
import numpy as np
import processes
import pytest
import requests
import tensorflow as tf
from helpers import D, U, inputs, weights_like

import keras_rnnx as rnnx
from keras_rnnx import serving
from keras_rnnx.seq2seq import Translator
from keras_rnnx.serving import wire
from test_serving_export import seq2seq

REAL = shutil.which("tensorflow_model_server")


class Server:
    """A server for one model: its addresses, and how to ask the double for more."""

    def __init__(self, directory, batching):
        self.directory, self.name, self.double = directory, directory.name, REAL is None
        if self.double:
            script = processes.HERE / "server_double.py"
            command = [sys.executable, "-I", script, directory, directory.name]
            command += ["--batching"] if batching else []
            self.process = subprocess.Popen(
                list(map(str, command)), stdout=subprocess.PIPE, text=True
            )
            rest, grpc = self.process.stdout.readline().split()
        else:
            rest, grpc = free_port(), free_port()
            command = [REAL, f"--rest_api_port={rest}", f"--port={grpc}"]
            command += [f"--model_name={self.name}", f"--model_base_path={directory}"]
            if batching:
                config = f"--batching_parameters_file={directory}/batching.config"
                command += ["--enable_batching", config]
            self.process = subprocess.Popen(command)
            wait_for(f"http://localhost:{rest}/v1/models/{self.name}")
        self.addresses = {"rest": f"http://localhost:{rest}", "grpc": f"localhost:{grpc}"}

    def client(self, protocol, **options):
        return serving.Client(self.addresses[protocol], self.name, **options)

    def close(self):
        self.process.kill()
        self.process.wait()


def free_port():
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return one.getsockname()[1]


def wait_for(url):
    for _ in range(300):
        try:
            if requests.get(url, timeout=1).status_code == 200:
                return
        except requests.ConnectionError:
            time.sleep(0.2)
    raise TimeoutError(url)


def tagger():
    x = keras.Input((None, D), name="x")
    y = rnnx.LSTM(U, return_sequences=True)(x)
    y = rnnx.GRU(U, return_sequences=True)(y)
    model = keras.Model(x, {"tags": y, "last": rnnx.GRU(3)(y)})
    model.set_weights(weights_like(model))
    return model


@pytest.fixture(scope="module")
def model():
    return tagger()


@pytest.fixture(scope="module")
def server(model, tmp_path_factory):
    directory = tmp_path_factory.mktemp("models") / "tagger"
    serving.export(model, directory, verbose=False)
    one = Server(directory, batching=True)
    yield one
    one.close()


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
@pytest.mark.thin(2)
def test_padded_together_they_answer_as_alone(protocol, server, model):
    lengths = (7, 2, 4, 1)
    xs = [inputs(k, batch=1, steps=n) for k, n in enumerate(lengths)]
    found, start = {}, threading.Barrier(len(xs))

    def ask(k):
        with server.client(protocol) as client:
            start.wait()
            request = {"x": xs[k], "lengths": [lengths[k]]}
            found[k] = client.predict(request)

    in_threads(ask, len(xs))
    for k, x in enumerate(xs):
        wanted = model(x)
        real = found[k]["tags"][:, : lengths[k]]
        np.testing.assert_allclose(real, wanted["tags"], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found[k]["last"], wanted["last"], rtol=1e-5, atol=1e-6)
    if server.double:
        sizes = requests.get(f"{server.addresses['rest']}/sizes", timeout=10).json()
        assert max(sizes) > 1, "no requests met in a batch"


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_eight_streams_never_mix(protocol, server, model):
    x = inputs(9, batch=8, steps=12)
    wanted = np.asarray(model(x)["tags"])
    found, start = {}, threading.Barrier(8)

    def ask(k):
        rng, t, parts = np.random.default_rng(k), 0, []
        with server.client(protocol) as client:
            start.wait()
            stream = client.stream()
            while t < 12:
                size = int(rng.integers(1, 4))
                chunk = x[k : k + 1, t : t + size]
                parts.append(stream.feed({"x": chunk})["tags"][:, : chunk.shape[1]])
                t += size
        found[k] = np.concatenate(parts, axis=1)[0]

    in_threads(ask, 8)
    for k in range(8):
        np.testing.assert_allclose(found[k], wanted[k], rtol=1e-5, atol=1e-6)


def in_threads(function, count):
    errors = []

    def run(k):
        try:
            function(k)
        except Exception as error:  # told below, in the thread of the test
            errors.append(error)

    threads = [threading.Thread(target=run, args=(k,)) for k in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_decoding_with_options_of_each_row(protocol, tmp_path_factory):
    letters = keras.layers.TextVectorization(split="character", vocabulary=list("abcdefg"))
    words = keras.layers.TextVectorization(standardize=None, vocabulary=["x", "y"])
    translator = Translator(seq2seq(), letters, words)
    directory = tmp_path_factory.mktemp("models") / "translator"
    serving.export(translator, directory, verbose=False)
    server = Server(directory, batching=False)
    try:
        with server.client(protocol) as client:
            found = client.decode(["abc", "g"], beam_width=[3, 1], max_length=5)
    finally:
        server.close()
    for k, (text, width) in enumerate((("abc", 3), ("g", 1))):
        alone = translator.decode([text], beam_width=width, max_length=5, length_penalty=0.0)
        assert found["texts"][k, :width].tolist() == alone.texts[0].numpy().tolist()
        np.testing.assert_allclose(found["scores"][k, :width], alone.decoded.scores[0], atol=1e-5)


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_what_the_server_refuses(protocol, server):
    with server.client(protocol) as client:
        with pytest.raises(ValueError, match="(?i)incompatible|mismatch|dimension|shape"):
            client.predict({"x": np.ones((1, 2, D + 1), "float32"), "lengths": [2]})
    with serving.Client(server.addresses[protocol], "another") as client:
        with pytest.raises(ValueError, match="another"):
            client.predict({"x": np.ones((1, 2, D), "float32"), "lengths": [2]})


@pytest.mark.parametrize("language", ["python", "sh"])
def test_commands_of_the_readme_beside_the_versions(language, server, tmp_path):
    """They are for a server at the usual ports, and here asked of the one that runs."""
    text = (server.directory / "README.md").read_text()
    blocks = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    ports = {"http://localhost:8501": "rest", "localhost:8500": "grpc"}
    asked = 0
    for block in blocks:
        for usual, protocol in ports.items():
            block = block.replace(usual, server.addresses[protocol])
        if language == "python":
            exec(compile(block, "README.md", "exec"), {})
        elif "curl" in block:
            done = subprocess.run(block, shell=True, capture_output=True, text=True, check=True)
            assert "outputs" in done.stdout, done.stdout
        else:
            continue
        asked += 1
    assert asked == 3, "serving_default, step and initial_state"


@pytest.mark.parametrize("address", ["http://localhost:1", "localhost:1"])
def test_nobody_there(address):
    with serving.Client(address, "m", retries=1, timeout=0.5) as client:
        with pytest.raises(ConnectionError):
            client.predict({"x": [[1.0]]})


@pytest.mark.skipif(REAL is not None, reason="only the double refuses when it is told to")
def test_asks_again_when_the_server_was_busy(server, model):
    x = inputs(3, batch=1)
    with server.client("rest", retries=2) as client:
        stream = client.stream()
        requests.post(f"{server.addresses['rest']}/refuse/2", data="{}", timeout=10)
        found = stream.feed({"x": x})
        np.testing.assert_allclose(found["tags"], model(x)["tags"], rtol=1e-5, atol=1e-6)
        requests.post(f"{server.addresses['rest']}/refuse/3", data="{}", timeout=10)
        before = dict(stream.states)
        with pytest.raises(ConnectionError, match="503"):
            stream.feed({"x": x})
        assert stream.states == before, "a stream that failed stands where it stood"


def test_messages_are_those_of_tensorflow_serving(tmp_path):
    """Read and written by the stubs of `tensorflow-serving-api`."""
    predict_pb2 = pytest.importorskip(
        "tensorflow_serving.apis.predict_pb2", reason="tensorflow-serving-api is not installed"
    )
    from tensorflow_serving.apis import prediction_log_pb2

    sent = {"x": inputs(), "text": np.array([b"a", b"bc"], object), "n": np.int32([1, 2])}
    request = wire.request("tagger", "step", sent, version=3)
    read = predict_pb2.PredictRequest.FromString(request.SerializeToString())
    spec = read.model_spec
    assert (spec.name, spec.signature_name, spec.version.value) == ("tagger", "step", 3)
    for name, value in sent.items():
        np.testing.assert_array_equal(tf.make_ndarray(read.inputs[name]), value)
    response = predict_pb2.PredictResponse()
    for name, value in sent.items():
        response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
    response.model_spec.name = "tagger"
    back = wire.arrays(wire.PredictResponse.FromString(response.SerializeToString()).outputs)
    for name, value in sent.items():
        np.testing.assert_array_equal(back[name], value)
    wire.write_warmup(tmp_path / "w", [request])
    (record,) = tf.data.TFRecordDataset(str(tmp_path / "w")).as_numpy_iterator()
    log = prediction_log_pb2.PredictionLog.FromString(record)
    assert log.predict_log.request == read

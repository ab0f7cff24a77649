"""A double of TensorFlow Serving for tests: its session loader, its REST paths, its batching.

    python server_double.py BASE_DIR NAME [--batching]

It is not TensorFlow Serving: it loads the newest version once, speaks only what the tests ask, and
forms batches by a rule of its own, as large as they can get. What it has in common with the server:
the session loader with XLA switched off, columnar REST with base64 for strings, gRPC with the stubs
of `tensorflow-serving-api`, and padding of shorter requests with their own first element. Prints
its two ports, REST and gRPC.
"""

import argparse
import base64
import concurrent.futures
import ctypes
import http.server
import json
import os
import pathlib
import queue
import sys
import threading

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
sys.modules["keras"] = sys.modules["keras_rnnx"] = None  # not on a server

import grpc  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from tensorflow.core.framework import types_pb2  # noqa: E402

ctypes.CDLL(
    os.path.join(tf.sysconfig.get_lib(), "libtensorflow_cc.so.2")
)._ZN10tensorflow21DisableXlaCompilationEv()
WAIT = 0.02  # seconds for further requests of a batch


class Model:
    def __init__(self, base, batching):
        version = max((p for p in base.iterdir() if p.name.isdigit()), key=lambda p: int(p.name))
        self.session = tf.compat.v1.Session(graph=tf.Graph())
        with self.session.graph.as_default():
            loaded = tf.compat.v1.saved_model.load(self.session, ["serve"], str(version))
        self.signatures = {k: s for k, s in loaded.signature_def.items() if k[:2] != "__"}
        self.waiting = queue.Queue()
        self.sizes = []  # rows of each batch
        self.batching = batching
        if batching:
            threading.Thread(target=self.batches, daemon=True).start()

    def predict(self, key, inputs):
        if not self.batching:
            return self.run(key, inputs)
        answer = concurrent.futures.Future()
        self.waiting.put((key, inputs, answer))
        return answer.result()

    def run(self, key, inputs):
        signature = self.signatures[key]
        feeds = {signature.inputs[name].name: inputs[name] for name in signature.inputs}
        return self.session.run({n: o.name for n, o in signature.outputs.items()}, feeds)

    def batches(self):
        while True:
            came = [self.waiting.get()]
            try:
                while True:
                    came.append(self.waiting.get(timeout=WAIT))
            except queue.Empty:  # nobody else asks now
                key = came[0][0]
            now = [request for request in came if request[0] == key]
            for other in came:
                if other[0] != key:
                    self.waiting.put(other)
            try:
                self.together(key, now)
            except Exception as error:  # whatever it is, those who wait have to hear of it
                for _, _, answer in now:
                    answer.set_exception(error)

    def together(self, key, requests):
        joined = {
            name: np.concatenate(padded([inputs[name] for _, inputs, _ in requests]))
            for name in requests[0][1]
        }
        rows = [len(next(iter(inputs.values()))) for _, inputs, _ in requests]
        self.sizes.append(sum(rows))
        found = self.run(key, joined)
        ends = np.cumsum(rows)
        for (_, _, answer), end, count in zip(requests, ends, rows):
            answer.set_result({name: a[end - count : end] for name, a in found.items()})


def padded(arrays):
    """As the server pads: behind, with the first element of each."""
    shape = np.max([a.shape[1:] for a in arrays], axis=0) if arrays[0].ndim > 1 else ()
    made = []
    for a in arrays:
        wide = np.full((len(a), *map(int, shape)), a.flat[0], a.dtype)
        wide[tuple(slice(n) for n in a.shape)] = a
        made.append(wide)
    return made


class Rest(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        if self.path.endswith("/metadata"):
            named = {
                key: {
                    way: {
                        n: {"dtype": types_pb2.DataType.Name(i.dtype), "name": i.name}
                        for n, i in getattr(s, way).items()
                    }
                    for way in ("inputs", "outputs")
                }
                for key, s in self.server.model.signatures.items()
            }
            return self.answer(200, {"metadata": {"signature_def": {"signature_def": named}}})
        if self.path == "/sizes":
            return self.answer(200, self.server.model.sizes)
        self.answer(404, {"error": self.path})

    def do_POST(self):
        if self.server.refuse:  # as often as it was told to
            self.server.refuse -= 1
            self.rfile.read(int(self.headers["Content-Length"]))
            return self.answer(503, {"error": "try again"})
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.startswith("/refuse/"):
            self.server.refuse = int(self.path.rsplit("/", 1)[1])
            return self.answer(200, {})
        if self.path.split(":")[0] != f"/v1/models/{self.server.name}":
            return self.answer(404, {"error": f"no model at {self.path}"})
        body = json.loads(body)
        model, key = self.server.model, body.get("signature_name", "serving_default")
        try:
            signature = model.signatures[key]
            inputs = {n: array(body["inputs"][n], i.dtype) for n, i in signature.inputs.items()}
            found = {n: listed(a) for n, a in model.predict(key, inputs).items()}
        except Exception as error:  # a client hears what is wrong, whatever it is
            return self.answer(400, {"error": f"{type(error).__name__}: {error}"})
        self.answer(200, {"outputs": found if len(found) > 1 else next(iter(found.values()))})

    def answer(self, status, body):
        body = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def array(value, dtype):
    dtype = tf.dtypes.as_dtype(dtype)
    if dtype == tf.string:
        read = lambda v: base64.b64decode(v["b64"]) if isinstance(v, dict) else v.encode()
        walk = lambda v: [walk(one) for one in v] if isinstance(v, list) else read(v)
        return np.array(walk(value), object)
    return np.array(value, dtype.as_numpy_dtype)


def listed(a):
    if a.dtype != object:
        return a.tolist()
    walk = lambda v: [walk(one) for one in v] if isinstance(v, list) else v.decode()
    return walk(a.tolist())


def grpc_server(model, name):
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):
            if request.model_spec.name != name:
                context.abort(grpc.StatusCode.NOT_FOUND, f"no model {request.model_spec.name}")
            inputs = {n: tf.make_ndarray(t) for n, t in request.inputs.items()}
            try:
                found = model.predict(request.model_spec.signature_name, inputs)
            except Exception as error:  # a client hears what is wrong, whatever it is
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            response = predict_pb2.PredictResponse()
            for n, a in found.items():
                response.outputs[n].CopyFrom(tf.make_tensor_proto(a))
            return response

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(16))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("base", type=pathlib.Path)
    parser.add_argument("name")
    parser.add_argument("--batching", action="store_true")
    options = parser.parse_args()
    model = Model(options.base, options.batching)
    rest = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Rest)
    rest.model, rest.name, rest.refuse = model, options.name, 0
    keep, port = grpc_server(model, options.name)
    print(rest.server_port, port, flush=True)
    rest.serve_forever()


if __name__ == "__main__":
    main()

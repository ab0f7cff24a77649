"""How requests go to a server: REST with JSON, or gRPC."""

import base64
import json

import grpc
import numpy as np
import requests
import tensorflow as tf
from tensorflow.core.framework import types_pb2

from keras_rnnx.serving import wire

BUSY = (429, 502, 503, 504)  # statuses of HTTP after which one may ask again


class Unavailable(ConnectionError):
    """The server was not there, or too busy, or too slow: ask again."""


class Rest:
    """Requests by HTTP, arrays as JSON."""

    def __init__(self, address, model, version):
        versioned = "" if version is None else f"/versions/{version}"
        self.url = f"{address.rstrip('/')}/v1/models/{model}{versioned}"
        self.session = requests.Session()
        self.known = {}

    def predict(self, inputs, signature, timeout):
        body = {
            "signature_name": signature,
            "inputs": {name: _as_json(value) for name, value in inputs.items()},
        }
        outputs = self._ask("post", ":predict", timeout, data=json.dumps(body))["outputs"]
        described = self._outputs(signature, timeout)
        if len(described) == 1:  # a single output comes without its name
            outputs = {next(iter(described)): outputs}
        return {name: _as_array(outputs[name], dtype) for name, dtype in described.items()}

    def _outputs(self, signature, timeout):
        """`{output: dtype}`."""
        outputs = self._signature(signature, timeout)["outputs"]
        dtype = lambda info: tf.as_dtype(types_pb2.DataType.Value(info["dtype"]))
        return {name: dtype(info) for name, info in outputs.items()}

    def _signature(self, signature, timeout):
        if signature not in self.known:
            found = self._ask("get", "/metadata", timeout)["metadata"]["signature_def"]
            self.known.update(found["signature_def"])
        if signature not in self.known:
            raise ValueError(f"The server has no signature {signature!r}: {sorted(self.known)}.")
        return self.known[signature]

    def _ask(self, method, path, timeout, **given):
        try:
            answer = self.session.request(method, self.url + path, timeout=timeout, **given)
        except (requests.ConnectionError, requests.Timeout) as error:
            raise Unavailable(f"{self.url}: {error}") from error
        if answer.status_code in BUSY:
            raise Unavailable(f"{self.url}: {answer.status_code} {answer.text}")
        if answer.status_code != 200:
            raise ValueError(f"{self.url}{path} answers {answer.status_code}: {answer.text}")
        return answer.json()

    def close(self):
        self.session.close()


class Grpc:
    """Requests by gRPC, arrays as they lie in memory."""

    def __init__(self, address, model, version):
        unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self.channel = grpc.insecure_channel(address, options=unlimited)
        self.model, self.version = model, version
        self.call = self.channel.unary_unary(
            "/tensorflow.serving.PredictionService/Predict",
            request_serializer=wire.PredictRequest.SerializeToString,
            response_deserializer=wire.PredictResponse.FromString,
        )

    def predict(self, inputs, signature, timeout):
        request = wire.request(self.model, signature, inputs, self.version)
        try:
            return wire.arrays(self.call(request, timeout=timeout).outputs)
        except grpc.RpcError as error:
            text = f"{error.code().name}: {error.details()}"
            passing = (
                grpc.StatusCode.UNAVAILABLE,
                grpc.StatusCode.DEADLINE_EXCEEDED,
                grpc.StatusCode.RESOURCE_EXHAUSTED,
            )
            if error.code() in passing:
                raise Unavailable(text) from error
            raise ValueError(f"The server refuses the request, {text}") from error

    def close(self):
        self.channel.close()


def _as_json(value):
    value = np.asarray(value)
    if value.dtype.kind not in "OSU":
        return value.tolist()
    text = lambda v: {"b64": base64.b64encode(_bytes(v)).decode()}
    return np.vectorize(text, otypes=[object])(value).tolist() if value.size else []


def _bytes(v):
    return v.encode() if isinstance(v, str) else bytes(v)


def _as_array(value, dtype):
    if dtype != tf.string:
        return np.array(value, dtype.as_numpy_dtype)
    read = lambda v: base64.b64decode(v["b64"]) if isinstance(v, dict) else v.encode()

    def walk(v):
        return [walk(one) for one in v] if isinstance(v, list) else read(v)

    return np.array(walk(value), object)

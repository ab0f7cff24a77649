"""The messages of TensorFlow Serving's protocol that an export writes and a client speaks.

Declared here by the numbers and types of their fields (tensorflow_serving/apis: model.proto,
predict.proto, prediction_log.proto), so that neither needs the package `tensorflow-serving-api`,
which would install another TensorFlow beside `tensorflow-cpu`. Fields that are not used are left
out; the format skips what it does not know.
"""

import numpy as np
import tensorflow as tf
from google.protobuf import descriptor_pb2
from google.protobuf import descriptor_pool
from google.protobuf import message_factory
from google.protobuf import wrappers_pb2
from tensorflow.core.framework import tensor_pb2

_PACKAGE = "keras_rnnx.serving"
_FIELD = descriptor_pb2.FieldDescriptorProto


def _declare():
    """The classes of the messages by name."""
    file = descriptor_pb2.FileDescriptorProto(
        name="keras_rnnx/serving.proto", package=_PACKAGE, syntax="proto3"
    )
    for module in (tensor_pb2, wrappers_pb2):
        file.dependency.append(module.DESCRIPTOR.name)

    def message(name, *fields, into=None):
        made = (into.nested_type if into is not None else file.message_type).add(name=name)
        for number, field, kind, repeated in fields:
            label = _FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
            added = made.field.add(name=field, number=number, label=label)
            if kind == "string":
                added.type = _FIELD.TYPE_STRING
            else:
                added.type, added.type_name = _FIELD.TYPE_MESSAGE, kind
        return made

    own = lambda name: f".{_PACKAGE}.{name}"
    message(
        "ModelSpec",
        (1, "name", "string", False),
        (2, "version", ".google.protobuf.Int64Value", False),
        (3, "signature_name", "string", False),
    )
    for name, number, field in (("PredictRequest", 2, "inputs"), ("PredictResponse", 1, "outputs")):
        spec = 1 if name == "PredictRequest" else 2
        made = message(
            name,
            (spec, "model_spec", own("ModelSpec"), False),
            (number, field, own(f"{name}.Entry"), True),
        )
        # A map is a list of pairs on the wire.
        message(
            "Entry",
            (1, "key", "string", False),
            (2, "value", ".tensorflow.TensorProto", False),
            into=made,
        )
    message("PredictLog", (1, "request", own("PredictRequest"), False))
    message("PredictionLog", (6, "predict_log", own("PredictLog"), False))
    pool = descriptor_pool.Default()
    pool.Add(file)
    found = message_factory.GetMessageClassesForFiles([file.name], pool)
    return {name.removeprefix(f"{_PACKAGE}."): made for name, made in found.items()}


_classes = _declare()
PredictRequest, PredictResponse = _classes["PredictRequest"], _classes["PredictResponse"]
PredictionLog = _classes["PredictionLog"]


def request(model, signature, inputs, version=None):
    """A `PredictRequest` of `{name: array}`."""
    made = PredictRequest()
    made.model_spec.name, made.model_spec.signature_name = model, signature
    if version is not None:
        made.model_spec.version.value = version
    for name, value in inputs.items():
        made.inputs.add(key=name, value=tf.make_tensor_proto(value))
    return made


def arrays(entries):
    """`{name: array}` of the inputs of a request, or of the outputs of a response."""
    return {entry.key: np.asarray(tf.make_ndarray(entry.value)) for entry in entries}


def write_warmup(path, requests):
    """The file that TensorFlow Serving replays before a version answers. requests: a list."""
    with tf.io.TFRecordWriter(str(path)) as writer:
        for one in requests:
            log = PredictionLog()
            log.predict_log.request.CopyFrom(one)
            writer.write(log.SerializeToString())


def read_warmup(path):
    """The requests in such a file."""
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        yield PredictionLog.FromString(record).predict_log.request

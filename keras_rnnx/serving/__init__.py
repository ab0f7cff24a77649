"""From a trained model to a server: `export`, `check`, `Client`; LiteRT and ONNX."""

from keras_rnnx.serving.checking import Fault
from keras_rnnx.serving.checking import ask
from keras_rnnx.serving.checking import check
from keras_rnnx.serving.client import Client
from keras_rnnx.serving.exporting import export
from keras_rnnx.serving.lite import export_lite
from keras_rnnx.serving.onnx import export_onnx

__all__ = ["Client", "Fault", "ask", "check", "export", "export_lite", "export_onnx"]

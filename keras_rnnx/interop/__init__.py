"""Models and weights from and to Keras, PyTorch and TensorFlow Addons."""

from keras_rnnx.interop.exchange import from_keras
from keras_rnnx.interop.exchange import to_keras
from keras_rnnx.interop.keras_layers import NoCounterpart
from keras_rnnx.interop.keras_models import accelerate
from keras_rnnx.interop.tfa import from_tfa
from keras_rnnx.interop.torch_modules import from_torch
from keras_rnnx.interop.torch_modules import to_torch
from keras_rnnx.interop.torch_modules import torch_arrays

__all__ = [
    "NoCounterpart",
    "accelerate",
    "from_keras",
    "from_tfa",
    "from_torch",
    "to_keras",
    "to_torch",
    "torch_arrays",
]

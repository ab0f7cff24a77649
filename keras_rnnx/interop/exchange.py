"""from_keras and to_keras: layers, models and files."""

import os
from typing import Any

import keras

from keras_rnnx.annotations import Tensor
from keras_rnnx.interop import keras_files
from keras_rnnx.interop import keras_layers
from keras_rnnx.interop import keras_models


def from_keras(source: Any, verify: Tensor | None = None) -> keras.layers.Layer:
    """The same with the recurrent layers of this package: a layer, a model, or a file of old.

    Args:
        source: a recurrent layer of Keras 3 or of tf_keras (Keras 2); a Functional or Sequential
            model of either (see `keras_rnnx.accelerate`); or the path of a model in a file:
            whatever Keras 3 loads, and `.h5` files of Keras 2, whose `CuDNNLSTM` and `CuDNNGRU`
            become `LSTM` and `GRU`.
        verify: of a model, inputs to compare both with. A file has nobody to compare with.

    Returns:
        A new layer, with weights if the old one has them, or a new model.

    Raises:
        NoCounterpart: a ValueError, for layers and options that this package does not have.
        ValueError: for a subclassed model, and for files that hold no model.

    Example:

    >>> import keras, keras_rnnx, numpy as np
    >>> old = keras.layers.Bidirectional(keras.layers.GRU(4))
    >>> x = np.ones((2, 5, 3), "float32")
    >>> y = old(x)
    >>> bool(np.allclose(keras_rnnx.interop.from_keras(old)(x), y, atol=1e-6))
    True
    """
    if isinstance(source, (str, os.PathLike)):
        return keras_models.accelerate(keras_files.read(source), verbose=False)
    if hasattr(source, "layers") and hasattr(source, "summary"):  # a model of either Keras
        if not isinstance(source, keras.Model):
            source = keras_files.from_tf_keras(source)
        return keras_models.accelerate(source, verify=verify, verbose=False)
    return keras_layers.from_layer(source)


def to_keras(source: keras.layers.Layer) -> keras.layers.Layer:
    """The same with the recurrent layers of Keras, which need no keras_rnnx to load and run.

    Args:
        source: LSTM, GRU, SimpleRNN, RNN over their cells or Bidirectional around these; or a
            Functional or Sequential model of such layers and of Keras'.

    Returns:
        A new layer, with weights if the old one has them, or a new model.

    Raises:
        NoCounterpart: a ValueError, for a layer or an option that Keras does not have. Options
            that say how a layer runs are left out.

    Example:

    >>> import keras_rnnx
    >>> keras_rnnx.interop.to_keras(keras_rnnx.LSTM(4)).__module__.split(".")[0]
    'keras'
    >>> keras_rnnx.interop.to_keras(keras_rnnx.LSTM(4, name="lstm", zoneout=0.1))
    Traceback (most recent call last):
        ...
    keras_rnnx.interop.keras_layers.NoCounterpart: lstm has zoneout=0.1, which Keras does not have.
    """
    if isinstance(source, keras.Model):
        return keras_models.to_keras_model(source)
    return keras_layers.to_layer(source)

"""A pytest plugin: puts this package's layers where Keras' own tests look for Keras' layers."""

import keras
from keras.src import layers  # Keras' tests import from here

import keras_rnnx

for name in (
    "LSTM",
    "GRU",
    "SimpleRNN",
    "RNN",
    "Bidirectional",
    "LSTMCell",
    "GRUCell",
    "SimpleRNNCell",
):
    setattr(layers, name, getattr(keras_rnnx, name))
    setattr(keras.layers, name, getattr(keras_rnnx, name))

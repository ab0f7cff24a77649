"""Training twice from the same seed under op determinism: run by test_fit.py."""

import keras
import numpy as np
import tensorflow as tf

import keras_rnnx as rnnx

tf.config.experimental.enable_op_determinism()
rng = np.random.default_rng(0)
x, y = rng.normal(size=(8, 7, 4)).astype("float32"), rng.normal(size=(8, 1)).astype("float32")


def weights():
    keras.utils.set_random_seed(5)
    layers = [rnnx.LSTM(6, dropout=0.3, recurrent_dropout=0.3), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((None, 4)), *layers])
    model.compile("adam", "mse")
    model.fit(x, y, batch_size=4, epochs=2, verbose=0)
    return model.get_weights()


print("the same bits:", all(np.array_equal(a, b) for a, b in zip(weights(), weights())))

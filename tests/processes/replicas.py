"""Training on two logical CPUs, then exporting: run by test_fit.py, prints one line a finding."""

import sys

import keras
import numpy as np
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

import keras_rnnx as rnnx  # noqa: E402  logical devices are set before anything runs


def model_of(dropout):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((None, 4))
    options = {"dropout": dropout, "recurrent_dropout": dropout, "seed": 1}
    h = rnnx.Bidirectional(rnnx.LSTM(6, return_sequences=True, **options))(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1)(rnnx.GRU(5, **options)(h)))
    model.compile("sgd", "mse")
    return model


rng = np.random.default_rng(0)
x, y = rng.normal(size=(8, 7, 4)).astype("float32"), rng.normal(size=(8, 1)).astype("float32")
alone = model_of(0.0)
alone.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    together, noisy = model_of(0.0), model_of(0.3)
together.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0)
difference = max(np.abs(a - b).max() for a, b in zip(alone.get_weights(), together.get_weights()))
print("weights as with one device:", difference < 1e-6, difference)

noisy.fit(x, y, batch_size=4, epochs=2, verbose=0)
noisy.export(sys.argv[1], verbose=False)
served = tf.saved_model.load(sys.argv[1])
print("export answers:", np.abs(served.serve(x) - noisy.predict(x, verbose=0)).max() < 1e-6)

with strategy.scope():
    layer = rnnx.SimpleRNN(50, dropout=0.5, seed=1, kernel_initializer="identity")
    layer.build((None, 1, 50))
ones = tf.ones([4, 1, 50])
first, second = strategy.experimental_local_results(
    strategy.run(tf.function(lambda: layer(ones, training=True)))
)
print("replicas draw their own noise:", bool(tf.reduce_any(first != second)))

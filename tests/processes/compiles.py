"""Trains on batches of many lengths and lists what XLA compiled: run by test_fit.py."""

import collections
import os
import pathlib
import re
import sys

folder = pathlib.Path(sys.argv[1])
os.environ["XLA_FLAGS"] = f"--xla_dump_to={folder} --xla_dump_hlo_as_text"

# Only now, for TensorFlow reads the flags when it starts.
import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

import keras_rnnx as rnnx  # noqa: E402

LENGTHS = (17, 18, 19, 20, 23, 17, 24, 20, 33, 36, 35, 40)


def batches():
    for length in LENGTHS:
        yield np.ones((32, length, 3), "float32"), np.ones((32, 1), "float32")


signature = (tf.TensorSpec([None, None, 3]), tf.TensorSpec([None, 1]))
data = tf.data.Dataset.from_generator(batches, output_signature=signature)
model = keras.Sequential([keras.Input((None, 3)), rnnx.LSTM(4), keras.layers.Dense(1)])
model.compile("sgd", "mse")
model.fit(data, epochs=2, verbose=0)

# One text for each program before it is optimised; its name holds that of the loop.
names = [path.name for path in folder.glob("*.before_optimizations.txt")]
loops = (re.search(r"a_inference_(save|back)_", name) for name in names)
print(dict(collections.Counter(found.group(1) for found in loops if found)))

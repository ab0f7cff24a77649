"""Trains on a stream with checkpoints, to be killed at any moment: run by test_truncated_bptt.py.

    python stream.py WEIGHTS.npz [FOLDER [BATCH]]

Prints the number of batches trained. With BATCH it halts in the writing of the checkpoint after so
many batches, between the file's last byte and its new name, and prints "writing".
"""

import os
import sys
import time

import keras
import numpy as np
import tensorflow as tf

import keras_rnnx as rnnx
from keras_rnnx.training import TruncatedBPTT

tf.config.experimental.enable_op_determinism()
keras.utils.set_random_seed(5)
weights, folder, batch = (sys.argv[1:] + [None, None])[:3]
rng = np.random.default_rng(0)
lengths = (17, 3, 25, 8, 40, 1, 11)
documents = [(rng.normal(size=(n, 3)), rng.normal(size=(n, 1))) for n in lengths]
documents = [(x.astype("float32"), y.astype("float32")) for x, y in documents]
layers = [
    rnnx.LSTM(4, return_sequences=True, stateful=True, dropout=0.2, recurrent_dropout=0.2),
    keras.layers.Dropout(0.3),
    rnnx.GRU(5, return_sequences=True, stateful="any_batch"),
    keras.layers.Dense(1),
]
model = keras.Sequential([keras.Input(batch_shape=(2, None, 3)), *layers])
model.compile(keras.optimizers.Adam(0.01), "mse", weighted_metrics=["mae"])


class Tell(keras.callbacks.Callback):
    trained = 0

    def on_train_batch_end(self, batch, logs=None):
        self.trained += 1
        if folder is not None:
            print(self.trained, flush=True)
            time.sleep(0.02)  # time to be killed in


def halt(part, path):
    if f"{int(batch):012d}" in str(path):
        print("writing", flush=True)
        time.sleep(600)
    rename(part, path)


if batch is not None:
    rename, os.replace = os.replace, halt
stream = TruncatedBPTT(documents, batch_size=2, steps=5, shuffle=True, seed=3)
history = stream.fit(
    model, epochs=6, checkpoint=folder, save_every=3, callbacks=[Tell()], verbose=0
)
values = model.get_weights() + model.optimizer.variables
values += [*model.layers[0].states, *model.layers[2].states]
losses = np.array(history.history["loss"] + history.history["mae"])
np.savez(weights, losses, *[np.asarray(tf.convert_to_tensor(v)) for v in values])
print("done", flush=True)

"""Fits models on one CPU and on two, at the same batch: run by test_distributed.py, prints JSON."""

import json

import keras
import numpy as np
import tensorflow as tf

(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

import keras_rnnx as rnnx  # noqa: E402  logical devices are set before anything runs
from keras_rnnx import heads  # noqa: E402
from keras_rnnx import seq2seq  # noqa: E402
from keras_rnnx.attention import BahdanauAttention  # noqa: E402

V, T, N = 9, 7, 24  # ids, steps, rows
rng = np.random.default_rng(0)
ids = rng.integers(1, V, size=(N, T)).astype("int32")
ids[1::3, 4:] = 0  # padding on the right,
ids[2::3, 2] = 0  # and a hole


def embedded():
    x = keras.Input((None,), dtype="int32")
    return x, keras.layers.Embedding(V, 4, mask_zero=True)(x)


def masked():
    """Layers of many kinds, one after the other."""
    x, h = embedded()
    h = rnnx.Bidirectional(rnnx.LSTM(5, return_sequences=True))(h)
    h = rnnx.Stack(rnnx.LayerNormGRU(6, return_sequences=True), 2)(h)
    h = rnnx.IndRNN(5, return_sequences=True, backward=rnnx.Checkpointed(3))(h)
    h = rnnx.MinGRU(5, return_sequences=True, backward=rnnx.Truncated(3))(h)
    model = keras.Model(x, keras.layers.Dense(1)(rnnx.GRU(5)(h)))
    model.compile("sgd", "mse")
    return model, ids, rng_of(1).normal(size=(N, 1)).astype("float32")


def crf():
    x, h = embedded()
    h = rnnx.Bidirectional(rnnx.GRU(5, return_sequences=True))(h)
    model = heads.CRFModel(x, heads.CRF(3)(h))
    model.compile("sgd", heads.CRFLoss("tokens"))
    return model, ids, np.where(ids > 0, rng_of(2).integers(3, size=(N, T)), -1)


def ctc():
    x, h = embedded()
    h = rnnx.LSTM(5, return_sequences=True)(h)
    model = keras.Model(x, keras.layers.Dense(4)(h))
    model.compile("sgd", heads.CTCLoss(average="labels"))
    labels = rng_of(3).integers(1, 4, size=(N, 2))
    labels[:10, 1] = -1
    return model, ids, labels


def translation():
    rnn = rnnx.GRU(5, return_sequences=True, return_state=True)
    cell = rnnx.AttentionCell(rnnx.GRUCell(6), BahdanauAttention(4), attention_size=5)
    model = seq2seq.Seq2Seq(seq2seq.Encoder(rnn, V, 4), seq2seq.Decoder(cell, 8, 3), start=7, end=6)
    model.compile("sgd", seq2seq.SequenceLoss())
    targets = rng_of(4).integers(1, 6, size=(N, 5)).astype("int32")
    targets[:10, 2:] = 0
    return model, ids, targets


def rng_of(seed):
    return np.random.default_rng(seed)


# One for all: the collective operations of two strategies in one process mix up.
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
found = {}
for build in (masked, crf, ctc, translation):
    losses = []
    for scope in (tf.device("CPU:0"), strategy.scope()):
        keras.utils.set_random_seed(1)
        with scope:
            model, x, y = build()
            fit = model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
        losses.append(fit.history["loss"])
    found[build.__name__] = losses
print(json.dumps(found))

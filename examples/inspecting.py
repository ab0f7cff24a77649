"""Look inside three small trained models and draw what docs/inspecting.md shows.

* An LSTM reads text and tells what stands in quotation marks: gates and states over the text.
* An LSTM adds two marked numbers of a signal: gates over the signal; and before and after training
  the gradient on its way back, and how far back the output depends on the input.
* Sequence-to-sequence with attention spells words backwards: where it looked.

    python examples/inspecting.py [--out FOLDER] [--quick]

It takes about 75 seconds of processor time.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import keras
import matplotlib
import numpy as np

import keras_rnnx
from keras_rnnx import inspection
from keras_rnnx.attention import LuongAttention
from keras_rnnx.seq2seq import Decoder
from keras_rnnx.seq2seq import Encoder
from keras_rnnx.seq2seq import Seq2Seq
from keras_rnnx.seq2seq import SequenceLoss
from keras_rnnx.seq2seq.model import Pair

matplotlib.use("Agg")  # draws without a screen
import matplotlib.pyplot as plt

ALPHABET = '_." abcdefghijklmnopqrstuvwxyz'  # the place of a character is its id; 0 is padding
SIZE = len(ALPHABET)


def ids(texts):
    longest = max(map(len, texts))
    return np.array([[ALPHABET.index(c) for c in text.ljust(longest, "_")] for text in texts])


def quoting(random, count, length=40):
    """Characters as ids `[B, T]`, and whether each stands in quotation marks, `[B, T, 1]`."""
    x = random.integers(3, SIZE, (count, length))
    x[random.random(x.shape) < 0.12] = ALPHABET.index('"')
    return x, np.cumsum(x == ALPHABET.index('"'), axis=1)[..., None] % 2


def adding(random, count, length=40):
    """Numbers and marks `[B, T, 2]`, and the sum `[B, 1]` of the two numbers that are marked."""
    numbers, marks = random.random((count, length)), np.zeros((count, length))
    for half in (0, 1):
        marks[np.arange(count), random.integers(0, length // 2, count) + half * length // 2] = 1
    x, y = np.stack([numbers, marks], axis=-1), (numbers * marks).sum(axis=1, keepdims=True)
    return x.astype("float32"), y.astype("float32")


def reversing(random, count, longest=9):
    """Words of letters as ids, and backwards with a full stop, which is the end token."""
    letters = random.choice(list(ALPHABET[4:]), (count, longest))
    words = ["".join(row[: random.integers(4, longest + 1)]) for row in letters]
    return ids(words), ids([word[::-1] + "." for word in words])


def train(model, data, epochs):
    model.fit(*data, batch_size=64, epochs=epochs, verbose=0)
    print(f"{model.name}: loss {model.evaluate(*data, verbose=0):.4f}", flush=True)


def write(out, name, figure):
    figure.savefig(out / f"inspecting_{name}.png", dpi=90)
    plt.close(figure)


def quotes(out, random, epochs):
    layers = [
        keras.Input((None,), dtype="int32"),
        keras.layers.Embedding(SIZE, 4),
        keras_rnnx.LSTM(4, return_sequences=True, name="lstm"),
        keras.layers.Dense(1, activation="sigmoid"),
    ]
    model = keras.Sequential(layers, name="quotes")
    model.compile(keras.optimizers.Adam(0.03), "binary_crossentropy")
    train(model, quoting(random, 2048), epochs)
    text = 'he said "yes" and then "no" to "it all"'
    found = inspection.record(model, ids([text]))
    write(out, "gates", inspection.plot_gates(found, "lstm", tokens=text))
    write(out, "states", inspection.plot_states(found, "lstm", "c", tokens=text).figure)
    inspection.summary(model)


def sums(out, random, epochs):
    layers = [keras.Input((None, 2)), keras_rnnx.LSTM(16, name="lstm"), keras.layers.Dense(1)]
    model = keras.Sequential(layers, name="sums")
    model.compile(keras.optimizers.Adam(0.01, clipnorm=1.0), "mse")
    (x, y), flows, memories = adding(random, 64), {}, {}
    for when in ("before training", "after training"):
        if when == "after training":
            train(model, adding(random, 4096), epochs)
        flows[when] = inspection.gradient_flow(model, x, y)["lstm"]
        memories[when] = inspection.memory_length(model, x)
    found = inspection.record(model, x)
    write(out, "signal", inspection.plot_gates(found, "lstm", signal=x[0]))
    write(out, "gradients", inspection.plot_gradient_flow(flows).figure)
    write(out, "memory", inspection.plot_memory(memories).figure)


def backwards(out, random, epochs):
    rnn = keras_rnnx.GRU(64, return_sequences=True, return_state=True)
    cell = keras_rnnx.AttentionCell(keras_rnnx.GRUCell(64), LuongAttention(), attention_size=64)
    encoder, decoder = Encoder(keras_rnnx.Bidirectional(rnn), SIZE, 16), Decoder(cell, SIZE, 16)
    model = Seq2Seq(encoder, decoder, start=2, end=ALPHABET.index("."), name="backwards")
    model.compile(keras.optimizers.Adam(0.005, clipnorm=1.0), SequenceLoss())
    train(model, reversing(random, 4096), epochs)
    word = "recurrent"
    pair = Pair(ids([word]), model.teacher_inputs(ids([word[::-1] + "."])))
    alignments = inspection.record(model, pair)["decoder/rnn/alignments"][0]
    write(out, "alignments", inspection.plot_alignments(alignments, word, word[::-1] + ".").figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("inspecting_output"))
    parser.add_argument("--quick", action="store_true", help="one epoch: to see that all works")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for draw, epochs in ((quotes, 12), (sums, 20), (backwards, 10)):
        keras.utils.set_random_seed(1)
        draw(options.out, np.random.default_rng(1), 1 if options.quick else epochs)
    print(f"Written to {options.out}.")


if __name__ == "__main__":
    main()

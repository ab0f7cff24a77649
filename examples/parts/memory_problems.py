"""The problems of examples/long_memory.py, and the picture of its gradients."""

import math
from types import SimpleNamespace

import keras
import matplotlib.pyplot as plt
import numpy as np

SYMBOLS, REMEMBERED = 8, 10  # of the copy problem; class 0 is a blank, class 9 says "now repeat"
COLORS = {"SimpleRNN": "#b5482a", "LSTM": "#1f4e79", "GRU": "#3c8d5a"}


def adding(random, count, length):
    """Inputs [B, T, 2]: numbers in [0, 1] and two marks, one in each half. Targets [B, 1]."""
    numbers, marks, rows = random.random((count, length)), np.zeros((count, length)), range(count)
    marks[rows, random.integers(0, length // 2, count)] = 1
    marks[rows, random.integers(length // 2, length, count)] = 1
    x, y = np.stack([numbers, marks], axis=-1), (numbers * marks).sum(axis=1, keepdims=True)
    return x.astype("float32"), y.astype("float32")


def copying(random, count, delay):
    """Inputs [B, delay + 20, 10], one-hot. Targets [B, delay + 20]: blanks, then the symbols."""
    x = np.zeros((count, delay + 2 * REMEMBERED), "int32")
    y = np.zeros_like(x)
    x[:, :REMEMBERED] = y[:, -REMEMBERED:] = random.integers(1, 1 + SYMBOLS, (count, REMEMBERED))
    x[:, -REMEMBERED - 1] = 1 + SYMBOLS
    return np.eye(2 + SYMBOLS, dtype="float32")[x], y


def problems(quick):
    """Both problems. `rate` is the learning rate of LSTM and GRU, `chance` the loss of the best
    answer without a memory, `goal` what LSTM and GRU shall reach on the test set."""
    length, delay = (24, 6) if quick else (400, 100)
    # The sum of two numbers has variance 1/6: the error of the answer "1".
    yield SimpleNamespace(
        name="adding", data=adding, length=length, features=2, outputs=1, loss="mse",
        units=64, batch=64, rate=1e-2, chance=1 / 6, goal=0.01,
    )  # fmt: skip
    entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    chance = REMEMBERED * math.log(SYMBOLS) / (delay + 2 * REMEMBERED)  # the blanks are free
    yield SimpleNamespace(
        name="copy", data=copying, length=delay, features=2 + SYMBOLS, outputs=1 + SYMBOLS,
        loss=entropy, units=128, batch=32, rate=2e-2, chance=chance, goal=chance / 2,
    )  # fmt: skip


def draw(path, before, after):
    """The norms at each step, {label: norms}, before and after training."""
    figure, axes = plt.subplots(1, 2, figsize=(12, 5), sharey=True, layout="constrained")
    for axis, title, curves in zip(axes, ("before training", "after training"), (before, after)):
        for label, norms in curves.items():
            look = {"color": COLORS[label.split(",")[0]], "linestyle": ":" if "," in label else "-"}
            norms = np.where(norms > 0, norms, np.nan)  # 0: smaller than float32 can hold
            axis.semilogy(range(1, 1 + len(norms)), norms, label=label, **look)
        axis.set(title=title, xlabel="time step t (the loss is at the last one)", ylim=(1e-16, 10))
        axis.grid(alpha=0.3)
        axis.legend(loc="lower left")
    axes[0].set_ylabel("norm of d loss / d input at step t")
    figure.suptitle(
        "Adding problem: on its way back in time SimpleRNN's gradient vanishes,\n"
        "that of LSTM and GRU with biases for a long memory reaches the first step"
    )
    figure.savefig(path, dpi=120, format="png")
    plt.close(figure)

"""See the gradient vanish: SimpleRNN, LSTM and GRU on two problems that need a long memory.

* Adding (Hochreiter & Schmidhuber 1997): 400 random numbers, two of them marked; give their sum.
* Copy memory (Arjovsky et al. 2016): see ten symbols, wait 100 steps, repeat them.

LSTM and GRU start from the biases of Tallec & Ollivier (2018), see `chrono`, and train until a
validation set shows that they have it. SimpleRNN, which has no gates, gets as many steps as the
slower of the two took, with each of three learning rates; the best of them on validation counts.

    python examples/long_memory.py            # minutes; exit code 1 if LSTM or GRU misses its goal
    python examples/long_memory.py --quick    # short sequences, few steps: to see that all works
"""

import argparse
import itertools
import math
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import keras
import matplotlib
import numpy as np
import tensorflow as tf

import keras_rnnx

matplotlib.use("Agg")  # draws without a screen
import matplotlib.pyplot as plt

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


def chrono(longest):
    """Biases for memories of 1 to `longest` steps, drawn evenly on a scale of logarithms.

    A forget gate `f` keeps for about `1 / (1 - f)` steps, so a bias of `log(steps)` opens it for
    so long, and the opposite bias of the input gate lets in as much as is lost. The bias of LSTM
    has the gates i, f, c, o; that of GRU, two rows, has z, r, h, where `z` keeps.
    """

    def initializer(shape, dtype=None):
        bias = np.zeros(shape)
        units = shape[-1] // (4 if len(shape) == 1 else 3)
        keep = np.log(np.random.default_rng(1).uniform(1, longest, units))
        if len(shape) == 1:
            bias[:units], bias[units : 2 * units] = -keep, keep
        else:
            bias[0, :units] = keep
        return keras.ops.convert_to_tensor(bias, dtype)

    return initializer


def build(problem, net, plain_bias=False):
    keras.utils.set_random_seed(1)
    options = {}
    if net != "SimpleRNN" and not plain_bias:
        # Three times the length made LSTM learn to copy sooner than the length itself did.
        options["bias_initializer"] = chrono(3 * problem.length)
        if net == "LSTM":
            options["unit_forget_bias"] = False  # would add 1 to the bias
    every_step = problem.name == "copy"
    layer = getattr(keras_rnnx, net)(problem.units, return_sequences=every_step, **options)
    dense = keras.layers.Dense(problem.outputs)
    return keras.Sequential([keras.Input((None, problem.features)), layer, dense])


def train(problem, net, rate, steps, validation):
    print(f"\n{problem.name}: {net}, learning rate {rate:g}", flush=True)
    model, random, epoch = build(problem, net), np.random.default_rng(2), min(steps, 100)
    model.compile(keras.optimizers.Adam(rate, global_clipnorm=1.0), problem.loss)

    def stop(epoch, logs):  # once the goal is clearly reached: the test set is another one
        model.stop_training = logs["val_loss"] < 0.85 * problem.goal

    start = time.perf_counter()
    history = model.fit(
        (problem.data(random, problem.batch, problem.length) for _ in itertools.count()),
        steps_per_epoch=epoch,
        epochs=steps // epoch,
        validation_data=validation,
        validation_batch_size=500,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=stop)],
        shuffle=False,
        verbose=1 if sys.stdout.isatty() else 2,
    )
    seconds, losses = time.perf_counter() - start, history.history["val_loss"]
    run = {"model": model, "rate": rate, "steps": epoch * len(losses), "seconds": seconds}
    return SimpleNamespace(validation_loss=losses[-1], **run)


def gradient_norms(model, x, y):
    """For each step t: the norm of d loss / d x_t, the mean over the sequences of a batch."""
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum((model(x) - y) ** 2)
    return np.linalg.norm(tape.gradient(loss, x), axis=-1).mean(axis=0)


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
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="short sequences, few steps")
    parser.add_argument("--out", type=Path, default=Path("long_memory_output"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    count, most_steps = (100, 20) if options.quick else (2000, 4000)
    rates = (1e-3,) if options.quick else (1e-4, 1e-3, 1e-2)
    table, missed = [], []
    for problem in problems(options.quick):
        seeded = (np.random.default_rng(seed) for seed in (3, 4))
        validation, test = (problem.data(random, count, problem.length) for random in seeded)
        gated = ("LSTM", "GRU")
        runs = {net: train(problem, net, problem.rate, most_steps, validation) for net in gated}
        budget = max(run.steps for run in runs.values())
        tried = [train(problem, "SimpleRNN", rate, budget, validation) for rate in rates]
        runs["SimpleRNN"] = min(tried, key=lambda run: run.validation_loss)
        for net, run in runs.items():
            loss = run.model.evaluate(*test, batch_size=500, verbose=0)
            table.append(
                f"{problem.name:<8} {net:<10} {run.rate:<13g} {loss:<9.4f} {problem.chance:<7.4f} "
                f"{run.steps:<6} {run.seconds:.1f}"
            )
            if net in gated and not loss <= problem.goal:
                missed.append(f"{net} on {problem.name}: {loss:.4f}, goal {problem.goal:.4f}")
        if problem.name == "adding":
            x, y = (rows[:100] for rows in test)
            models = {net: build(problem, net) for net in runs}
            for net in gated:
                models[f"{net}, Keras' default bias"] = build(problem, net, plain_bias=True)
            before = {label: gradient_norms(model, x, y) for label, model in models.items()}
            after = {net: gradient_norms(run.model, x, y) for net, run in runs.items()}
            draw(options.out / "gradient_norms.png", before, after)

    print("\nproblem  net        learning rate test loss chance  steps  seconds", *table, sep="\n")
    print(f"Written to {options.out.resolve()}: gradient_norms.png")
    print(f"{time.perf_counter() - start:.0f} s in all")
    if missed and not options.quick:
        sys.exit("Goals missed: " + "; ".join(missed))


if __name__ == "__main__":
    main()

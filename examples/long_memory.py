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
import functools
import itertools
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import common  # first: it sets the environment
import keras
import numpy as np
import tensorflow as tf
from parts.memory_problems import draw
from parts.memory_problems import problems

import keras_rnnx


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
        verbose=common.VERBOSE,
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
            drawn = functools.partial(draw, before=before, after=after)
            common.write(options.out / "gradient_norms.png", drawn)

    print("\nproblem  net        learning rate test loss chance  steps  seconds", *table, sep="\n")
    print(f"Written to {options.out.resolve()}: gradient_norms.png")
    print(f"{time.perf_counter() - start:.0f} s in all")
    if missed and not options.quick:
        sys.exit("Goals missed: " + "; ".join(missed))


if __name__ == "__main__":
    main()

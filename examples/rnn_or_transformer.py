"""A recurrent net or a Transformer? Accuracy by amount of data, and the cost of a stream.

* MNIST-1D (Greydanus, 2020; package `mnist1d`): a GRU and a Transformer's encoder with as many
  parameters classify series of 40 numbers after 4000, 1000 and 250 examples, of which an eighth
  says when to stop. Rates of learning and dropout were chosen there too, with another seed.
* A stream: what one more step costs after T steps, in time and in memory. The GRU keeps a state,
  the Transformer the keys and values of all steps. And what a step of training costs.

    python examples/rnn_or_transformer.py            # a few minutes
    python examples/rnn_or_transformer.py --quick    # little data: to see that all works
"""

import time
from functools import partial

import common  # first: it sets the environment
import keras
import matplotlib.pyplot as plt
import numpy as np
from parts import series_data
import tensorflow as tf
from parts.transformer import BLOCKS
from parts.transformer import HEADS
from parts.transformer import Transformer

import keras_rnnx

LARGE = {"GRU": 256, "Transformer": 112}  # units and width where costs are measured
RATE = {"GRU": 5e-3, "Transformer": 3e-3, "logistic regression": 5e-3}


def gru(rnn, units=64):
    return keras.Sequential(
        [
            keras.Input((None, 1), name="series"),
            # One feature a step: dropped, nothing would be left. So no dropout of the input.
            rnn.GRU(units, recurrent_dropout=0.2),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )


def train(model, rate, train_set, held_out, epochs, budget):
    """Keeps the weights that were best on the held-out examples."""
    model.compile(
        keras.optimizers.Adam(global_clipnorm=1.0),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    rows = tf.data.Dataset.from_tensor_slices(train_set).shuffle(len(train_set[0])).repeat()
    stop = keras.callbacks.EarlyStopping(patience=10, restore_best_weights=True)
    model.fit(
        rows.batch(64),
        steps_per_epoch=50,  # whatever the number of examples: as many steps for all
        epochs=epochs,
        validation_data=held_out,
        validation_batch_size=len(held_out[0]),
        callbacks=[stop, budget, common.Cosine(budget, rate, 50 * epochs)],
        shuffle=False,  # done above
        verbose=common.VERBOSE,
    )


def milliseconds(call, times):
    """The median of what a call takes, after one that compiles."""
    spent = []
    for _ in range(times + 1):
        start = time.perf_counter()
        call()
        spent.append(1000 * (time.perf_counter() - start))
    return float(np.median(spent[1:]))


def stream(lengths, times):
    """Of one more step after T: the milliseconds, and the bytes that are kept for it."""
    session = keras_rnnx.StreamingSession(gru(keras_rnnx, LARGE["GRU"]))
    step = tf.function(Transformer(LARGE["Transformer"]).step, autograph=False)
    one = np.zeros((1, 1), "float32")
    ms, kept = ({"GRU": {}, "Transformer": {}} for _ in range(2))
    for T in lengths:
        session.feed(T, np.zeros((T, 1), "float32"))  # each length is a client
        ms["GRU"][T] = milliseconds(partial(session.feed, T, one), times)
        kept["GRU"][T] = sum(state.nbytes for state in session.states(T))
        # Whatever they hold, it costs the same.
        keys = tf.zeros([1, T, HEADS, LARGE["Transformer"] // HEADS])
        given = tf.constant(one[None]), tf.constant(T), BLOCKS * [[keys, keys]]
        ms["Transformer"][T] = milliseconds(lambda given=given: step(*given)[0].numpy(), times)
        kept["Transformer"][T] = 2 * BLOCKS * keys.numpy().nbytes
    return ms, kept


def training(lengths, times):
    """Milliseconds of a step of training on two sequences of T steps."""
    ms = {}
    nets = {"GRU": gru(keras_rnnx, LARGE["GRU"]), "Transformer": Transformer(LARGE["Transformer"])}
    for name, model in nets.items():
        model.compile("sgd", "sparse_categorical_crossentropy")
        batches = {T: (np.zeros((2, T, 1), "float32"), np.zeros(2)) for T in lengths}
        step = partial(partial, model.train_on_batch)
        ms[name] = {T: milliseconds(step(*batch), times) for T, batch in batches.items()}
    return ms


def draw(panels):
    """A panel for each `(title, unit, of what): {net or baseline: {x: y}}`."""
    figure, axes = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
    for axis, ((title, unit, of), lines) in zip(axes.flat, panels.items()):
        for name, points in lines.items():
            style = "o-" if name in ("GRU", "Transformer") else "o:"
            axis.plot(*zip(*points.items()), style, label=name)
        axis.set(title=title, xlabel=of, ylabel=unit, xscale="log")
        axis.set_xticks(list(points), map(str, points))
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    for axis in axes[1]:
        axis.set_yscale("log")
    axes[0, 0].set_ylim(0, 1)
    axes[0, 1].set_ylim(0)
    axes[0, 0].legend(loc="lower right")
    axes[0, 1].legend(loc="lower right")
    return figure


def main():
    options = common.start(common.parser(__doc__, "rnn_or_transformer"))
    quick, total, best = options.quick, common.Budget(), None
    sizes, epochs = ((400, 100), 2) if quick else ((4000, 1000, 250), 30)
    rows, test_set = series_data.load(quick)
    nets = {"GRU": lambda: gru(options.rnn), "Transformer": Transformer}
    nets["logistic regression"] = series_data.logistic
    if options.layers == "keras":
        nets.pop("Transformer")  # which is made of Keras' layers anyway
    found = {name: {} for name in (*nets, "nearest neighbours")}
    for size in sizes:
        sets = series_data.split(rows, size)
        for name, make in nets.items():
            limit = options.seconds / len(sizes) if options.seconds and name == "GRU" else None
            model, budget = make(), common.Budget(limit)
            train(model, RATE[name], *sets, epochs, budget)
            found[name][size] = model.evaluate(*test_set, batch_size=500, verbose=0)[1]
            print(f"{name}, {size} examples, {model.count_params():,} parameters: ", end="")
            print(f"{found[name][size]:.3f} after {budget.seconds:.0f} s", flush=True)
            if name == "GRU":
                best, total.seconds = best or model, total.seconds + budget.seconds
        found["nearest neighbours"][size] = series_data.neighbours(*sets, test_set)

    metrics, baselines = {}, {}
    for name, of in found.items():
        prefix = {"GRU": "", "Transformer": "Transformer "}.get(name, f"{name}: ")
        named = metrics if ":" not in prefix else baselines
        for size, accuracy in of.items():
            few = "" if size == sizes[0] else f", {size} examples"
            named[f"{prefix}accuracy{few}"] = accuracy
    if options.layers == "keras_rnnx":
        lengths, times = ((64, 256), 3) if quick else ((64, 256, 1024, 4096), 200)
        ms, kept = stream(lengths, times)
        for name in ms:
            metrics |= {f"{name}, ms of a step after {T}": x for T, x in ms[name].items()}
            metrics |= {f"{name}, bytes kept after {T}": x for T, x in kept[name].items()}
        panels = {
            ("MNIST-1D", "accuracy of the test", "examples"): found,
            ("One more step of a stream", "ms", "steps so far"): ms,
            ("What is kept for it", "bytes", "steps so far"): kept,
            ("A step of training, two sequences", "ms", "steps of a sequence"): training(
                (16, 32) if quick else (64, 256, 1024, 2048), 3
            ),
        }
        common.save(options, draw(panels), "rnn_or_transformer.png")
        x = test_set[0][:4]
        common.export(options, best, x, lengths=np.full(len(x), x.shape[1], "int32"))
    common.report(options, best, total, metrics, baselines)


if __name__ == "__main__":
    main()

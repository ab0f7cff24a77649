"""See what regularizers do for recurrent layers: less overfitting, and doubt where it is due.

* Bach's chorales: which of 88 keys sound at the next quarter note? The negative log-likelihood of
  an LSTM without a regularizer, and with each of them (as in Boulanger-Lewandowski et al., 2012,
  whose pieces were others, so that figures cannot be compared).
* MNIST-1D (Greydanus, 2020): the accuracy of a GRU, plain and with dropout.
* Monte-Carlo dropout (Gal & Ghahramani, 2016): how well the spread of the answers of the second GRU
  tells test examples from the same examples with their time steps in random order.

All runs are stopped early and keep the weights that were best on validation data. The options of
each run were chosen there too, with other seeds than those shown.

    python examples/regularizers.py            # under 20 minutes; exit code 1 if a goal is missed
    python examples/regularizers.py --quick    # little data, an epoch or two: to see that all works
"""

import argparse
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import keras
import matplotlib
import mnist1d.data
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

import keras_rnnx
import keras_rnnx.datasets  # registers `chorales` for TFDS

matplotlib.use("Agg")  # draws without a screen
import matplotlib.pyplot as plt

tf.get_logger().setLevel("ERROR")  # it warns of many models that are traced in one loop

KEYS, LOWEST = 88, 21  # of a piano; MIDI number of the first
PADDING = -1.0
SEEDS = (1, 2, 3)

LSTMS = {  # label: (layer, its options)
    "none": ("LSTM", {}),
    "variational dropout": ("LSTM", {"dropout": 0.1, "recurrent_dropout": 0.5}),
    "per-step dropout": (
        "LSTM",
        {
            "dropout": 0.2,
            "dropout_mode": "step",
            "recurrent_dropout": 0.5,
            "recurrent_dropout_mode": "step",
        },
    ),
    "dropout of candidates": (
        "LSTM",
        {"recurrent_dropout": 0.7, "recurrent_dropout_mode": "candidate"},
    ),
    "zoneout": ("LSTM", {"zoneout": (0.3, 0.7)}),  # of h and c
    "weight drop": ("LSTM", {"weight_dropout": 0.6}),
    "activation penalties": (
        "LSTM",
        {"activity_regularizer": keras_rnnx.ActivationPenalty(activation=10, temporal=50)},
    ),
    "layer normalization": ("LayerNormLSTM", {}),
    "variational + weight drop": (
        "LSTM",
        {"dropout": 0.1, "recurrent_dropout": 0.5, "weight_dropout": 0.3},
    ),
}


def piano_rolls(pieces):
    """Inputs and targets `[N, T, 88]` of pitches `[T, 4]`: the keys at each step, and at the next.

    1 where a key sounds, 0 where not, PADDING after the end of a piece.
    """
    rolls = np.full((len(pieces), max(map(len, pieces)), KEYS), PADDING, "float32")
    for roll, pitches in zip(rolls, pieces):
        step, voice = np.nonzero(pitches)  # 0 is a rest
        roll[: len(pitches)] = 0
        roll[step, pitches[step, voice] - LOWEST] = 1
    x, y = rolls[:, :-1].copy(), rolls[:, 1:]
    x[y == PADDING] = PADDING  # the last step of a piece has no next one
    return x, y


def load_chorales(data_dir, quick):
    """`{split: (x, y)}`, a step per quarter note."""
    builder = tfds.builder("chorales", data_dir=data_dir)
    builder.download_and_prepare()
    sets = {}
    for split in ("train", "validation", "test"):
        pieces = [row["pitches"][::2] for row in tfds.as_numpy(builder.as_dataset(split=split))]
        if quick:
            pieces = [pitches[:24] for pitches in pieces[:32]]
        sets[split] = piano_rolls(pieces)
    return sets


def nats(y, logits):
    """Negative log-likelihood of the frames `[B, T]`: the sum over all keys."""
    return keras.ops.sum(keras.ops.softplus(logits) - y * logits, axis=-1)


def train(model, monitor, train_set, validation, seed, batch, epochs, patience):
    """Fits until the validation data says stop, and keeps the weights that were best there."""
    stop = keras.callbacks.EarlyStopping(
        monitor, mode="min", patience=patience, restore_best_weights=True
    )
    rows = tf.data.Dataset.from_tensor_slices(train_set).shuffle(len(train_set[0]), seed=seed)
    start = time.perf_counter()
    model.fit(
        rows.batch(batch, drop_remainder=True),  # one shape, so one compilation
        epochs=epochs,
        validation_data=validation,
        validation_batch_size=500,
        callbacks=[stop],
        shuffle=False,  # done above
        verbose=0,
    )
    return time.perf_counter() - start


def compose(label, sets, seed, quick):
    """Trains one LSTM on chorales: nats per frame of the test set, and seconds."""
    keras.utils.set_random_seed(seed)
    layer, options = LSTMS[label]
    x, y = sets["train"]
    often = np.clip(y[y[..., 0] != PADDING].mean(axis=0), 1e-4, None)

    def start(shape, dtype=None):  # at how often each key sounds, which saves epochs
        return keras.ops.convert_to_tensor(np.log(often / (1 - often)), dtype)

    recurrent = getattr(keras_rnnx, layer)(20 if quick else 200, return_sequences=True, **options)
    model = keras.Sequential(
        [
            keras.Input((None, KEYS)),
            keras.layers.Masking(PADDING),
            recurrent,
            keras.layers.Dense(KEYS, bias_initializer=start),
        ]
    )
    # The metric, unlike the loss, has no penalties in it.
    model.compile(keras.optimizers.Adam(0.01, global_clipnorm=1.0), nats, metrics=[nats])
    epochs = 2 if quick else 40
    seconds = train(model, "val_nats", (x, y), sets["validation"], seed, 16, epochs, patience=6)
    x, y = sets["test"]
    return model.evaluate(x, y, batch_size=len(x), verbose=0, return_dict=True)["nats"], seconds


def load_mnist1d(quick):
    """`{split: (x, y)}`: x is `[N, 40, 1]`. An eighth of the training set is for validation."""
    data = mnist1d.data.make_dataset(mnist1d.data.get_dataset_args())
    x, y = data["x"][..., None].astype("float32"), data["y"]
    first, rest = (slice(300), slice(300, 600)) if quick else (slice(3500), slice(3500, None))
    test = data["x_test"][..., None].astype("float32"), data["y_test"]
    return {"train": (x[first], y[first]), "validation": (x[rest], y[rest]), "test": test}


def classify(dropout, sets, seed, quick):
    """Trains one GRU on MNIST-1D: the model, its accuracy on the test set, and seconds."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((40, 1)),
            # One feature a step: dropped, nothing would be left. So no dropout of the input.
            keras_rnnx.GRU(16 if quick else 128, recurrent_dropout=dropout),
            keras.layers.Dropout(dropout),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    adam = keras.optimizers.Adam(0.005, global_clipnorm=1.0)
    model.compile(adam, "sparse_categorical_crossentropy", metrics=["accuracy"])
    epochs = 1 if quick else 25
    seconds = train(
        model, "val_loss", sets["train"], sets["validation"], seed, 64, epochs, patience=8
    )
    _, accuracy = model.evaluate(*sets["test"], batch_size=500, verbose=0)
    return model, accuracy, seconds


def auroc(negative, positive):
    """How often a score of `positive` is above one of `negative`; a tie counts half."""
    above = np.subtract.outer(positive, negative)
    return np.mean((above > 0) + 0.5 * (above == 0))


def doubt(model, x, samples):
    """For each input: the spread of the probabilities under noise, the mean over the classes."""
    _, spread = keras_rnnx.mc_predict(model, x, samples=samples, batch_size=500)
    return spread.mean(axis=-1)


def unsure(model, x):
    """For each input: one minus the largest probability, without noise. Needs no samples."""
    return 1 - model.predict(x, batch_size=500, verbose=0).max(axis=-1)


def count_below(losses, others):
    """With how many seeds the loss is below that of another run with the same seed."""
    return sum(loss < other for loss, other in zip(losses, others))


def row(label, values, digits, rest=""):
    """One line of a table: the value of each seed, their mean and their largest difference."""
    numbers = [*values, np.mean(values), np.ptp(values)]
    line = f"{label:<27}" + "".join(f"{number:<8.{digits}f}" for number in numbers) + rest
    return line.rstrip()


def head(label, seeds, rest=""):
    seeds = "".join(f"{f'seed {seed}':<8}" for seed in seeds)
    return f"{label:<27}{seeds}{'mean':<8}{'max-min':<8}{rest}".rstrip()


def draw(path, losses, spreads, areas):
    """The losses of each LSTM, and how the spreads of both kinds of input are distributed."""
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.8), layout="constrained")
    for place, (label, found) in enumerate(losses.items()):
        color = "#b5482a" if label == "none" else "#1f4e79"
        axes[0].plot(found, [place] * len(found), "o", color=color, alpha=0.5)
        axes[0].plot(np.mean(found), place, "|", color=color, markersize=22, markeredgewidth=2)
    axes[0].axvline(np.mean(losses["none"]), color="#b5482a", linestyle=":")
    axes[0].set_yticks(range(len(losses)), list(losses))
    axes[0].invert_yaxis()
    axes[0].set(
        title="Chorales: an LSTM with each regularizer",
        xlabel="nats per frame on the test set: seeds, and their mean",
    )
    both = np.concatenate(spreads)
    edges = np.linspace(both.min(), both.max(), 40)
    looks = (("test examples", "#1f4e79"), ("their steps in random order", "#e08a3c"))
    for values, (label, color) in zip(spreads, looks):
        axes[1].hist(values, edges, color=color, alpha=0.6, label=label)
    axes[1].set(
        title="MNIST-1D: Monte-Carlo dropout of a GRU, first seed",
        xlabel=f"spread of the probabilities (AUROC {areas[0]:.3f})",
        ylabel="examples",
    )
    axes[1].legend()
    for axis in axes:
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def write(path, writer):
    """Writes under another name first, so that `path` is never half written."""
    unfinished = path.with_name("unfinished_" + path.name)
    writer(unfinished)
    unfinished.replace(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="little data, an epoch or two")
    parser.add_argument("--out", type=Path, default=Path("regularizers_output"))
    parser.add_argument("--data-dir", help="where TFDS keeps its files (default: OUT/data)")
    options = parser.parse_args()
    out, quick = options.out.resolve(), options.quick
    out.mkdir(parents=True, exist_ok=True)
    if not sys.stdout.isatty():
        tfds.disable_progress_bar()  # none in somebody's log
    start, seeds = time.perf_counter(), SEEDS[:2] if quick else SEEDS

    sets = load_chorales(options.data_dir or out / "data", quick)
    frames = {split: int((y[..., 0] != PADDING).sum()) for split, (_, y) in sets.items()}
    print("Chorales:", ", ".join(f"{len(sets[s][0])} {s} ({n} frames)" for s, n in frames.items()))
    table = []

    def report(*lines):
        table.extend(lines)
        print(*lines, sep="\n", flush=True)

    losses = {}
    report("", head("LSTM: nats per frame, test", seeds, "below none  seconds"))
    for label in LSTMS:
        found, seconds = zip(*(compose(label, sets, seed, quick) for seed in seeds))
        losses[label] = found
        below = "" if label == "none" else f"{count_below(found, losses['none'])} of {len(seeds)}"
        report(row(label, found, 3, f"{below:<12}{sum(seconds):.0f}"))

    sets, accuracies = load_mnist1d(quick), {}
    report("", head("GRU: accuracy, test", seeds, " " * 12 + "seconds"))
    for label, rate in {"none": 0.0, "dropout": 0.3}.items():
        runs = [classify(rate, sets, seed, quick) for seed in seeds]
        models, accuracies[label], seconds = zip(*runs)
        report(row(label, accuracies[label], 3, " " * 12 + f"{sum(seconds):.0f}"))

    x, _ = sets["test"]
    shuffled = np.random.default_rng(4).permuted(x, axis=1)  # each row in an order of its own
    # Of the models with dropout, the last ones.
    spreads = [
        [doubt(model, inputs, 4 if quick else 32) for inputs in (x, shuffled)] for model in models
    ]
    areas = [auroc(*pair) for pair in spreads]
    single = [auroc(*(unsure(model, inputs) for inputs in (x, shuffled))) for model in models]
    report("", head("Shuffled or not? AUROC", seeds), row("spread of mc_predict", areas, 3))
    report(row("1 - largest probability", single, 3))

    text = "\n".join(table[1:]) + "\n"
    write(out / "regularizers.txt", lambda path: path.write_text(text, encoding="utf-8"))
    write(out / "regularizers.png", lambda path: draw(path, losses, spreads[0], areas))
    print(f"\nWritten to {out}: regularizers.txt, regularizers.png")
    print(f"{time.perf_counter() - start:.0f} s in all")
    wins = count_below(losses["variational dropout"], losses["none"])
    goals = {
        "variational dropout below none with each seed": wins == len(seeds),
        "a plain GRU's accuracy of 0.9 with each seed": min(accuracies["none"]) >= 0.9,
        "an AUROC of 0.8 with each seed": min(areas) >= 0.8,
    }
    missed = [goal for goal, reached in goals.items() if not reached]
    if missed and not quick:
        sys.exit("Goals missed: " + "; ".join(missed))


if __name__ == "__main__":
    main()

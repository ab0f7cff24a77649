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
import sys
import time
from pathlib import Path

import common  # first: it sets the environment
import keras
import numpy as np
import tensorflow_datasets as tfds
from parts.chorale_data import KEYS
from parts.chorale_data import PADDING
from parts.chorale_data import examples
from parts.chorale_data import load
from parts.doubt import auroc
from parts.doubt import doubt
from parts.doubt import unsure
from parts.regularizer_runs import count_below
from parts.regularizer_runs import draw
from parts.regularizer_runs import head
from parts.regularizer_runs import row
from parts.regularizer_runs import train
from parts.series_data import load as load_series
from parts.series_data import split as split_series

import keras_rnnx

SEEDS = (1, 2, 3)

LSTMS = {  # label: (layer, its options)
    "none": ("LSTM", {}),
    "variational dropout": ("LSTM", {"dropout": 0.1, "recurrent_dropout": 0.5}),
    "per-step dropout": (
        "LSTM",
        {"dropout": 0.2, "recurrent_dropout": 0.5}
        | {"dropout_mode": "step", "recurrent_dropout_mode": "step"},
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


def keys_to_keys(notes):
    """Inputs and targets `[N, T, 88]`: which keys sound at each step, and at the next."""
    x, y = examples(notes)
    return x["chords"], y["keys"]


def nats(y, logits):
    """Negative log-likelihood of the frames `[B, T]`: the sum over all keys."""
    return keras.ops.sum(keras.ops.softplus(logits) - y * logits, axis=-1)


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


def classify(dropout, sets, seed, quick):
    """Trains one GRU on MNIST-1D: the model, its accuracy on the test set, and seconds."""
    keras.utils.set_random_seed(seed)
    # One feature a step: dropped, nothing would be left. So no dropout of the input.
    gru = keras_rnnx.GRU(16 if quick else 128, recurrent_dropout=dropout)
    answer = keras.layers.Dense(10, activation="softmax")
    model = keras.Sequential([keras.Input((40, 1)), gru, keras.layers.Dropout(dropout), answer])
    adam = keras.optimizers.Adam(0.005, global_clipnorm=1.0)
    model.compile(adam, "sparse_categorical_crossentropy", metrics=["accuracy"])
    rows, epochs = (sets["train"], sets["validation"]), 1 if quick else 25
    seconds = train(model, "val_loss", *rows, seed, 64, epochs, patience=8)
    _, accuracy = model.evaluate(*sets["test"], batch_size=500, verbose=0)
    return model, accuracy, seconds


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

    sets = load(options.data_dir or out / "data", quick)
    sets = {split: keys_to_keys(notes) for split, notes in sets.items()}
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

    rows, test = load_series(quick)
    sets = dict(zip(("train", "validation"), split_series(rows, len(rows[0])))) | {"test": test}
    accuracies = {}
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
    common.write(out / "regularizers.txt", lambda path: path.write_text(text, encoding="utf-8"))
    common.write(out / "regularizers.png", lambda path: draw(path, losses, spreads[0], areas))
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

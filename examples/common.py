"""What the examples share: their options, an equal budget for stock Keras, a checked export.

An example trains one model with one seed and writes `result.json`, from which
`python -m examples.results` makes the table of docs/results.md.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import keras
import matplotlib
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

import keras_rnnx
from keras_rnnx import serving

matplotlib.use("Agg")  # draws without a screen
import matplotlib.pyplot as plt

tf.get_logger().setLevel("ERROR")  # it warns of many models that are traced in one loop
VERBOSE = 1 if sys.stdout.isatty() else 2  # no progress bars in somebody's log
LAYERS = {"keras_rnnx": keras_rnnx, "keras": keras.layers}


def parser(doc, name):
    """The options that every example has. `name`: of the folder that it writes."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="little of everything: does it work?")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument(
        "--layers", choices=LAYERS, default="keras_rnnx", help="whose recurrent layers are trained"
    )
    parser.add_argument("--seconds", type=float, help="of processor time: training ends then")
    parser.add_argument("--out", type=Path, default=Path(f"{name}_output"))
    parser.add_argument("--data-dir", type=Path, help="TFDS's files (default: OUT/data)")
    return parser


def start(parser):
    """The parsed options; `options.rnn` has the layers. Makes the folder, sets the seed."""
    options = parser.parse_args()
    options.rnn = LAYERS[options.layers]
    options.out = options.out.resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    options.data_dir = (options.data_dir or options.out / "data").resolve()
    if VERBOSE == 2:
        tfds.disable_progress_bar()
    keras.utils.set_random_seed(options.seed)
    return options


class Budget(keras.callbacks.Callback):
    """Ends `fit` after so many seconds (None: never), compilation included, validation not.

    It notes them: `budget.seconds`. That gives two models the same time to learn in. They are
    seconds of processor time, which what else runs on a machine does not lengthen. Several calls of
    `fit` share one budget.
    """

    def __init__(self, seconds=None):
        super().__init__()
        self.limit, self.seconds = seconds, 0.0

    def _count(self):
        now = time.process_time()
        self.seconds += now - self.since
        self.since = now
        if self.limit is not None and self.seconds >= self.limit:
            self.model.stop_training = True

    def on_train_begin(self, logs=None):
        self.since = time.process_time()

    def on_train_batch_end(self, batch, logs=None):
        self._count()

    def on_test_begin(self, logs=None):
        self._count()

    def on_test_end(self, logs=None):
        self.since = time.process_time()


class Cosine(keras.callbacks.Callback):
    """A learning rate that rises to `peak` in a tenth of the training, and falls along a cosine.

    The training is `steps` batches or the seconds of the budget, whichever ends first: so that who
    is slower has its whole schedule too.
    """

    def __init__(self, budget, peak, steps):
        super().__init__()
        self.budget, self.peak, self.steps = budget, peak, steps

    def on_train_batch_begin(self, batch, logs=None):
        done = int(self.model.optimizer.iterations) / self.steps  # known to a resumed training
        if self.budget.limit is not None:
            done = max(done, self.budget.seconds / self.budget.limit)
        height = min(10 * done, 0.5 + 0.5 * np.cos(np.pi * min(1.0, max(0.0, done - 0.1) / 0.9)))
        self.model.optimizer.learning_rate = self.peak * max(0.01, height)


def write(path, writer):
    """`writer(path)` under another name first, so that `path` is never half written."""
    unfinished = path.with_name("unfinished_" + path.name)
    writer(unfinished)
    unfinished.replace(path)


def save(options, figure, name):
    """A figure of matplotlib as a picture in the folder of the example."""
    write(options.out / name, lambda path: figure.savefig(path, dpi=110, format="png"))
    plt.close(figure)
    print(f"Drawn: {options.out / name}")


def export(options, model, inputs, tolerance=1e-5, **more):
    """Saves and exports the model, checks the export, and compares all answers to `inputs`.

    Args:
        inputs: array `[N, ...]`, or a dict of arrays by the names of the model's inputs.
        more: what the export asks for beside them, such as `lengths=[N]`.
    """
    saved = options.out / "model.keras"
    write(saved, model.save)
    version = serving.export(model, options.out / "export", example=inputs, verbose=False)
    print("\nWill it run on a server?")
    if serving.check(version):
        raise SystemExit("The export has faults.")
    request = inputs if isinstance(inputs, dict) else {model.inputs[0].name: inputs}
    rows = tf.data.Dataset.from_tensors(inputs)  # which takes strings as well
    expected = model.predict(rows, verbose=0)
    reloaded = keras.saving.load_model(saved).predict(rows, verbose=0)
    served = serving.ask(version, request | more)  # in a clean process
    served = served if isinstance(expected, dict) else list(served.values())
    print(f"The same for {len(next(iter(request.values())))} examples? Largest difference:")
    for where, found in {"reloaded .keras": reloaded, "export, clean process": served}.items():
        pairs = zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True)
        difference = max(_difference(*pair) for pair in pairs)
        print(f"  {where:<23}{difference:.1e}")
        if not difference <= tolerance:
            raise SystemExit(f"{where}: the answers differ by {difference}.")


def _difference(one, other):
    """The largest difference of two arrays of numbers; of strings, the part that differs."""
    return np.mean(one != other) if one.dtype == object else np.abs(one - other).max()


def report(options, model, budget, metrics, baselines):
    """Prints and writes what was found: `result.json`.

    Args:
        metrics: `{name: number}`, of held-out data.
        baselines: the same for what needs no net, `{"which baseline: metric": number}`.
    """
    # As many as it may use, where the system says so.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    result = {
        "layers": options.layers,
        "seed": options.seed,
        "quick": options.quick,
        "parameters": model.count_params(),
        "seconds": round(budget.seconds, 1),
        "cores": cores,
        "metrics": {name: float(value) for name, value in metrics.items()},
        "baselines": {name: float(value) for name, value in baselines.items()},
    }
    print(f"\n{options.layers}, {result['parameters']:,} parameters, {budget.seconds:.0f} s:")
    for name, value in [*result["metrics"].items(), *result["baselines"].items()]:
        print(f"  {name:<48}{value:.4f}")
    text = json.dumps(result, indent=1) + "\n"
    write(options.out / "result.json", lambda path: path.write_text(text))

"""Exports beside those of Keras, answered as TensorFlow Serving answers.

    python -m benchmarks.serving

An LSTM and a GRU classifier, exported by `keras.layers` (`model.export`) and by this package
(`serving.export`), same weights. A clean process loads both through the session loader with XLA
switched off and asks them in turns: milliseconds of one request (medians), and requests per second
of several clients that ask at once with one row each. There is no network in these figures.

Axes: B rows of a request, T steps, D features, U units.
"""

import ctypes
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

D, U = 64, 128
SIZES = ((1, 20), (1, 100), (1, 1000), (4, 100), (8, 100), (16, 100), (32, 100))
CLIENTS = (1, 4, 8)
ROUNDS, SECONDS = 9, 3.0


def write(kind, folder):
    """Both exports of a classifier, `folder/keras` and `folder/ours`."""
    import keras

    import keras_rnnx
    from keras_rnnx import serving

    models = [
        keras.Sequential([keras.Input((None, D)), getattr(layers, kind)(U), keras.layers.Dense(10)])
        for layers in (keras.layers, keras_rnnx)
    ]
    models[1].set_weights(models[0].get_weights())
    models[0].export(folder / "keras", verbose=False)
    serving.export(models[1], folder / "ours", verbose=False)


class Model:
    """An export in a session, as a server has it."""

    def __init__(self, tf, path):
        self.session = tf.compat.v1.Session(graph=tf.Graph())
        with self.session.graph.as_default():
            loaded = tf.compat.v1.saved_model.load(self.session, ["serve"], str(path))
        signature = loaded.signature_def["serving_default"]
        names = sorted(signature.inputs, key=lambda name: name == "lengths")
        self.feeds = [signature.inputs[name].name for name in names]
        (output,) = signature.outputs.values()
        self.ask = self.session.make_callable([output.name], self.feeds)

    def __call__(self, x):
        lengths = [np.full([len(x)], x.shape[1], np.int32)] if len(self.feeds) > 1 else []
        return self.ask(x, *lengths)[0]


def turns(models, x):
    """Median milliseconds of a request to each."""
    times = {name: [] for name in models}
    found = {name: model(x) for name, model in models.items()}
    np.testing.assert_allclose(found["keras"], found["ours"], rtol=1e-4, atol=1e-5)
    start = time.perf_counter()
    models["keras"](x)
    repeat = max(1, int(0.1 / (time.perf_counter() - start)))
    for _ in range(ROUNDS):
        for name, model in models.items():
            for _ in range(repeat):
                start = time.perf_counter()
                model(x)
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(found) for name, found in times.items()}


def together(model, clients, x):
    """Requests per second of so many clients that ask at once."""
    counts, stop = [0] * clients, time.perf_counter() + SECONDS

    def ask(k):
        while time.perf_counter() < stop:
            model(x)
            counts[k] += 1

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / SECONDS


def answer(folder):
    """The clean process: prints its figures as JSON."""
    import tensorflow as tf

    library = os.path.join(tf.sysconfig.get_lib(), "libtensorflow_cc.so.2")
    ctypes.CDLL(library)._ZN10tensorflow21DisableXlaCompilationEv()
    models = {"keras": Model(tf, folder / "keras"), "ours": Model(tf, folder / "ours" / "1")}
    rng = np.random.default_rng(0)
    draw = lambda B, T: rng.normal(size=(B, T, D)).astype("float32")
    rows = [(B, T, turns(models, draw(B, T))) for B, T in SIZES]
    x = draw(1, 100)
    clients = [(n, {name: together(m, n, x) for name, m in models.items()}) for n in CLIENTS]
    print(json.dumps([rows, clients]))


def main():
    for kind in ("LSTM", "GRU"):
        with tempfile.TemporaryDirectory() as folder:
            write(kind, Path(folder))
            command = [sys.executable, "-m", "benchmarks.serving", folder]
            environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
            found = subprocess.run(
                command, check=True, stdout=subprocess.PIPE, text=True, env=environment
            )
        rows, clients = json.loads(found.stdout.splitlines()[-1])
        print(f"{kind}, D={D} U={U}: ms a request, medians of {ROUNDS} rounds")
        print(f"{'B':>4} {'T':>5} {'keras export':>13} {'ours':>8} {'ratio':>6}")
        for B, T, ms in rows:
            ratio = ms["keras"] / ms["ours"]
            print(f"{B:>4} {T:>5} {ms['keras']:13.2f} {ms['ours']:8.2f} {ratio:6.2f}")
        print(f"\n{kind}, clients with one row of 100 steps each: requests a second")
        print(f"{'clients':>8} {'keras export':>13} {'ours':>8} {'ratio':>6}")
        for count, rate in clients:
            ratio = rate["ours"] / rate["keras"]
            print(f"{count:>8} {rate['keras']:13.0f} {rate['ours']:8.0f} {ratio:6.2f}")
        print(flush=True)


if __name__ == "__main__":
    if sys.argv[1:]:
        answer(Path(sys.argv[1]))
    else:
        main()

"""A recurrent cell of your own, in ten lines, trained beside an LSTM on the adding problem.

    python examples/own_cell.py

The cell is the "update gate" unit: one gate decides how much of the state is renewed (Collins et
al., "Capacity and Trainability in Recurrent Neural Networks", ICLR 2017). It is checked, put into
layers, trained, saved and loaded, and exported. About two minutes on two cores.

The adding problem: a sequence of numbers, two of which are marked; the answer is their sum
(Hochreiter and Schmidhuber, 1997). Answering 1 whatever comes has a mean squared error of 0.167.
"""

import argparse
import dataclasses
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
import keras
import numpy as np
import tensorflow as tf

import keras_rnnx
from keras_rnnx.testing import check_cell


@keras.saving.register_keras_serializable(package="own_cell")
@dataclasses.dataclass(frozen=True)
class UpdateGate(keras_rnnx.CellSpec):
    gates = 2  # parts of the kernel's columns

    def step(self, weights, product, x, states, constants):
        (h,) = states
        g, c = product("recurrent_kernel", h, plus=x, pieces=2)
        g, c = tf.sigmoid(g), tf.tanh(c)
        h = g * h + (1 - g) * product.candidate(c)
        return h, (h,)


def adding(samples, steps, seed):
    draw = np.random.default_rng(seed)
    numbers, marks = draw.random((samples, steps)), np.zeros((samples, steps))
    for row in marks:
        row[draw.choice(steps, 2, replace=False)] = 1
    x = np.stack([numbers, marks], axis=-1).astype("float32")
    return x, (numbers * marks).sum(axis=1, keepdims=True).astype("float32")


def model_of(layer, steps):
    inputs = keras.Input((steps, 2))
    model = keras.Model(inputs, keras.layers.Dense(1)(layer(inputs)))
    model.compile(keras.optimizers.Adam(0.005, clipnorm=1.0), "mse")
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few steps, to see that it runs")
    steps, samples, epochs = (20, 200, 1) if parser.parse_args().quick else (60, 10_000, 12)

    print("Checks of the cell")
    check_cell(UpdateGate(4))

    print(f"\nAdding problem, {steps} steps: mean squared error on new sequences (chance 0.167)")
    x, y = adding(samples, steps, seed=0)
    test = adding(1000, steps, seed=1)
    layers = {
        "UpdateGate": lambda: keras_rnnx.RNN(keras_rnnx.CustomCell(UpdateGate(64))),
        "UpdateGate, zoneout": lambda: keras_rnnx.RNN(
            keras_rnnx.CustomCell(UpdateGate(64), zoneout=0.02)
        ),
        "LSTM": lambda: keras_rnnx.LSTM(64),
    }
    for name, make in layers.items():
        keras.utils.set_random_seed(1)
        model, start = model_of(make(), steps), time.perf_counter()
        model.fit(x, y, batch_size=50, epochs=epochs, verbose=0)
        seconds = time.perf_counter() - start
        print(f"  {name:20} {model.evaluate(*test, verbose=0):.4f}   trained in {seconds:.0f} s")
        if name == "UpdateGate":
            own = model

    with tempfile.TemporaryDirectory() as folder:
        own.save(Path(folder) / "own.keras")
        own.export(Path(folder) / "export", verbose=False)
        expected = own.predict(test[0], verbose=0)
        loaded = keras.saving.load_model(Path(folder) / "own.keras").predict(test[0], verbose=0)
        served = tf.saved_model.load(str(Path(folder) / "export"))
        served = np.asarray(served.serve(test[0]))
        print("\nThe same predictions? Largest difference:")
        print(f"  loaded .keras  {np.abs(loaded - expected).max():.1e}")
        print(f"  export         {np.abs(served - expected).max():.1e}")


if __name__ == "__main__":
    main()

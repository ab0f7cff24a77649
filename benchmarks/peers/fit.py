"""One epoch of `model.fit` with default settings: a recurrent layer and a Dense head."""

import importlib

import keras
import numpy as np

from benchmarks.data import CLASSES


class Peer:
    def __init__(self, case, weights, package, jit):
        self.case, self.weights = case, weights
        self.package = importlib.import_module(package)
        self.jit_compile = True if jit else "auto"  # Keras' own default: plain graph on a CPU
        self.model = self.build()

    def build(self):
        case = self.case
        recurrent = getattr(self.package, case.cell)(case.U)
        head = keras.layers.Dense(CLASSES, activation="softmax")
        model = keras.Sequential([keras.Input((case.T, case.D)), recurrent, head])
        recurrent.set_weights(self.weights)
        draw = np.random.default_rng(2)
        head.set_weights([0.1 * draw.standard_normal(w.shape) for w in head.get_weights()])
        model.compile("adam", "sparse_categorical_crossentropy", jit_compile=self.jit_compile)
        return model

    def load(self, x, labels, lengths):
        self.x, self.labels = x, labels

    def step(self):
        self.model.fit(self.x, self.labels, batch_size=self.case.B, verbose=0)

    def numbers(self):
        """Predictions, then the loss of four batches, from the first weights and in fixed order."""
        model, few = self.build(), slice(0, 4 * self.case.B)
        predictions = model.predict(self.x[few], batch_size=self.case.B, verbose=0)
        fit = {"batch_size": self.case.B, "shuffle": False, "verbose": 0}
        return [
            predictions,
            np.array(model.fit(self.x[few], self.labels[few], **fit).history["loss"]),
        ]

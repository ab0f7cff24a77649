"""`keras.layers` and `keras_rnnx`: the same code, since one is a drop-in for the other."""

import importlib

import numpy as np
import tensorflow as tf

from benchmarks import data
from benchmarks.cases import UNFUSED

CELLS = {"keras.layers": "benchmarks.cells_keras", "keras_rnnx": "benchmarks.cells_rnnx"}

# float32 means float32 on every peer, on a GPU too: the numbers are held to 1e-4.
tf.config.experimental.enable_tensor_float_32_execution(False)


class Peer:
    def __init__(self, case, weights, package, jit, **options):
        self.layers = [layer(case, package, options) for _ in range(case.layers)]
        split = data.split_weights(case, weights)
        for one, D, arrays in zip(self.layers, case.input_sizes(), split, strict=True):
            one.build((case.B, case.T, D))
            one.set_weights(sum(arrays, []))
        self.variables = [v.value for one in self.layers for v in one.trainable_variables]
        self.trains, self.noisy = case.trains, case.noisy
        call = self.train if case.trains else self.infer
        self.call = tf.function(call, jit_compile=jit, autograph=False)

    def load(self, x, dy, lengths):
        self.x, self.dy = tf.constant(x), tf.constant(dy)
        self.mask = None if lengths is None else tf.constant(data.mask(lengths, x.shape[1]))

    def infer(self, x, dy, mask, training):
        for one in self.layers:
            x = one(x, mask=mask, training=training)
        return [x]

    def train(self, x, dy, mask, training):
        with tf.GradientTape() as tape:
            tape.watch(x)
            (y,) = self.infer(x, dy, mask, training)
        return [y, *tape.gradient(y, [x, *self.variables], dy)]

    def step(self):
        return self.fetch(self.call(self.x, self.dy, self.mask, self.trains))

    def numbers(self):
        # Noise off: the draws of two libraries never agree.
        return self.fetch(self.call(self.x, self.dy, self.mask, self.trains and not self.noisy))

    def fetch(self, tensors):
        return [np.asarray(memoryview(t)) for t in tensors]  # `numpy()` would copy


def layer(case, package, options):
    module = importlib.import_module(package)
    if case.cell in UNFUSED:
        cells = importlib.import_module(CELLS[package])
        return module.RNN(getattr(cells, case.cell)(case.U), return_sequences=True)
    if options.get("checkpointed"):
        options = {**options, "backward": module.Checkpointed("sqrt")}
        del options["checkpointed"]
    one = getattr(module, case.cell)(case.U, return_sequences=True, **options)
    return module.Bidirectional(one) if case.bidirectional else one

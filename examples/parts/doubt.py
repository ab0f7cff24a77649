"""The second half of examples/regularizers.py: a GRU on MNIST-1D, and what it doubts.

With noise its answers spread; that is its doubt, and nothing of the first half needs it.
"""

import keras
import mnist1d.data
import numpy as np
from parts.regularizer_runs import train

import keras_rnnx


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


def doubt(model, x, samples):
    """For each input: the spread of the probabilities under noise, the mean over the classes."""
    _, spread = keras_rnnx.mc_predict(model, x, samples=samples, batch_size=500)
    return spread.mean(axis=-1)


def unsure(model, x):
    """For each input: one minus the largest probability, without noise. Needs no samples."""
    return 1 - model.predict(x, batch_size=500, verbose=0).max(axis=-1)


def auroc(negative, positive):
    """How often a score of `positive` is above one of `negative`; a tie counts half."""
    above = np.subtract.outer(positive, negative)
    return np.mean((above > 0) + 0.5 * (above == 0))

"""How much a classifier doubts its answers: the measures of examples/regularizers.py."""

import numpy as np

import keras_rnnx


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

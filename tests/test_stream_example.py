"""examples/stream.py: its steps, faults and score, and its short form."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import matplotlib.image
import numpy as np
import pytest
import stream

import keras_rnnx

ROOT = Path(__file__).parents[1]
DAY = stream.DAY
ENDLESS = np.inf


@pytest.fixture
def calendar():
    return np.random.default_rng(0).normal(size=(60, 3)).astype("float32")


@pytest.fixture
def model(calendar):
    return stream.build(keras_rnnx, shape=(None, 2 + calendar.shape[1]))


def whole(model, observed, calendar):
    """The forecasts by one call with the whole sequence."""
    y = observed.astype("float32")
    x = np.concatenate(
        [y[:, None], 5 * np.diff(y, prepend=y[:1])[:, None], calendar[: len(y)]], axis=1
    )
    return y[:-1] + model(x[None])[0, :-1, 0].numpy() / 5


@pytest.mark.parametrize("layers", ["keras_rnnx", "keras"])
def test_step_by_step_is_the_whole_sequence(model, calendar, layers):
    observed = np.random.default_rng(1).normal(size=40)
    options = SimpleNamespace(layers=layers)
    given = model
    if layers == "keras":  # the same weights
        given = stream.build(keras.layers, shape=model.input_shape[1:])
        given.set_weights(model.get_weights())
    for _ in range(2):  # a second watch begins anew
        feed = stream.stepper(options, given)
        found = stream.watch(feed, observed, calendar, np.full(40, ENDLESS))
        assert found[0] == observed[0]
        np.testing.assert_allclose(found[1:], whole(model, observed, calendar), atol=1e-5)


def test_the_net_gets_no_more_than_the_limit(calendar):
    """By a plain loop, with a net that expects half of the last change again."""
    observed, limit = np.random.default_rng(2).normal(size=40), np.full(40, 0.3)
    limit[:5] = ENDLESS
    seen = []
    found = stream.watch(lambda x: seen.append(x) or x[1:2] / 2, observed, calendar, limit)
    forecast = before = observed[0]
    for t in range(40):
        assert found[t] == pytest.approx(forecast, abs=1e-5)
        y = min(max(observed[t], forecast - limit[t]), forecast + limit[t])
        if t < 39:
            expected = [y, 5 * (y - before), *calendar[t]]
            np.testing.assert_allclose(seen[t], expected, atol=1e-5)
        before, forecast = y, y + (y - before) / 2
    assert np.abs(observed - found).max() > 0.6, "some were further away"


def test_forecasts_are_made_before(calendar):
    observed = np.random.default_rng(3).normal(size=40)
    watch = lambda observed: stream.watch(lambda x: x[:1], observed, calendar, np.full(40, 0.5))
    before, after = watch(observed), watch(np.where(np.arange(40) < 25, observed, -observed))
    np.testing.assert_array_equal(before[:26], after[:26])
    assert before[26] != after[26]


def test_check_finds_another_net(model, calendar, monkeypatch, tmp_path, capsys):
    x = np.random.default_rng(4).normal(size=(20, model.input_shape[-1])).astype("float32")
    options = SimpleNamespace(layers="keras_rnnx", out=tmp_path)
    stream.check(options, model, x)
    assert "saved in the middle" in capsys.readouterr().out and (tmp_path / "state.npz").exists()
    right = stream.stepper(options, model)
    monkeypatch.setattr(stream, "stepper", lambda *args: lambda x: right(x) + 1e-3)
    with pytest.raises(SystemExit, match="step by step"):
        stream.check(options, model, x)


def test_faults():
    rng = np.random.default_rng(5)
    time = np.arange(300 * DAY)
    demand = 5 + np.sin(2 * np.pi * (time - 22) / DAY) + rng.normal(0, 0.01, len(time))
    faulty, names = stream.inject(demand, np.random.default_rng(6))
    again, _ = stream.inject(demand, np.random.default_rng(6))
    np.testing.assert_array_equal(faulty, again)
    assert faulty is not demand and (faulty[names == ""] == demand[names == ""]).all()
    assert (names[:DAY] == "").all() and (names[-DAY:] == "").all()
    edges = np.flatnonzero(np.diff(np.concatenate([[0], names != "", [0]]).astype(int)))
    found = {}
    for first, end in edges.reshape(-1, 2):
        (kind,) = set(names[first:end])
        found.setdefault(kind, []).append(end - first)
        true, seen, before = demand[first:end], faulty[first:end], demand[first - 1]
        if kind == "spike":
            assert ((np.abs(seen / true - 1) > 0.049) & (np.abs(seen / true - 1) < 0.201)).all()
        elif kind == "stuck":
            assert (seen == before).all()
        elif kind == "no peak":
            assert first % DAY == 32 and (seen == np.minimum(true, before)).all()
        else:
            assert kind == "late" and (seen == demand[first - 4 : end - 4]).all()
    assert set(found) == {"spike", "stuck", "no peak", "late"}
    assert set(found.pop("spike")) == {1, 2}
    assert all(8 <= steps <= 16 for lengths in found.values() for steps in lengths)
    assert 300 / 3 < len(edges) / 2 < 300 / 1.5, "one in about two days"


def test_average_precision_by_its_definition():
    rng = np.random.default_rng(7)
    scores, positive = rng.normal(size=50), rng.random(50) < 0.2
    precisions = [
        np.mean(positive[scores >= threshold]) for threshold in scores[positive]
    ]  # at each threshold that finds one more
    assert stream.average_precision(scores, positive) == pytest.approx(np.mean(precisions))
    assert stream.average_precision(positive + 0.1 * scores.clip(-1, 1), positive) == 1


@pytest.mark.slow
def test_short_form(tmp_path):
    command = [sys.executable, ROOT / "examples" / "stream.py", "--quick", "--out", tmp_path]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    metrics, baselines = result["metrics"], result["baselines"]
    assert 0.01 < baselines["chance: average precision"] < 0.2
    assert metrics["average precision"] > baselines["a week before: average precision"]
    assert metrics["average precision"] > 2 * baselines["chance: average precision"]
    height, width, _ = matplotlib.image.imread(tmp_path / "stream.png").shape
    assert width > height > 300
    assert (tmp_path / "export" / "1" / "saved_model.pb").is_file()
    (state,) = np.load(tmp_path / "state.npz").values()
    assert state.shape == (stream.UNITS,), "this is all that a stream keeps"
    model = keras.saving.load_model(tmp_path / "model.keras")
    assert model.output_shape == (None, None, 1)

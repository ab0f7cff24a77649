"""The short form of the example of regularizers, from beginning to end; its data; its measures."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from parts import chorale_data
from parts import doubt
from parts import regularizer_runs

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location(
        "regularizers", ROOT / "examples" / "regularizers.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_short_form(example, tmp_path):
    command = [sys.executable, ROOT / "examples" / "regularizers.py", "--quick", "--out", tmp_path]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr

    names = {"data", "regularizers.txt", "regularizers.png"}
    assert {path.name for path in tmp_path.iterdir()} == names, "nothing unfinished is left"
    table = (tmp_path / "regularizers.txt").read_text(encoding="utf-8")
    assert table in run.stdout
    values = re.findall(
        r"^(.{27})(\d+\.\d{3}) +(\d+\.\d{3}) +(\d+\.\d{3}) +(\d+\.\d{3})", table, re.M
    )
    rows = [(label.strip(), *map(float, numbers)) for label, *numbers in values]
    for _, first, second, mean, spread in rows:
        assert mean == pytest.approx((first + second) / 2, abs=0.0011)
        assert spread == pytest.approx(abs(first - second), abs=0.0011)
    expected = [*example.LSTMS, "none", "dropout"]
    expected += ["spread of mc_predict", "1 - largest probability"]
    assert [label for label, *_ in rows] == expected
    for label, first, *_ in rows[: len(example.LSTMS)]:
        assert 8 < first < 13, label  # 88 keys known by nothing but how often each sounds: 10.9
    height, width, _ = matplotlib.image.imread(tmp_path / "regularizers.png").shape
    assert width > height > 300


def test_keys_to_keys(example):
    long, short = (
        [[60, 0, 21, 108], [62, 55, 55, 0], [0, 0, 0, 0]],
        [[64, 60, 55, 48], [60, 0, 0, 0]],
    )
    notes = chorale_data.notes_of([np.array(long), np.array(short)])
    x, y = example.keys_to_keys(notes)
    assert x.shape == y.shape == (2, 2, 88)
    keys = lambda frame: np.flatnonzero(frame == 1).tolist()
    assert [keys(x[0, 0]), keys(x[0, 1])] == [[0, 39, 87], [34, 41]]
    assert [keys(y[0, 0]), keys(y[0, 1])] == [[34, 41], []]
    assert [keys(x[1, 0]), keys(y[1, 0])] == [[27, 34, 39, 43], [39]]
    assert (x[1, 1] == chorale_data.PADDING).all() and (y[1, 1] == chorale_data.PADDING).all()
    assert set(np.unique(x[0])) == {0, 1}


def test_nats_are_the_likelihood_of_the_notes(example):
    random = np.random.default_rng(0)
    y, logits = random.integers(0, 2, (3, 4, 5)).astype("float32"), random.normal(size=(3, 4, 5))
    p = 1 / (1 + np.exp(-logits))
    expected = -np.log(np.where(y == 1, p, 1 - p)).sum(axis=-1)
    np.testing.assert_allclose(example.nats(y, logits.astype("float32")), expected, rtol=1e-5)


def test_frames_of_padding_do_not_count(example, monkeypatch):
    """The figure in the table, from the model's own answers in NumPy."""
    random = np.random.default_rng(1)
    pieces = [random.integers(48, 72, (length, 4)) for length in (5, 9, 7, 12)]
    rows = example.keys_to_keys(chorale_data.notes_of(4 * pieces))
    sets = dict.fromkeys(("train", "validation", "test"), rows)
    models = []

    def once(model, *args, **options):
        models.append(model)
        return 0.0

    monkeypatch.setattr(example, "train", once)
    found, _ = example.compose("none", sets, seed=1, quick=True)
    x, y = sets["test"]
    logits = models[0].predict(x, verbose=0).astype("float64")
    real = y[..., 0] != chorale_data.PADDING
    likelihoods = -np.logaddexp(0, np.where(y == 1, -logits, logits)).sum(axis=-1)
    assert real.sum() == 4 * (4 + 8 + 6 + 11)
    assert found == pytest.approx(-likelihoods[real].mean(), rel=1e-5)


def test_auroc():
    assert doubt.auroc(np.array([1, 2]), np.array([3, 4])) == 1
    assert doubt.auroc(np.array([3, 4]), np.array([1, 2])) == 0
    assert doubt.auroc(np.array([1, 3]), np.array([2, 3])) == (1 + 0 + 1 + 0.5) / 4


def test_row():
    line = regularizer_runs.row("label", (1.0, 2.5, 1.5), 3, "rest")
    assert line.split() == ["label", "1.000", "2.500", "1.500", "1.667", "1.500", "rest"]

"""The short form of the long-memory example, from beginning to end; its data; its biases."""

import importlib.util
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from parts import memory_problems

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_short_form(tmp_path):
    command = [sys.executable, ROOT / "examples" / "long_memory.py", "--quick", "--out", tmp_path]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr

    row = (
        r"^(adding|copy) +(LSTM|GRU|SimpleRNN) +(\S+) +(\d+\.\d{4}) +(\d\.\d{4}) +(\d+) +(\d+\.\d)$"
    )
    rows = re.findall(row, run.stdout, re.M)
    nets = ["LSTM", "GRU", "SimpleRNN"]
    assert [found[:2] for found in rows] == [(p, net) for p in ("adding", "copy") for net in nets]
    chances = {"adding": 1 / 6, "copy": 10 * math.log(8) / (6 + 20)}
    for problem, _, rate, loss, chance, steps, seconds in rows:
        assert float(chance) == pytest.approx(chances[problem], abs=5e-5)
        assert 0 < float(rate) < 1
        assert 0 < float(loss) < 3 * chances[problem]
        assert int(steps) == 20
        assert float(seconds) > 0

    assert [path.name for path in tmp_path.iterdir()] == ["gradient_norms.png"]
    height, width, _ = matplotlib.image.imread(tmp_path / "gradient_norms.png").shape
    assert width > height > 300


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("long_memory", ROOT / "examples/long_memory.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_adding():
    x, y = memory_problems.adding(np.random.default_rng(0), 2000, 40)
    assert x.shape == (2000, 40, 2) and y.shape == (2000, 1)
    numbers, marks = x[..., 0], x[..., 1]
    assert numbers.min() >= 0 and numbers.max() <= 1
    assert set(np.unique(marks)) == {0, 1}
    np.testing.assert_array_equal(marks[:, :20].sum(axis=1), 1)
    np.testing.assert_array_equal(marks[:, 20:].sum(axis=1), 1)
    np.testing.assert_allclose(y[:, 0], (numbers * marks).sum(axis=1), rtol=1e-6)
    assert np.mean((y - 1) ** 2) == pytest.approx(1 / 6, rel=0.1), "chance: always to answer 1"


def test_copying():
    x, y = memory_problems.copying(np.random.default_rng(0), 500, 30)
    assert x.shape == (500, 50, 10) and y.shape == (500, 50)
    np.testing.assert_array_equal(x.sum(axis=-1), 1)
    symbols = x.argmax(axis=-1)
    np.testing.assert_array_equal(symbols[:, :10], y[:, 40:])
    assert set(np.unique(y[:, 40:])) == set(range(1, 9))
    assert not y[:, :40].any()
    wait = symbols[:, 10:]
    before_answer = np.tile(np.arange(40) == 29, (500, 1))
    np.testing.assert_array_equal(wait == 9, before_answer)
    assert not wait[wait != 9].any()


@pytest.mark.parametrize("net", ["LSTM", "GRU"])
def test_biases_for_a_long_memory(example, net):
    problem, _ = example.problems(quick=True)
    model, units = example.build(problem, net), problem.units
    bias = model.layers[0].get_weights()[2]
    if net == "LSTM":
        forget, rest = bias[units : 2 * units], bias[2 * units :]
        np.testing.assert_allclose(bias[:units], -forget)
    else:
        forget, rest = bias[0, :units], np.append(bias[0, units:], bias[1])
    kept = np.exp(forget)  # steps
    assert 1 <= kept.min() < 10 and 60 < kept.max() <= 72
    assert not rest.any()

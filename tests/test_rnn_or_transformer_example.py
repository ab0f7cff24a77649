"""examples/rnn_or_transformer.py: its Transformer against NumPy, its measures, its short form."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import matplotlib.image
import numpy as np
import pytest
import rnn_or_transformer as example
from parts import series_data
from scipy.special import erf

import keras_rnnx

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_short_form(tmp_path):
    script = ROOT / "examples" / "rnn_or_transformer.py"
    command = [sys.executable, script, "--quick", "--out", tmp_path]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    names = {"export", "model.keras", "result.json", "rnn_or_transformer.png"}
    assert {path.name for path in tmp_path.iterdir()} == names
    result = json.loads((tmp_path / "result.json").read_text())
    metrics, baselines = result["metrics"], result["baselines"]
    assert result["layers"] == "keras_rnnx" and result["quick"] and result["seconds"] > 0
    for name in ("accuracy", "Transformer accuracy"):
        assert 0.2 < metrics[name] <= 1, "one in ten by chance"
        assert 0.1 < metrics[f"{name}, 100 examples"] <= 1
    assert set(baselines) == {
        f"{which}: accuracy{few}"
        for which in ("logistic regression", "nearest neighbours")
        for few in ("", ", 100 examples")
    }
    assert all(0.1 < accuracy < 0.6 for accuracy in baselines.values())
    assert metrics["GRU, bytes kept after 256"] == metrics["GRU, bytes kept after 64"]
    many, few = (metrics[f"Transformer, bytes kept after {T}"] for T in (256, 64))
    assert many == 4 * few
    assert all(value > 0 for name, value in metrics.items() if ", ms of a step" in name)
    height, width, _ = matplotlib.image.imread(tmp_path / "rnn_or_transformer.png").shape
    assert width > height > 600
    model = keras.saving.load_model(tmp_path / "model.keras")
    assert model.count_params() == result["parameters"]


def transformer(seed):
    """One whose weights are random, biases too."""
    model, rng = example.Transformer(), np.random.default_rng(seed)
    model(np.zeros((1, 3, 1), "float32"))
    for weight in model.weights:
        if weight.dtype == "float32":  # the others are states of random generators
            weight.assign(rng.normal(scale=0.5, size=weight.shape))
    return model


def dense(layer, x):
    kernel, bias = (weight.numpy().astype("float64") for weight in layer.weights)
    return x @ kernel + bias


def normed(layer, x):
    gamma, beta = (weight.numpy() for weight in layer.weights)
    mean, variance = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + layer.epsilon) * gamma + beta


def reads(model, x, causal):
    """`Transformer.read` in NumPy, head by head and step by step."""
    B, T, _ = x.shape
    size = model.width // example.HEADS
    x = dense(model.enter, x.astype("float64"))
    for t in range(T):
        for k in range(model.width // 2):
            angle = t / 10000 ** (2 * k / model.width)
            x[:, t, k] += np.sin(angle)
            x[:, t, model.width // 2 + k] += np.cos(angle)
    for block in model.blocks:
        q, k, v = np.split(dense(block.project, normed(block.norms[0], x)), 3, axis=-1)
        seen = np.zeros_like(x)
        for b, t, head in np.ndindex(B, T, example.HEADS):
            part, real = slice(head * size, (head + 1) * size), slice(t + 1 if causal else T)
            scores = np.exp(k[b, real, part] @ q[b, t, part] / np.sqrt(size))
            seen[b, t, part] = scores / scores.sum() @ v[b, real, part]
        x = x + dense(block.mix, seen)
        inner = dense(block.inner, normed(block.norms[1], x))
        x = x + dense(block.outer, inner * 0.5 * (1 + erf(inner / np.sqrt(2))))
    return normed(model.norm, x)


def classified(model, x):
    scores = np.exp(dense(model.classify, x))
    return scores / scores.sum(axis=-1, keepdims=True)


def test_transformer_in_numpy():
    model, x = transformer(1), np.random.default_rng(2).normal(size=(2, 5, 1)).astype("float32")
    expected = classified(model, reads(model, x, causal=False).mean(axis=1))
    np.testing.assert_allclose(model(x), expected, rtol=0, atol=1e-5)


def test_steps_with_a_cache_are_causal_attention():
    model, x = transformer(3), np.random.default_rng(4).normal(size=(2, 6, 1)).astype("float32")
    expected = classified(model, reads(model, x, causal=True))
    none = np.zeros((2, 0, example.HEADS, model.width // example.HEADS), "float32")
    caches = example.BLOCKS * [[none, none]]
    for t in range(6):
        found, caches = model.step(x[:, t : t + 1], t, caches)
        np.testing.assert_allclose(found, expected[:, t], rtol=0, atol=1e-5)
    assert caches[-1][0].shape[1] == 6


@pytest.mark.parametrize(("units", "width"), [(64, 28), tuple(example.LARGE.values())])
def test_as_many_parameters(units, width):
    """By their formulas: three gates with two biases, four matrices of attention and two more."""
    gru, transformer = example.gru(keras_rnnx, units), example.Transformer(width)
    transformer(np.zeros((1, 3, 1), "float32"))
    assert gru.count_params() == 3 * units * (1 + units + 2) + 10 * (units + 1)
    block = 4 * width * (width + 1) + 4 * width + 2 * width * (width + 1) + width * (2 * width + 1)
    assert transformer.count_params() == 2 * block + 2 * width + 2 * width + 10 * (width + 1)
    assert transformer.count_params() == pytest.approx(gru.count_params(), rel=0.05)


def test_what_is_kept():
    _, kept = example.stream((3, 8), times=1)
    units, width = example.LARGE.values()
    assert kept["GRU"] == {3: 4 * units, 8: 4 * units}
    each = 4 * 2 * example.BLOCKS * width  # a key and a value in each block
    assert kept["Transformer"] == {3: 3 * each, 8: 8 * each}


def test_split():
    x, y = np.arange(40), np.arange(40) + 100
    (x_train, y_train), (x_held, y_held) = series_data.split((x, y), 24)
    assert x_train.tolist() == list(range(21)) and x_held.tolist() == [21, 22, 23]
    assert (y_train - x_train == 100).all() and (y_held - x_held == 100).all()


def test_nearest_neighbours():
    """Three classes; of one, an outlier lies among those of another, so that a vote is better."""
    line = lambda *values: np.array(values, "float32")[:, None, None]
    x, y = line(0, 1, 2, 10, 11, 12, 1.4, 20, 21, 22), np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 2])
    held_out, test_set = (line(1.3), np.array([0])), (line(1.5, 10.6, 21.4, 9), [0, 1, 2, 0])
    assert series_data.neighbours((x, y), held_out, test_set) == 0.75

"""Linear recurrences: one step after the other, and in chunks side by side, are the same."""

import itertools

import cell_oracles
import descriptors
import numpy as np
import oracles
import pytest
from helpers import (
    MASK_KINDS,
    arrays,
    assert_all_close,
    inputs,
    make_mask,
    outputs_and_gradients,
    run_in_mode,
    states_like,
)

import keras_rnnx as rnnx
from keras_rnnx.engine import plan, scan
from keras_rnnx.layers import sequence

STEPS = {
    "min_gru": cell_oracles.min_gru_step(),
    "min_lstm": cell_oracles.min_lstm_step(),
    "rg_lru": cell_oracles.rg_lru_step(),
}
names = pytest.mark.parametrize("name", STEPS)


@pytest.fixture
def always_chunks(monkeypatch):
    """Chunks for every size; 3 of them, so that T is no multiple."""
    calls = []
    run = scan.run_in_chunks

    def counted(a, b, h, chunks, **options):
        calls.append(chunks)
        return run(a, b, h, 3, **options)

    monkeypatch.setattr(sequence.engine, "run_in_chunks", counted)
    for backend in ("plain", "compiled"):
        monkeypatch.setitem(plan.LEAST_STEPS, backend, 0)
    return calls


OPTIONS = (
    {"return_sequences": True},
    {"return_sequences": True, "zero_output_for_mask": True, "go_backwards": True},
    {"return_sequences": False},
    {"return_sequences": False, "zero_output_for_mask": True},
)
WAYS = (("eager", "auto"), ("function", False), ("unknown", False))


def cases():
    """Every mask with every choice of options; cells and ways take turns, the rest is slow."""
    turns = itertools.cycle(itertools.product(STEPS, WAYS))
    for mask, options in itertools.product(MASK_KINDS, OPTIONS):
        now = next(turns)
        for name, way in itertools.product(STEPS, WAYS):
            marks = () if (name, way) == now else pytest.mark.slow
            yield pytest.param(name, mask, *way, options, marks=marks)


@pytest.mark.parametrize("name, mask, mode, jit, options", list(cases()))
@pytest.mark.thin(12)
def test_chunks_are_the_loop(name, mask, mode, jit, options, always_chunks, monkeypatch):
    row = descriptors.BY_NAME[name]
    options = {**options, "return_state": True, "dtype": "float64", "jit_compile": jit}
    mask, x = make_mask(mask), inputs(dtype="float64")
    states = states_like(row.states, dtype="float64")
    layer = row.build(rnnx, options)
    function = outputs_and_gradients(layer, training=True)
    outputs, gradients = map(arrays, run_in_mode(function, mode, x, mask, states))
    assert always_chunks
    expected = row.expected(layer.get_weights(), x, mask, states, options)
    assert_all_close(outputs, expected, 1e-10, [f"output {k}" for k in range(len(expected))])

    monkeypatch.setattr(sequence.engine, "worth_chunks", lambda *a: False)
    loop = outputs_and_gradients(row.build(rnnx, options), training=True)
    _, expected = map(arrays, run_in_mode(loop, "eager", x, mask, states))
    assert_all_close(gradients, expected, 1e-10, [f"gradient {k}" for k in range(len(expected))])


@pytest.mark.quick
@names
@pytest.mark.parametrize("chunks", [False, True])
@pytest.mark.thin(10)
def test_long_sequences_in_float32(name, chunks, monkeypatch):
    """65,536 steps: within 1e-4 of a float64 loop, and nothing overflows."""
    steps, row = 2**16, descriptors.BY_NAME[name]
    if not chunks:
        monkeypatch.setattr(sequence.engine, "worth_chunks", lambda *a: False)
    layer = row.build(rnnx, {"return_sequences": True})
    weights = layer.get_weights()
    if name == "rg_lru":
        weights[2] = 9 + np.abs(weights[2])  # a of nearly 1: a memory of thousands of steps
    layer.set_weights(weights)
    x = inputs(batch=2, steps=steps)
    found = np.asarray(layer(x), "float64")
    exact, _, _ = oracles.run(STEPS[name], weights, x, [np.zeros((2, row.states[0]))])
    assert np.isfinite(found).all()
    scale = np.abs(exact).max()
    assert np.abs(found - exact).max() <= 1e-4 * scale


@pytest.mark.quick
def test_the_plan_says_so():
    reasons = rnnx.MinGRU(4).plan(training=True).reasons
    assert any("64 chunks of the sequence run side by side" in reason for reason in reasons)
    assert not any("chunks" in reason for reason in rnnx.MinGRU(4).plan(resets=True).reasons)
    for layer in (rnnx.MinGRU(4, zoneout=0.1), rnnx.MinGRU(4, backward=rnnx.Truncated(3))):
        assert not any("chunks" in reason for reason in layer.plan(training=True).reasons)


@pytest.mark.quick
@pytest.mark.parametrize(
    "T, B, U, backend, worth",
    [
        (512, 1, 128, "plain", True),
        (511, 1, 128, "plain", False),
        (9000, 16, 128, "plain", False),
        (512, 1, 128, "compiled", False),
        (4096, 8, 128, "compiled", True),
        (4096, 1, 8, "differentiated", False),
    ],
)
def test_where_chunks_are_worth_it(T, B, U, backend, worth):
    assert scan.worth_chunks(T, B, U, plan.Plan(backend, False, ())) is worth

"""Weights of TensorFlow Addons: what it answered (tests/golden/make_tfa.py) is answered here."""

from pathlib import Path

import numpy as np
import pytest

import keras_rnnx as rnnx
from keras_rnnx import interop

FOLDER = Path(__file__).parent / "golden" / "tfa"
KINDS = {
    "layer_norm_lstm": rnnx.LayerNormLSTM,
    "layer_norm_simple_rnn": rnnx.LayerNormSimpleRNN,
    "peephole_lstm": rnnx.LSTM,
    "nas": rnnx.NAS,
    "nas_projected": rnnx.NAS,
    "esn": rnnx.ESN,
    "bahdanau": rnnx.RNN,
    "bahdanau_normalized": rnnx.RNN,
    "luong": rnnx.RNN,
    "luong_scaled": rnnx.RNN,
    "bahdanau_monotonic": rnnx.RNN,
    "luong_monotonic": rnnx.RNN,
}


def read(name):
    file = dict(np.load(FOLDER / f"{name}.npz"))
    weights = {n.removeprefix("weights/"): a for n, a in file.items() if n.startswith("weights/")}
    return weights, {n: a for n, a in file.items() if "/" not in n}


@pytest.mark.parametrize("name", KINDS)
def test_answers_of_tensorflow_addons(name):
    weights, told = read(name)
    layer = interop.from_tfa(weights, return_sequences=True, jit_compile=False)
    assert type(layer) is KINDS[name]
    constants = None
    if "memory" in told:
        mask = np.arange(told["memory"].shape[1]) < told["lengths"][:, None]
        constants = {"memory": told["memory"], "memory_mask": mask}
    found = layer(told["x"], constants=constants) if constants else layer(told["x"])
    np.testing.assert_allclose(found, told["y"], atol=1e-5)


def test_files(tmp_path):
    weights, told = read("peephole_lstm")
    np.savez(tmp_path / "cell.npz", **{f"{n}:0": a for n, a in weights.items()})
    layer = interop.from_tfa(tmp_path / "cell.npz", return_sequences=True)
    np.testing.assert_allclose(layer(told["x"]), told["y"], atol=1e-5)


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"a": np.ones(3)}, "arrays named a, which belong to no cell"),
        (
            {"kernel": np.ones((3, 10)), "recurrent_kernel": np.ones((5, 10))},
            "which belong to no cell of TensorFlow Addons",
        ),
    ],
)
def test_arrays_that_are_no_cell(arrays, message):
    with pytest.raises(ValueError, match=message):
        interop.from_tfa(arrays)

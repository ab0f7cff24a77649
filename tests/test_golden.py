"""Models saved by earlier versions still load, and answer as they did."""

from pathlib import Path

import keras
import numpy as np
import pytest

import keras_rnnx  # noqa: F401  registers the layers

MODELS = sorted((Path(__file__).parent / "golden").rglob("*.keras"))


def test_there_are_golden_files():
    assert len(MODELS) >= 21


@pytest.mark.parametrize("path", MODELS, ids=lambda path: f"{path.parent.name}/{path.stem}")
@pytest.mark.thin(2)
def test_golden_model(path):
    model = keras.saving.load_model(path)
    saved = np.load(path.with_suffix(".npz"))
    outputs = keras.tree.flatten(model.predict(saved["x"], verbose=0))
    assert len(outputs) == len(saved.files) - 1
    for i, output in enumerate(outputs):
        np.testing.assert_allclose(output, saved[f"output_{i}"], rtol=1e-5, atol=1e-6)

"""The quickstart: its short form from beginning to end, and its reading of other data sets."""

import importlib.util
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import keras
import matplotlib.image
import numpy as np
import pytest
import tensorflow_datasets as tfds

import keras_rnnx.datasets

ROOT = Path(__file__).parents[1]


@pytest.mark.slow  # the README's first command runs the script
def test_short_form(tmp_path):
    """Everything in one test: parallel workers would each repeat a fixture's run."""
    command = [sys.executable, ROOT / "examples" / "quickstart.py", "--quick", "--out", tmp_path]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr

    def number(pattern):
        (found,) = re.findall(pattern, run.stdout, re.M)
        return float(found)

    majority = number(r"^ +majority class +(\d\.\d+)$")
    stock = number(r"^ +keras\.layers +(\d\.\d+)  trained in \d+\.\d s$")
    ours = number(r"^ +keras_rnnx +(\d\.\d+)  trained in \d+\.\d s$")
    assert number(r"time of keras\.layers / time of keras_rnnx: (.+)$") > 0
    assert ours > majority + 0.1, "the letters tell more than the most frequent class does"
    assert abs(ours - stock) < 0.02, "the same model from the same first weights"
    assert number(r"reloaded \.keras +(.+)$") <= 1e-6
    assert number(r"export, clean process +(.+)$") <= 1e-6
    train, test = (
        tfds.as_numpy(tfds.load("cmudict", split=f"{split}[:10%]", data_dir=tmp_path / "data"))
        for split in ("train", "test")
    )
    ((pattern, _),) = Counter(row["stress"] for row in train).most_common(1)
    expected = np.mean([row["stress"] == pattern for row in test])
    assert majority == pytest.approx(expected, abs=5e-5)

    names = {"classifier.keras", "data", "export", "learning_curve.png"}
    assert {path.name for path in tmp_path.iterdir()} == names
    model = keras.saving.load_model(tmp_path / "classifier.keras")
    assert any(isinstance(layer, keras_rnnx.Bidirectional) for layer in model.layers)
    assert (tmp_path / "export" / "1" / "saved_model.pb").is_file()
    height, width, _ = matplotlib.image.imread(tmp_path / "learning_curve.png").shape
    assert width > height > 300


@pytest.fixture
def quickstart():
    spec = importlib.util.spec_from_file_location("quickstart", ROOT / "examples/quickstart.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("imdb_reviews", ["neg", "pos"]),
        ("ag_news_subset", ["World", "Sports", "Business", "Sci/Tech"]),
    ],
)
def test_other_data_sets(quickstart, name, labels, tmp_path):
    with tfds.testing.mock_data(num_examples=30):
        sets, names = quickstart.load(name, tmp_path)
    assert names == labels
    assert set(sets) == {"train", "validation", "test"}
    for texts, classes in sets.values():
        assert len(texts) == len(classes) == 30
        assert all(isinstance(text, bytes) for text in texts)
        assert set(classes.tolist()) <= set(range(len(labels)))


@pytest.mark.parametrize("name", ["mnist", "glue/sst2", "ted_hrlr_translate/pt_to_en"])
def test_data_set_of_another_kind(quickstart, name, tmp_path):
    with tfds.testing.mock_data(), pytest.raises(ValueError, match="for text classification"):
        quickstart.load(name, tmp_path)


def test_writing_replaces_what_was_there(quickstart, tmp_path):
    def fails(path):
        path.touch()
        raise OSError("disk full")

    (tmp_path / "file").write_text("whole")
    with pytest.raises(OSError, match="disk full"):
        quickstart.write(tmp_path / "file", fails)
    assert (tmp_path / "file").read_text() == "whole"


def test_example_of_the_readme(tmp_path, monkeypatch):
    (example,) = re.findall(r"```python\n(.+?)```", (ROOT / "README.md").read_text(), re.S)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    assert (tmp_path / "model.keras").is_file()
    assert (tmp_path / "exported_model" / "saved_model.pb").is_file()

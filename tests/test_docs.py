"""The Python examples of the pages, run from top to bottom."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGES = [
    "captioning.md",
    "cells.md",
    "coming_from_keras.md",
    "coming_from_pytorch.md",
    "coming_from_tensorflow_addons.md",
    "crf.md",
    "ctc.md",
    "forecasting.md",
    "index.md",
    "inspecting.md",
    "long_sequences.md",
    "masks.md",
    "music.md",
    "regularization.md",
    "sequence_to_sequence.md",
    "serving.md",
    "shapes_of_tasks.md",
    "text_classification.md",
    "transformers.md",
    "vanishing_gradients.md",
    "writing_a_cell.md",
]


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.thin(10)
def test_examples_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    assert blocks, f"{page} has no example"
    names = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)

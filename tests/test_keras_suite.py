"""Keras' own tests of its recurrent layers, from the installed wheel, run on ours."""

import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import pytest

import keras_rnnx

FILES = (
    "lstm_test.py",
    "gru_test.py",
    "simple_rnn_test.py",
    "rnn_test.py",
    "stacked_rnn_cells_test.py",
    "bidirectional_test.py",
)
# What cannot hold here, and why.
LEFT_OUT = {
    "test_fused_lstm_eligibility": "asks private methods of Keras' Bidirectional",
    "test_fused_gru_eligibility": "asks private methods of Keras' Bidirectional",
}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.slow
def test_keras_own_tests_pass(file, tmp_path):
    folder = Path(keras.__file__).parent / "src" / "layers" / "rnn"
    if not (folder / file).exists():
        pytest.skip(f"this Keras wheel comes without {file}")
    root = Path(keras_rnnx.__file__).parents[1]
    path = os.pathsep.join([str(root), str(Path(__file__).parent / "keras_suite")])
    result = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", str(folder / file), "-q", "-rN"),
            *("-p", "in_place_of_keras", "-p", "no:cacheprovider", "-p", "no:xdist"),
            *("-k", " and ".join(f"not {name}" for name in LEFT_OUT)),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-2000:]
    # Keras skips a few of them itself, by backend or device.
    ran = sum(int(n) for n in re.findall(r"(\d+) (?:passed|skipped)", result.stdout))
    names = re.findall(r"^    def (test_\w+)", (folder / file).read_text(), re.MULTILINE)
    assert ran >= len(set(names) - set(LEFT_OUT)), result.stdout[-2000:]

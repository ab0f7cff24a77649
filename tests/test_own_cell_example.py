"""The short form of the example with a cell of one's own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_short_form(tmp_path):
    command = [sys.executable, ROOT / "examples" / "own_cell.py", "--quick"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    assert len(re.findall(r"^ok ", run.stdout, re.M)) == 7
    rows = re.findall(r"^  (\S.*\S) +(\d+\.\d{4})   trained in \d+ s$", run.stdout, re.M)
    assert [name for name, _ in rows] == ["UpdateGate", "UpdateGate, zoneout", "LSTM"]
    assert all(0 < float(loss) < 1 for _, loss in rows)
    differences = re.findall(r"^  (?:loaded .keras|export) +(\S+)$", run.stdout, re.M)
    assert len(differences) == 2 and all(float(d) < 1e-5 for d in differences)
    assert not list(tmp_path.iterdir())

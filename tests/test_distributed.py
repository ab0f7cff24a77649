"""More than one device: what `fit` finds at the same batch; the example on devices and machines."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


@pytest.mark.slow  # all compiles three times
def test_two_devices_train_as_one():
    script = ROOT / "tests" / "processes" / "mirrored.py"
    run = subprocess.run([sys.executable, script], env=ENVIRONMENT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    found = json.loads(run.stdout.splitlines()[-1])
    assert set(found) == {"masked", "crf", "ctc", "translation"}
    for name, (one, two) in found.items():
        assert one[1] < one[0], f"{name} learns nothing"
        np.testing.assert_allclose(two, one, rtol=0, atol=1e-5, err_msg=name)


def start(out, *arguments, **environment):
    command = [sys.executable, ROOT / "examples" / "distributed.py", "--quick", "--out", out]
    return subprocess.Popen(
        [*command, *arguments],
        env=ENVIRONMENT | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def losses(process, out):
    printed, _ = process.communicate(timeout=600)
    assert process.returncode == 0, printed[-3000:]
    return json.loads((out / "distributed.json").read_text())["losses"], printed


def free_ports(number):
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("localhost", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.mark.slow
def test_example_on_devices_and_machines(tmp_path):
    one, _ = losses(start(tmp_path / "one"), tmp_path / "one")
    two, printed = losses(start(tmp_path / "two", "--devices", "2"), tmp_path / "two")
    assert "2 replicas" in printed and one[1] < one[0]
    np.testing.assert_allclose(two, one, rtol=0, atol=1e-5)

    workers = [f"localhost:{port}" for port in free_ports(2)]
    cluster = [
        json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": k}})
        for k in range(2)
    ]
    out = tmp_path / "workers"
    first, second = (start(out, TF_CONFIG=each) for each in cluster)
    found, printed = losses(first, out)
    also, _ = second.communicate(timeout=600)
    assert second.returncode == 0, also[-3000:]
    assert "2 replicas" in printed and "2 replicas" in also
    np.testing.assert_allclose(found, one, rtol=0, atol=1e-5)

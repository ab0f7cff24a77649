"""Programs that tests run in a process of their own."""

import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).parent


def run(script, *arguments, cwd, path=(), timeout=400):
    """Run `script` of this folder; its output, or an AssertionError that shows what it said."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, path))
    environment["TF_CPP_MIN_LOG_LEVEL"] = "3"
    done = subprocess.run(
        [sys.executable, str(HERE / script), *map(str, arguments)],
        cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip
    assert done.returncode == 0, f"{script} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout

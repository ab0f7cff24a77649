"""The public interface is annotated, and mypy finds nothing in it and what it should in its use."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from test_documentation import PUBLIC
from test_documentation import ours
from test_documentation import own_methods

ROOT = Path(__file__).parents[1]


def functions(thing):
    """`(name, function)` of all that somebody calls, but for what `keras.saving` asks for."""
    if not ours(thing):
        return
    if not inspect.isclass(thing):
        yield "", thing
        return
    for base in thing.__mro__:
        for name in ("__init__", "__call__", "call"):
            if ours(base) and name in vars(base):
                yield f"{base.__name__}.{name}", vars(base)[name]
    yield from own_methods(thing)


@pytest.mark.quick
@pytest.mark.parametrize("name", PUBLIC)
def test_every_argument_is_annotated(name):
    for method, function in functions(PUBLIC[name]):
        signature = inspect.signature(inspect.unwrap(function))
        missing = [
            argument.name
            for argument in signature.parameters.values()
            if argument.name not in ("self", "cls") and argument.annotation is argument.empty
        ]
        if signature.return_annotation is signature.empty:
            missing.append("return")
        assert not missing, f"{name}, {method or 'the function'}: {', '.join(missing)}"


def mypy(*files):
    command = [sys.executable, "-m", "mypy", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    return done.stdout + done.stderr


@pytest.mark.slow
def test_mypy_finds_nothing():
    assert mypy("-p", "keras_rnnx").startswith("Success")


@pytest.mark.slow
def test_mypy_tells_a_user_what_is_wrong(tmp_path):
    lines = {
        "keras_rnnx.LSTM(5, dropout=0.1, return_sequences=True)": "",
        'keras_rnnx.LSTM("five")': "int",
        "keras_rnnx.LSTM(5, unit=3)": "",  # **kwargs are Keras', who refuses it when it runs
        'keras_rnnx.Bidirectional(keras_rnnx.GRU(3), merge_mode="concat")': "",
        "keras_rnnx.GRU(5, return_sequences=1.5)": "bool",
        "keras_rnnx.Truncated(20)": "",
        "keras_rnnx.Truncated()": "steps",
    }
    file = tmp_path / "user.py"
    file.write_text("import keras_rnnx\n\n" + "\n".join(lines) + "\n")
    found = {}
    for line in mypy(file).splitlines():
        if ": error: " in line:
            found[int(line.split(":")[1]) - 3] = line
    for number, (line, expected) in enumerate(lines.items()):
        assert (number in found) == bool(expected), (line, found.get(number))
        assert expected in found.get(number, "")

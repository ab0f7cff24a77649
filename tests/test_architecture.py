"""The shape of the house: which way imports run, what is public, how large files are."""

import ast
import doctest
import inspect
from pathlib import Path

import keras
import pytest

import keras_rnnx
import keras_rnnx.serving
import keras_rnnx.testing

PACKAGE = Path(keras_rnnx.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
# Each folder or module may import from those named; what is missing here may import from all.
MAY_IMPORT = {
    "annotations": set(),
    "cells": {"cells"},
    "engine": {"cells", "engine"},
    "regularization": {"cells", "regularization"},
    "layers": {"cells", "engine", "regularization", "layers"},
    "attention": {"cells", "engine", "regularization", "layers", "attention"},
    "seq2seq": {"engine", "layers", "replicas", "seq2seq"},
    "data": {"data"},
    "datasets": {"datasets"},
    "heads": {"engine", "heads", "replicas", "seq2seq"},
    "inspection": {"attention", "cells", "engine", "inspection", "layers", "training"},
    "interop": {"attention", "cells", "engine", "interop", "layers"},
    "models": {"interop", "layers", "models"},
    "monte_carlo": {"layers"},
    "replicas": set(),
    "serving": {"engine", "layers", "serving", "streaming", "version"},
    "streaming": {"layers"},
    "testing": {"cells", "engine", "layers"},
    "training": {"layers", "training"},
    "version": set(),
}
SPECS = [
    name
    for name in vars(keras_rnnx.cells)
    if name.endswith("Spec") and name not in ("CellSpec", "LinearSpec")
]
PUBLIC = {name: getattr(keras_rnnx, name) for name in keras_rnnx.__all__ if name[0] != "_"}
# Rooms that have a name in public, and what is in them.
ROOMS = (
    keras_rnnx.attention,
    keras_rnnx.heads,
    keras_rnnx.inspection,
    keras_rnnx.interop,
    keras_rnnx.models,
    keras_rnnx.seq2seq,
    keras_rnnx.serving,
)
for room_of in ROOMS:
    PUBLIC |= {name: getattr(room_of, name) for name in room_of.__all__}


def imports(path):
    """The modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.quick
@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    for name in imports(path):
        assert not name.startswith(("tensorflow.python", "keras.src")), f"private: {name}"
        if name.startswith("tensorflow_datasets"):
            assert room(path) == "datasets", "tensorflow_datasets is imported in datasets only"
        parts = name.split(".")
        if parts[0] == "keras_rnnx" and room(path) in MAY_IMPORT:
            allowed = MAY_IMPORT[room(path)] | {"annotations"}
            assert parts[1] in allowed, f"{room(path)} must not import {name}"
            inner = PACKAGE / parts[1] / f"{parts[2]}.py" if len(parts) > 2 else None
            if parts[1] != room(path) and inner is not None:
                assert not inner.exists(), f"across folders import from the folder, not {name}"


@pytest.mark.quick
def test_every_room_is_known():
    rooms = {room(path) for path in FILES} - {"__init__"}
    assert rooms == set(MAY_IMPORT)


@pytest.mark.quick
@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_hold_one_idea(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    assert ast.get_docstring(ast.parse(text)) or path.name == "version.py"


@pytest.mark.quick
def test_all_lists_what_is_public():
    shown = {name for name in vars(keras_rnnx) if not name.startswith("_")}
    modules = {n for n in shown if inspect.ismodule(getattr(keras_rnnx, n))}
    assert shown - modules == {name for name in keras_rnnx.__all__ if name[0] != "_"}


@pytest.mark.quick
@pytest.mark.parametrize("module", ROOMS, ids=lambda module: module.__name__)
def test_rooms_list_what_is_public(module):
    shown = {name: thing for name, thing in vars(module).items() if not name.startswith("_")}
    assert {n for n, thing in shown.items() if not inspect.ismodule(thing)} == set(module.__all__)
    assert module.__all__ == sorted(module.__all__)


@pytest.mark.parametrize("name", PUBLIC)
@pytest.mark.thin(9)
def test_docstring_examples_run(name):
    thing = PUBLIC[name]
    tests = doctest.DocTestFinder(recurse=False).find(thing, name, globs={})
    assert sum(len(test.examples) for test in tests) > 0, f"{name} has no example"
    for test in tests:
        failed, _ = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test)
        assert failed == 0


@pytest.mark.quick
@pytest.mark.parametrize("name", PUBLIC)
def test_layers_are_registered(name):
    thing = PUBLIC[name]
    if inspect.isclass(thing) and hasattr(thing, "get_config"):
        assert keras.saving.get_registered_name(thing) == f"keras_rnnx>{name}"


@pytest.mark.parametrize("name", SPECS)
def test_equations_are_lines_of_the_step(name):
    """Each equation in a spec's docstring stands in the code, word for word."""
    spec = getattr(keras_rnnx.cells, name)
    source = inspect.getsource(spec.step) + inspect.getsource(spec.project)
    code = {line.strip() for line in source.splitlines()}
    indented = [line for line in inspect.getdoc(spec).splitlines() if line.startswith("    ")]
    equations = [line.strip() for line in indented if " = " in line]
    assert equations
    for equation in equations:
        assert equation in code


@pytest.mark.quick
def test_layers_show_the_arguments_of_their_cells():
    """Those that take them by name only, for `help()` and editors."""
    names = list(inspect.signature(keras_rnnx.LayerNormLSTM).parameters)
    assert names[0] == "units" and names[-1] == "kwargs"
    assert {"normalize", "carry", "zoneout", "kernel_initializer", "return_sequences"} <= set(names)

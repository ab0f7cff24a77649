"""The pages of docs/: each public name is on one, says what it takes, and links lead somewhere."""

import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import keras_rnnx
import keras_rnnx.testing

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md"), *DOCS.glob("api/*.md")])
FOLDERS = [
    importlib.import_module(f"keras_rnnx.{found.name}")
    for found in pkgutil.iter_modules(keras_rnnx.__path__)
    if found.ispkg
]


def public_names():
    """`{full name: object}`; what is exported from the top has its name there."""
    public = {f"keras_rnnx.{n}": getattr(keras_rnnx, n) for n in keras_rnnx.__all__ if n[0] != "_"}
    at_top = {id(thing) for thing in public.values()}
    for folder in FOLDERS:
        names = getattr(folder, "__all__", [])
        if folder is keras_rnnx.cells:  # what else is in there is the engine's
            names = [name for name in vars(folder) if name.endswith("Spec")]
        for name in names:
            if id(getattr(folder, name)) not in at_top:
                public[f"{folder.__name__}.{name}"] = getattr(folder, name)
    public["keras_rnnx.testing.check_cell"] = keras_rnnx.testing.check_cell
    return public


def documented_names():
    """`{full name: names of members that its directive asks for, or None}`, page by page."""
    found = []
    for page in DOCS.glob("api/*.md"):
        for name, options in re.findall(
            r"^\.\. auto\w+:: (\S+)\n((?:   :.*\n)*)", page.read_text(), re.MULTILINE
        ):
            listed = re.search(r":members: (.*)", options)
            members = [] if ":no-members:" in options else None
            found.append((name, listed.group(1).split(", ") if listed else members))
    return found


PUBLIC = public_names()
SHORT = {name.split(".")[-1]: name for name in PUBLIC}
DOCUMENTED = dict(documented_names())


@pytest.mark.quick
def test_every_public_name_is_on_one_page():
    assert sorted(name for name, _ in documented_names()) == sorted(PUBLIC)


def ours(thing):
    return (getattr(thing, "__module__", None) or "").startswith("keras_rnnx")


def arguments(thing):
    """What a function or class of this package takes, by name."""
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    if not ours(thing) or (inspect.isclass(thing) and issubclass(thing, Exception)):
        return set()
    taken = inspect.signature(thing).parameters.values()
    names = {a.name for a in taken if a.kind not in several} - {"self"}
    return {name for name in names if name.removesuffix("_mask") not in names - {name}}  # by Keras


def entries(thing, seen=()):
    """The arguments for which its docstring, or one that it names, has an entry."""
    text = inspect.getdoc(thing)
    found = re.findall(r"^ +((?:\w+,\s+)*\w+): ", text, re.MULTILINE)
    names = {name for entry in found for name in re.split(r",\s+", entry)}
    for other in re.findall(r"`([\w.]+)`", text):
        other = SHORT.get(other, other)
        if other in PUBLIC and other not in seen:
            names |= entries(PUBLIC[other], (*seen, other))
    return names


@pytest.mark.quick
@pytest.mark.parametrize("name", PUBLIC)
def test_every_argument_has_an_entry(name):
    thing = PUBLIC[name]
    assert inspect.getdoc(thing)
    # A cell hands its arguments on to its spec, `tfds.load` makes a builder.
    if not name.startswith(("keras_rnnx.cells.", "keras_rnnx.datasets.")):
        assert arguments(thing) | arguments(getattr(thing, "call", None)) <= entries(thing)


def own_methods(thing):
    """`(name, function)` of methods and properties that are not those of Keras and TensorFlow."""
    theirs = {name for base in thing.__mro__ if not ours(base) for name in vars(base)}
    theirs |= {"get_config", "from_config"}  # what `keras.saving` asks of any object
    members = {n: inspect.getattr_static(thing, n) for n in dir(thing) if n[0] != "_"}
    for name, member in members.items():
        member = getattr(member, "fget", None) or getattr(member, "__func__", member)
        # A layer's attributes of its cell are properties without a name.
        if name not in theirs and inspect.isfunction(member) and member.__name__ == name:
            yield name, member


@pytest.mark.quick
@pytest.mark.parametrize("name", [name for name in PUBLIC if inspect.isclass(PUBLIC[name])])
def test_every_method_says_what_it_does(name):
    thing, listed = PUBLIC[name], DOCUMENTED.get(name)
    for method, function in own_methods(thing):
        about = inspect.getdoc(getattr(thing, method))
        assert about, f"{name}.{method} has no docstring"
        shown = method in vars(thing) if listed is None else method in listed
        for argument in arguments(function) if shown else ():
            told = re.search(rf"\b{argument}\b", about + inspect.getdoc(thing), re.IGNORECASE)
            assert told, f"{name}.{method} does not say what {argument} is"


def anchors(page):
    """The anchors of a page's headings, as GitHub and MyST make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.quick
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_pictures_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", text)):
        if re.match(r"\w+:", link):
            continue  # elsewhere
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        assert target.is_relative_to(ROOT), f"{page.name}: {link} leaves the repository"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


@pytest.mark.slow
def test_sphinx_builds_without_a_warning(tmp_path):
    for needed in ("sphinx", "furo", "myst_parser"):
        pytest.importorskip(needed, reason="the extra `docs` is not installed")
    build = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-b", "html", "-d"]
    run = subprocess.run(
        [*build, tmp_path / "doctrees", DOCS, tmp_path / "html"], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-4000:]
    for name in DOCUMENTED:
        pages = (tmp_path / "html" / "api").glob("*.html")
        assert any(f'id="{name}"' in page.read_text() for page in pages), name

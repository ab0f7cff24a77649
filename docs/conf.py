"""How Sphinx makes pages of this folder.

sphinx-build -W --keep-going -b html docs docs/_build
"""

import configparser
import inspect
import os
import re
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from docutils import nodes
from sphinx import addnodes

from keras_rnnx import __version__

DOCS = Path(__file__).resolve().parent
ABOUT = configparser.ConfigParser()
ABOUT.read(DOCS.parent / "setup.cfg")
REPOSITORY = ABOUT["metadata"].get("url")

project = "keras_rnnx"
version = release = __version__
copyright = "the authors of keras_rnnx; Apache License 2.0"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3
highlight_language = "text"  # of blocks that do not say theirs
html_theme = "furo"
html_theme_options = {"top_of_page_buttons": []}
html_title = f"{project} {version}"

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_inherit_docstrings = False  # what Keras says of its methods is in its documentation
autodoc_typehints = "none"
napoleon_use_param = False  # an entry may be of several arguments
napoleon_use_rtype = False
napoleon_custom_sections = [
    (name, "params_style") for name in ("Call arguments", "Attributes", "Features")
]

# Names of this package that are mentioned have to exist; those of Keras and Python lead nowhere.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!keras_rnnx\b).*")]

# Arguments whose names go on in the next line.
NAMES_GO_ON = r"^( *)((?:\w+, )*\w+,)\n\1(?=(?:\w+, )*\w+: )"


def write_as_rst(app, what, name, thing, options, lines):
    """Docstrings have Google's sections, and the backticks and indented blocks of Markdown."""
    written, above, literal = [], "", None
    for block in re.split(r"\n\s*\n", "\n".join(lines)):
        depth = indent(block)
        if literal is not None and depth >= literal:
            pass  # more of the block before
        elif above and depth > indent(above.splitlines()[-1]):
            literal = depth
            written.append(" " * indent(above) + "::")
        else:
            literal = None
            if not block.lstrip().startswith(">>>"):
                block = re.sub(NAMES_GO_ON, r"\1\2 ", block, flags=re.MULTILINE)
                block = re.sub(r"`([^`]+)`(\w?)", code, block)
        written.append(block)
        above = block
    lines[:] = "\n\n".join(written).splitlines()


def indent(text):
    return len(text) - len(text.lstrip(" "))


def code(match):
    """Code in a line: a link if it is a name of this package."""
    text, letter = match.groups()
    name = text if re.fullmatch(r"keras_rnnx\.[\w.]+", text) else SHORT.get(text)
    written = f":py:obj:`{text} <{name}>`" if name else f"``{text}``"
    return written + (f"\\ {letter}" if letter else "")


class ByName:
    """A function as a default, without its address."""

    def __init__(self, function):
        self.name = function.__name__

    def __repr__(self):
        return self.name


def write_signature(app, what, name, thing, options, given, returned):
    """Of a class: what it is made with. Keras' `__new__` takes everything, and hides it."""
    if what != "class":
        return None
    arguments = [
        a.replace(
            annotation=a.empty,
            default=ByName(a.default) if inspect.isroutine(a.default) else a.default,
        )
        for a in inspect.signature(thing).parameters.values()
    ]
    return str(inspect.Signature(arguments)), None


def skip(app, what, name, thing, skipped, options):
    """Fields of named tuples, which the docstring of the tuple names."""
    return True if (inspect.getdoc(thing) or "").startswith("Alias for field") else None


def link_files(app, doctree):
    """Links to files that are no pages: to the repository, or else to copies of them."""
    folder = Path(app.env.doc2path(app.env.docname)).parent
    links = (addnodes.pending_xref, addnodes.download_reference)
    for node in [n for n in doctree.findall() if isinstance(n, links)]:
        target = node["reftarget"] + (".md" if node.get("refdomain") == "doc" else "")
        path = (folder / target).resolve()
        if path.is_relative_to(DOCS) or not path.is_file():
            continue
        if REPOSITORY:
            address = f"{REPOSITORY}/blob/main/{path.relative_to(DOCS.parent)}"
            link = nodes.reference(refuri=address)
        else:
            link = addnodes.download_reference(reftarget=os.path.relpath(path, folder))
        link += node.children
        node.replace_self(link)


def write_code(app, doctree):
    """In the text of pages: names of the package lead to the reference, shapes stay in one line."""
    for node in list(doctree.findall(nodes.literal)):
        text, links = node.astext(), (nodes.reference, addnodes.pending_xref)
        if re.fullmatch(r"\[[\w, +*']+\]", text):
            node[:] = [nodes.Text(text.replace(" ", "\N{NO-BREAK SPACE}"))]
        elif text in REFERENCE and not isinstance(node.parent, links):
            about = {"refdomain": "py", "reftype": "obj", "reftarget": text, "refexplicit": True}
            link = addnodes.pending_xref(refdoc=app.env.docname, **about)
            node.replace_self(link)
            link += node


REFERENCE = {
    name
    for page in (DOCS / "api").glob("*.md")
    for name in re.findall(r"^\.\. auto\w+:: (\S+)$", page.read_text(), re.MULTILINE)
}
# Classes, and functions of more than one word: docstrings mention them without the package.
SHORT = {name.split(".")[-1]: name for name in REFERENCE}
SHORT = {short: name for short, name in SHORT.items() if short != short.lower() or "_" in short}


def setup(app):
    app.connect("autodoc-process-docstring", write_as_rst, priority=400)  # before napoleon
    app.connect("autodoc-process-signature", write_signature)
    app.connect("autodoc-skip-member", skip)
    app.connect("doctree-read", link_files, priority=400)  # before copies are made
    app.connect("doctree-read", write_code)

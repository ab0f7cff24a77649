"""Before a release: builds wheel and sdist, and runs tests on them in environments of their own.

    python tests/release.py                       # the quick tests, about 20 minutes
    python tests/release.py --select "not slow"   # about an hour

Each environment starts empty, is given the wheel (or the sdist) with what its metadata ask for, and
runs the tests in a folder that holds no source of the package:

* newest: what pip takes by itself;
* oldest: TensorFlow and Keras at the lower bounds of setup.cfg;
* bare: the sdist with nothing but its requirements, which trains, saves, exports and serves.
"""

import argparse
import configparser
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
COPIED = ("tests", "benchmarks", "examples", "docs", "setup.cfg", *PAGES)
BARE = """
import tempfile
import keras, numpy as np
import keras_rnnx
from keras_rnnx import serving
assert "site-packages" in keras_rnnx.__file__, keras_rnnx.__file__
inputs = keras.Input((None, 3), name="x")
model = keras.Model(inputs, keras_rnnx.Bidirectional(keras_rnnx.LSTM(4))(inputs))
model.compile("adam", "mse")
x = np.random.default_rng(0).normal(size=(8, 5, 3)).astype("float32")
model.fit(x, np.zeros((8, 8)), verbose=0)
with tempfile.TemporaryDirectory() as folder:
    model.save(f"{folder}/model.keras")
    loaded = keras.saving.load_model(f"{folder}/model.keras")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    assert not serving.check(serving.export(model, f"{folder}/export", verbose=False))
print("bare: trains, saves, exports and serves")
"""


def run(*command, cwd=None):
    print("$", *map(str, command), flush=True)
    subprocess.run(list(map(str, command)), cwd=cwd, check=True)


def build(folder):
    """The paths of the wheel and the sdist, made from the files that git knows."""
    source = folder / "source"
    run("git", "clone", "--quiet", ROOT, source)
    run(sys.executable, "-m", "venv", folder / "builder")
    python = folder / "builder" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "build")
    run(python, "-m", "build", "--outdir", folder / "dist", source)
    (wheel,), (sdist,) = ((folder / "dist").glob(end) for end in ("*.whl", "*.tar.gz"))
    names = zipfile.ZipFile(wheel).namelist()
    strays = [name for name in names if not re.match(r"keras_rnnx(/|-[\d.]+\.dist-info/)", name)]
    assert not strays, f"the wheel has files that are not the package's: {strays}"
    assert "keras_rnnx/py.typed" in names, "the wheel does not say that it has type annotations"
    return wheel, sdist


def environment(folder, *requirements):
    """The Python of a new environment with nothing but these."""
    run(sys.executable, "-m", "venv", folder)
    python = folder / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", *requirements)
    listed = subprocess.run([python, "-m", "pip", "freeze"], capture_output=True, text=True)
    print(*re.findall(r"^(?:tensorflow|keras|numpy)==.*$", listed.stdout, re.M), flush=True)
    return python


def oldest():
    """`package==version` for the lower bounds of TensorFlow and Keras."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    required = config["options"]["install_requires"].split()
    return [
        one.replace(">=", "==") for one in required if one.startswith(("keras>", "tensorflow>"))
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--select", default="quick", help="marks of the tests (default: quick)")
    parser.add_argument("--environments", nargs="+", default=["newest", "oldest", "bare"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel, sdist = build(folder)
        tests = folder / "tests_of_it"
        tests.mkdir()
        for part in COPIED:
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            copy(folder / "source" / part, tests / part)
        for kind in options.environments:
            if kind == "bare":
                run(environment(folder / kind, sdist), "-c", BARE, cwd=folder)
                continue
            versions = oldest() if kind == "oldest" else []
            python = environment(folder / kind, f"{wheel}[tests,torch]", *versions)
            run(python, "-m", "pytest", "-q", "-n", "2", "-m", options.select, cwd=tests)
    print("All of it passed.")


if __name__ == "__main__":
    main()

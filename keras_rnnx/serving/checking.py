"""Whether an export will run on a server: read, replayed and compared."""

import argparse
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_rnnx.annotations import Array
from keras_rnnx.annotations import PathLike
from keras_rnnx.serving import exporting
from keras_rnnx.serving import graph as reading
from keras_rnnx.serving import wire

MOST_WARMUP = 1000  # records that a server replays
TOLERANCE = 1e-5


class Fault(NamedTuple):
    """What a server would stumble over.

    Attributes:
        signature: where, or "" for the whole.
        kind: in a word or two.
        sentence: what it is and what to do.

    Example:

    >>> from keras_rnnx.serving import Fault
    >>> Fault("step", "random", "It draws random numbers.").kind
    'random'
    """

    signature: str
    kind: str
    sentence: str


def check(directory: PathLike, verbose: bool = True) -> list[Fault]:
    """What a server would stumble over in an export: a list of `Fault`, empty where all is well.

    The graph is read: operations without a kernel for CPUs, functions that must be compiled by XLA,
    random numbers, assignments, an axis in place of the batch, dtypes that REST cannot send,
    signatures without inputs. Then a clean process loads it as TensorFlow Serving does, through
    the session loader with XLA switched off, answers the warm-up requests, and its answers are
    compared with those that were written with the export (to 1e-5 of the largest value).

    On the command line, with an exit status of 1 where there are faults:

        python -m keras_rnnx.serving.check DIRECTORY

    Args:
        directory: a version, `.../1`, or the model's folder, whose newest version is then meant.
        verbose: whether to print a table.

    Raises:
        FileNotFoundError: where there is no SavedModel.

    Example:

    >>> import keras, keras_rnnx, tempfile
    >>> from keras_rnnx.serving import check, export
    >>> model = keras.Sequential([keras.Input((None, 3)), keras_rnnx.GRU(4)])
    >>> folder = tempfile.mkdtemp()
    >>> version = export(model, folder, verbose=False)
    >>> check(folder, verbose=False)
    []
    """
    version = _version(Path(directory))
    graph = reading.read(version)
    faults = [Fault(*one) for one in reading.faults(graph)]
    if not version.name.isdigit():
        faults.append(
            Fault("", "name", f"The folder is called {version.name!r}, expected an integer.")
        )
    known = reading.signatures(graph)
    if "serving_default" not in known:
        faults.append(Fault("", "signatures", "There is no signature serving_default."))
    requests = _requests(version, known, faults)
    largest = _replay(version, requests, faults) if requests is not None else {}
    if verbose:
        _print(version, known, largest, faults)
    return faults


def _version(directory):
    if (directory / "saved_model.pb").exists():
        return directory.resolve()
    versions = [p for p in directory.glob("*") if p.name.isdigit()]
    if not versions:
        raise FileNotFoundError(
            f"{directory} is no SavedModel and holds no version of one: expected the folder of a "
            "version, or of a model with versions in it."
        )
    return max(versions, key=lambda p: int(p.name)).resolve()


def _requests(version, known, faults):
    """The warm-up requests, `[(signature, {input: array})]`; None where they cannot be read."""
    path = version / exporting.WARMUP
    if not path.exists():
        faults.append(
            Fault("", "warm-up", "There are no warm-up requests, and so nothing to replay.")
        )
        return None
    try:
        found = [
            (one.model_spec.signature_name or "serving_default", wire.arrays(one.inputs))
            for one in wire.read_warmup(path)
        ]
    except (tf.errors.DataLossError, ValueError) as error:
        faults.append(Fault("", "warm-up", f"The warm-up requests cannot be read: {error}"))
        return None
    if len(found) > MOST_WARMUP:
        faults.append(
            Fault("", "warm-up", f"{len(found)} warm-up requests, expected {MOST_WARMUP} at most.")
        )
    for signature, inputs in found:
        wanted = set(known[signature].inputs) if signature in known else None
        if wanted != set(inputs):
            faults.append(
                Fault(
                    signature,
                    "warm-up",
                    f"A warm-up request gives {sorted(inputs)}, expected {sorted(wanted or [])}: "
                    "the server would refuse to load the version.",
                )
            )
    return found


def _replay(version, requests, faults):
    """The largest difference of the answers from those that were written, by signature."""
    path = version / exporting.ANSWERS
    expected, largest = dict(np.load(path)) if path.exists() else {}, {}
    if not expected:
        faults.append(Fault("", "answers", "No answers were written with it to compare with."))
    for k, ((signature, _), answer) in enumerate(zip(requests, answers(version, requests))):
        if isinstance(answer, str):
            faults.append(Fault(signature, "request", f"A warm-up request fails: {answer}"))
            continue
        for name, value in answer.items():
            known = expected.get(f"{k}/{name}")
            # Without an answer to compare with it counts as another one.
            difference = np.inf if known is None else _difference(np.asarray(value), known)
            largest[signature] = max(largest.get(signature, 0.0), difference)
    for signature, difference in largest.items():
        if not difference <= TOLERANCE:
            faults.append(
                Fault(
                    signature,
                    "answers",
                    f"Its answers differ from those that were written with it by {difference:.1e}.",
                )
            )
    return largest


def ask(
    directory: PathLike, inputs: Mapping[str, Array], signature: str = "serving_default"
) -> dict[str, np.ndarray]:
    """What an export answers to one request in a clean process: `{output: array}`.

    The process loads it as TensorFlow Serving does and has neither Keras nor this package.

    Args:
        directory: a version, or the model's folder, whose newest version is then meant.
        inputs: `{input: array}`, all with the batch first. (`Client.decode` takes numbers for all
            rows too; here each row has its own.)
        signature: which one to ask.

    Raises:
        ValueError: for a request that is refused, in the words of TensorFlow.

    Example:

    >>> import keras, keras_rnnx, numpy as np, tempfile
    >>> from keras_rnnx.serving import ask, export
    >>> model = keras.Sequential([keras.Input((None, 3)), keras_rnnx.GRU(4)])
    >>> version = export(model, tempfile.mkdtemp(), verbose=False)
    >>> request = {"inputs": np.ones((2, 5, 3), "float32"), "lengths": np.int32([5, 1])}
    >>> ask(version, request)["output"].shape
    (2, 4)
    """
    if not isinstance(inputs, Mapping):
        raise TypeError(
            f"ask got a {type(inputs).__name__} as inputs, expected a dict of arrays by the names "
            'of the inputs, such as {"inputs": x, "lengths": n}. The README.md beside the version '
            "lists them."
        )
    inputs = {n: value.numpy() if tf.is_tensor(value) else value for n, value in inputs.items()}
    (found,) = answers(_version(Path(directory)), [(signature, inputs)])
    if isinstance(found, str):
        raise ValueError(f"The export refuses the request: {found}")
    return found


def answers(version, requests):
    """What a clean process answers, loaded as a server loads: dicts, or the texts of errors."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("requests", "answers")]
        files[0].write_bytes(pickle.dumps(requests))
        script = Path(__file__).with_name("session.py")
        command = [sys.executable, "-I", script, version, *files]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=folder)
        if done.returncode:
            error = (done.stderr.strip().splitlines() or ["no word"])[-1]
            return [f"the process that loads it fails: {error}"] * len(requests)
        return pickle.loads(files[1].read_bytes())


def _difference(found, expected):
    """The largest difference over the largest value, infinite for another shape."""
    if found.shape != expected.shape:
        return np.inf
    if found.dtype == object or found.dtype.kind != "f":
        same = np.array_equal(found.astype(expected.dtype), expected)
        return 0.0 if same else np.inf
    equal = (found == expected) | (np.isnan(found) & np.isnan(expected))
    with np.errstate(invalid="ignore"):  # of equal infinities
        differences = np.where(equal, 0.0, np.abs(found - expected))
    finite = np.abs(expected[np.isfinite(expected)])
    return float(differences.max(initial=0.0) / max(finite.max(initial=0.0), 1e-30))


def _print(version, known, largest, faults):
    print(f"{version}")
    for key, signature in known.items():
        of_it = [fault for fault in faults if fault.signature == key]
        replayed = f"answers differ by {largest[key]:.1e}" if key in largest else "not replayed"
        takes = ", ".join(sorted(signature.inputs))
        print(f"  {key:<16} {'FAULT' if of_it else 'ok':<6} {replayed:<28} takes {takes}")
    for fault in faults:
        print(f"  {fault.signature or 'the export'}, {fault.kind}: {fault.sentence}")
    print(f"  {len(faults) or 'no'} fault{'' if len(faults) == 1 else 's'}")


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m keras_rnnx.serving.check", description=__doc__.splitlines()[0]
    )
    parser.add_argument("directory", help="a version, or a model's folder with versions in it")
    directory = parser.parse_args(arguments).directory
    try:
        return 1 if check(directory) else 0
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2

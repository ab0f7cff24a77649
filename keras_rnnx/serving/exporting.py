"""From a model to a folder that TensorFlow Serving serves."""

import json
import os
import platform
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_rnnx import engine
from keras_rnnx.annotations import Array
from keras_rnnx.annotations import PathLike
from keras_rnnx.layers import everything
from keras_rnnx.serving import notes
from keras_rnnx.serving import signatures as making
from keras_rnnx.serving import wire
from keras_rnnx.version import __version__

EXTRA = "assets.extra"
WARMUP = f"{EXTRA}/tf_serving_warmup_requests"
ANSWERS = f"{EXTRA}/answers.npz"
ABOUT = f"{EXTRA}/keras_rnnx.json"


def export(
    model: keras.Model,
    directory: PathLike,
    signatures: Sequence[str] | None = None,
    *,
    example: Array | None = None,
    preprocess: keras.layers.Layer | dict[str, keras.layers.Layer] | None = None,
    version: int | None = None,
    name: str | None = None,
    verbose: bool = True,
) -> Path:
    """Write a model for TensorFlow Serving: `directory/version/`, complete or not at all.

    The version is written under a name that a server does not load, and renamed when it is whole;
    a server that watches the directory then takes it up. Its graph has stock operations only, runs
    on CPUs and, with cuDNN, on GPUs, and holds no state. Beside the model lie warm-up requests,
    which a server replays before it answers, their answers, by which `check` sees that nothing
    changed, and a description (`assets.extra/keras_rnnx.json`). In `directory` itself are written
    `models.config`, `batching.config` and a `README.md` with the commands for this very model.

    Signatures, all with the batch first in everything that they take and give:

        serving_default: the inputs of the model by name, and `lengths [B]` of each sequence of
            unknown length (`NAME_lengths` if there are several): what lies behind a length is
            padding, whatever it holds. Outputs by name; of a sequence of outputs only the first
            `lengths` steps count.
        step: a chunk of a sequence, one step or more, with all states as inputs and outputs
            (`LAYER_state_0`, ...); for models that go forward step by step (those that
            `keras_rnnx.StreamingSession` takes).
        initial_state: `rows [B]`, of any values, -> the states to begin with.
        decode: of a `keras_rnnx.seq2seq` model or `Translator`; see their `endpoints`.

    Args:
        model: a built Keras model; one of a class of its own with an `example`.
        directory: the model's folder on the server.
        signatures: names of those that have to be there beside serving_default; None takes all
            that the model can have.
        example: arrays, nested as the model's inputs are, `[B, T, ...]`, of the kind that clients
            will send: for warm-up and `check`. Numbers are made up where there is none.
        preprocess: a layer that every request goes through first, such as `TextVectorization`
            (requests are then strings), `StringLookup` or `Normalization`; or a dict by inputs.
        version: integer; None takes the one after the newest in the directory.
        name: of the model on the server; None takes that of the directory.
        verbose: whether to print what was written.

    Returns:
        The path of the version.

    Raises:
        ValueError: for signatures that the model cannot have, with the reason; for a model whose
            answers change with what the padding of a request holds, or that is stateful.
        FileExistsError: for a version that is there already.

    Example:

    >>> import keras, keras_rnnx, tempfile
    >>> from keras_rnnx.serving import export
    >>> model = keras.Sequential([keras.Input((None, 3)), keras_rnnx.GRU(4)])
    >>> path = export(model, tempfile.mkdtemp(), verbose=False)
    >>> path.name, sorted(p.name for p in path.iterdir())[:2]
    ('1', ['assets', 'assets.extra'])
    """
    directory = Path(directory).resolve()
    _check_stateless(model)
    version = _version(directory, version)
    made, left_out = making.make(model, signatures, example, preprocess)
    directory.mkdir(parents=True, exist_ok=True)
    # A server takes folders whose names are integers; this one is none until it is renamed.
    unfinished = Path(tempfile.mkdtemp(prefix="unfinished_", dir=directory))
    try:
        functions = _write_graph(model, made, preprocess, unfinished)
        requests = [(key, one.example) for key, one in made.items()]
        answers = [_answer(functions[key], request) for key, request in requests]
        _check_padding(model, made, functions)
        about = _about(model, version, made, functions, left_out)
        name = name or directory.name
        _write_extra(unfinished, name, requests, answers, about)
        beside = notes.files(name, made, about)  # before the version is there: it may fail
        unfinished.chmod(0o755)
        os.rename(unfinished, directory / str(version))
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    for file, text in beside.items():
        part = directory / f"unfinished_{file}"
        part.write_text(text)
        os.replace(part, directory / file)
    if verbose:
        print(f"Written to {directory / str(version)}: {', '.join(made)}")
        for why in dict.fromkeys(about["left_out"].values()):
            without = [key for key, reason in about["left_out"].items() if reason == why]
            print(f"  without {' and '.join(without)}: {why}")
    return directory / str(version)


def _check_stateless(model):
    for layer in everything(model):
        if getattr(layer, "stateful", False):
            raise ValueError(
                f"{layer.name} has stateful=True, and on a server all clients would share its "
                "state. Make it stateless: the signature `step` has states in and out. (Keras' own "
                "`model.export` writes the state, shared as it is.)"
            )


def _version(directory, version):
    """The number of the new version, which is not there yet."""
    there = [int(p.name) for p in directory.glob("*") if p.name.isdigit()]
    if version is None:
        return max(there, default=0) + 1
    if isinstance(version, bool) or not isinstance(version, int) or version < 0:
        raise ValueError(f"version is {version!r}, expected an integer of 0 or more, or None.")
    if version in there:
        raise FileExistsError(
            f"{directory} has a version {version}, and a server may be reading it. Leave `version` "
            "out for the next one, or remove the old one first."
        )
    return version


def _write_graph(model, made, preprocess, path):
    """Write the SavedModel and return `{signature: function}`."""
    archive = keras.export.ExportArchive()
    archive.track(model)
    for layer in keras.tree.flatten(preprocess):
        if layer is not None and layer.built:  # lookups are tracked where they are used
            archive.track(layer)
    functions = {}
    for key, one in made.items():
        functions[key] = tf.function(one.call, input_signature=one.specs, autograph=False)
        with engine.for_any_device():
            functions[key].get_concrete_function()
        archive.add_endpoint(key, functions[key])
    # A server takes no gradients, and tracing them takes as long as all the rest.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    archive.write_out(str(path), options=options, verbose=False)
    return functions


def _answer(function, request):
    found = function(*map(tf.convert_to_tensor, request.values()))
    return {name: value.numpy() for name, value in found.items()}


def _check_padding(model, made, functions):
    """Refuse a model whose answers change with what the padding of a request holds.

    The first row is asked alone, and once more with padding behind it, as a server makes it.
    """
    one = made["serving_default"]
    lengths = [name for name in one.example if name.endswith("lengths")]
    if not lengths:
        return
    alone = {name: value[:1] for name, value in one.example.items()}
    padded = {}
    for name, value in alone.items():
        length = f"{name}_lengths" if f"{name}_lengths" in alone else "lengths"
        spec = next(s for s in one.specs if s.name == name)
        sequence = spec.shape.rank > 1 and spec.shape[1] is None
        if sequence and length in alone:
            garbage = np.broadcast_to(value.flat[0], (1, 3, *value.shape[2:]))
            real = alone[length][0]
            value = np.concatenate([value[:, :real], garbage], axis=1)
            alone[name] = alone[name][:, :real]
        padded[name] = value
    expected, found = (_answer(functions["serving_default"], r) for r in (alone, padded))
    for name, value in expected.items():
        other = found[name]
        if other.ndim == value.ndim:  # without the steps of the padding, whichever axis they are on
            other = other[tuple(map(slice, value.shape))]
        if value.dtype.kind == "f":
            same = np.allclose(value, other, rtol=1e-3, atol=1e-4, equal_nan=True)
        else:
            same = np.array_equal(value, other)
        if not same:
            raise ValueError(
                f"{model.name} answers otherwise when a request is padded (output {name!r}): its "
                "mask is lost on the way. Use Embedding(mask_zero=True), and layers that know "
                "masks, such as those of keras_rnnx for pooling."
            )


def _about(model, version, made, functions, left_out):
    """What the file `keras_rnnx.json` says."""
    describe = lambda spec: {
        "dtype": spec.dtype.name,
        "shape": None if spec.shape.rank is None else [-1 if n is None else n for n in spec.shape],
    }
    try:
        config = model.to_json()
    except NotImplementedError:  # a class of the user's own without `get_config`
        config = None
    return {
        "model": model.name,
        "version": version,
        "parameters": int(model.count_params()) if model.built else None,
        "packages": {
            "keras_rnnx": __version__,
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
            "python": platform.python_version(),
        },
        "signatures": {
            key: {spec.name: describe(spec) for spec in one.specs} for key, one in made.items()
        },
        "outputs": {
            key: {
                name: describe(tensor)
                for name, tensor in function.get_concrete_function().structured_outputs.items()
            }
            for key, function in functions.items()
        },
        "left_out": {key: why for key, why in left_out.items() if key not in made},
        "config": None if config is None else json.loads(config),
    }


def _write_extra(path, name, requests, answers, about):
    (path / EXTRA).mkdir()
    wire.write_warmup(
        path / WARMUP, [wire.request(name, key, request) for key, request in requests]
    )
    kept = {
        f"{k}/{output}": value
        for k, answer in enumerate(answers)
        for output, value in answer.items()
    }
    strings = {key: value.astype("S") for key, value in kept.items() if value.dtype == object}
    np.savez(path / ANSWERS, **{**kept, **strings})
    (path / ABOUT).write_text(json.dumps(about, indent=1))

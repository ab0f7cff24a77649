"""LiteRT: models for small devices, of built-in operations only."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

import keras
import numpy as np
import tensorflow as tf

from keras_rnnx.annotations import Array
from keras_rnnx.annotations import PathLike
from keras_rnnx.layers import Stream
from keras_rnnx.serving import frozen
from keras_rnnx.serving.inputs import Inputs
from keras_rnnx.serving.signatures import States

QUANTIZED = ("float32", "dynamic", "int8")


def export_lite(
    model: keras.Model,
    path: PathLike,
    *,
    steps: int | None = None,
    batch: int = 1,
    quantize: Literal["float32", "dynamic", "int8"] = "float32",
    calibration: Array | None = None,
    example: Array | None = None,
    verbose: bool = True,
) -> Path:
    """Write a model for LiteRT (TensorFlow Lite), of built-in operations only: no Flex ops.

    With `steps` it takes whole sequences of that length. Without, it takes a single step, `[B, 1,
    ...]`, with all states as inputs and outputs (`LAYER_state_0`, ..., zeros at the beginning), and
    goes on for as long as its client likes; for models that go forward step by step.

    The file has one signature, `serving_default`, with the inputs and outputs by name.

    Args:
        model: a built Keras model of sequences.
        path: of the file, usually `.tflite`.
        steps: the length of the sequences, or None for single steps.
        batch: the number of rows, which is fixed.
        quantize: "float32"; "dynamic": weights in int8, computed in float; or "int8": all in int8,
            for devices that have no floats. A loop cannot be quantized to int8 (the converter
            crashes), so sequences are then unrolled, which takes a model that goes forward.
        calibration: for "int8": what real inputs look like, `[N, T, ...]`, nested as the model's
            inputs are, or at least `batch` rows of them.
        example: for a model of a class of its own, arrays nested as its inputs are.
        verbose: whether to print the size of the file and how far its answers are from the model's.

    Returns:
        The path.

    Raises:
        ValueError: for a model that cannot be streamed where that is needed, or int8 without a
            calibration.
        RuntimeError: where the converter fails, with its last words.

    Example:

    >>> import keras, keras_rnnx, tempfile
    >>> from keras_rnnx.serving import export_lite
    >>> model = keras.Sequential([keras.Input((None, 3)), keras_rnnx.GRU(4)])
    >>> export_lite(model, tempfile.mkdtemp() + "/model.tflite", verbose=False).stat().st_size > 0
    True
    """
    if quantize not in QUANTIZED:
        raise ValueError(f"quantize is {quantize!r}, expected one of {QUANTIZED}.")
    if (quantize == "int8") != (calibration is not None):
        raise ValueError(
            f"quantize is {quantize!r} and calibration is "
            f"{'missing' if calibration is None else 'given'}: int8 needs to see what real inputs "
            "look like, and nothing else does."
        )
    inputs = Inputs(model, example)
    small = _Small(inputs, batch, steps, unrolled=steps is None or quantize == "int8")
    function = frozen.traced(model, small.call, small.specs)
    path = Path(path)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        frozen.save(function, folder / "saved")
        given = [str(folder / "saved"), str(folder / "out"), quantize]
        if calibration is not None:
            np.savez(folder / "rows.npz", **small.calibration(calibration))
            given.append(str(folder / "rows.npz"))
        script = Path(__file__).with_name("convert.py")
        done = subprocess.run(
            [sys.executable, "-I", str(script), *given], capture_output=True, text=True
        )
        if done.returncode:
            words = [line for line in done.stderr.splitlines() if line.strip()] or ["no word"]
            raise RuntimeError(f"The converter ended with status {done.returncode}: {words[-1]}")
        part = path.with_name(f"unfinished_{path.name}")
        part.write_bytes((folder / "out").read_bytes())
        os.replace(part, path)
    if verbose:
        floats = 4 * model.count_params()
        print(
            f"Written to {path}: {path.stat().st_size:,} bytes (weights in float32: {floats:,}), "
            f"answers within {small.difference(path, function):.1e} of the model's"
        )
    return path


class _Small:
    """A model over sequences of one length, or over single steps with their states."""

    def __init__(self, inputs, batch, steps, unrolled):
        self.inputs, self.steps, self.unrolled = inputs, steps, unrolled
        self.states = States(inputs) if unrolled else None
        self.specs = [
            tf.TensorSpec([batch, *_of_time(spec.shape[1:], steps or 1)], spec.dtype, name)
            for name, spec in inputs.specs.items()
            if name in inputs.names
        ]
        if steps is None:
            self.specs += [
                tf.TensorSpec([batch, *s.shape[1:]], s.dtype, s.name) for s in self.states.specs
            ]

    def call(self, *tensors):
        given = {spec.name: a for spec, a in zip(self.specs, tensors, strict=True)}
        if not self.unrolled:
            return self.inputs.call(*self.inputs.read(given))
        if self.steps is None:
            states = self.states.nested([given[name] for name in self.states.names])
            found, states = self.step(given, 0, states)
            return {**found, **self.states.named(states)}
        states, every = None, []
        for t in range(self.steps):
            found, states = self.step(given, t, states)
            every.append(found)
        sequence = lambda a: a.shape.rank > 1 and a.shape[1] == 1
        return {
            name: tf.concat([found[name] for found in every], axis=1) if sequence(a) else a
            for name, a in every[-1].items()
        }

    def step(self, given, t, states):
        """What the model answers to step t, and its states."""
        of_time = lambda name: name in self.inputs.lengths_of
        now = {n: a[:, t : t + 1] if of_time(n) else a for n, a in given.items()}
        stream = Stream(states)
        with stream.opened():
            found = self.inputs.call(*self.inputs.read(now))
        return found, stream.last

    def difference(self, path, function):
        """How far the answers of the file are from those of the function, to numbers made up."""
        rng = np.random.default_rng(0)
        given = {
            spec.name: rng.normal(size=spec.shape).astype("float32")
            if spec.dtype.is_floating
            else np.ones(spec.shape, spec.dtype.as_numpy_dtype)
            for spec in self.specs
        }
        expected = function(*map(tf.constant, given.values()))
        found = tf.lite.Interpreter(str(path)).get_signature_runner("serving_default")(**given)
        return max(np.abs(found[name] - value).max() for name, value in expected.items())

    def calibration(self, rows):
        """`{input: [N, batch, ...]}` of what the converter shall see."""
        flat = dict(zip(self.inputs.names, keras.tree.flatten(rows), strict=True))
        flat = {name: np.asarray(a) for name, a in flat.items()}
        batch = self.specs[0].shape[0]
        count = len(next(iter(flat.values()))) // batch
        wanted = {spec.name: spec for spec in self.specs}
        if self.steps is not None:
            cut = {
                n: a[:, : self.steps] if n in self.inputs.lengths_of else a for n, a in flat.items()
            }
            return {
                name: a[: count * batch].reshape(count, *wanted[name].shape).astype(a.dtype)
                for name, a in cut.items()
            }
        return self._steps_of(flat, batch, count)

    def _steps_of(self, flat, batch, count):
        """The single steps of the rows with the states that they meet."""
        seen = {spec.name: [] for spec in self.specs}
        step = tf.function(self.call, input_signature=self.specs, autograph=False)
        for k in range(count):
            rows = {name: a[k * batch : (k + 1) * batch] for name, a in flat.items()}
            states = {s.name: np.zeros(s.shape, "float32") for s in self.specs[len(rows) :]}
            for t in range(next(iter(rows.values())).shape[1]):
                now = {
                    n: a[:, t : t + 1] if n in self.inputs.lengths_of else a
                    for n, a in rows.items()
                }
                for name, value in {**now, **states}.items():
                    seen[name].append(np.asarray(value))
                given = [{**now, **states}[spec.name] for spec in self.specs]
                found = step(*map(tf.convert_to_tensor, given))
                states = {name: found[name].numpy() for name in states}
        return {name: np.stack(values) for name, values in seen.items()}


def _of_time(shape, steps):
    return [steps if k == 0 and n is None else n for k, n in enumerate(shape)]

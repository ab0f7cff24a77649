"""`check_cell`: what a cell of your own must pass, without an oracle for what it computes.

Axes: B batch, T time, D input features, U units.
"""

import json
import logging
import re
import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_rnnx.cells import CellSpec
from keras_rnnx.engine import Products
from keras_rnnx.layers import RNN
from keras_rnnx.layers import Cell
from keras_rnnx.layers import CustomCell

B, T = 3, 6
QUIET = {"dropout": 0.0, "recurrent_dropout": 0.0, "weight_dropout": 0.0, "zoneout": 0.0}


def check_cell(cell: CellSpec | Cell, features: int = 3, verbose: bool = True) -> None:
    """Test a cell: prints a line for each check, and raises if one fails.

        gradients       of input, states and weights, against central differences in float64
        backends        eager, in a graph, compiled by the caller, differentiated by TensorFlow
        masks           masked steps leave no trace, whatever stands in them
        streaming       steps and chunks with carried states are the whole sequence
        noise           dropout of every kind, zoneout and weight drop: finite, and only in training
        dtypes          float32 and the mixed policies stay near float64
        saving          configuration, `.keras` file and SavedModel give the same outputs

    Noise of the cell is switched off for all but its own check.

    Args:
        cell: a `keras_rnnx.CellSpec`, or a cell of this package around one.
        features: D, the number of input features to test with.
        verbose: whether to print.

    Raises:
        AssertionError: naming every check that failed, and how.
        TypeError: for anything that is no cell of this package.

    Example:

    >>> import keras_rnnx
    >>> from keras_rnnx.testing import check_cell
    >>> check_cell(keras_rnnx.GRUCell(4), verbose=False)
    """
    cell = CustomCell(cell) if isinstance(cell, CellSpec) else cell
    if not isinstance(cell, Cell):
        raise TypeError(
            f"check_cell got {cell!r}, expected an object of a keras_rnnx.CellSpec, such as "
            "Own(4), or a cell of keras_rnnx: other Keras cells run in an ordinary loop, and there "
            "is nothing to check."
        )
    if cell.spec.constant_names:
        raise TypeError(
            f"check_cell got a cell that takes constants {cell.spec.constant_names}, whose shapes "
            "it cannot know. Check the cell with these as weights, or test it in a layer."
        )
    subject, failed = Subject(cell, features), []
    try:
        subject.run(subject.layer("float32"))
    except Exception as error:  # whatever its kind: nothing else can be said of such a cell
        message = f"{type(cell.spec).__name__} cannot run: {type(error).__name__}: "
        raise AssertionError(message + _first_line(error)) from error
    for check in CHECKS:
        name = check.__name__.removeprefix("check_")
        try:
            check(subject)
        except Exception as error:  # whatever its kind: it is reported with those of the others
            failed.append(f"{name}: {type(error).__name__}: {_first_line(error)}")
            line = f"FAILED  {failed[-1]}"
        else:
            line = f"ok      {name}"
        if verbose:
            print(line)
    if failed:
        raise AssertionError(
            f"{type(cell.spec).__name__} failed {len(failed)} checks:\n" + "\n".join(failed)
        )


def _first_line(error):
    """What an error says, without the line that Keras puts before it and its colours."""
    text = re.sub(r"\x1b\[\d*m", "", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith("Exception encountered when calling")]
    return (told or lines or [""])[0]


class Subject:
    """Makes layers of a cell, all with the same random weights, and something to feed them."""

    def __init__(self, cell, features):
        self.cell, self.features = cell, features
        rng = np.random.default_rng(0)
        self.x = rng.normal(size=(B, T, features))
        layer = self.layer()
        self.weights = [rng.normal(scale=0.4, size=w.shape) for w in layer.weights]
        sizes = layer.cell.state_size
        self.states = [rng.normal(scale=0.5, size=(B, size)) for size in sizes]

    def layer(self, dtype="float64", noise=None, **options):
        config = {**self.cell.get_config(), **QUIET, **(noise or {}), "dtype": dtype}
        config.pop("name")
        cell = type(self.cell).from_config(config)
        options = {"return_sequences": True, "return_state": True, **options}
        layer = RNN(cell, dtype=dtype, **options)
        layer.build((None, None, self.features))
        if hasattr(self, "weights"):
            layer.set_weights(self.weights)
        return layer

    def run(self, layer, x=None, states=None, **call):
        x = self.x if x is None else x
        states = self.states if states is None else states
        dtype = layer.compute_dtype
        found = layer(tf.cast(x, dtype), initial_state=[tf.cast(s, dtype) for s in states], **call)
        return [np.asarray(tf.cast(a, tf.float64)) for a in found]


def check_gradients(subject):
    """Along random directions; a weight that moves nothing is reported too."""
    layer = subject.layer()
    tensors = [tf.constant(a) for a in (subject.x, *subject.states)]
    weights = [w.value for w in layer.trainable_weights]
    names = ["the input", *(f"state {k}" for k in range(len(subject.states)))]
    names += [f"weight {w.name!r}" for w in layer.trainable_weights]

    def loss(x, *states):
        outputs = layer(x, initial_state=list(states), training=True)
        return sum(
            tf.reduce_sum(a * tf.cos(tf.cast(tf.range(a.shape[-1]), a.dtype))) for a in outputs
        )

    with tf.GradientTape() as tape:
        tape.watch(tensors)
        total = loss(*tensors)
    gradients = tape.gradient(total, [*tensors, *weights])
    rng, size = np.random.default_rng(1), 1e-5
    for k, (name, gradient) in enumerate(zip(names, gradients, strict=True)):
        if gradient is None or not np.any(gradient):
            raise AssertionError(f"{name} has no gradient: the step does not use it")
        for _ in range(3):
            direction = rng.normal(size=gradient.shape)
            sides = []
            for sign in (1, -1):
                if k < len(tensors):
                    moved = list(tensors)
                    moved[k] = moved[k] + sign * size * direction
                    sides.append(float(loss(*moved)))
                else:
                    weight = weights[k - len(tensors)]
                    before = weight.numpy()
                    weight.assign(before + sign * size * direction)
                    sides.append(float(loss(*tensors)))
                    weight.assign(before)
            expected = (sides[0] - sides[1]) / (2 * size)
            found = float(np.sum(np.asarray(gradient) * direction))
            near(found, expected, 1e-5, f"gradient of {name}")


def check_backends(subject):
    x = tf.constant(subject.x)
    expected = subject.run(subject.layer())
    run = lambda layer: lambda x: layer(x, initial_state=list(map(tf.constant, subject.states)))
    ways = {
        "jit_compile=False": run(subject.layer(jit_compile=False)),
        "a graph": tf.function(run(subject.layer()), autograph=False),
        "the caller's jit_compile": tf.function(
            run(subject.layer()), jit_compile=True, autograph=False
        ),
        'backward="autodiff"': run(subject.layer(backward="autodiff")),
    }
    for way, function in ways.items():
        for found, e in zip(function(x), expected, strict=True):
            near(found, e, 1e-9, f"the output with {way}")


def check_masks(subject):
    """A row with masked steps gives what the row without these steps gives."""
    layer = subject.layer(zero_output_for_mask=True)
    mask = np.array([[1, 1, 0, 1, 0, 1], [0, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0]], bool)
    x = np.where(mask[:, :, None], subject.x, np.nan)
    outputs, *states = subject.run(layer, x, mask=mask)
    if not np.all(outputs[~mask] == 0):
        raise AssertionError("masked steps have outputs that are not zero")
    for row in range(B):
        rows = [s[row : row + 1] for s in subject.states]
        if not mask[row].any():
            expected = rows
        else:
            real = subject.x[row : row + 1, mask[row]]
            whole, *expected = subject.run(layer, real, rows)
            near(outputs[row, mask[row]], whole[0], 1e-9, "the outputs of real steps")
        for found, e in zip(states, expected, strict=True):
            near(found[row], e[0], 1e-9, "a state after masked steps")


def check_streaming(subject):
    layer = subject.layer()
    expected, *last = subject.run(layer)
    states = list(map(tf.constant, subject.states))
    for t in range(T):
        output, states = layer.step(tf.constant(subject.x[:, t]), states)
        near(output, expected[:, t], 1e-9, f"the output of step {t}")
    for found, e in zip(states, last, strict=True):
        near(found, e, 1e-9, "a state after all steps")
    first, *states = subject.run(layer, subject.x[:, :2])
    second, *states = subject.run(layer, subject.x[:, 2:], states)
    near(np.concatenate([first, second], axis=1), expected, 1e-9, "the outputs of two chunks")


def check_noise(subject):
    spec = subject.cell.spec
    missing = states_multiplied_by(subject) - set(spec.recurrent)
    if missing:
        raise AssertionError(
            f"the step multiplies a state by {', '.join(sorted(missing))}, which `recurrent` does "
            "not name: recurrent_dropout and weight_dropout leave it out"
        )
    kinds = [{"dropout": 0.5, "dropout_mode": mode} for mode in ("variational", "gates", "step")]
    if spec.recurrent:
        modes = ["variational", "gates", "step"] + ["candidate"] * spec.has_candidate
        kinds += [{"recurrent_dropout": 0.5, "recurrent_dropout_mode": mode} for mode in modes]
        kinds.append({"weight_dropout": 0.5})
    kinds.append({"zoneout": 0.5})
    plain = subject.run(subject.layer())
    for noise in kinds:
        layer = subject.layer(noise={**noise, "seed": 1})
        noisy = subject.run(layer, training=True)
        if not all(np.isfinite(a).all() for a in noisy):
            raise AssertionError(f"{noise} gives outputs that are not finite")
        if np.array_equal(noisy[0], plain[0]):
            raise AssertionError(
                f"{noise} changes nothing in training: does the step multiply by the matrices that "
                "`recurrent` names through `product`, and pass on its candidate, if it says so?"
            )
        if "zoneout" not in noise:
            for found, e in zip(subject.run(layer), plain, strict=True):
                near(found, e, 1e-12, f"the output at inference with {noise}")


def states_multiplied_by(subject):
    """The names of the matrices that multiply a state in a step."""
    spec = subject.cell.spec
    weights, prepared = subject.layer().cell.ready()
    states = tuple(map(tf.constant, subject.states))
    product = Products(prepared, {}, states)
    spec.step(prepared, product, spec.project(weights, tf.constant(subject.x[:, 0])), states, {})
    return {call.name for call in product.calls if call.state is not None}


def check_dtypes(subject):
    expected = subject.run(subject.layer())
    for dtype, tolerance in (("float32", 1e-4), ("mixed_bfloat16", 0.1), ("mixed_float16", 0.02)):
        layer = subject.layer(dtype)
        outputs = layer(tf.cast(subject.x, layer.compute_dtype))
        if outputs[0].dtype != layer.compute_dtype:
            raise AssertionError(f"{dtype} gives outputs of {outputs[0].dtype.name}")
        for found, e in zip(subject.run(layer), expected, strict=True):
            near(found, e, tolerance, f"the output in {dtype}")


def check_saving(subject):
    cell = type(subject.cell).from_config(subject.cell.get_config())
    if cell.spec != subject.cell.spec:
        raise AssertionError(
            f"{subject.cell.spec} comes back from its configuration as {cell.spec}"
        )
    layer = subject.layer("float32", return_state=False)
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    again = keras.saving.deserialize_keras_object(config)
    if again.cell.get_config() != layer.cell.get_config():
        raise AssertionError("the configuration comes back from JSON changed")
    inputs = keras.Input((None, subject.features))
    model = keras.Model(inputs, layer(inputs))
    x = tf.constant(subject.x, tf.float32)
    expected = np.asarray(model(x))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        near(keras.saving.load_model(path)(x), expected, 1e-5, "the output of the loaded model")
        model.export(Path(folder) / "export", verbose=False)
        # It warns that an export has no gradients, which nobody asks it for.
        log = logging.getLogger("absl")
        before = log.level
        log.setLevel(logging.ERROR)
        try:
            served = tf.saved_model.load(str(Path(folder) / "export"))
        finally:
            log.setLevel(before)
        near(served.serve(x), expected, 1e-5, "the output of the SavedModel")


CHECKS = (
    check_gradients,
    check_backends,
    check_masks,
    check_streaming,
    check_noise,
    check_dtypes,
    check_saving,
)


def near(found, expected, tolerance, what):
    """Raise unless both agree to `tolerance` of the largest number expected."""
    found, expected = np.asarray(found, "float64"), np.asarray(expected, "float64")
    if found.shape != expected.shape:
        raise AssertionError(f"{what} has shape {found.shape}, expected {expected.shape}")
    error = np.max(np.abs(found - expected)) / max(np.max(np.abs(expected)), 1e-3)
    if not error <= tolerance:  # not a number is no agreement
        raise AssertionError(f"{what} is off by {error:.1e} of its size, allowed {tolerance:.0e}")

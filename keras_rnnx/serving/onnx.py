"""ONNX: models for ONNX Runtime, with any batch and any time."""

import os
from pathlib import Path
from typing import Literal

import keras

from keras_rnnx.annotations import Array
from keras_rnnx.annotations import PathLike
from keras_rnnx.serving import frozen
from keras_rnnx.serving import signatures as making


def export_onnx(
    model: keras.Model,
    path: PathLike,
    *,
    signature: Literal["serving_default", "step"] = "serving_default",
    opset: int = 17,
    example: Array | None = None,
) -> Path:
    """Write a model as ONNX, with any number of rows and steps.

    Args:
        model: a built Keras model of sequences.
        path: of the file, usually `.onnx`.
        signature: "serving_default", whole sequences with `lengths`, or "step", a chunk with all
            states as inputs and outputs, see `keras_rnnx.serving.export`; the outputs are called
            `next_` and the name of the input.
        opset: the version of ONNX' operators.
        example: for a model of a class of its own, arrays nested as its inputs are.

    Returns:
        The path.

    Raises:
        ImportError: without the package `tf2onnx`, which does it.
        ValueError: for a signature that the model cannot have.

    Example:

    >>> import keras, keras_rnnx, tempfile
    >>> from keras_rnnx.serving import export_onnx
    >>> model = keras.Sequential([keras.Input((None, 3)), keras_rnnx.GRU(4)])
    >>> export_onnx(model, tempfile.mkdtemp() + "/model.onnx").stat().st_size > 0
    True
    """
    try:
        import tf2onnx
    except ImportError as error:
        raise ImportError(
            "export_onnx needs the package tf2onnx: pip install 'keras_rnnx[onnx]'."
        ) from error
    if signature not in ("serving_default", "step"):
        raise ValueError(f"signature is {signature!r}, expected 'serving_default' or 'step'.")
    made, why = making.make(model, example=example)
    if signature not in made:
        raise ValueError(f"{model.name} cannot have the signature 'step': {why['step']}")
    one = made[signature]
    taken = {spec.name for spec in one.specs}

    def call(*tensors):  # in ONNX an output cannot have the name of an input
        found = one.call(*tensors)
        return {f"next_{name}" if name in taken else name: a for name, a in found.items()}

    function = frozen.traced(model, call, one.specs)
    proto, _ = tf2onnx.convert.from_function(function, input_signature=one.specs, opset=opset)
    path = Path(path)
    part = path.with_name(f"unfinished_{path.name}")
    part.write_bytes(proto.SerializeToString())
    os.replace(part, path)
    return path

"""Cells and attention wrappers of TensorFlow Addons, from their arrays.

TensorFlow Addons runs beside TensorFlow up to 2.15 only, so its weights come in a file that was
written there: docs/coming_from_tensorflow_addons.md has the lines for it.
"""

import os
from collections.abc import Mapping
from typing import Any
from typing import Literal

import keras
import numpy as np

from keras_rnnx import layers
from keras_rnnx.annotations import Array
from keras_rnnx.annotations import PathLike
from keras_rnnx.attention import AttentionCell
from keras_rnnx.attention import BahdanauAttention
from keras_rnnx.attention import LuongAttention
from keras_rnnx.attention import Monotonic

PEEPHOLES = [f"{gate}_gate_peephole_weights" for gate in ("input", "forget", "output")]


def from_tfa(
    source: Mapping[str, Array] | PathLike,
    mode: Literal["recursive", "parallel", "hard"] = "parallel",
    **options: Any,
) -> keras.layers.Layer:
    """A layer with the weights of a cell or an attention wrapper of TensorFlow Addons.

    Args:
        source: dict of arrays, or the path of an `.npz` file of one. The keys of a cell are TFA's
            names of its variables, `"kernel"`, `"kernel_norm/gamma"`; what stands before them and
            `":0"` do not matter. In those of an `AttentionWrapper` the cell's begin with `cell/`,
            and the others are `memory_layer/kernel`, `query_layer/kernel`, `attention_v`,
            `attention_g`, `attention_b`, `attention_score_bias` and `attention_layer/kernel`, as
            far as it has them.
        mode: of a monotonic attention.
        **options: of the layer: `return_sequences`, and what weights do not tell, such as
            activations, the `leaky` of an ESN, or another `epsilon` than TFA's default.

    Returns:
        A built layer: `LayerNormLSTM`, `LayerNormSimpleRNN`, `LSTM(peephole=True)`, `NAS`, `ESN`;
        or an `RNN` over an `AttentionCell` with input feeding, around an LSTM or GRU cell.

    Raises:
        ValueError: for arrays that belong to none of these.

    Example:

    >>> import keras_rnnx, numpy as np
    >>> arrays = {"kernel": np.ones((3, 20)), "recurrent_kernel": np.ones((5, 20))}
    >>> arrays |= {"bias": np.ones(20)}
    >>> for gate in ("input", "forget", "output"):
    ...     arrays[f"{gate}_gate_peephole_weights"] = np.ones(5)
    >>> layer = keras_rnnx.interop.from_tfa(arrays, return_sequences=True)
    >>> type(layer).__name__, layer.peephole
    ('LSTM', True)
    """
    if isinstance(source, (str, os.PathLike)):
        with np.load(source) as file:
            source = dict(file)
    arrays = {name.removesuffix(":0"): np.asarray(a) for name, a in source.items()}
    if any(name.endswith("memory_layer/kernel") for name in arrays):
        return _attention(arrays, mode, options)
    kind, settings, weights = _cell(_short(arrays))
    layer = getattr(layers, kind)(**{**settings, **options})
    layer.build((None, None, weights[0].shape[0]))
    layer.set_weights(weights)
    return layer


def _short(arrays):
    """The arrays by their last names: with the one before for those of a normalization."""
    short = {}
    for name, a in arrays.items():
        *before, last = name.split("/")
        norm = before and before[-1].endswith("_norm")
        short[f"{before[-1]}/{last}" if norm else last] = a
        if any("esn" in part for part in before):
            short["is_esn"] = None
    return short


def _cell(arrays):
    """`(name of the layer, its arguments, its weights in order)`."""
    refuse = ValueError(
        f"from_tfa got arrays named {', '.join(sorted(arrays)) or '(none)'}, which belong to no "
        "cell of TensorFlow Addons that it knows: LayerNormLSTMCell, LayerNormSimpleRNNCell, "
        "PeepholeLSTMCell, NASCell, ESNCell, or the wrapped LSTMCell and GRUCell."
    )
    if not {"kernel", "recurrent_kernel"} <= set(arrays):
        raise refuse
    kernel, recurrent, bias = (arrays.get(n) for n in ("kernel", "recurrent_kernel", "bias"))
    rows, columns = recurrent.shape
    weights = [kernel, recurrent, *([] if bias is None else [bias])]
    settings = {"use_bias": bias is not None}
    gates = columns / rows
    if "kernel_norm/gamma" in arrays:
        shift = arrays["kernel_norm/beta"] + arrays["recurrent_norm/beta"]
        weights = [kernel, recurrent, shift if bias is None else bias + shift]
        parts = ("kernel_norm/gamma", "recurrent_norm/gamma", "state_norm/gamma", "state_norm/beta")
        weights += [arrays[name] for name in parts]
        settings = {"units": rows, "epsilon": 1e-3, "carry": "normalized"}
        return "LayerNormLSTM", settings, weights
    if "gamma" in arrays:
        settings |= {"units": rows}
        return "LayerNormSimpleRNN", settings, [*weights, arrays["gamma"]]
    if PEEPHOLES[0] in arrays:
        peepholes = np.stack([arrays[name] for name in PEEPHOLES])
        return "LSTM", {**settings, "units": rows, "peephole": True}, [*weights, peepholes]
    projection = next((a for name, a in arrays.items() if "projection" in name), None)
    if columns % 8 == 0 and (projection is not None or gates == 8):
        settings |= {"units": columns // 8}
        if projection is not None:
            settings["projection_units"], weights = rows, [*weights, projection]
        return "NAS", settings, weights
    if "is_esn" in arrays:
        return "ESN", {**settings, "units": rows}, weights
    if gates == 4:
        return "LSTM", {**settings, "units": rows}, weights
    if gates == 3:
        reset_after = bias is None or bias.ndim == 2
        return "GRU", {**settings, "units": rows, "reset_after": reset_after}, weights
    raise refuse


def _attention(arrays, mode, options):
    of_cell = {n.split("cell/", 1)[1]: a for n, a in arrays.items() if "cell/" in n}
    kind, settings, weights = _cell(_short(of_cell))
    ours = ("activation", "recurrent_activation")
    settings |= {n: options.pop(n) for n in ours if n in options}
    get = lambda name: next((a for n, a in arrays.items() if n.endswith(name)), None)
    bias, scale = get("attention_score_bias"), get("attention_g")
    alignment = "softmax" if bias is None else Monotonic(mode)
    memory, projected = get("memory_layer/kernel"), get("attention_layer/kernel")
    found = {"memory_kernel": memory, "score_bias": bias, "attention_kernel": projected}
    if get("attention_v") is not None:
        normalize = scale is not None
        attention = BahdanauAttention(memory.shape[1], normalize=normalize, alignment=alignment)
        found |= {"query_kernel": get("query_layer/kernel"), "attention_v": get("attention_v")}
        found |= {"attention_g": scale, "attention_b": get("attention_b")}
    else:
        attention = LuongAttention("general", scale=scale is not None, alignment=alignment)
        found["score_scale"] = scale
    size = None if projected is None else projected.shape[1]
    fed = size if size is not None else memory.shape[0]  # TFA feeds the context itself
    made = getattr(layers, f"{kind}Cell")(**settings)
    if size is None:
        options = {"output_mode": "attention", **options}
    of_attention = ("output_mode", "return_alignments", "query")
    around = {n: options.pop(n) for n in of_attention if n in options}
    # TFA's attention layer is linear.
    cell = AttentionCell(
        made, attention, True, attention_size=size, attention_activation=None, **around
    )
    layer = layers.RNN(cell, **options)
    shape = (None, None, weights[0].shape[0] - fed)
    layer.build(shape, constants_shape={"memory": (None, None, memory.shape[0])})
    found |= dict(zip(cell.cell.spec.weights(weights[0].shape[0]), weights, strict=True))
    for weight in layer.weights:
        weight.assign(found[weight.name])
    return layer

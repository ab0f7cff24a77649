"""Recurrent modules of PyTorch as layers of this package, and back."""

import os
import pickle
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING
from typing import Any

import keras
import numpy as np

from keras_rnnx import layers
from keras_rnnx.annotations import Array
from keras_rnnx.annotations import PathLike
from keras_rnnx.cells import LAYOUTS
from keras_rnnx.cells import places
from keras_rnnx.interop.keras_layers import NoCounterpart
from keras_rnnx.interop.keras_layers import beyond

if TYPE_CHECKING:
    import torch

CLASSES = {"lstm": layers.LSTM, "gru": layers.GRU, "simple": layers.SimpleRNN}
MODULES = {"lstm": "LSTM", "gru": "GRU", "simple": "RNN"}
KINDS = {len(layout.gates): kind for kind, layout in LAYOUTS["torch"].items()}  # by their gates
WEIGHT = re.compile(r"^(.*?)(weight|bias)_(ih|hh|hr)(?:_l(\d+))?(_reverse)?$")


def from_torch(
    source: "torch.nn.Module | Mapping[str, Array] | PathLike",
    prefix: str = "",
    dropout: float = 0.0,
    return_sequences: bool = True,
    **options: Any,
) -> keras.layers.Layer:
    """A layer with the weights of a `torch.nn.LSTM`, `GRU` or `RNN`, or of one of their cells.

    Several layers become a `Stack`, two directions a `Bidirectional`. Sequences are
    `[batch, time, features]`, whatever `batch_first` says; masks stand for
    `pack_padded_sequence`. PyTorch adds two biases: where this package has one, it is their sum.

    Args:
        source: the module, or one that holds it; a state dict, of tensors or arrays; or the path of
            a file that `torch.save` wrote of one. A module tells its dropout, its nonlinearity
            and whether there are biases; of a state dict `dropout` and, for an RNN,
            `activation="relu"` have to be said.
        prefix: what the names begin with, `"encoder.lstm."`, where there are several.
        dropout: rate between the layers of a state dict.
        return_sequences: as of the layer; PyTorch's modules return sequences.
        **options: of the layer (of each one in a stack), `return_state=True` for example.

    Returns:
        A built `LSTM`, `GRU`, `SimpleRNN`, `Bidirectional` or `Stack`.

    Raises:
        ValueError: for a source without recurrent weights, or with several sets of them.

    Example:

    >>> import keras_rnnx, numpy as np
    >>> state_dict = {"weight_ih_l0": np.ones((20, 3)), "weight_hh_l0": np.ones((20, 5))}
    >>> layer = keras_rnnx.interop.from_torch(state_dict)
    >>> type(layer).__name__, layer.units
    ('LSTM', 5)
    """
    found = _weights(source, prefix)
    module = _module(source, found["prefix"])
    if module is not None:
        dropout = getattr(module, "dropout", 0.0)
        if getattr(module, "nonlinearity", "tanh") != "tanh":
            options = {"activation": module.nonlinearity, **options}
    cells = found["cells"]
    kind, sizes = _kind(cells[0][0], options)
    options = {"use_bias": "bias_ih" in cells[0][0], **sizes, **options}
    made: list[keras.layers.Layer] = []
    for k, ways in enumerate(cells):
        last = k + 1 == len(cells)
        layer = CLASSES[kind](**options, return_sequences=return_sequences or not last)
        made.append(layers.Bidirectional(layer) if len(ways) == 2 else layer)
    layer = made[0]
    if len(made) > 1:
        layer = layers.Stack(made, dropout=dropout, dropout_mode="step")
    layer.build((None, None, cells[0][0]["weight_ih"].shape[1]))
    layer.set_weights([a for ways in cells for cell in ways for a in _ours(kind, cell, layer)])
    return layer


def _weights(source, prefix):
    """`{"prefix": ..., "cells": [[{name: array} of each direction] of each layer]}`."""
    sets = {}
    recurrent, _ = torch_arrays(source)
    for name, array in recurrent.items():
        if name.startswith(prefix):
            before, what, of, layer, back = WEIGHT.match(name).groups()
            ways = sets.setdefault(before, {}).setdefault(int(layer or 0), {})
            ways.setdefault(bool(back), {})[f"{what}_{of}"] = array
    if len(sets) != 1:
        names = ", ".join(map(repr, sorted(sets)))
        there = f" that begin with {prefix!r}, but {sorted(recurrent)}" if prefix else ""
        raise ValueError(
            f"from_torch found {len(sets)} sets of recurrent weights"
            + (f", {names}: say one as `prefix`." if sets else f"{there}.")
        )
    ((before, by_layer),) = sets.items()
    cells = [[ways[back] for back in sorted(ways)] for _, ways in sorted(by_layer.items())]
    return {"prefix": before, "cells": cells}


def torch_arrays(
    source: "torch.nn.Module | Mapping[str, Array] | PathLike",
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The arrays of a module or a state dict by name: the recurrent ones, and the others.

    Args:
        source: a module of PyTorch; its state dict, of tensors or arrays; or the path of a file
            that `torch.save` wrote of one.

    Returns:
        Two dicts: of what `from_torch` reads, and of the other layers, for `set_weights`. PyTorch
        keeps the matrix of an `nn.Linear` transposed.

    Example:

    >>> import keras_rnnx, numpy as np
    >>> state_dict = {"rnn.weight_ih_l0": np.ones((5, 3)), "linear.weight": np.ones((2, 5))}
    >>> recurrent, others = keras_rnnx.interop.torch_arrays(state_dict)
    >>> list(recurrent), list(others)
    (['rnn.weight_ih_l0'], ['linear.weight'])
    """
    is_path = isinstance(source, (str, os.PathLike))
    given: Any = _loaded(source) if is_path else source
    if hasattr(given, "state_dict"):
        given = given.state_dict()
    if not hasattr(given, "items"):
        raise ValueError(
            f"Got a {type(given).__name__}, expected a module of PyTorch, its state dict, or the "
            "path of a file of one."
        )
    recurrent: dict[str, np.ndarray] = {}
    others: dict[str, np.ndarray] = {}
    for name, tensor in given.items():
        (recurrent if WEIGHT.match(name) else others)[name] = _array(tensor)
    return recurrent, others


def _loaded(path):
    """The state dict in a file. Modules are not read: that would run whatever code is in it."""
    try:
        source = _torch().load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds more than tensors, a whole module perhaps. Save its state dict, "
            "torch.save(module.state_dict(), path), or load it yourself and pass the module."
        ) from error
    return source.get("state_dict", source)


def _array(tensor):
    if hasattr(tensor, "detach"):  # NumPy has no bfloat16
        tensor = tensor.detach().cpu()
        tensor = (tensor.double() if tensor.itemsize == 8 else tensor.float()).numpy()
    return np.asarray(tensor)


def _module(source, prefix):
    """The recurrent module, where the source is a module and not a state dict."""
    if not hasattr(source, "named_modules"):
        return None
    return dict(source.named_modules())[prefix.removesuffix(".")]


def _kind(cell, options):
    """`("lstm", {"units": ..., ...})` by the shapes of a cell's weights."""
    rows = cell["weight_ih"].shape[0]
    if "weight_hr" in cell:
        projection_units, units = cell["weight_hr"].shape
        sizes = {"units": units, "projection_units": projection_units}
    else:
        units = cell["weight_hh"].shape[1]
        sizes = {"units": units}
    kind = KINDS.get(rows // units) if rows % units == 0 else None
    if kind is None:
        raise ValueError(
            f"from_torch found a weight_ih of {rows} rows and a weight_hh of {units} columns: "
            "expected 4 times as many rows (LSTM), 3 times (GRU) or as many (RNN)."
        )
    return kind, sizes


def _ours(kind, cell, layer):
    """The weights of a cell in the order of this package's."""
    back = np.argsort(places(kind, "torch"))
    in_order = lambda a: np.concatenate([np.split(a, len(back))[place] for place in back])
    weights = [in_order(cell["weight_ih"]).T, in_order(cell["weight_hh"]).T]
    if "bias_ih" in cell:
        biases = np.stack([in_order(cell["bias_ih"]), in_order(cell["bias_hh"])])
        both = LAYOUTS["keras"][kind].biases == 2
        weights.append(biases if both else biases.sum(axis=0))
    if "weight_hr" in cell:
        weights.append(cell["weight_hr"].T)
    return weights


# -- to PyTorch -----------------------------------------------------------------------------------

# What changes nothing in the numbers that come out, or is said in other words by PyTorch.
ELSEWHERE = (
    *("units", "use_bias", "activation", "recurrent_activation", "reset_after"),
    *("projection_units", "unit_forget_bias", "seed", "name", "trainable", "dtype", "unroll"),
    *("return_sequences", "return_state", "zero_output_for_mask", "return_ragged"),
)
ROLES = ("initializer", "regularizer", "constraint")
NOISE = ("dropout", "recurrent_dropout", "weight_dropout", "dropout_mode", "recurrent_dropout_mode")


def to_torch(layer: keras.layers.Layer, inference_only: bool = False) -> "torch.nn.Module":
    """A `torch.nn.LSTM`, `GRU` or `RNN` with the weights of a layer.

    The module has `batch_first=True` and returns, as PyTorch's do, the outputs of all steps and
    the last states; padded batches go through `pack_padded_sequence`. The one bias of an LSTM
    becomes its first, the second is zeros.

    Args:
        layer: built `LSTM`, `GRU` or `SimpleRNN`; `Bidirectional` around one, with
            `merge_mode="concat"`; or a `Stack` of equal ones.
        inference_only: leave out dropout that PyTorch does not have; it has dropout between
            layers, with a mask for each step.

    Returns:
        The module, in evaluation mode.

    Raises:
        NoCounterpart: a ValueError that names the option which PyTorch does not have.

    Example:

    >>> import keras_rnnx
    >>> layer = keras_rnnx.Stack(keras_rnnx.GRU(4), num_layers=2)
    >>> layer.build((None, None, 3))
    >>> keras_rnnx.interop.to_torch(layer)
    GRU(3, 4, num_layers=2, batch_first=True)
    """
    nn = _torch().nn
    ways = _ways(layer)
    first = ways[0][0]
    kind = next((k for k, cls in CLASSES.items() if type(first) is cls), "")
    for one in (one for both in ways for one in both):
        if not kind or type(one) is not type(first):
            raise NoCounterpart(
                f"{layer.name} runs a {type(one).__name__} beside or in place of LSTM, GRU or "
                "SimpleRNN, which PyTorch's modules do not."
            )
        _check(one, first, inference_only)
    options = {"bias": first.use_bias, "num_layers": len(ways), "batch_first": True}
    options |= {"bidirectional": len(ways[0]) == 2, "dropout": _between(layer, inference_only)}
    if kind == "simple":
        options["nonlinearity"] = keras.activations.serialize(first.activation)
    if kind == "lstm":
        options["proj_size"] = first.projection_units or 0
    module = getattr(nn, MODULES[kind])(first.cell.input_dim, first.units, **options)
    if first.variable_dtype == "float64":
        module = module.double()
    state: dict[str, torch.Tensor] = {}
    for k, both in enumerate(ways):
        for one, suffix in zip(both, (f"_l{k}", f"_l{k}_reverse")):
            arrays = _theirs(kind, one.cell)
            state |= {f"{name}{suffix}": _torch().tensor(a) for name, a in arrays.items()}
    module.load_state_dict(state)
    return module.eval()


def _ways(layer):
    """The layers from bottom to top, the directions of each."""
    if isinstance(layer, layers.Stack):
        for name in ("residual", "skip"):
            if getattr(layer, name):
                raise NoCounterpart(f"{layer.name} has {name}=True, which PyTorch does not have.")
        made = layer.layers
    else:
        made = [layer]
    if not all(one.built for one in [layer, *made]):
        raise ValueError(f"{layer.name} has no weights yet. Build it, or call it on some data.")
    ways = []
    for one in made:
        if type(one) is not layers.Bidirectional:
            ways.append([one])
            continue
        if one.merge_mode != "concat":
            raise NoCounterpart(
                f"{one.name} has merge_mode={one.merge_mode!r}: PyTorch puts directions side by "
                'side, "concat".'
            )
        ways.append([one.forward_layer, one.backward_layer])
    if len({len(both) for both in ways}) > 1:
        raise NoCounterpart(f"{layer.name} has layers of one and of two directions.")
    return ways


def _check(layer, first, inference_only):
    known = [*ELSEWHERE, *(NOISE if inference_only else ())]
    known += [n for n in layer.get_config() if n.split("_")[-1] in ROLES]
    known += ["go_backwards"] if layer is not first else []  # the other direction
    for name, value in beyond(layer, known).items():
        hint = " With inference_only=True it is left out." if name in NOISE else ""
        raise NoCounterpart(
            f"{layer.name} has {name}={value!r}, which PyTorch does not have.{hint}"
        )
    expected = {"units": first.units, "use_bias": first.use_bias, "activation": first.activation}
    if type(layer) is not layers.SimpleRNN:
        expected["activation"] = keras.activations.tanh
        expected["recurrent_activation"] = keras.activations.sigmoid
    elif layer.activation not in (keras.activations.tanh, keras.activations.relu):
        expected["activation"] = keras.activations.tanh
    if type(layer) is layers.GRU:
        expected["reset_after"] = True
    if type(layer) is layers.LSTM:
        expected["projection_units"] = first.projection_units
    for name, value in expected.items():
        if getattr(layer, name) != value:
            told = lambda v: getattr(v, "__name__", repr(v))
            raise NoCounterpart(
                f"{layer.name} has {name}={told(getattr(layer, name))}, and a module of PyTorch "
                f"can only have {told(value)} here."
            )


def _between(layer, inference_only):
    """The rate of dropout between layers."""
    if not getattr(layer, "dropout", 0) or not isinstance(layer, layers.Stack) or inference_only:
        return 0.0
    if layer.dropout_mode != "step":
        raise NoCounterpart(
            f"{layer.name} has dropout_mode={layer.dropout_mode!r}, and PyTorch drops step by step."
            " With inference_only=True it is left out."
        )
    return layer.dropout


def _theirs(kind, cell):
    """The weights of a cell by the names of PyTorch's, without the layer's number."""
    order = places(kind, "torch")
    in_order = lambda a: np.concatenate([np.split(a, len(order))[place] for place in order])
    weights = {name: np.array(tensor) for name, tensor in cell.tensors().items()}
    found = {"weight_ih": in_order(weights["kernel"].T)}
    found["weight_hh"] = in_order(weights["recurrent_kernel"].T)
    if cell.use_bias:
        bias = weights["bias"]
        biases = bias if bias.ndim == 2 else [bias, np.zeros_like(bias)]
        found |= {f"bias_{of}": in_order(b) for of, b in zip(("ih", "hh"), biases)}
    if "projection_kernel" in weights:
        found["weight_hr"] = weights["projection_kernel"].T
    return {name: np.ascontiguousarray(a) for name, a in found.items()}


def _torch():
    try:
        import torch
    except ImportError as why:
        raise ImportError(
            "This needs PyTorch: pip install torch. A state dict of NumPy arrays needs none."
        ) from why
    return torch

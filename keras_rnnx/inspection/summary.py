"""A summary of what an RNN user asks of a model: parameters by gate, and who computes the loop."""

from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import keras
import numpy as np

from keras_rnnx.engine import Plan
from keras_rnnx.inspection import quietly
from keras_rnnx.layers import Cell

BY_GATE = ("kernel", "recurrent_kernel", "bias", "input_gain", "recurrent_gain", "gain")


class LayerSummary(NamedTuple):
    """One recurrent layer of a model, or one cell of a list of cells.

    Attributes:
        name: as in `record`.
        cell: its class.
        output_shape: of the layer, None where it is not known.
        parameters: `{gate: number}`, of the kernels' and the bias' columns of that gate, and
            `{weight: number}` of the weights that belong to no gate.
        training, inference: the `Plan` of a traced call: `backend` and `reasons`.

    Example:

    >>> import keras, keras_rnnx
    >>> from keras_rnnx.inspection import summary
    >>> model = keras.Sequential([keras.Input((None, 3)), keras_rnnx.GRU(4, name="gru")])
    >>> (gru,) = summary(model, print_fn=lambda line: None)
    >>> gru.cell, gru.inference.backend
    ('GRUCell', 'plain')
    """

    name: str
    cell: str
    output_shape: tuple[int | None, ...]
    parameters: dict[str, int]
    training: Plan
    inference: Plan


def summary(model: keras.Model, print_fn: Callable[[str], Any] = print) -> list[LayerSummary]:
    """Prints the recurrent layers of a model: parameters by gate, backends and their reasons.

    A gate's parameters are its columns of the kernel, the recurrent kernel and the bias, under the
    letter that it has in the cell's equations; weights of no gate stand under their own names. The
    backends are those of `layer.plan` in traced calls: in `fit`, and in `predict` or an export.

    Args:
        model: a Keras model that is built.
        print_fn: function that is given each line.

    Returns:
        A list of `LayerSummary`. Layers of `keras.layers` are left out: see `model.summary()`.

    Raises:
        ValueError: for a model that has no recurrent layer of this package, or is not built.

    Example:

    >>> import keras, keras_rnnx
    >>> from keras_rnnx.inspection import summary
    >>> model = keras.Sequential([keras.Input((None, 3)), keras_rnnx.LSTM(4, name="lstm")])
    >>> rows = summary(model)  # doctest: +ELLIPSIS
    layer  cell      output     parameters  by gate                 training  inference
    lstm   LSTMCell  (None, 4)  128         i 32, f 32, g 32, o 32  ...
    >>> rows[0].parameters
    {'i': 32, 'f': 32, 'g': 32, 'o': 32}
    """
    rows = []
    for name, layer in quietly.recurrent_layers(model, "summary"):
        if not layer.built:
            raise ValueError(
                f"summary got {model.name!r}, whose layer {name!r} is not built: call it."
            )
        for k, cell in enumerate(layer.cells):
            row = LayerSummary(
                name if len(layer.cells) == 1 else f"{name}/{k}",
                type(cell).__name__,
                _output_shape(layer, cell),
                _parameters(cell),
                layer.plan(training=True, cell=cell),
                layer.plan(training=False, cell=cell),
            )
            rows.append(row)
    for line in _lines(rows):
        print_fn(line)
    return rows


def _lines(rows):
    """The table, and below it the reasons of each plan with the layers that have it."""
    table = [("layer", "cell", "output", "parameters", "by gate", "training", "inference")]
    for row in rows:
        total, each = sum(row.parameters.values()), row.parameters.items()
        by_gate = ", ".join(f"{name} {count:,}" for name, count in each)
        backends = (row.training.backend, row.inference.backend)
        table.append((row.name, row.cell, f"{row.output_shape}", f"{total:,}", by_gate, *backends))
    widths = [max(map(len, column)) for column in zip(*table)]
    for line in table:
        yield "  ".join(map(str.ljust, line, widths)).rstrip()
    for when in ("training", "inference"):
        named = {}
        for row in rows:
            named.setdefault(getattr(row, when), []).append(row.name)
        for plan, names in named.items():
            yield f"{when}, {plan.backend}: {', '.join(names)}"
            yield from (f"    {reason}" for reason in plan.reasons)


def _output_shape(layer, cell):
    size = cell.output_size if hasattr(cell, "output_size") else layer.output_size
    size = size[0] if isinstance(size, (list, tuple)) else size
    return (
        (None, None, size)
        if layer.return_sequences or cell is not layer.cells[-1]
        else (None, size)
    )


def _parameters(cell):
    """`{gate or weight: number}`."""
    inner = getattr(cell, "cell", cell)  # of an AttentionCell the one that it is around
    counts, by_gate = {}, {}
    if isinstance(inner, Cell):
        spec = inner.spec
        names = spec.gate_names
        names = list(names) if len(names) == spec.gates else [str(k) for k in range(spec.gates)]
        for name in BY_GATE:
            variable = getattr(inner, name, None)
            if (
                name in spec.weights(inner.input_dim)
                and variable.shape[-1] == spec.gates * spec.units
            ):
                by_gate[id(variable)] = names
        counts = dict.fromkeys(names, 0)  # before the weights of no gate
    for variable in cell.weights:
        names = by_gate.get(id(variable), [variable.name])
        for name in names:
            counts[name] = counts.get(name, 0) + int(np.prod(variable.shape)) // len(names)
    return counts

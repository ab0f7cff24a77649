"""Pictures of what was recorded and measured. Matplotlib is imported when one is drawn."""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from keras_rnnx.annotations import Array
from keras_rnnx.inspection.memory import Memory
from keras_rnnx.inspection.recording import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_gates(
    record: Record,
    layer: str,
    row: int = 0,
    tokens: Sequence[str] | None = None,
    signal: Array | None = None,
    axes: "Sequence[Axes] | np.ndarray | None" = None,
) -> "Figure":
    """Heat maps of the gates of a layer over the steps of one sequence, a panel for each gate.

    Steps run to the right, units downwards. What is never negative goes from dark to bright, the
    rest from blue over white to red; masked steps are grey. Steps before the first and after the
    last real one are left out.

    Args:
        record: a `Record`.
        layer: name of a layer in it, `"bidirectional/forward_lstm"`.
        row: which sequence of the batch.
        tokens: labels of the steps, a string or a list, as many as steps or as the real ones reach.
        signal: `[T]` or `[T, K]`, drawn as curves in a panel above.
        axes: list of axes, one for each panel; None makes a figure.

    Returns:
        The figure.

    Raises:
        ValueError: for a layer that was not recorded or has no gates, or too few labels or axes.
        ImportError: without matplotlib.

    Example:

    >>> import keras, keras_rnnx, numpy as np
    >>> from keras_rnnx.inspection import plot_gates, record
    >>> model = keras.Sequential([keras.Input((None, 3)), keras_rnnx.LSTM(4, name="lstm")])
    >>> found = record(model, np.ones((2, 5, 3), "float32"))
    >>> figure = plot_gates(found, "lstm", tokens="hello")
    >>> [axis.get_ylabel() for axis in figure.axes[:4]]
    ['i', 'f', 'g', 'o']
    """
    gates = record.of(layer, "gate")
    if not gates:
        raise ValueError(
            f"plot_gates got {layer!r}, which shows no gates: its states are in plot_states."
        )
    steps = _real_steps(record.masks[layer][row])
    panels = len(gates) + (signal is not None)
    if axes is None:
        width = np.clip(0.16 * (steps.stop - steps.start), 6, 14)
        figure, axes = _pyplot().subplots(
            panels,
            1,
            sharex=True,
            squeeze=False,
            figsize=(width, 1 + 1.3 * panels),
            layout="constrained",
        )
    free = list(np.ravel(np.asarray(axes)))
    if len(free) != panels:
        raise ValueError(f"plot_gates got {len(free)} axes, expected {panels}: one for each panel.")
    left, last = free[0], free[-1]
    places = np.arange(steps.start, steps.stop)
    if signal is not None:
        axis = free.pop(0)
        axis.plot(places, np.asarray(signal)[steps], marker=".", linewidth=1)
        axis.set_ylabel("signal")
    for axis, (name, values) in zip(free, gates.items(), strict=True):
        _heat(axis, values[row, steps].T, (steps.start - 0.5, steps.stop - 0.5))
        axis.set_ylabel(name)
        axis.set_yticks([0, values.shape[-1] - 1])
    left.set_title(f"{layer}: gates, units from top to bottom", fontsize="medium")
    _label_steps(last, steps, tokens)
    return last.figure


def plot_states(
    record: Record,
    layer: str,
    state: str = "h",
    row: int = 0,
    tokens: Sequence[str] | None = None,
    units: Iterable[int] | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Curves of units of a state over the steps of one sequence.

    Args:
        record: a `Record`.
        layer: name of a layer in it.
        state: `"h"`, `"c"` or whatever states the layer has.
        row: which sequence of the batch.
        tokens: labels of the steps.
        units: list of units; None takes the eight that change most.
        ax: axes to draw into; None makes a figure.

    Returns:
        The axes.

    Raises:
        ValueError: for a layer or state that was not recorded, or too few labels.
        ImportError: without matplotlib.

    Example:

    >>> import keras, keras_rnnx, numpy as np
    >>> from keras_rnnx.inspection import plot_states, record
    >>> model = keras.Sequential([keras.Input((None, 3)), keras_rnnx.LSTM(4, name="lstm")])
    >>> found = record(model, np.ones((2, 5, 3), "float32"))
    >>> plot_states(found, "lstm", "c", tokens="hello").get_ylabel()
    'c'
    """
    states = record.of(layer, "state")
    if state not in states:
        raise ValueError(f"plot_states got state={state!r}, and {layer!r} has {', '.join(states)}.")
    steps = _real_steps(record.masks[layer][row])
    values = states[state][row, steps]
    if units is None:
        units = np.sort(np.argsort(-np.ptp(values, axis=0), kind="stable")[:8])
    ax = _axes(ax, (np.clip(0.16 * len(values), 6, 14), 3.2))
    for unit in units:
        ax.plot(np.arange(steps.start, steps.stop), values[:, unit], label=f"{unit}", linewidth=1.2)
    ax.set_ylabel(state)
    ax.set_title(f"{layer}: state {state}", fontsize="medium")
    ax.legend(title="unit", fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    _label_steps(ax, steps, tokens)
    return ax


def plot_alignments(
    alignments: Array,
    source: Sequence[str] | None = None,
    target: Sequence[str] | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """One matrix of alignments: how much each step (downwards) looked at each memory position.

    Args:
        alignments: `[T, S]`, `record["decoder/rnn/alignments"][row]` or one hypothesis of
            `Seq2Seq.decode(...).alignments`.
        source: labels of the positions; what lies behind them is cut off.
        target: labels of the steps; what lies behind them is cut off.
        ax: axes to draw into; None makes a figure.

    Returns:
        The axes.

    Raises:
        ValueError: for an array of another shape, or more labels than positions or steps.
        ImportError: without matplotlib.

    Example:

    >>> import numpy as np
    >>> from keras_rnnx.inspection import plot_alignments
    >>> ax = plot_alignments(np.eye(3, 4), source="abcd", target=["A", "B", "C"])
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['A', 'B', 'C']
    """
    alignments = np.asarray(alignments)
    labels = {"target": target, "source": source}
    if alignments.ndim != 2:
        raise ValueError(
            f"plot_alignments got an array {alignments.shape}, expected [T, S]: one row of a batch."
        )
    for (name, given), size in zip(labels.items(), alignments.shape):
        if given is not None and len(given) > size:
            raise ValueError(
                f"plot_alignments got {len(given)} labels for {name}, expected at most {size} of "
                f"alignments {alignments.shape}."
            )
    T, S = (size if g is None else len(g) for g, size in zip(labels.values(), alignments.shape))
    ax = _axes(ax, (np.clip(1.6 + 0.3 * S, 3, 12), np.clip(1 + 0.3 * T, 2.4, 12)))
    picture = ax.imshow(alignments[:T, :S], cmap="Blues", vmin=0, vmax=1, aspect="auto")
    if source is not None:
        ax.set_xticks(range(S), list(source))
    if target is not None:
        ax.set_yticks(range(T), list(target))
    ax.set_xlabel("memory position")
    ax.set_ylabel("step")
    ax.figure.colorbar(picture, ax=ax, label="alignment")
    return ax


def plot_gradient_flow(flow: Mapping[str, Array], ax: "Axes | None" = None) -> "Axes":
    """Curves of gradient norms over the steps, a logarithmic scale, a curve for each layer.

    Args:
        flow: `{name: [T]}`, as `gradient_flow` gives it; those of several models may stand in one
            dict, under names of your own.
        ax: axes to draw into; None makes a figure.

    Returns:
        The axes.

    Raises:
        ImportError: without matplotlib.

    Example:

    >>> import numpy as np
    >>> from keras_rnnx.inspection import plot_gradient_flow
    >>> plot_gradient_flow({"lstm": np.array([0.01, 0.1, 1.0])}).get_yscale()
    'log'
    """
    return _curves(ax, flow, "step", "norm of the gradient")


def plot_memory(memories: Mapping[str, Memory], ax: "Axes | None" = None) -> "Axes":
    """Curves of how strongly the output depends on an input of each lag, a dot at the length.

    Args:
        memories: `{name: Memory}`, as `memory_length` gives them.
        ax: axes to draw into; None makes a figure.

    Returns:
        The axes.

    Raises:
        ImportError: without matplotlib.

    Example:

    >>> import numpy as np
    >>> from keras_rnnx.inspection import Memory, plot_memory
    >>> plot_memory({"gru": Memory(1, np.array([1.0, 0.1, 0.001]))}).get_xlabel()
    'lag in steps'
    """
    named = {f"{name}: {memory.length} steps": memory.norms for name, memory in memories.items()}
    ax = _curves(ax, named, "lag in steps", "norm of the derivative")
    for line, memory in zip(ax.get_lines()[-len(memories) :], memories.values()):
        ax.plot(memory.length, memory.norms[memory.length], "o", color=line.get_color())
    return ax


def _curves(ax, named, xlabel, ylabel):
    ax = _axes(ax, (7, 3.4))
    for name, values in named.items():
        values = np.asarray(values)
        # A logarithmic scale has no 0.
        ax.plot(np.where(values > 0, values, np.nan), label=name, linewidth=1.4)
    ax.set_yscale("log")
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.legend(fontsize="small")
    ax.grid(alpha=0.3)
    return ax


def _heat(axis, values, extent):
    """A heat map `[U, T]` with a colour bar."""
    signed = np.nanmin(values) < 0
    top = max(1.0, np.nanmax(np.abs(values)))
    units = len(values)
    picture = axis.imshow(
        values,
        cmap=_pyplot().get_cmap("RdBu_r" if signed else "viridis").with_extremes(bad="0.8"),
        vmin=-top if signed else 0,
        vmax=top,
        aspect="auto",
        interpolation="nearest",
        extent=(*extent, units - 0.5, -0.5),
    )
    axis.figure.colorbar(picture, ax=axis, pad=0.01)


def _real_steps(mask):
    """From the first to the last real step of one row."""
    real = np.flatnonzero(mask)
    if not len(real):
        raise ValueError("This row of the batch has no real step: choose another row.")
    return slice(int(real[0]), int(real[-1]) + 1)


def _label_steps(axis, steps, tokens):
    if tokens is None:
        axis.set_xlabel("step")
        return
    if len(tokens) < steps.stop:
        raise ValueError(
            f"Got {len(tokens)} tokens for a sequence whose last real step is {steps.stop - 1}, "
            "expected a label for each step up to that."
        )
    labels = list(tokens)[steps]
    wide = max(map(len, labels)) > 2
    how = dict(rotation=90) if wide else dict(verticalalignment="baseline")
    axis.set_xticks(range(steps.start, steps.stop), labels, **how)
    axis.tick_params(axis="x", pad=3 if wide else 13)


def _axes(ax, size):
    if ax is not None:
        return ax
    return _pyplot().subplots(figsize=size, layout="constrained")[1]


def _pyplot():
    try:
        import matplotlib.pyplot
    except ImportError as error:
        raise ImportError(
            "The pictures of keras_rnnx.inspection are drawn by matplotlib, which is not "
            "installed: pip install matplotlib."
        ) from error
    return matplotlib.pyplot

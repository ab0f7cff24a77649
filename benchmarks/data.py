"""The same inputs and weights for every peer, in Keras' layout and order.

Axes: B batch, T time, D input features, U units, G gates.
"""

import numpy as np

CLASSES = 10


def inputs(case):
    """x [B, T, D]; dy [B, T, U or 2U], the gradient from above; lengths [B], or None for full rows.

    For `fit` x holds the samples of an epoch and labels stand in the place of dy.
    """
    draw = np.random.default_rng(0)
    if case.group == "fit":
        samples = case.B * max(32, 96 // case.B)  # enough that the set-up of `fit` does not show
        x = draw.standard_normal((samples, case.T, case.D), np.float32)
        return x, draw.integers(0, CLASSES, samples), None
    x = draw.standard_normal((case.B, case.T, case.D), np.float32)
    dy = draw.standard_normal((case.B, case.T, case.U * case.directions), np.float32)
    if not case.padded:
        return x, dy, None
    lengths = draw.integers(1, case.T, case.B, endpoint=True)
    # Peers fill padded outputs in different ways: nothing may flow back from there.
    return x, dy * mask(lengths, case.T)[:, :, None], lengths


def mask(lengths, T):
    """[B, T], true at real steps."""
    return np.arange(T) < lengths[:, None]


def shapes(case):
    """(name, shape) of each weight: layer by layer, forward then backward, as Keras lists them."""
    return [
        (f"{name} {number}{direction}", shape)
        for number, D in enumerate(case.input_sizes())
        for direction in ("", " backward")[: case.directions]
        for name, shape in cell_shapes(case, D).items()
    ]


def cell_shapes(case, D):
    U, GU = case.U, case.gates * case.U
    bias = (2, GU) if case.cell == "GRU" else (GU,)
    more = {
        "LayerNormLSTM": {"gain x": (GU,), "gain h": (GU,), "gain c": (U,), "shift c": (U,)},
        "PeepholeLSTM": {"peephole": (3, U)},
    }
    return {"kernel": (D, GU), "recurrent": (U, GU), "bias": bias} | more.get(case.cell, {})


def weights(case):
    """A random array for each of `shapes(case)`."""
    draw = np.random.default_rng(1)
    # Matrices shrink what they multiply, so that rounding does not grow over thousands of steps.
    return [
        draw.standard_normal(shape, np.float32)
        * np.float32(0.5 / shape[0] ** 0.5 if name.startswith(("kernel", "recurrent")) else 0.1)
        for name, shape in shapes(case)
    ]


def split_weights(case, arrays):
    """Per layer, per direction: the list of its arrays."""
    per_cell = len(cell_shapes(case, case.D))
    cells = [arrays[k : k + per_cell] for k in range(0, len(arrays), per_cell)]
    return [cells[k : k + case.directions] for k in range(0, len(cells), case.directions)]


def names(case):
    """What a peer's numbers are called: the output, then in training the gradients."""
    if case.group == "fit":
        return ["predictions", "loss"]
    if not case.trains:
        return ["output"]
    return ["output", "d input"] + [f"d {name}" for name, _ in shapes(case)]

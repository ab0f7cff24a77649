"""In which order gates lie, and how many biases a cell has: one table for all frameworks.

Kernels here and in Keras are `[D, G*U]`, gates side by side in the columns; PyTorch and cuDNN keep
them transposed, gates below each other in the rows.
"""

from typing import NamedTuple


class Layout(NamedTuple):
    """The gates in order, a letter each (as in the docstrings of the cells), and the number of
    biases: two where the input's and the recurrent product have one of their own."""

    gates: str
    biases: int


LAYOUTS = {
    # Keras' GRU has two biases as its default computes it, with reset_after=True.
    "keras": {"simple": Layout("h", 1), "lstm": Layout("ifgo", 1), "gru": Layout("zrn", 2)},
    "torch": {"simple": Layout("h", 2), "lstm": Layout("ifgo", 2), "gru": Layout("rzn", 2)},
    "cudnn": {"lstm": Layout("ifgo", 2), "gru": Layout("rzn", 2)},
    # The layers CuDNNLSTM and CuDNNGRU of Keras 2: its order, the biases of cuDNN.
    "keras2_cudnn": {"lstm": Layout("ifgo", 2), "gru": Layout("zrn", 2)},
}


def places(kind, framework, among="keras"):
    """For each gate of a framework, in its order, its place among those of another one.

    >>> places("gru", "torch")
    (1, 0, 2)
    """
    ours = LAYOUTS[among][kind].gates
    return tuple(ours.index(gate) for gate in LAYOUTS[framework][kind].gates)

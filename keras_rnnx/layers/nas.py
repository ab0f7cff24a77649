"""NAS: the cell with its weights, and the layer."""

from typing import Any

import keras

from keras_rnnx.cells import NASSpec
from keras_rnnx.layers.cell import Cell
from keras_rnnx.layers.cell import arguments
from keras_rnnx.layers.named import NamedRNN


@keras.saving.register_keras_serializable(package="keras_rnnx")
class NASCell(Cell):
    """One step of the cell that architecture search found, with its weights.

    For whole sequences use `keras_rnnx.NAS`, or `keras_rnnx.RNN` over this cell.

    Equations: `keras_rnnx.cells.NASSpec`.

    Reference: Zoph and Le, "Neural Architecture Search with Reinforcement Learning", ICLR 2017
    (arXiv:1611.01578), as in TensorFlow Addons, whose states are c, h.

    Weights: kernel `[D, 8U]`, recurrent_kernel `[U, 8U]`, bias `[8U]`; with a projection to P units
    recurrent_kernel `[P, 8U]` and projection_kernel `[U, P]`.

    Args:
        units: positive integer, the size of the state and of the output.
        use_bias: whether there is a bias; it goes with the recurrent product.
        projection_units: size of the output and of the state h, which are then a projection; None
            leaves them at `units`.
        **kwargs: initializers, regularizers, constraints and noise: see `keras_rnnx.Cell`; and
            those of `keras.layers.Layer`.

    States: h, c. Call arguments and returns: `keras_rnnx.Cell`.

    Example:

    >>> import numpy as np, keras_rnnx
    >>> cell = keras_rnnx.NASCell(4)
    >>> output, states = cell(np.ones((2, 3), "float32"), cell.get_initial_state(batch_size=2))
    >>> output.shape, len(states)
    (TensorShape([2, 4]), 2)
    """

    spec_class = NASSpec

    def __init__(
        self, units: int, use_bias: bool = False, projection_units: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(arguments(locals()), **kwargs)


@keras.saving.register_keras_serializable(package="keras_rnnx")
class NAS(NamedRNN):
    """The cell that architecture search found over a sequence.

    Equations, reference, weights and arguments: `keras_rnnx.NASCell`; those of the layer, its
    call, masks and errors: `keras_rnnx.RNN`. States: h and c.

    Example:

    >>> import numpy as np, keras_rnnx
    >>> layer = keras_rnnx.NAS(4, return_sequences=True)
    >>> layer(np.ones((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 4])
    """

    cell_class = NASCell
    cell_name = "nas_cell"

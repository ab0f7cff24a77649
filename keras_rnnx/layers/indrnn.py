"""IndRNN: the cell with its weights, and the layer."""

from typing import Any

import keras

from keras_rnnx.annotations import Activation
from keras_rnnx.annotations import Initializer
from keras_rnnx.cells import IndRNNSpec
from keras_rnnx.layers.cell import Cell
from keras_rnnx.layers.cell import arguments
from keras_rnnx.layers.named import NamedRNN


@keras.saving.register_keras_serializable(package="keras_rnnx")
class IndRNNCell(Cell):
    """One step of the independently recurrent net, with its weights.

    For whole sequences use `keras_rnnx.IndRNN`, or `keras_rnnx.RNN` over this cell.

    Equations: `keras_rnnx.cells.IndRNNSpec`.

    Reference: Li et al., "Independently Recurrent Neural Network (IndRNN)", CVPR 2018
    (arXiv:1803.04831). haste has tanh in place of relu.

    Weights: kernel `[D, U]`, recurrent_kernel `[U]`, bias `[U]`.

    Args:
        units: positive integer, the size of the state and of the output.
        activation: of the state; a name, a callable or None (linear).
        use_bias: whether there is a bias.
        recurrent_initializer: None draws from 0 to 1, as the authors do with relu; over many steps
            a constraint should hold the numbers below `2 ** (1 / steps)`.
        **kwargs: initializers, regularizers, constraints and noise: see `keras_rnnx.Cell`; and
            those of `keras.layers.Layer`.

    States: h. Call arguments and returns: `keras_rnnx.Cell`.

    Example:

    >>> import numpy as np, keras_rnnx
    >>> cell = keras_rnnx.IndRNNCell(4)
    >>> output, states = cell(np.ones((2, 3), "float32"), cell.get_initial_state(batch_size=2))
    >>> output.shape, len(states)
    (TensorShape([2, 4]), 1)
    """

    spec_class = IndRNNSpec

    def __init__(
        self,
        units: int,
        activation: Activation = "relu",
        use_bias: bool = True,
        recurrent_initializer: Initializer = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(arguments(locals()), **kwargs)

    def initializer(self, name: str, role: str) -> Initializer:
        if role == "recurrent" and self.recurrent_initializer is None:
            return keras.initializers.RandomUniform(0.0, 1.0)
        return super().initializer(name, role)


@keras.saving.register_keras_serializable(package="keras_rnnx")
class IndRNN(NamedRNN):
    """The independently recurrent net over a sequence.

    Equations, reference, weights and arguments: `keras_rnnx.IndRNNCell`; those of the layer, its
    call, masks and errors: `keras_rnnx.RNN`. States: h.

    Example:

    >>> import numpy as np, keras_rnnx
    >>> layer = keras_rnnx.IndRNN(4, return_sequences=True)
    >>> layer(np.ones((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 4])
    """

    cell_class = IndRNNCell
    cell_name = "ind_rnn_cell"

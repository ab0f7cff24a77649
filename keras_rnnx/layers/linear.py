"""minGRU, minLSTM and RG-LRU: linear recurrences, as cells with their weights, and as layers."""

from typing import Any

import keras

from keras_rnnx.annotations import Initializer
from keras_rnnx.cells import MinGRUSpec
from keras_rnnx.cells import MinLSTMSpec
from keras_rnnx.cells import RGLRUSpec
from keras_rnnx.layers.cell import Cell
from keras_rnnx.layers.cell import arguments
from keras_rnnx.layers.named import NamedRNN


@keras.saving.register_keras_serializable(package="keras_rnnx")
class MinGRUCell(Cell):
    """One step of the minimal GRU, with its weights.

    For whole sequences use `keras_rnnx.MinGRU`, or `keras_rnnx.RNN` over this cell.

    Equations: `keras_rnnx.cells.MinGRUSpec`.

    Reference: Feng et al., "Were RNNs All We Needed?", arXiv:2410.01201 (2024); values may have any
    sign, without the paper's logarithms.

    Weights: kernel `[D, 2U]`, bias `[2U]`, columns z (share of what is new), candidate.

    Args:
        units: positive integer, the size of the state and of the output.
        use_bias: whether there is a bias.
        **kwargs: initializers, regularizers, constraints and noise: see `keras_rnnx.Cell`; and
            those of `keras.layers.Layer`.

    States: h. Call arguments and returns: `keras_rnnx.Cell`.

    Example:

    >>> import numpy as np, keras_rnnx
    >>> cell = keras_rnnx.MinGRUCell(4)
    >>> output, states = cell(np.ones((2, 3), "float32"), cell.get_initial_state(batch_size=2))
    >>> output.shape, len(states)
    (TensorShape([2, 4]), 1)
    """

    spec_class = MinGRUSpec

    def __init__(self, units: int, use_bias: bool = True, **kwargs: Any) -> None:
        super().__init__(arguments(locals()), **kwargs)


@keras.saving.register_keras_serializable(package="keras_rnnx")
class MinGRU(NamedRNN):
    """The minimal GRU over a sequence.

    Equations, reference, weights and arguments: `keras_rnnx.MinGRUCell`; those of the layer, its
    call, masks and errors: `keras_rnnx.RNN`. States: h.

    Example:

    >>> import numpy as np, keras_rnnx
    >>> layer = keras_rnnx.MinGRU(4, return_sequences=True)
    >>> layer(np.ones((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 4])
    """

    cell_class = MinGRUCell
    cell_name = "min_gru_cell"


@keras.saving.register_keras_serializable(package="keras_rnnx")
class MinLSTMCell(Cell):
    """One step of the minimal LSTM, with its weights.

    For whole sequences use `keras_rnnx.MinLSTM`, or `keras_rnnx.RNN` over this cell.

    Equations: `keras_rnnx.cells.MinLSTMSpec`.

    Reference: Feng et al., "Were RNNs All We Needed?", arXiv:2410.01201 (2024); values may have any
    sign, without the paper's logarithms.

    Weights: kernel `[D, 3U]`, bias `[3U]`, columns f, i, candidate.

    Args:
        units: positive integer, the size of the state and of the output.
        use_bias: whether there is a bias.
        **kwargs: initializers, regularizers, constraints and noise: see `keras_rnnx.Cell`; and
            those of `keras.layers.Layer`.

    States: h. Call arguments and returns: `keras_rnnx.Cell`.

    Example:

    >>> import numpy as np, keras_rnnx
    >>> cell = keras_rnnx.MinLSTMCell(4)
    >>> output, states = cell(np.ones((2, 3), "float32"), cell.get_initial_state(batch_size=2))
    >>> output.shape, len(states)
    (TensorShape([2, 4]), 1)
    """

    spec_class = MinLSTMSpec

    def __init__(self, units: int, use_bias: bool = True, **kwargs: Any) -> None:
        super().__init__(arguments(locals()), **kwargs)


@keras.saving.register_keras_serializable(package="keras_rnnx")
class MinLSTM(NamedRNN):
    """The minimal LSTM over a sequence.

    Equations, reference, weights and arguments: `keras_rnnx.MinLSTMCell`; those of the layer, its
    call, masks and errors: `keras_rnnx.RNN`. States: h.

    Example:

    >>> import numpy as np, keras_rnnx
    >>> layer = keras_rnnx.MinLSTM(4, return_sequences=True)
    >>> layer(np.ones((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 4])
    """

    cell_class = MinLSTMCell
    cell_name = "min_lstm_cell"


@keras.saving.register_keras_serializable(package="keras_rnnx")
class RGLRUCell(Cell):
    """One step of the real-gated linear recurrent unit, with its weights.

    For whole sequences use `keras_rnnx.RGLRU`, or `keras_rnnx.RNN` over this cell.

    Equations: `keras_rnnx.cells.RGLRUSpec`.

    Reference: De et al., "Griffin: Mixing Gated Linear Recurrences with Local Attention for
    Efficient Language Models", arXiv:2402.19427 (2024).

    Weights: kernel `[U, 2U]`, bias `[2U]`, columns r (recurrence gate), i (input gate); decay
    `[U]`, the paper's Lambda, drawn so that `sigmoid(decay) ** c` lies between 0.9 and 0.999. The
    input has as many features as units.

    The state is carried in the compute dtype, as in every cell here: in bfloat16 a decay near 1 is
    rounded, and over thousands of steps this shows. Griffin carries it in float32.

    Args:
        units: positive integer, the size of the state and of the output.
        use_bias: whether there is a bias.
        c: the exponent that the recurrence gate scales.
        **kwargs: initializers, regularizers, constraints and noise: see `keras_rnnx.Cell`; and
            those of `keras.layers.Layer`.

    States: h. Call arguments and returns: `keras_rnnx.Cell`.

    Example:

    >>> import numpy as np, keras_rnnx
    >>> cell = keras_rnnx.RGLRUCell(4)
    >>> output, states = cell(np.ones((2, 4), "float32"), cell.get_initial_state(batch_size=2))
    >>> output.shape, len(states)
    (TensorShape([2, 4]), 1)
    """

    spec_class = RGLRUSpec

    def __init__(self, units: int, use_bias: bool = True, c: float = 8.0, **kwargs: Any) -> None:
        super().__init__(arguments(locals()), **kwargs)

    def initializer(self, name: str, role: str) -> Initializer:
        if name != "decay":
            return super().initializer(name, role)

        uniform = keras.initializers.RandomUniform(0.9, 0.999, seed=self.seed)

        def decay(shape, dtype=None):
            a = uniform(shape, dtype=dtype) ** (1 / self.c)
            return keras.ops.log(a / (1 - a))

        return decay


@keras.saving.register_keras_serializable(package="keras_rnnx")
class RGLRU(NamedRNN):
    """The real-gated linear recurrent unit over a sequence.

    Equations, reference, weights and arguments: `keras_rnnx.RGLRUCell`; those of the layer, its
    call, masks and errors: `keras_rnnx.RNN`. States: h.

    Example:

    >>> import numpy as np, keras_rnnx
    >>> layer = keras_rnnx.RGLRU(4, return_sequences=True)
    >>> layer(np.ones((2, 5, 4), "float32")).shape
    TensorShape([2, 5, 4])
    """

    cell_class = RGLRUCell
    cell_name = "rglru_cell"

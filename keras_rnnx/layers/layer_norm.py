"""LSTM, GRU and SimpleRNN with layer normalization."""

from collections.abc import Sequence
from typing import Any
from typing import Literal

import keras

from keras_rnnx.annotations import Activation
from keras_rnnx.annotations import Initializer
from keras_rnnx.cells import Around
from keras_rnnx.cells import CellSpec
from keras_rnnx.cells import LayerNormGRUSpec
from keras_rnnx.cells import LayerNormLSTMSpec
from keras_rnnx.cells import LayerNormSimpleSpec
from keras_rnnx.layers import checks
from keras_rnnx.layers.cell import Cell
from keras_rnnx.layers.cell import arguments
from keras_rnnx.layers.lstm import forget_bias
from keras_rnnx.layers.named import NamedRNN


class NormalizedCell(Cell):
    """Base: reads `normalize` as a tuple."""

    normalize: str | Sequence[str]  # as it was given, then a tuple
    parts: tuple[str, ...] = ("input", "recurrent")

    def make_spec(self) -> CellSpec | Around:
        given = (self.normalize,) if isinstance(self.normalize, str) else tuple(self.normalize)
        for part in given:
            checks.one_of("normalize", part, self.parts)
        self.normalize = given
        return super().make_spec()


@keras.saving.register_keras_serializable(package="keras_rnnx")
class LayerNormLSTMCell(NormalizedCell):
    """One step of the LSTM with layer normalization, with its weights.

    For whole sequences use `keras_rnnx.LayerNormLSTM`, or `keras_rnnx.RNN` over this cell.

    Equations: `keras_rnnx.cells.LayerNormLSTMSpec`.

    Reference: Ba, Kiros and Hinton, "Layer Normalization", arXiv:1607.06450 (2016), equations 20 to
    22.

    Weights: kernel `[D, 4U]`, recurrent_kernel `[U, 4U]`, bias `[4U]`, gates in the order i, f, c,
    o; input_gain `[4U]`, recurrent_gain `[4U]`, cell_gain `[U]`, cell_shift `[U]` of what is
    normalized.

    Args:
        units: positive integer, the size of the state and of the output.
        activation: of the candidate and of the state on its way out; a name, a callable or None
            (linear).
        recurrent_activation: of the gates.
        use_bias: whether there is a bias.
        unit_forget_bias: start the forget gate's bias at 1.
        normalize: what is normalized, any of "input", "recurrent" and "cell".
        epsilon: is added to the variance.
        carry: `"raw"`, the cell state goes to the next step as it is, as in the paper and in haste;
            `"normalized"`, after its normalization, as in TensorFlow Addons.
        **kwargs: initializers, regularizers, constraints and noise: see `keras_rnnx.Cell`; and
            those of `keras.layers.Layer`.

    States: h, c. Call arguments and returns: `keras_rnnx.Cell`.

    Example:

    >>> import numpy as np, keras_rnnx
    >>> cell = keras_rnnx.LayerNormLSTMCell(4)
    >>> output, states = cell(np.ones((2, 3), "float32"), cell.get_initial_state(batch_size=2))
    >>> output.shape, len(states)
    (TensorShape([2, 4]), 2)
    """

    spec_class = LayerNormLSTMSpec
    parts = ("input", "recurrent", "cell")

    def __init__(
        self,
        units: int,
        activation: Activation = "tanh",
        recurrent_activation: Activation = "sigmoid",
        use_bias: bool = True,
        unit_forget_bias: bool = True,
        normalize: str | Sequence[str] = ("input", "recurrent", "cell"),
        epsilon: float = 1e-5,
        carry: Literal["raw", "normalized"] = "raw",
        **kwargs: Any,
    ) -> None:
        super().__init__(arguments(locals()), **kwargs)

    def make_spec(self) -> CellSpec | Around:
        checks.one_of("carry", self.carry, ("raw", "normalized"))
        return super().make_spec()

    def initializer(self, name: str, role: str) -> Initializer:
        if name == "bias" and self.unit_forget_bias:
            return forget_bias(self)
        if name == "cell_shift":
            return "zeros"
        return super().initializer(name, role)


@keras.saving.register_keras_serializable(package="keras_rnnx")
class LayerNormLSTM(NamedRNN):
    """The LSTM with layer normalization over a sequence.

    Equations, reference, weights and arguments: `keras_rnnx.LayerNormLSTMCell`; those of the layer,
    its call, masks and errors: `keras_rnnx.RNN`. States: h and c.

    Example:

    >>> import numpy as np, keras_rnnx
    >>> layer = keras_rnnx.LayerNormLSTM(4, return_sequences=True)
    >>> layer(np.ones((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 4])
    """

    cell_class = LayerNormLSTMCell
    cell_name = "layer_norm_lstm_cell"


@keras.saving.register_keras_serializable(package="keras_rnnx")
class LayerNormGRUCell(NormalizedCell):
    """One step of the GRU with layer normalization, with its weights.

    For whole sequences use `keras_rnnx.LayerNormGRU`, or `keras_rnnx.RNN` over this cell.

    Equations: `keras_rnnx.cells.LayerNormGRUSpec`.

    Reference: Ba, Kiros and Hinton, "Layer Normalization", arXiv:1607.06450 (2016); as in haste,
    each product is normalized as a whole.

    Weights: kernel `[D, 3U]`, recurrent_kernel `[U, 3U]`, bias `[2, 3U]` (input, recurrent), gates
    in the order z, r, h; input_gain `[3U]`, recurrent_gain `[3U]`.

    Args:
        units: positive integer, the size of the state and of the output.
        activation: of the candidate; a name, a callable or None (linear).
        recurrent_activation: of the gates.
        use_bias: whether there is a bias.
        normalize: what is normalized, any of "input" and "recurrent".
        epsilon: is added to the variance.
        **kwargs: initializers, regularizers, constraints and noise: see `keras_rnnx.Cell`; and
            those of `keras.layers.Layer`.

    States: h. Call arguments and returns: `keras_rnnx.Cell`.

    Example:

    >>> import numpy as np, keras_rnnx
    >>> cell = keras_rnnx.LayerNormGRUCell(4)
    >>> output, states = cell(np.ones((2, 3), "float32"), cell.get_initial_state(batch_size=2))
    >>> output.shape, len(states)
    (TensorShape([2, 4]), 1)
    """

    spec_class = LayerNormGRUSpec

    def __init__(
        self,
        units: int,
        activation: Activation = "tanh",
        recurrent_activation: Activation = "sigmoid",
        use_bias: bool = True,
        normalize: str | Sequence[str] = ("input", "recurrent"),
        epsilon: float = 1e-5,
        **kwargs: Any,
    ) -> None:
        super().__init__(arguments(locals()), **kwargs)


@keras.saving.register_keras_serializable(package="keras_rnnx")
class LayerNormGRU(NamedRNN):
    """The GRU with layer normalization over a sequence.

    Equations, reference, weights and arguments: `keras_rnnx.LayerNormGRUCell`; those of the layer,
    its call, masks and errors: `keras_rnnx.RNN`. States: h.

    Example:

    >>> import numpy as np, keras_rnnx
    >>> layer = keras_rnnx.LayerNormGRU(4, return_sequences=True)
    >>> layer(np.ones((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 4])
    """

    cell_class = LayerNormGRUCell
    cell_name = "layer_norm_gru_cell"


@keras.saving.register_keras_serializable(package="keras_rnnx")
class LayerNormSimpleRNNCell(Cell):
    """One step of the plain recurrent cell with layer normalization, with its weights.

    For whole sequences use `keras_rnnx.LayerNormSimpleRNN`, or `keras_rnnx.RNN` over this cell.

    Equations: `keras_rnnx.cells.LayerNormSimpleSpec`.

    Reference: Ba, Kiros and Hinton, "Layer Normalization", arXiv:1607.06450 (2016), equation 4, as
    in TensorFlow Addons.

    Weights: kernel `[D, U]`, recurrent_kernel `[U, U]`, bias `[U]`, gain `[U]`.

    Args:
        units: positive integer, the size of the state and of the output.
        activation: of the state; a name, a callable or None (linear).
        use_bias: whether there is a bias.
        epsilon: is added to the variance.
        **kwargs: initializers, regularizers, constraints and noise: see `keras_rnnx.Cell`; and
            those of `keras.layers.Layer`.

    States: h. Call arguments and returns: `keras_rnnx.Cell`.

    Example:

    >>> import numpy as np, keras_rnnx
    >>> cell = keras_rnnx.LayerNormSimpleRNNCell(4)
    >>> output, states = cell(np.ones((2, 3), "float32"), cell.get_initial_state(batch_size=2))
    >>> output.shape, len(states)
    (TensorShape([2, 4]), 1)
    """

    spec_class = LayerNormSimpleSpec

    def __init__(
        self,
        units: int,
        activation: Activation = "tanh",
        use_bias: bool = True,
        epsilon: float = 1e-5,
        **kwargs: Any,
    ) -> None:
        super().__init__(arguments(locals()), **kwargs)


@keras.saving.register_keras_serializable(package="keras_rnnx")
class LayerNormSimpleRNN(NamedRNN):
    """The plain recurrent net with layer normalization over a sequence.

    Equations, reference, weights and arguments: `keras_rnnx.LayerNormSimpleRNNCell`; those of the
    layer, its call, masks and errors: `keras_rnnx.RNN`. States: h.

    Example:

    >>> import numpy as np, keras_rnnx
    >>> layer = keras_rnnx.LayerNormSimpleRNN(4, return_sequences=True)
    >>> layer(np.ones((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 4])
    """

    cell_class = LayerNormSimpleRNNCell
    cell_name = "layer_norm_simple_rnn_cell"

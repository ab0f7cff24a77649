"""LSTM: the cell with its weights, and the layer."""

from typing import Any
from typing import Literal

import keras

from keras_rnnx.annotations import Activation
from keras_rnnx.annotations import Constraint
from keras_rnnx.annotations import Initializer
from keras_rnnx.annotations import Regularizer
from keras_rnnx.cells import Around
from keras_rnnx.cells import CellSpec
from keras_rnnx.cells import LSTMSpec
from keras_rnnx.engine import Backward
from keras_rnnx.layers import checks
from keras_rnnx.layers.cell import Cell
from keras_rnnx.layers.cell import arguments
from keras_rnnx.layers.named import NamedRNN


@keras.saving.register_keras_serializable(package="keras_rnnx")
class LSTMCell(Cell):
    """One step of the long short-term memory, with its weights.

    For whole sequences use `keras_rnnx.LSTM`, or `keras_rnnx.RNN` over this cell.

    Equations (`x` is the projected input, `x W + b`; `gate` is the recurrent activation):

        i, f, g, o = product("recurrent_kernel", h, plus=x, pieces=4)
        i, f = gate(i), gate(f)
        g = self.activation(g)
        c = f * c + i * product.candidate(g)
        o = gate(o)
        h = o * self.activation(c)

    Options add peepholes, coupled gates, clipping, and a projection,
    `h = product("projection_kernel", h)` (Sak et al., 2014): `keras_rnnx.cells.LSTMSpec`.

    Reference: Hochreiter and Schmidhuber, Neural Computation 9 (1997); forget gate: Gers,
    Schmidhuber and Cummins, Neural Computation 12 (2000).

    Weights: kernel `[D, 4U]`, recurrent_kernel `[U, 4U]`, bias `[4U]`, gates in the order i, f,
    c, o; then peephole_kernel `[3, U]` of i, f and o; with a projection to P units recurrent_kernel
    `[P, 4U]` and projection_kernel `[U, P]`. With coupled gates f is missing in all of them.

    Args:
        units: positive integer, the size of the state and of the output.
        activation: of the candidate and of the state on its way out; a name, a callable or None
            (linear).
        recurrent_activation: of the gates.
        use_bias: whether there is a bias.
        kernel_initializer, recurrent_initializer, bias_initializer: of the weights.
        unit_forget_bias: start the forget gate's bias at 1 (Jozefowicz et al., 2015).
        kernel_regularizer, recurrent_regularizer, bias_regularizer: penalties on the weights.
        kernel_constraint, recurrent_constraint, bias_constraint: applied after each update.
        dropout: rate at which input features are dropped in training, one mask per sample for
            all steps and gates.
        recurrent_dropout: the same for what enters the recurrent products (Gal and Ghahramani,
            2016). The state itself is not dropped.
        seed: of the dropout masks.
        projection_units: size of the output and of the state h, which are then a projection; None
            leaves them at `units`.
        peephole: the gates see the cell state: input and forget gate the old one, output gate the
            new one (Gers et al., 2002).
        coupled: the forget gate is 1 minus the input gate (Greff et al., 2017).
        cell_clip, projection_clip: positive numbers beyond which c, and a projected h, are clipped;
            None leaves them.
        **kwargs: `dropout_mode`, `recurrent_dropout_mode`, `zoneout`, `weight_dropout`: see
            `keras_rnnx.Cell`; and those of `keras.layers.Layer`.

    Call arguments:
        inputs: `[B, D]`.
        states: list of the states (h and c), `[B, U]` each.
        training: refused with dropout, whose masks belong to a sequence.

    Returns:
        The output `[B, U]` and the list of new states.

    Example:

    >>> import numpy as np, keras_rnnx
    >>> cell = keras_rnnx.LSTMCell(4)
    >>> output, states = cell(np.ones((2, 3), "float32"), cell.get_initial_state(batch_size=2))
    >>> output.shape, len(states)
    (TensorShape([2, 4]), 2)
    """

    spec_class = LSTMSpec

    def __init__(
        self,
        units: int,
        activation: Activation = "tanh",
        recurrent_activation: Activation = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Initializer = "glorot_uniform",
        recurrent_initializer: Initializer = "orthogonal",
        bias_initializer: Initializer = "zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer: Regularizer = None,
        recurrent_regularizer: Regularizer = None,
        bias_regularizer: Regularizer = None,
        kernel_constraint: Constraint = None,
        recurrent_constraint: Constraint = None,
        bias_constraint: Constraint = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        projection_units: int | None = None,
        peephole: bool = False,
        coupled: bool = False,
        cell_clip: float | None = None,
        projection_clip: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(arguments(locals()), **kwargs)

    def make_spec(self) -> CellSpec | Around:
        if self.projection_units is not None:
            checks.positive("projection_units", self.projection_units)
        checks.limit("cell_clip", self.cell_clip)
        checks.limit("projection_clip", self.projection_clip)
        if self.projection_clip and not self.projection_units:
            raise ValueError(
                f"{type(self).__name__} got projection_clip={self.projection_clip} without "
                "projection_units: there is no projection to clip. Give its size, or leave it out."
            )
        return super().make_spec()

    def initializer(self, name: str, role: str) -> Initializer:
        if name == "bias" and self.unit_forget_bias and not self.coupled:
            return forget_bias(self)
        return super().initializer(name, role)


def forget_bias(cell):
    """The initializer of a bias `[4U]` whose forget gate starts at 1."""

    def bias(shape, *args, **kwargs):
        start = lambda gates: cell.bias_initializer((gates * cell.units,), *args, **kwargs)
        ones = keras.initializers.Ones()((cell.units,), *args, **kwargs)
        return keras.ops.concatenate([start(1), ones, start(2)])

    return bias


@keras.saving.register_keras_serializable(package="keras_rnnx")
class LSTM(NamedRNN):
    """Long short-term memory over a sequence. Drop-in for `keras.layers.LSTM`.

    Equations, reference and weights: `keras_rnnx.LSTMCell`. States: h and c.

    Args:
        units: positive integer, the size of the state and of the output.
        activation: of the candidate and of the state on its way out; a name, a callable or None
            (linear).
        recurrent_activation: of the gates.
        use_bias: whether there is a bias.
        kernel_initializer, recurrent_initializer, bias_initializer: of the weights.
        unit_forget_bias: start the forget gate's bias at 1 (Jozefowicz et al., 2015).
        kernel_regularizer, recurrent_regularizer, bias_regularizer: penalties on the weights.
        kernel_constraint, recurrent_constraint, bias_constraint: applied after each update.
        dropout: rate at which input features are dropped in training, one mask per sample for
            all steps and gates.
        recurrent_dropout: the same for what enters the recurrent products (Gal and Ghahramani,
            2016). The state itself is not dropped.
        seed: of the dropout masks.
        projection_units: size of the output and of the state h, which are then a projection; None
            leaves them at `units`.
        peephole: the gates see the cell state: input and forget gate the old one, output gate the
            new one (Gers et al., 2002).
        coupled: the forget gate is 1 minus the input gate (Greff et al., 2017).
        cell_clip, projection_clip: positive numbers beyond which c, and a projected h, are clipped;
            None leaves them.
        activity_regularizer: penalty on the output.
        use_cudnn: `"auto"` lets cuDNN run on a GPU what it can, in training and in eager calls;
            `True` in graphs traced for inference too, whose export then needs a GPU, and is
            refused where cuDNN cannot run the layer; `False` never.
        return_sequences, return_state, go_backwards, stateful, unroll, zero_output_for_mask,
        jit_compile, backward, batch_parts, return_ragged, save_states: see `keras_rnnx.RNN`.
        **kwargs: `dropout_mode`, `recurrent_dropout_mode`, `zoneout`, `weight_dropout`: see
            `keras_rnnx.Cell`; and those of `keras.layers.Layer`.

    Call arguments, returns, masks and errors: see `keras_rnnx.RNN`.

    Example:

    >>> import numpy as np, keras_rnnx
    >>> x = np.ones((2, 5, 3), "float32")
    >>> keras_rnnx.LSTM(4)(x).shape
    TensorShape([2, 4])
    >>> mask = np.array([[True, True, True, False, False]] * 2)
    >>> layer = keras_rnnx.LSTM(4, return_sequences=True, return_state=True)
    >>> outputs, *states = layer(x, mask=mask)
    >>> outputs.shape, len(states)
    (TensorShape([2, 5, 4]), 2)
    """

    cell_class = LSTMCell
    cell_name = "lstm_cell"

    def __init__(
        self,
        units: int,
        activation: Activation = "tanh",
        recurrent_activation: Activation = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Initializer = "glorot_uniform",
        recurrent_initializer: Initializer = "orthogonal",
        bias_initializer: Initializer = "zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer: Regularizer = None,
        recurrent_regularizer: Regularizer = None,
        bias_regularizer: Regularizer = None,
        activity_regularizer: Regularizer = None,
        kernel_constraint: Constraint = None,
        recurrent_constraint: Constraint = None,
        bias_constraint: Constraint = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool | Literal["any_batch"] = False,
        unroll: bool = False,
        use_cudnn: bool | Literal["auto"] = "auto",
        zero_output_for_mask: bool = False,
        jit_compile: bool | Literal["auto"] = "auto",
        backward: Literal["full", "autodiff"] | Backward = "full",
        batch_parts: int = 2,
        return_ragged: bool = False,
        save_states: bool = False,
        projection_units: int | None = None,
        peephole: bool = False,
        coupled: bool = False,
        cell_clip: float | None = None,
        projection_clip: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**arguments(locals()), **kwargs)

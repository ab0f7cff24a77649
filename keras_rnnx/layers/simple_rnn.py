"""SimpleRNN: the plain recurrent cell with its weights, and the layer."""

from typing import Any
from typing import Literal

import keras

from keras_rnnx.annotations import Activation
from keras_rnnx.annotations import Constraint
from keras_rnnx.annotations import Initializer
from keras_rnnx.annotations import Regularizer
from keras_rnnx.cells import SimpleSpec
from keras_rnnx.engine import Backward
from keras_rnnx.layers.cell import Cell
from keras_rnnx.layers.cell import arguments
from keras_rnnx.layers.named import NamedRNN


@keras.saving.register_keras_serializable(package="keras_rnnx")
class SimpleRNNCell(Cell):
    """One step of the plain (Elman) recurrence, with its weights.

    For whole sequences use `keras_rnnx.SimpleRNN`, or `keras_rnnx.RNN` over this cell.

    Equations (`x` is the projected input, `x W + b`):

        h = self.activation(product("recurrent_kernel", h, plus=x))

    Reference: Elman, Cognitive Science 14 (1990).

    Weights: kernel `[D, U]`, recurrent_kernel `[U, U]`, bias `[U]`.

    Args:
        units: positive integer, the size of the state and of the output.
        activation: of the state; a name, a callable or None (linear).
        use_bias: whether there is a bias.
        kernel_initializer, recurrent_initializer, bias_initializer: of the weights.
        kernel_regularizer, recurrent_regularizer, bias_regularizer: penalties on the weights.
        kernel_constraint, recurrent_constraint, bias_constraint: applied after each update.
        dropout: rate at which input features are dropped in training, one mask per sample for
            all steps and gates.
        recurrent_dropout: the same for what enters the recurrent products (Gal and Ghahramani,
            2016). The state itself is not dropped.
        seed: of the dropout masks.
        **kwargs: `dropout_mode`, `recurrent_dropout_mode`, `zoneout`, `weight_dropout`: see
            `keras_rnnx.Cell`; and those of `keras.layers.Layer`.

    Call arguments:
        inputs: `[B, D]`.
        states: list of the states (h), `[B, U]` each.
        training: refused with dropout, whose masks belong to a sequence.

    Returns:
        The output `[B, U]` and the list of new states.

    Example:

    >>> import numpy as np, keras_rnnx
    >>> cell = keras_rnnx.SimpleRNNCell(4)
    >>> output, states = cell(np.ones((2, 3), "float32"), cell.get_initial_state(batch_size=2))
    >>> output.shape, len(states)
    (TensorShape([2, 4]), 1)
    """

    spec_class = SimpleSpec

    def __init__(
        self,
        units: int,
        activation: Activation = "tanh",
        use_bias: bool = True,
        kernel_initializer: Initializer = "glorot_uniform",
        recurrent_initializer: Initializer = "orthogonal",
        bias_initializer: Initializer = "zeros",
        kernel_regularizer: Regularizer = None,
        recurrent_regularizer: Regularizer = None,
        bias_regularizer: Regularizer = None,
        kernel_constraint: Constraint = None,
        recurrent_constraint: Constraint = None,
        bias_constraint: Constraint = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(arguments(locals()), **kwargs)


@keras.saving.register_keras_serializable(package="keras_rnnx")
class SimpleRNN(NamedRNN):
    """Plain (Elman) recurrence over a sequence. Drop-in for `keras.layers.SimpleRNN`.

    Equations, reference and weights: `keras_rnnx.SimpleRNNCell`. States: h.

    Args:
        units: positive integer, the size of the state and of the output.
        activation: of the state; a name, a callable or None (linear).
        use_bias: whether there is a bias.
        kernel_initializer, recurrent_initializer, bias_initializer: of the weights.
        kernel_regularizer, recurrent_regularizer, bias_regularizer: penalties on the weights.
        kernel_constraint, recurrent_constraint, bias_constraint: applied after each update.
        dropout: rate at which input features are dropped in training, one mask per sample for
            all steps and gates.
        recurrent_dropout: the same for what enters the recurrent products (Gal and Ghahramani,
            2016). The state itself is not dropped.
        seed: of the dropout masks.
        activity_regularizer: penalty on the output.
        return_sequences, return_state, go_backwards, stateful, unroll, zero_output_for_mask,
        jit_compile, backward, batch_parts, return_ragged, save_states: see `keras_rnnx.RNN`.
        **kwargs: `dropout_mode`, `recurrent_dropout_mode`, `zoneout`, `weight_dropout`: see
            `keras_rnnx.Cell`; and those of `keras.layers.Layer`.

    Call arguments, returns, masks and errors: see `keras_rnnx.RNN`.

    Example:

    >>> import numpy as np, keras_rnnx
    >>> x = np.ones((2, 5, 3), "float32")
    >>> keras_rnnx.SimpleRNN(4)(x).shape
    TensorShape([2, 4])
    >>> mask = np.array([[True, True, True, False, False]] * 2)
    >>> layer = keras_rnnx.SimpleRNN(4, return_sequences=True, return_state=True)
    >>> outputs, *states = layer(x, mask=mask)
    >>> outputs.shape, len(states)
    (TensorShape([2, 5, 4]), 1)
    """

    cell_class = SimpleRNNCell
    cell_name = "simple_rnn_cell"

    def __init__(
        self,
        units: int,
        activation: Activation = "tanh",
        use_bias: bool = True,
        kernel_initializer: Initializer = "glorot_uniform",
        recurrent_initializer: Initializer = "orthogonal",
        bias_initializer: Initializer = "zeros",
        kernel_regularizer: Regularizer = None,
        recurrent_regularizer: Regularizer = None,
        bias_regularizer: Regularizer = None,
        activity_regularizer: Regularizer = None,
        kernel_constraint: Constraint = None,
        recurrent_constraint: Constraint = None,
        bias_constraint: Constraint = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool | Literal["any_batch"] = False,
        unroll: bool = False,
        seed: int | None = None,
        zero_output_for_mask: bool = False,
        jit_compile: bool | Literal["auto"] = "auto",
        backward: Literal["full", "autodiff"] | Backward = "full",
        batch_parts: int = 2,
        return_ragged: bool = False,
        save_states: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**arguments(locals()), **kwargs)

"""SimpleRNN: the plain recurrent cell with its weights, and the layer."""

import keras

from keras_rnnx.cells import SimpleSpec
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
        units,
        activation="tanh",
        use_bias=True,
        kernel_initializer="glorot_uniform",
        recurrent_initializer="orthogonal",
        bias_initializer="zeros",
        kernel_regularizer=None,
        recurrent_regularizer=None,
        bias_regularizer=None,
        kernel_constraint=None,
        recurrent_constraint=None,
        bias_constraint=None,
        dropout=0.0,
        recurrent_dropout=0.0,
        seed=None,
        **kwargs,
    ):
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
        units,
        activation="tanh",
        use_bias=True,
        kernel_initializer="glorot_uniform",
        recurrent_initializer="orthogonal",
        bias_initializer="zeros",
        kernel_regularizer=None,
        recurrent_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        kernel_constraint=None,
        recurrent_constraint=None,
        bias_constraint=None,
        dropout=0.0,
        recurrent_dropout=0.0,
        return_sequences=False,
        return_state=False,
        go_backwards=False,
        stateful=False,
        unroll=False,
        seed=None,
        zero_output_for_mask=False,
        jit_compile="auto",
        backward="full",
        batch_parts=2,
        return_ragged=False,
        save_states=False,
        **kwargs,
    ):
        super().__init__(**arguments(locals()), **kwargs)

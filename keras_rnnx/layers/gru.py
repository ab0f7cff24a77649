"""GRU: the cell with its weights, and the layer."""

from typing import Any
from typing import Literal

import keras

from keras_rnnx.annotations import Activation
from keras_rnnx.annotations import Constraint
from keras_rnnx.annotations import Initializer
from keras_rnnx.annotations import Regularizer
from keras_rnnx.cells import GRUSpec
from keras_rnnx.engine import Backward
from keras_rnnx.layers.cell import Cell
from keras_rnnx.layers.cell import arguments
from keras_rnnx.layers.named import NamedRNN


@keras.saving.register_keras_serializable(package="keras_rnnx")
class GRUCell(Cell):
    """One step of the gated recurrent unit, with its weights.

    For whole sequences use `keras_rnnx.GRU`, or `keras_rnnx.RNN` over this cell.

    Equations (`x` is the projected input, `x W + b`; `gate` is the recurrent activation):

        xz, xr, xn = tf.split(x, 3, axis=-1)
        pz, pr, pn = product("recurrent_kernel", h, bias=bias, pieces=3)
        z, r = gate(xz + pz), gate(xr + pr)
        n = self.activation(xn + r * pn)
        h = z * h + (1 - z) * product.candidate(n)

    and without `reset_after`, `n = self.activation(xn + product("candidate", r * h))`.

    Reference: Cho et al., EMNLP 2014 (arXiv:1406.1078).

    Weights: kernel `[D, 3U]`, recurrent_kernel `[U, 3U]`, bias `[2, 3U]` (`[3U]` without
    `reset_after`), gates in the order z, r, h.

    Args:
        units: positive integer, the size of the state and of the output.
        activation: of the candidate; a name, a callable or None (linear).
        recurrent_activation: of the gates.
        use_bias: whether there is a bias.
        kernel_initializer, recurrent_initializer, bias_initializer: of the weights.
        kernel_regularizer, recurrent_regularizer, bias_regularizer: penalties on the weights.
        kernel_constraint, recurrent_constraint, bias_constraint: applied after each update.
        dropout: rate at which input features are dropped in training, one mask per sample for
            all steps and gates.
        recurrent_dropout: the same for what enters the recurrent products (Gal and Ghahramani,
            2016). The state itself is not dropped.
        reset_after: apply the reset gate after the recurrent product (True, as cuDNN and
            PyTorch) or before it.
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
    >>> cell = keras_rnnx.GRUCell(4)
    >>> output, states = cell(np.ones((2, 3), "float32"), cell.get_initial_state(batch_size=2))
    >>> output.shape, len(states)
    (TensorShape([2, 4]), 1)
    """

    spec_class = GRUSpec

    def __init__(
        self,
        units: int,
        activation: Activation = "tanh",
        recurrent_activation: Activation = "sigmoid",
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
        reset_after: bool = True,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(arguments(locals()), **kwargs)


@keras.saving.register_keras_serializable(package="keras_rnnx")
class GRU(NamedRNN):
    """Gated recurrent unit over a sequence. Drop-in for `keras.layers.GRU`.

    Equations, reference and weights: `keras_rnnx.GRUCell`. States: h.

    Args:
        units: positive integer, the size of the state and of the output.
        activation: of the candidate; a name, a callable or None (linear).
        recurrent_activation: of the gates.
        use_bias: whether there is a bias.
        kernel_initializer, recurrent_initializer, bias_initializer: of the weights.
        kernel_regularizer, recurrent_regularizer, bias_regularizer: penalties on the weights.
        kernel_constraint, recurrent_constraint, bias_constraint: applied after each update.
        dropout: rate at which input features are dropped in training, one mask per sample for
            all steps and gates.
        recurrent_dropout: the same for what enters the recurrent products (Gal and Ghahramani,
            2016). The state itself is not dropped.
        reset_after: apply the reset gate after the recurrent product (True, as cuDNN and
            PyTorch) or before it.
        seed: of the dropout masks.
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
    >>> keras_rnnx.GRU(4)(x).shape
    TensorShape([2, 4])
    >>> mask = np.array([[True, True, True, False, False]] * 2)
    >>> layer = keras_rnnx.GRU(4, return_sequences=True, return_state=True)
    >>> outputs, *states = layer(x, mask=mask)
    >>> outputs.shape, len(states)
    (TensorShape([2, 5, 4]), 1)
    """

    cell_class = GRUCell
    cell_name = "gru_cell"

    def __init__(
        self,
        units: int,
        activation: Activation = "tanh",
        recurrent_activation: Activation = "sigmoid",
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
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool | Literal["any_batch"] = False,
        unroll: bool = False,
        reset_after: bool = True,
        use_cudnn: bool | Literal["auto"] = "auto",
        zero_output_for_mask: bool = False,
        jit_compile: bool | Literal["auto"] = "auto",
        backward: Literal["full", "autodiff"] | Backward = "full",
        batch_parts: int = 2,
        return_ragged: bool = False,
        save_states: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**arguments(locals()), **kwargs)

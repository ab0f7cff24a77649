"""LSTM and GRU with variational dropout, by that name."""

from typing import Any

import keras

from keras_rnnx.layers.gru import GRU
from keras_rnnx.layers.gru import GRUCell
from keras_rnnx.layers.lstm import LSTM
from keras_rnnx.layers.lstm import LSTMCell


class Variational(keras.layers.Layer):
    """Before a cell or layer: its rates of dropout are not 0 by default."""

    def __init__(
        self,
        units: int,
        *args: Any,
        dropout: float = 0.25,
        recurrent_dropout: float = 0.25,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            units, *args, dropout=dropout, recurrent_dropout=recurrent_dropout, **kwargs
        )


@keras.saving.register_keras_serializable(package="keras_rnnx")
class VariationalLSTMCell(Variational, LSTMCell):
    """`keras_rnnx.LSTMCell` with variational dropout: rates of 0.25 unless others are given.

    One mask per sample for all steps and gates; `dropout_mode` and `recurrent_dropout_mode`
    "gates" draw one for each gate. Gal and Ghahramani, "A Theoretically Grounded Application of
    Dropout in Recurrent Neural Networks", NeurIPS 2016 (arXiv:1512.05287).

    Example:

    >>> import keras_rnnx
    >>> keras_rnnx.VariationalLSTMCell(4).recurrent_dropout
    0.25
    """


@keras.saving.register_keras_serializable(package="keras_rnnx")
class VariationalGRUCell(Variational, GRUCell):
    """`keras_rnnx.GRUCell` with variational dropout: see `keras_rnnx.VariationalLSTMCell`.

    Example:

    >>> import keras_rnnx
    >>> keras_rnnx.VariationalGRUCell(4, dropout=0.1).dropout
    0.1
    """


@keras.saving.register_keras_serializable(package="keras_rnnx")
class VariationalLSTM(Variational, LSTM):
    """`keras_rnnx.LSTM` with variational dropout: see `keras_rnnx.VariationalLSTMCell`.

    Example:

    >>> import numpy as np, keras_rnnx
    >>> layer = keras_rnnx.VariationalLSTM(4, recurrent_dropout_mode="gates")
    >>> layer(np.ones((2, 5, 3), "float32"), training=True).shape
    TensorShape([2, 4])
    """


@keras.saving.register_keras_serializable(package="keras_rnnx")
class VariationalGRU(Variational, GRU):
    """`keras_rnnx.GRU` with variational dropout: see `keras_rnnx.VariationalLSTMCell`.

    Example:

    >>> import numpy as np, keras_rnnx
    >>> keras_rnnx.VariationalGRU(4)(np.ones((2, 5, 3), "float32"), training=True).shape
    TensorShape([2, 4])
    """

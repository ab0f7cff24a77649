"""keras_rnnx: the recurrent toolkit for Keras 3 on TensorFlow."""

import keras

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"keras_rnnx needs Keras on TensorFlow, and Keras runs on {keras.backend.backend()!r} "
        'here. Set the environment variable KERAS_BACKEND to "tensorflow" before keras is imported.'
    )

from keras_rnnx import attention
from keras_rnnx import heads
from keras_rnnx import inspection
from keras_rnnx import interop
from keras_rnnx import models
from keras_rnnx import seq2seq
from keras_rnnx.attention import AttentionCell
from keras_rnnx.cells import CellSpec
from keras_rnnx.cells import Weight
from keras_rnnx.data import bucket_by_length
from keras_rnnx.engine import Checkpointed
from keras_rnnx.engine import Full
from keras_rnnx.engine import Truncated
from keras_rnnx.engine import portable
from keras_rnnx.interop import accelerate
from keras_rnnx.layers import AttentionOverTime
from keras_rnnx.layers import Bidirectional
from keras_rnnx.layers import Cell
from keras_rnnx.layers import ESN
from keras_rnnx.layers import CustomCell
from keras_rnnx.layers import Embedding
from keras_rnnx.layers import ESNCell
from keras_rnnx.layers import GRU
from keras_rnnx.layers import GRUCell
from keras_rnnx.layers import IndRNN
from keras_rnnx.layers import IndRNNCell
from keras_rnnx.layers import InitialState
from keras_rnnx.layers import LSTM
from keras_rnnx.layers import LSTMCell
from keras_rnnx.layers import LastOverTime
from keras_rnnx.layers import LayerNormGRU
from keras_rnnx.layers import LayerNormGRUCell
from keras_rnnx.layers import LayerNormLSTM
from keras_rnnx.layers import LayerNormLSTMCell
from keras_rnnx.layers import LayerNormSimpleRNN
from keras_rnnx.layers import LayerNormSimpleRNNCell
from keras_rnnx.layers import MaxOverTime
from keras_rnnx.layers import MeanOverTime
from keras_rnnx.layers import MinGRU
from keras_rnnx.layers import MinGRUCell
from keras_rnnx.layers import MinLSTM
from keras_rnnx.layers import MinLSTMCell
from keras_rnnx.layers import NAS
from keras_rnnx.layers import NASCell
from keras_rnnx.layers import RGLRU
from keras_rnnx.layers import RGLRUCell
from keras_rnnx.layers import RNN
from keras_rnnx.layers import SimpleRNN
from keras_rnnx.layers import SimpleRNNCell
from keras_rnnx.layers import Stack
from keras_rnnx.layers import TimeDistributed
from keras_rnnx.layers import VariationalGRU
from keras_rnnx.layers import VariationalGRUCell
from keras_rnnx.layers import VariationalLSTM
from keras_rnnx.layers import VariationalLSTMCell
from keras_rnnx.monte_carlo import mc_predict
from keras_rnnx.regularization import ActivationPenalty
from keras_rnnx.streaming import StreamingSession
from keras_rnnx.training import GradientMonitor
from keras_rnnx.training import TruncatedBPTT
from keras_rnnx.version import __version__

__all__ = [
    "ActivationPenalty",
    "AttentionCell",
    "AttentionOverTime",
    "Bidirectional",
    "Cell",
    "CellSpec",
    "Checkpointed",
    "CustomCell",
    "ESN",
    "ESNCell",
    "Embedding",
    "Full",
    "GRU",
    "GRUCell",
    "GradientMonitor",
    "IndRNN",
    "IndRNNCell",
    "InitialState",
    "LSTM",
    "LSTMCell",
    "LastOverTime",
    "LayerNormGRU",
    "LayerNormGRUCell",
    "LayerNormLSTM",
    "LayerNormLSTMCell",
    "LayerNormSimpleRNN",
    "LayerNormSimpleRNNCell",
    "MaxOverTime",
    "MeanOverTime",
    "MinGRU",
    "MinGRUCell",
    "MinLSTM",
    "MinLSTMCell",
    "NAS",
    "NASCell",
    "RGLRU",
    "RGLRUCell",
    "RNN",
    "SimpleRNN",
    "SimpleRNNCell",
    "Stack",
    "StreamingSession",
    "TimeDistributed",
    "Truncated",
    "TruncatedBPTT",
    "VariationalGRU",
    "VariationalGRUCell",
    "VariationalLSTM",
    "VariationalLSTMCell",
    "Weight",
    "__version__",
    "accelerate",
    "bucket_by_length",
    "mc_predict",
    "portable",
]

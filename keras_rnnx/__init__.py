"""keras_rnnx: the recurrent toolkit for Keras 3 on TensorFlow."""

import keras

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"keras_rnnx needs Keras on TensorFlow, and Keras runs on {keras.backend.backend()!r} "
        'here. Set the environment variable KERAS_BACKEND to "tensorflow" before keras is imported.'
    )

from keras_rnnx.data import bucket_by_length
from keras_rnnx.engine import Checkpointed
from keras_rnnx.engine import Full
from keras_rnnx.engine import Truncated
from keras_rnnx.engine import portable
from keras_rnnx.layers import GRU
from keras_rnnx.layers import LSTM
from keras_rnnx.layers import RNN
from keras_rnnx.layers import AttentionOverTime
from keras_rnnx.layers import Bidirectional
from keras_rnnx.layers import GRUCell
from keras_rnnx.layers import InitialState
from keras_rnnx.layers import LastOverTime
from keras_rnnx.layers import LSTMCell
from keras_rnnx.layers import MaxOverTime
from keras_rnnx.layers import MeanOverTime
from keras_rnnx.layers import SimpleRNN
from keras_rnnx.layers import SimpleRNNCell
from keras_rnnx.layers import Stack
from keras_rnnx.layers import TimeDistributed
from keras_rnnx.streaming import StreamingSession
from keras_rnnx.training import GradientMonitor
from keras_rnnx.training import TruncatedBPTT
from keras_rnnx.version import __version__

__all__ = [
    "GRU",
    "GRUCell",
    "LSTM",
    "LSTMCell",
    "RNN",
    "AttentionOverTime",
    "Bidirectional",
    "Checkpointed",
    "Full",
    "GradientMonitor",
    "InitialState",
    "LastOverTime",
    "MaxOverTime",
    "MeanOverTime",
    "SimpleRNN",
    "SimpleRNNCell",
    "Stack",
    "StreamingSession",
    "TimeDistributed",
    "TruncatedBPTT",
    "Truncated",
    "__version__",
    "bucket_by_length",
    "portable",
]

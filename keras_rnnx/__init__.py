"""keras_rnnx: the recurrent toolkit for Keras 3 on TensorFlow."""

import keras

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"keras_rnnx needs Keras on TensorFlow, and Keras runs on {keras.backend.backend()!r} "
        'here. Set the environment variable KERAS_BACKEND to "tensorflow" before keras is imported.'
    )

from keras_rnnx.engine import Checkpointed
from keras_rnnx.engine import Full
from keras_rnnx.engine import Truncated
from keras_rnnx.engine import portable
from keras_rnnx.layers import GRU
from keras_rnnx.layers import LSTM
from keras_rnnx.layers import RNN
from keras_rnnx.layers import Bidirectional
from keras_rnnx.layers import GRUCell
from keras_rnnx.layers import InitialState
from keras_rnnx.layers import LSTMCell
from keras_rnnx.layers import SimpleRNN
from keras_rnnx.layers import SimpleRNNCell
from keras_rnnx.layers import Stack
from keras_rnnx.streaming import StreamingSession
from keras_rnnx.version import __version__

__all__ = [
    "GRU",
    "GRUCell",
    "LSTM",
    "LSTMCell",
    "RNN",
    "Bidirectional",
    "Checkpointed",
    "Full",
    "InitialState",
    "SimpleRNN",
    "SimpleRNNCell",
    "Stack",
    "StreamingSession",
    "Truncated",
    "__version__",
    "portable",
]

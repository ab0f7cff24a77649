"""Layers: what a Keras user holds."""

from keras_rnnx.layers.bidirectional import Bidirectional
from keras_rnnx.layers.cell import Cell
from keras_rnnx.layers.gru import GRU
from keras_rnnx.layers.gru import GRUCell
from keras_rnnx.layers.initial_state import InitialState
from keras_rnnx.layers.lstm import LSTM
from keras_rnnx.layers.lstm import LSTMCell
from keras_rnnx.layers.pooling import AttentionOverTime
from keras_rnnx.layers.pooling import LastOverTime
from keras_rnnx.layers.pooling import MaxOverTime
from keras_rnnx.layers.pooling import MeanOverTime
from keras_rnnx.layers.rnn import RNN
from keras_rnnx.layers.simple_rnn import SimpleRNN
from keras_rnnx.layers.simple_rnn import SimpleRNNCell
from keras_rnnx.layers.stack import Stack
from keras_rnnx.layers.streams import Stream
from keras_rnnx.layers.time_distributed import TimeDistributed
from keras_rnnx.layers.walk import children
from keras_rnnx.layers.walk import everything

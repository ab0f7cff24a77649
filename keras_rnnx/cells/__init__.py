"""Cells: what one step computes, as pure functions of weights, projected input and states."""

from keras_rnnx.cells.base import HALF
from keras_rnnx.cells.base import Around
from keras_rnnx.cells.base import CellSpec
from keras_rnnx.cells.base import Weight
from keras_rnnx.cells.base import affine
from keras_rnnx.cells.base import float32_rows
from keras_rnnx.cells.gru import GRUSpec
from keras_rnnx.cells.lstm import LSTMSpec
from keras_rnnx.cells.norm import standardized
from keras_rnnx.cells.resets import Resets
from keras_rnnx.cells.simple import SimpleSpec

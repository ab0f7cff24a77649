"""Cells: what one step computes, as pure functions of weights, projected input and states."""

from keras_rnnx.cells.base import Around
from keras_rnnx.cells.base import CellSpec
from keras_rnnx.cells.base import HALF
from keras_rnnx.cells.base import Weight
from keras_rnnx.cells.base import affine
from keras_rnnx.cells.base import float32_rows
from keras_rnnx.cells.esn import ESNSpec
from keras_rnnx.cells.gru import GRUSpec
from keras_rnnx.cells.indrnn import IndRNNSpec
from keras_rnnx.cells.layer_norm import LayerNormGRUSpec
from keras_rnnx.cells.layer_norm import LayerNormLSTMSpec
from keras_rnnx.cells.layer_norm import LayerNormSimpleSpec
from keras_rnnx.cells.layout import LAYOUTS
from keras_rnnx.cells.layout import places
from keras_rnnx.cells.linear import LinearSpec
from keras_rnnx.cells.linear import MinGRUSpec
from keras_rnnx.cells.linear import MinLSTMSpec
from keras_rnnx.cells.linear import RGLRUSpec
from keras_rnnx.cells.lstm import LSTMSpec
from keras_rnnx.cells.nas import NASSpec
from keras_rnnx.cells.norm import standardized
from keras_rnnx.cells.resets import Resets
from keras_rnnx.cells.simple import SimpleSpec

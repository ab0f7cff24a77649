"""Ready-made models, as PyTorch's users know them, that load the weights of those."""

from keras_rnnx.models.recurrent import GRUModel
from keras_rnnx.models.recurrent import LSTMClassifier

__all__ = ["GRUModel", "LSTMClassifier"]

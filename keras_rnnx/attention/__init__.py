"""Attention: steps that look at a memory. `keras_rnnx.AttentionCell` puts it into a cell."""

from keras_rnnx.attention.alignment import Monotonic
from keras_rnnx.attention.alignment import coverage_loss
from keras_rnnx.attention.alignment import hardmax
from keras_rnnx.attention.alignment import monotonic_attention
from keras_rnnx.attention.alignment import safe_cumprod
from keras_rnnx.attention.base import Attention
from keras_rnnx.attention.cell import AttentionCell
from keras_rnnx.attention.scores import BahdanauAttention
from keras_rnnx.attention.scores import LocationAttention
from keras_rnnx.attention.scores import LuongAttention

__all__ = [
    "Attention",
    "AttentionCell",
    "BahdanauAttention",
    "LocationAttention",
    "LuongAttention",
    "Monotonic",
    "coverage_loss",
    "hardmax",
    "monotonic_attention",
    "safe_cumprod",
]

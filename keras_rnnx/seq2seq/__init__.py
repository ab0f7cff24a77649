"""Sequence-to-sequence: models, their training, and decoding."""

from keras_rnnx.seq2seq.generate import greedy_search
from keras_rnnx.seq2seq.generate import sample
from keras_rnnx.seq2seq.rules import BannedTokens
from keras_rnnx.seq2seq.search import Decoded
from keras_rnnx.seq2seq.search import beam_search

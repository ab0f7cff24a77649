"""Sequence-to-sequence: models, their training, and decoding."""

from keras_rnnx.seq2seq.decoder import Decoder
from keras_rnnx.seq2seq.encoder import Bridge
from keras_rnnx.seq2seq.encoder import Encoder
from keras_rnnx.seq2seq.generate import greedy_search
from keras_rnnx.seq2seq.generate import sample
from keras_rnnx.seq2seq.losses import SequenceLoss
from keras_rnnx.seq2seq.metrics import ErrorRate
from keras_rnnx.seq2seq.metrics import ExactMatch
from keras_rnnx.seq2seq.metrics import Perplexity
from keras_rnnx.seq2seq.metrics import TokenAccuracy
from keras_rnnx.seq2seq.metrics import corpus_bleu
from keras_rnnx.seq2seq.model import Seq2Seq
from keras_rnnx.seq2seq.rules import BannedTokens
from keras_rnnx.seq2seq.scheduled import InverseSigmoidDecay
from keras_rnnx.seq2seq.scheduled import ScheduledSampling
from keras_rnnx.seq2seq.search import Decoded
from keras_rnnx.seq2seq.search import beam_search
from keras_rnnx.seq2seq.text import DecodedText
from keras_rnnx.seq2seq.text import Translator

__all__ = [
    "BannedTokens",
    "Bridge",
    "Decoded",
    "DecodedText",
    "Decoder",
    "Encoder",
    "ErrorRate",
    "ExactMatch",
    "InverseSigmoidDecay",
    "Perplexity",
    "ScheduledSampling",
    "Seq2Seq",
    "SequenceLoss",
    "TokenAccuracy",
    "Translator",
    "beam_search",
    "corpus_bleu",
    "greedy_search",
    "sample",
]

"""Heads: what is put on top of a recurrent net, with its loss and its decoding."""

from keras_rnnx.heads.crf import crf_decode
from keras_rnnx.heads.crf import crf_log_likelihood
from keras_rnnx.heads.crf import crf_log_norm
from keras_rnnx.heads.crf import crf_marginals
from keras_rnnx.heads.crf import crf_score
from keras_rnnx.heads.crf_layer import CRF
from keras_rnnx.heads.crf_model import CRFLoss
from keras_rnnx.heads.crf_model import CRFModel
from keras_rnnx.heads.ctc import CTCLoss
from keras_rnnx.heads.ctc import ctc_loss
from keras_rnnx.heads.ctc_alignment import Alignment
from keras_rnnx.heads.ctc_alignment import forced_align
from keras_rnnx.heads.ctc_decoding import CTCDecoder
from keras_rnnx.heads.ctc_metric import LabelErrorRate
from keras_rnnx.heads.entities import EntityF1
from keras_rnnx.heads.entities import EntityPrecision
from keras_rnnx.heads.entities import EntityRecall
from keras_rnnx.heads.tag_schemes import allowed_transitions

__all__ = [
    "Alignment",
    "CRF",
    "CRFLoss",
    "CRFModel",
    "CTCDecoder",
    "CTCLoss",
    "EntityF1",
    "EntityPrecision",
    "EntityRecall",
    "LabelErrorRate",
    "allowed_transitions",
    "crf_decode",
    "crf_log_likelihood",
    "crf_log_norm",
    "crf_marginals",
    "crf_score",
    "ctc_loss",
    "forced_align",
]

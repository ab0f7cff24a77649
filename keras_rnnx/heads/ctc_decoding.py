"""Decoding of CTC: from logits to labels."""

from collections.abc import Callable
from typing import Any
from typing import Literal

import keras
import tensorflow as tf

from keras_rnnx import engine
from keras_rnnx.annotations import Tensor
from keras_rnnx.heads.ctc_inputs import blank_of
from keras_rnnx.heads.ctc_inputs import real_steps
from keras_rnnx.heads.ctc_search import prefix_beam_search


@keras.saving.register_keras_serializable(package="keras_rnnx")
class CTCDecoder(keras.layers.Layer):
    """The labels of logits that were trained with `CTCLoss`.

    `method="greedy"` takes the best symbol of each step. `"beam"` is prefix beam search: it keeps
    the `beam_width` most probable prefixes and adds up all paths that spell the same. Hannun et
    al., "First-Pass Large Vocabulary Continuous Speech Recognition using Bi-Directional Recurrent
    DNNs", arXiv:1408.2873 (2014), algorithm 1. With as many prefixes as there can be, it is exact.

    Args:
        blank: id of the blank, an int; a negative one counts from the end.
        method: `"beam"` or `"greedy"`.
        beam_width: how many prefixes are kept, K.
        n_best: how many results each row gets, N, at most `beam_width` (1 with `"greedy"`), with an
            axis for them; None: the best one, without that axis.
        language_model: for `"beam"`, a callable `(prefixes [R, T], lengths [R]) -> [R, C]`: int32
            labels, -1 after the prefix, and what the score of a prefix gets with each next label,
            such as a weighted log-probability and a bonus per label. The column of the blank is not
            used. Stock operations only, if the model is exported; each row by itself. Register it
            with `keras.saving.register_keras_serializable`, so that models keep it.
        **kwargs: of `keras.layers.Layer`.

    Call arguments:
        logits: `[B, T, C]`, or log-probabilities.
        mask: `[B, T]` booleans, True where a step is real, in any pattern.
        sequence_length: `[B]` integers, the steps of each row; with a mask both must hold.

    Returns:
        A dict: `ids [B, T]` int32, the labels, -1 after them; `lengths [B]` int32; `scores [B]`
        float32. With `n_best` they are `[B, N, T]`, `[B, N]` and `[B, N]`, the best first, with
        scores of -inf where a row has fewer results. A score is the log-probability of the labels,
        over the paths that were kept, and what the language model added; with `"greedy"` it is that
        of the one path.

    Masks: masked steps are left out; what they hold, NaN included, changes nothing. A row without
    a real step gives no labels with a score of 0. The outputs have no mask.

    Computed in float32 in every policy; stock operations only; no gradient.

    Raises:
        ValueError: for another method, n_best above beam_width, a language model with `"greedy"`,
            and for logits, masks, lengths or a blank other than expected.
        TypeError: for a beam_width or n_best that is no integer.

    Example:

    >>> import numpy as np
    >>> from keras_rnnx.heads import CTCDecoder
    >>> logits = np.log([[[0.6, 0.4], [0.6, 0.4]]]).astype("float32")
    >>> found = CTCDecoder(n_best=2)(logits)  # three paths spell 1, one spells nothing
    >>> found["ids"].numpy().tolist(), np.exp(found["scores"]).round(2)
    ([[[1, -1], [-1, -1]]], array([[0.64, 0.36]], dtype=float32))
    """

    def __init__(
        self,
        blank: int = 0,
        method: Literal["beam", "greedy"] = "beam",
        beam_width: int = 16,
        n_best: int | None = None,
        language_model: Callable[[Tensor, Tensor], Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        # Keras would round logits to half precision, where the policy is mixed.
        super().__init__(autocast=False, **kwargs)
        check_options(method, beam_width, n_best, language_model)
        self.blank, self.method, self.beam_width = blank, method, beam_width
        self.n_best, self.language_model = n_best, language_model
        self.supports_masking = True

    def call(
        self, logits: Tensor, mask: Tensor | None = None, sequence_length: Tensor | None = None
    ) -> dict[str, Tensor]:
        logits, real = real_steps("CTCDecoder", logits, mask, sequence_length)
        log_p = tf.nn.log_softmax(tf.cast(tf.stop_gradient(logits), tf.float32))
        log_p, lengths = steps_first(log_p, real)
        blank = blank_of("CTCDecoder", self.blank, logits.shape[2])
        if self.method == "greedy":
            found = greedy(log_p, lengths, blank)
        else:
            found = prefix_beam_search(log_p, lengths, blank, self.beam_width, self.language_model)
        found = [a[:, 0] if self.n_best is None else a[:, : self.n_best] for a in found]
        return dict(zip(("ids", "lengths", "scores"), found, strict=True))

    def compute_output_spec(self, logits, mask=None, sequence_length=None):
        blank_of("CTCDecoder", self.blank, logits.shape[-1])
        few = (logits.shape[0],) if self.n_best is None else (logits.shape[0], self.n_best)
        return {
            "ids": keras.KerasTensor((*few, logits.shape[1]), "int32"),
            "lengths": keras.KerasTensor(few, "int32"),
            "scores": keras.KerasTensor(few, "float32"),
        }

    def compute_mask(self, logits, mask=None):
        """None for each output: the labels say themselves where they end."""
        return [None, None, None]

    def get_config(self):
        return {
            **super().get_config(),
            "blank": self.blank,
            "method": self.method,
            "beam_width": self.beam_width,
            "n_best": self.n_best,
            "language_model": keras.saving.serialize_keras_object(self.language_model),
        }

    @classmethod
    def from_config(cls, config):
        model = keras.saving.deserialize_keras_object(config["language_model"])
        return cls(**{**config, "language_model": model})


def steps_first(log_p: Tensor, real: Tensor | None) -> tuple[Tensor, Tensor]:
    """`[T, B, C]` with the real steps of each row first, and their number `[B]`."""
    log_p = engine.swap_time_and_batch(log_p)
    if real is None:
        return log_p, tf.fill([tf.shape(log_p)[1]], tf.shape(log_p)[0])
    return engine.real_steps_first(log_p, tf.transpose(real))


def greedy(log_p, lengths, blank):
    """`(ids [B, 1, T], lengths [B, 1], scores [B, 1])` of the best path, of real steps first."""
    best = tf.argmax(log_p, axis=2, output_type=tf.int32)
    real = tf.transpose(tf.sequence_mask(lengths, tf.shape(best)[0]))
    before = tf.pad(best, [[1, 0], [0, 0]], constant_values=blank)[:-1]
    ids, count = engine.real_steps_first(best, real & (best != blank) & (best != before))
    ids = tf.where(tf.range(tf.shape(best)[0])[:, None] < count, ids, -1)
    scores = tf.reduce_sum(tf.where(real, tf.reduce_max(log_p, axis=2), 0.0), axis=0)
    return tf.transpose(ids)[:, None], count[:, None], scores[:, None]


def check_options(method, beam_width, n_best, language_model):
    """What `CTCDecoder` may be made with."""
    if method not in ("beam", "greedy"):
        raise ValueError(f'method is {method!r}, expected "beam" or "greedy".')
    for name, value in (("beam_width", beam_width), ("n_best", 1 if n_best is None else n_best)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} is {value!r}, expected an integer of 1 or more.")
        if value < 1:
            raise ValueError(f"{name} is {value}, expected an integer of 1 or more.")
    most = beam_width if method == "beam" else 1
    if n_best is not None and n_best > most:
        raise ValueError(
            f"n_best is {n_best} with method={method!r}, expected at most {most}, the number of "
            "results that there are."
        )
    if language_model is not None and method == "greedy":
        raise ValueError('A language_model needs method="beam"; "greedy" looks at no prefixes.')

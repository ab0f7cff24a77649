"""Metrics of sequences: of tokens while a model trains, of whole sequences that it decoded."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_rnnx.annotations import Dtype
from keras_rnnx.annotations import Tensor


class _Ratio(keras.metrics.Metric):
    """A total divided by a count, which add up over batches."""

    def __init__(self, name: str | None, padding: int = 0, dtype: Dtype | None = None) -> None:
        super().__init__(name=name, dtype=dtype)
        self.padding = padding
        self.total = self.add_variable(shape=(), initializer="zeros", name="total")
        self.count = self.add_variable(shape=(), initializer="zeros", name="count")

    def add(self, total: Tensor, count: Tensor) -> None:
        """Add the sums of both to those of the batches before."""
        self.total.assign_add(tf.cast(tf.reduce_sum(total), self.total.dtype))
        self.count.assign_add(tf.cast(tf.reduce_sum(count), self.count.dtype))

    def weights_of(self, y: Tensor, sample_weight: Tensor | None) -> Tensor:
        """1 for real tokens `[B, T]`, times the weight of samples or tokens."""
        real = tf.cast(y != self.padding, tf.float32)
        if sample_weight is None:
            return real
        weight = tf.cast(sample_weight, tf.float32)
        return real * (weight if weight.shape.rank == 2 else tf.reshape(weight, [-1, 1]))

    def result(self) -> Tensor:
        return keras.ops.divide_no_nan(self.total, self.count)

    def get_config(self):
        return {"name": self.name, "padding": self.padding}


@keras.saving.register_keras_serializable(package="keras_rnnx")
class TokenAccuracy(_Ratio):
    """The part of the real tokens that have the largest logit.

    Args:
        padding: id of the targets that do not count.
        name, dtype: as of Keras' metrics.

    `update_state(y_true [B, T] ids, y_pred [B, T, V], sample_weight=None)`; a sample weight is
    `[B]` or `[B, T]`.

    Example:

    >>> import numpy as np
    >>> from keras_rnnx.seq2seq import TokenAccuracy
    >>> metric = TokenAccuracy()
    >>> metric.update_state(np.array([[1, 2, 0]]), np.eye(3)[None, [1, 1, 1]])
    >>> float(metric.result())
    0.5
    """

    def __init__(
        self, name: str | None = "token_accuracy", padding: int = 0, dtype: Dtype | None = None
    ) -> None:
        super().__init__(name, padding, dtype)

    def update_state(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        y = tf.cast(y_true, tf.int32)
        weights = self.weights_of(y, sample_weight)
        right = tf.cast(y == tf.argmax(y_pred, axis=-1, output_type=tf.int32), tf.float32)
        self.add(right * weights, weights)


@keras.saving.register_keras_serializable(package="keras_rnnx")
class Perplexity(_Ratio):
    """`exp` of the mean cross-entropy of the real tokens.

    Args:
        padding: id of the targets that do not count.
        name, dtype: as of Keras' metrics.

    `update_state(y_true [B, T] ids, y_pred [B, T, V] logits, sample_weight=None)`.

    Example:

    >>> import numpy as np
    >>> from keras_rnnx.seq2seq import Perplexity
    >>> metric = Perplexity()
    >>> metric.update_state(np.array([[1, 2, 0]]), np.zeros((1, 3, 4)))
    >>> round(float(metric.result()), 4)
    4.0
    """

    def __init__(
        self, name: str | None = "perplexity", padding: int = 0, dtype: Dtype | None = None
    ) -> None:
        super().__init__(name, padding, dtype)

    def update_state(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        y = tf.cast(y_true, tf.int32)
        logits = tf.cast(y_pred, tf.float32)
        weights = self.weights_of(y, sample_weight)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits)
        self.add(losses * weights, weights)

    def result(self) -> Tensor:
        return keras.ops.exp(super().result())


class _OfDecoded(_Ratio):
    """Base of metrics of decoded ids and one or more references."""

    def __init__(
        self, end: int, name: str | None, padding: int = 0, dtype: Dtype | None = None
    ) -> None:
        super().__init__(name, padding, dtype)
        self.end = end

    def distances(self, y_true: Tensor, y_pred: Tensor) -> tuple[Tensor, Tensor]:
        """Edit distance and length of the closest reference of each sample, `[B]` each."""
        y, found = tf.cast(y_true, tf.int32), tf.cast(y_pred, tf.int32)
        y = y[:, None] if y.shape.rank == 2 else y
        R = tf.shape(y)[1]
        references = tf.reshape(y, [-1, tf.shape(y)[2]])
        found = tf.repeat(found, R, axis=0)
        truth, lengths = self._sparse(references)
        guess, _ = self._sparse(found)
        distance = tf.edit_distance(guess, truth, normalize=False)
        none = tf.reduce_all(references == self.padding, axis=1)  # no reference, but room for one
        none &= tf.tile(tf.range(R) > 0, [tf.shape(y)[0]])
        distance = tf.reshape(tf.where(none, 1e9, distance), [-1, R])
        closest = tf.argmin(distance, axis=1)
        take = lambda a: tf.gather(tf.reshape(a, [-1, R]), closest, axis=1, batch_dims=1)
        return take(distance), take(lengths)

    def _sparse(self, ids):
        """Rows of ids up to their end or padding as a sparse tensor, and their lengths."""
        stops = (ids == self.end) | (ids == self.padding)
        real = tf.cumsum(tf.cast(stops, tf.int32), axis=1) == 0
        places = tf.where(real)
        shape = tf.cast(tf.maximum(tf.shape(ids), 1), tf.int64)
        sparse = tf.SparseTensor(places, tf.gather_nd(ids, places), shape)
        return sparse, tf.reduce_sum(tf.cast(real, tf.float32), axis=1)

    def get_config(self):
        return {"end": self.end, **super().get_config()}


@keras.saving.register_keras_serializable(package="keras_rnnx")
class ErrorRate(_OfDecoded):
    """Edit distance to the references divided by their length: word, phoneme or character errors.

        sum of the insertions, deletions and substitutions / sum of the reference lengths

    over all samples. With several references the closest one of a sample counts, with its length.
    Levenshtein, Soviet Physics Doklady 10 (1966).

    Args:
        end: id of the end token, which ends a sequence and is no part of it.
        padding: id that ends one as well.
        name, dtype: as of Keras' metrics.

    `update_state(y_true, y_pred)`: references `[B, T]`, or `[B, R, T]` of which rows of padding are
    none, and decoded ids `[B, T']`.

    Example:

    >>> import numpy as np
    >>> from keras_rnnx.seq2seq import ErrorRate
    >>> metric = ErrorRate(end=1)
    >>> metric.update_state(np.array([[5, 6, 7, 1]]), np.array([[5, 7, 1, 1]]))
    >>> round(float(metric.result()), 4)
    0.3333
    """

    def __init__(
        self,
        end: int,
        name: str | None = "error_rate",
        padding: int = 0,
        dtype: Dtype | None = None,
    ) -> None:
        super().__init__(end, name, padding, dtype)

    def update_state(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        distance, length = self.distances(y_true, y_pred)
        weight = 1.0 if sample_weight is None else tf.cast(sample_weight, tf.float32)
        self.add(distance * weight, length * weight)


@keras.saving.register_keras_serializable(package="keras_rnnx")
class ExactMatch(_OfDecoded):
    """The part of the decoded sequences that equal a reference; 1 minus it is a word error rate.

    Args and `update_state`: as those of `ErrorRate`.

    Example:

    >>> import numpy as np
    >>> from keras_rnnx.seq2seq import ExactMatch
    >>> metric = ExactMatch(end=1)
    >>> metric.update_state(np.array([[5, 6, 1], [5, 1, 0]]), np.array([[5, 6, 1], [6, 1, 1]]))
    >>> float(metric.result())
    0.5
    """

    def __init__(
        self,
        end: int,
        name: str | None = "exact_match",
        padding: int = 0,
        dtype: Dtype | None = None,
    ) -> None:
        super().__init__(end, name, padding, dtype)

    def update_state(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        distance, _ = self.distances(y_true, y_pred)
        weight = tf.ones_like(distance)
        if sample_weight is not None:
            weight *= tf.cast(sample_weight, tf.float32)
        self.add(tf.cast(distance == 0, tf.float32) * weight, weight)


def corpus_bleu(hypotheses: Sequence[str], references: Sequence[str | Sequence[str]]) -> float:
    """BLEU of a corpus, 0 to 100, by the package `sacrebleu` with its own tokenization.

    Papineni et al., "BLEU: a Method for Automatic Evaluation of Machine Translation", ACL 2002;
    Post, "A Call for Clarity in Reporting BLEU Scores", WMT 2018 (arXiv:1804.08771).

    Args:
        hypotheses: list of strings.
        references: list of strings, or list of lists, the references of each hypothesis.

    Raises:
        ModuleNotFoundError: if `sacrebleu` is not installed.
        ValueError: for another number of references than hypotheses.

    Example:

    >>> from keras_rnnx.seq2seq import corpus_bleu
    >>> round(corpus_bleu(["the cat sat on the mat"], ["the cat sat on the mat"]), 4)
    100.0
    """
    try:
        import sacrebleu
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "corpus_bleu needs the package `sacrebleu`, which is not installed. Install it with "
            "the extra `bleu`: pip install 'keras_rnnx[bleu]'",
            name="sacrebleu",
        ) from error
    hypotheses, references = list(hypotheses), list(references)
    if len(hypotheses) != len(references):
        raise ValueError(
            f"corpus_bleu got {len(hypotheses)} hypotheses and {len(references)} references, "
            "expected as many."
        )
    rows = [[one] if isinstance(one, str) else list(one) for one in references]
    most = max(map(len, rows), default=0)
    # sacrebleu wants them the other way round, with None where a sample has fewer.
    streams: list[Any] = [[row[k] if k < len(row) else None for row in rows] for k in range(most)]
    return sacrebleu.corpus_bleu(hypotheses, streams).score

"""Metrics of entities: how many of those in a text are found, and found rightly.

Axes: B batch, T time, K tags.
"""

from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import keras
import tensorflow as tf

from keras_rnnx.annotations import Dtype
from keras_rnnx.annotations import Tensor
from keras_rnnx.heads.tag_schemes import parts_of


class Entities(NamedTuple):
    """Entities by the step that each ends at, `[B, T]`: is there one, its type and first step."""

    ends: Any
    kinds: Any
    firsts: Any


class _OfEntities(keras.metrics.Metric):
    """Base: counts of entities in labels, in predictions and in both."""

    def __init__(
        self, tags: Sequence[str], name: str | None = None, dtype: Dtype | None = None
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        parts = parts_of(tags)
        self.tags = list(tags)
        kinds = sorted({kind for _, kind in parts})
        self._kinds = [kinds.index(kind) for _, kind in parts]
        self._outside, self._begins, self._ends = (
            [prefix in group for prefix, _ in parts] for group in ("O", "BS", "ES")
        )
        add = lambda name: self.add_variable(shape=(), initializer="zeros", name=name)
        self.found, self.true, self.right = add("found"), add("true"), add("right")

    def update_state(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        true, found, real = self._read(y_true, y_pred)
        true, found = self._entities(true, real), self._entities(found, real)
        both = true.ends & found.ends
        same = (true.kinds == found.kinds) & (true.firsts == found.firsts)
        counts = (found.ends, self.found), (true.ends, self.true), (both & same, self.right)
        for ends, variable in counts:
            ends = tf.cast(ends, variable.dtype)
            if sample_weight is not None:
                ends *= tf.reshape(tf.cast(sample_weight, ends.dtype), [-1, 1])
            variable.assign_add(tf.reduce_sum(ends))

    def _read(self, y_true, y_pred):
        """Labels and predictions `[B, T]` with the steps that count at the start of each row."""
        mask = getattr(y_pred, "_keras_mask", None)
        true, found = tf.cast(y_true, tf.int32), tf.convert_to_tensor(y_pred)
        if found.shape.rank == 3:
            found = tf.argmax(found, axis=2)
        if true.shape.rank != 2 or found.shape.rank != 2:
            raise ValueError(
                f"{self.name} got labels of shape {tuple(true.shape)} and predictions of shape "
                f"{tuple(found.shape)}, expected tags [B, T], and tags [B, T] or scores [B, T, K]."
            )
        found = tf.cast(found, tf.int32)
        real = (true >= 0) & (found >= 0)
        real = real if mask is None else real & tf.cast(mask, tf.bool)
        order = tf.argsort(tf.cast(~real, tf.int32), axis=1, stable=True)
        return (tf.gather(a, order, axis=1, batch_dims=1) for a in (true, found, real))

    def _entities(self, tags, real):
        """The chunks of tags as `conlleval` and `seqeval` read them, whatever their scheme.

        A tag begins an entity if it says so, or if the one before is outside, ends an entity or is
        of another type; an entity ends where the next tag is outside or begins one.
        """
        tags = tf.where(real, tags, 0)
        of = lambda table: tf.gather(tf.constant(table), tags)
        outside, kinds = of(self._outside) | ~real, of(self._kinds)
        before = lambda a, edge: tf.pad(a, [[0, 0], [1, 0]], constant_values=edge)[:, :-1]
        after = lambda a, edge: tf.pad(a, [[0, 0], [0, 1]], constant_values=edge)[:, 1:]
        begins = of(self._begins) | before(outside, True) | before(of(self._ends), True)
        begins = ~outside & (begins | (kinds != before(kinds, -1)))
        ends = ~outside & after(outside | begins, True)
        # The k-th beginning of a row, for the steps that have seen k of them.
        places = tf.argsort(tf.cast(~begins, tf.int32), axis=1, stable=True)
        seen = tf.cumsum(tf.cast(begins, tf.int32), axis=1)
        firsts = tf.gather(places, tf.maximum(seen - 1, 0), axis=1, batch_dims=1)
        return Entities(ends, kinds, firsts)

    def get_config(self):
        return {"tags": self.tags, "name": self.name}


@keras.saving.register_keras_serializable(package="keras_rnnx")
class EntityPrecision(_OfEntities):
    """The part of the predicted entities that are right.

    An entity is right if the labels have one of the same type, first and last step. Entities are
    counted over all batches ("micro average"), and read as `seqeval` does by default: tags that
    break their scheme, such as an I without a B, begin an entity.

    Args:
        tags: list of K names in the order of their ids, `"O"` or `B-`, `I-`, `E-` or `S-` and a
            type; so BIO, IOB1 and BIOES may come.
        name, dtype: as of Keras' metrics.

    `update_state(y_true [B, T], y_pred, sample_weight=None)`: ids, and of the predictions ids
    `[B, T]` or scores `[B, T, K]`, of which the largest counts. A weight is `[B]`.

    Masks: steps whose label or prediction is below 0 do not count, nor those that a Keras mask of
    the predictions leaves out; their neighbours then follow each other.

    Raises:
        ValueError: for names that are none of the above, and for other shapes.

    Example:

    >>> import numpy as np
    >>> from keras_rnnx.heads import EntityPrecision
    >>> metric = EntityPrecision(["O", "B-PER", "I-PER"])
    >>> metric.update_state(np.array([[1, 2, 0, 1]]), np.array([[1, 2, 0, 0]]))
    >>> float(metric.result())
    1.0
    """

    def __init__(
        self, tags: Sequence[str], name: str | None = "entity_precision", dtype: Dtype | None = None
    ) -> None:
        super().__init__(tags, name, dtype)

    def result(self) -> Tensor:
        return tf.math.divide_no_nan(self.right.value, self.found.value)


@keras.saving.register_keras_serializable(package="keras_rnnx")
class EntityRecall(_OfEntities):
    """The part of the true entities that are found; arguments as of `EntityPrecision`.

    Example:

    >>> import numpy as np
    >>> from keras_rnnx.heads import EntityRecall
    >>> metric = EntityRecall(["O", "B-PER", "I-PER"])
    >>> metric.update_state(np.array([[1, 2, 0, 1]]), np.array([[1, 2, 0, 0]]))
    >>> float(metric.result())
    0.5
    """

    def __init__(
        self, tags: Sequence[str], name: str | None = "entity_recall", dtype: Dtype | None = None
    ) -> None:
        super().__init__(tags, name, dtype)

    def result(self) -> Tensor:
        return tf.math.divide_no_nan(self.right.value, self.true.value)


@keras.saving.register_keras_serializable(package="keras_rnnx")
class EntityF1(_OfEntities):
    """Harmonic mean of `EntityPrecision` and `EntityRecall`; arguments as of the former.

        F1 = 2 right / (predicted + true)

    Example:

    >>> import numpy as np
    >>> from keras_rnnx.heads import EntityF1
    >>> metric = EntityF1(["O", "B-PER", "I-PER"])
    >>> metric.update_state(np.array([[1, 2, 0, 1]]), np.array([[1, 2, 0, 0]]))
    >>> round(float(metric.result()), 4)
    0.6667
    """

    def __init__(
        self, tags: Sequence[str], name: str | None = "entity_f1", dtype: Dtype | None = None
    ) -> None:
        super().__init__(tags, name, dtype)

    def result(self) -> Tensor:
        return tf.math.divide_no_nan(2 * self.right.value, self.found.value + self.true.value)

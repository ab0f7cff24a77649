"""From a source to a memory, and from an encoder's state to a decoder's."""

from collections.abc import Sequence
from typing import Any
from typing import Literal

import keras
import tensorflow as tf

from keras_rnnx.annotations import Tensor


@keras.saving.register_keras_serializable(package="keras_rnnx")
class Encoder(keras.layers.Layer):
    """An embedding and a recurrent layer, or a `Stack` of them, as the encoder of `Seq2Seq`.

    Any other Keras layer or model serves as well, such as a CNN or the encoder of a Transformer:
    what `Seq2Seq` takes is a memory `[B, S, M]`, alone or as the first of a tuple with states
    `[B, ...]`, and the Keras mask of the memory.

    Args:
        layer: a layer with `return_sequences` and `return_state`.
        vocabulary_size, embedding_size: of the embedding of ids, 0 being padding; both None for a
            source of features `[B, S, D]`.
        dropout: rate of dropout on the embedding and on the memory.
        **kwargs: of `keras.layers.Layer`.

    Call arguments:
        source: `[B, S]` ids, or `[B, S, D]` features, with their Keras mask if they have one.
        training: whether dropout acts.

    Returns:
        A tuple of the memory, `[B, S, M]`, and the states of the layer.

    Raises:
        ValueError: for a layer that returns no sequence or no state.

    Example:

    >>> import keras_rnnx, numpy as np
    >>> from keras_rnnx.seq2seq import Encoder
    >>> layer = keras_rnnx.Bidirectional(
    ...     keras_rnnx.GRU(8, return_sequences=True, return_state=True)
    ... )
    >>> memory, *states = Encoder(layer, vocabulary_size=20, embedding_size=4)(np.ones((2, 5)))
    >>> memory.shape, len(states)
    (TensorShape([2, 5, 16]), 2)
    """

    def __init__(
        self,
        layer: keras.layers.Layer,
        vocabulary_size: int | None = None,
        embedding_size: int | None = None,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for option in ("return_sequences", "return_state"):
            if not getattr(layer, option, True):
                raise ValueError(
                    f"Encoder got the layer {layer.name!r} with {option}=False, expected True: "
                    "its outputs are the memory, its states start the decoder."
                )
        self.layer = layer
        self.vocabulary_size = vocabulary_size
        self.embedding_size = embedding_size
        self.dropout = dropout
        self.embedding = None
        if vocabulary_size is not None:
            self.embedding = keras.layers.Embedding(
                vocabulary_size, embedding_size, mask_zero=True, name="embedding"
            )
        self.drop = keras.layers.Dropout(dropout)
        self.supports_masking = True

    def build(self, source_shape):
        shape = tuple(source_shape)
        if self.embedding is not None:
            self.embedding.build(shape)
            shape = (*shape[:2], self.embedding_size)
        if not self.layer.built:
            self.layer.build(shape)
            self.layer.built = True
        self.built = True

    def call(self, source: Tensor, training: bool | None = None) -> tuple[Tensor, ...]:
        x = source if self.embedding is None else self.embedding(source)
        memory, *states = self.layer(self.drop(x, training=training), training=training)
        return self.drop(memory, training=training), *keras.tree.flatten(states)

    def compute_mask(self, source, mask=None):
        """The mask of the memory; states have none. (The embedding's goes on by itself.)"""
        memory, *states = keras.tree.flatten(self.layer.compute_mask(source, mask))
        return [memory, *states]

    def get_config(self):
        return {
            **super().get_config(),
            "layer": keras.saving.serialize_keras_object(self.layer),
            "vocabulary_size": self.vocabulary_size,
            "embedding_size": self.embedding_size,
            "dropout": self.dropout,
        }

    @classmethod
    def from_config(cls, config):
        layer = keras.saving.deserialize_keras_object(config["layer"])
        return cls(**{**config, "layer": layer})


@keras.saving.register_keras_serializable(package="keras_rnnx")
class Bridge(keras.layers.Layer):
    """Starts a decoder from what an encoder found.

    How, by `mode`:

        "dense"     each state is `tanh(W [all states of the encoder] + b)`; from a memory without
                    states as in "mean"
        "mean"      each state is `tanh(W m + b)`, m being the mean of the memory over its real
                    positions
        "copy"      the encoder's states as they are, which must be as many and as large
        "zeros"     zeros: the decoder sees the memory only

    Args:
        mode: one of these. "dense" and "mean": Bahdanau et al. (arXiv:1409.0473) and Cho et al.
            (arXiv:1406.1078) start a decoder in this way.
        **kwargs: of `keras.layers.Layer`.

    `start(sizes, memory, mask, states)` gives the states; `Seq2Seq` calls it.

    Raises:
        ValueError: for another mode, or states to copy that do not fit.

    Example:

    >>> import tensorflow as tf
    >>> from keras_rnnx.seq2seq import Bridge
    >>> (h,), = Bridge("mean").start([[4]], tf.ones([2, 5, 3]), None, [])
    >>> h.shape
    TensorShape([2, 4])
    """

    def __init__(
        self, mode: Literal["dense", "mean", "copy", "zeros"] = "dense", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if mode not in ("dense", "mean", "copy", "zeros"):
            raise ValueError(f"mode is {mode!r}, expected 'dense', 'mean', 'copy' or 'zeros'.")
        self.mode = mode
        self.dense: list[keras.layers.Dense] = []

    def start(
        self,
        sizes: Sequence[Sequence[int]],
        memory: Tensor,
        mask: Tensor | None,
        states: Sequence[Tensor],
    ) -> list[list[Tensor]]:
        """The states of each cell of a decoder: a list of lists, `sizes` being those of theirs."""
        if self.mode == "zeros":
            zeros = lambda size: tf.zeros([tf.shape(memory)[0], size], memory.dtype)
            return [[zeros(size) for size in cell] for cell in sizes]
        if self.mode == "copy":
            found, wanted = [s.shape[-1] for s in states], [n for cell in sizes for n in cell]
            if found != wanted:
                raise ValueError(
                    f'Bridge("copy") got states of sizes {found} from the encoder, and the decoder '
                    f'has states of sizes {wanted}. Use "dense".'
                )
            following = iter(states)
            return [[next(following) for _ in cell] for cell in sizes]
        if self.mode == "dense" and states:
            seen = tf.concat([tf.cast(state, memory.dtype) for state in states], axis=-1)
        else:
            seen = _mean(memory, mask)
        if not self.dense:
            self.dense = [
                keras.layers.Dense(size, activation="tanh") for cell in sizes for size in cell
            ]
        following = iter([dense(seen) for dense in self.dense])
        return [[next(following) for _ in cell] for cell in sizes]

    def get_config(self):
        return {**super().get_config(), "mode": self.mode}


def _mean(memory, mask):
    if mask is None:
        return tf.reduce_mean(memory, axis=1)
    real = tf.cast(mask, memory.dtype)[..., None]
    total = tf.reduce_sum(tf.where(real > 0, memory, tf.zeros_like(memory)), axis=1)
    return tf.math.divide_no_nan(total, tf.reduce_sum(real, axis=1))

"""Embedding with dropout of whole words."""

from typing import Any

import keras
import tensorflow as tf

from keras_rnnx.annotations import Tensor
from keras_rnnx.layers import checks
from keras_rnnx.regularization import draw_kept
from keras_rnnx.regularization import drop


@keras.saving.register_keras_serializable(package="keras_rnnx")
class Embedding(keras.layers.Embedding):
    """`keras.layers.Embedding` that drops words in training: all places of a word at once.

    One draw for the batch over the rows of the matrix; the others are scaled by `1 / (1 - rate)`.
    Merity, Keskar and Socher, "Regularizing and Optimizing LSTM Language Models", ICLR 2018
    (arXiv:1708.02182), after Gal and Ghahramani, NeurIPS 2016.

    Args:
        input_dim: size of the vocabulary.
        output_dim: features of a word.
        dropout: rate at which words are dropped.
        seed: of the draws.
        mask_value: the id of padding, where that is not the 0 of `mask_zero`: its positions are
            masked.
        **kwargs: of `keras.layers.Embedding`, such as `mask_zero`.

    Call arguments:
        inputs: `[B, T]` ids, or of another shape with the batch first.
        training: whether words are dropped.

    Returns:
        `[B, T, output_dim]`.

    Example:

    >>> import numpy as np, keras_rnnx
    >>> keras_rnnx.Embedding(100, 4, dropout=0.1)(np.array([[1, 2, 1]])).shape
    TensorShape([1, 3, 4])
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        dropout: float = 0.0,
        seed: int | None = None,
        mask_value: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(input_dim, output_dim, **kwargs)
        if self.mask_zero and mask_value not in (None, 0):
            raise ValueError(
                f"{self.name} got mask_zero=True and mask_value={mask_value!r}: there is one id of "
                "padding. Leave mask_zero out."
            )
        self.mask_value = mask_value
        if mask_value is not None:
            self.supports_masking = True
        self.dropout = checks.rate("dropout", dropout)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        embedded = super().call(inputs)
        if not training or not 0 < self.dropout < 1:
            return embedded
        kept = draw_kept(self.seed_generator.next(), [self.input_dim, 1], self.dropout)

        def dropped(words, vectors):
            words = tf.cast(tf.convert_to_tensor(words), tf.int32)
            return drop(vectors, tf.gather(kept, words), self.dropout)

        if isinstance(embedded, tf.RaggedTensor):
            return embedded.with_flat_values(dropped(inputs.flat_values, embedded.flat_values))
        return dropped(inputs, embedded)

    def compute_mask(self, inputs, mask=None):
        if self.mask_value is None:
            return super().compute_mask(inputs, mask)
        return keras.ops.not_equal(inputs, self.mask_value)

    def get_config(self):
        own = {"dropout": self.dropout, "seed": self.seed, "mask_value": self.mask_value}
        return {**super().get_config(), **own}

"""A small Transformer of layers of Keras, whole sequences or step by step with a cache.

What the GRU of examples/rnn_or_transformer.py is compared with.
"""

import keras
import numpy as np
from keras import ops

HEADS, BLOCKS = 4, 2


class Block(keras.layers.Layer):
    """Attention, then two dense layers; pre-norm. Returns keys and values too, to go on from."""

    def __init__(self, width):
        super().__init__()
        dense = keras.layers.Dense
        self.norms = [keras.layers.LayerNormalization() for _ in range(2)]
        self.project, self.mix = dense(3 * width), dense(width)
        self.inner, self.outer = dense(2 * width, activation="gelu"), dense(width)
        self.drop = keras.layers.Dropout(0.1)

    def call(self, x, cache=None, training=None):
        found = self.project(self.norms[0](x))
        found = ops.reshape(found, (*ops.shape(x)[:2], 3 * HEADS, x.shape[-1] // HEADS))
        query, *new = ops.split(found, 3, axis=2)
        cache = new if cache is None else [ops.concatenate(both, 1) for both in zip(cache, new)]
        seen = ops.reshape(ops.dot_product_attention(query, *cache), ops.shape(x))
        x += self.drop(self.mix(seen), training=training)
        return x + self.drop(self.outer(self.inner(self.norms[1](x))), training=training), cache


class Transformer(keras.Model):
    """Classifies series `[B, T, 1]` by the mean over their steps, a stream by the step at hand.

    The width gives it about as many parameters as `gru` has.
    """

    def __init__(self, width=28):
        super().__init__()
        self.width = width
        self.enter, self.norm = keras.layers.Dense(width), keras.layers.LayerNormalization()
        self.blocks = [Block(width) for _ in range(BLOCKS)]
        self.classify = keras.layers.Dense(10, activation="softmax")

    def read(self, x, first=0, caches=BLOCKS * [None], training=None):  # noqa: B006
        # Sines and cosines of the place of each step (Vaswani et al., 2017).
        place = ops.cast(first + ops.arange(ops.shape(x)[1]), "float32")[:, None]
        angle = place * 1e-4 ** (np.arange(0, self.width, 2, "float32") / self.width)
        x = self.enter(x) + ops.concatenate([ops.sin(angle), ops.cos(angle)], axis=-1)
        kept = []
        for block, cache in zip(self.blocks, caches):
            x, cache = block(x, cache, training=training)
            kept.append(cache)
        return self.norm(x), kept

    def call(self, x, training=None):
        return self.classify(ops.mean(self.read(x, training=training)[0], axis=1))

    def step(self, x, first, caches):
        """One more step `[B, 1, 1]` after the `first` ones: the answer, and the new caches."""
        x, caches = self.read(x, first, caches)
        return self.classify(x[:, 0]), caches

"""The decoder of examples/translate.py in layers of Keras, with which it is compared."""

import keras


class StockDecoder(keras.layers.Layer):
    """The same decoder made of Keras' own layers, for `Seq2Seq`, to compare with."""

    def __init__(self, vocabulary_size):
        super().__init__()
        self.vocabulary_size, self.start_sizes = vocabulary_size, [[256]]
        # No mask: padding comes last, after all that counts, and the loss leaves it out.
        self.embedding = keras.layers.Embedding(vocabulary_size, 64)
        self.gru = keras.layers.GRU(256, return_sequences=True)
        self.query, self.key = (keras.layers.Dense(128, use_bias=False) for _ in range(2))
        self.attention = keras.layers.AdditiveAttention()
        self.combine = keras.layers.Dense(256, activation="tanh", use_bias=False)
        self.say, self.drop = keras.layers.Dense(vocabulary_size), keras.layers.Dropout(0.2)

    def call(self, ids, states, memory, memory_mask=None, training=None):
        x = self.drop(self.embedding(ids), training=training)
        h = self.gru(x, initial_state=states[0][0])
        return self.say(self.drop(self.attend(h, memory, memory_mask), training=training))

    def attend(self, h, memory, mask):
        context = self.attention([self.query(h), memory, self.key(memory)], mask=[None, mask])
        return self.combine(keras.ops.concatenate([h, context], axis=-1))

    def begin(self, states, memory, mask):
        return states[0], (memory, mask)

    def steps(self):
        def step(ids, states, constants):
            h, states = self.gru.cell(self.embedding(ids), states)
            return self.say(self.attend(h[:, None], *constants))[:, 0], states

        return step

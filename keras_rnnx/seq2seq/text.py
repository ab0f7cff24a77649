"""Strings in and strings out: vocabularies around a Seq2Seq, and its export."""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import keras
import tensorflow as tf

from keras_rnnx.annotations import Array
from keras_rnnx.annotations import PathLike
from keras_rnnx.annotations import Tensor
from keras_rnnx.seq2seq.decoding import NUMBERS
from keras_rnnx.seq2seq.decoding import with_numbers
from keras_rnnx.seq2seq.model import Seq2Seq
from keras_rnnx.seq2seq.search import Decoded


class DecodedText(NamedTuple):
    """What a `Translator` decodes.

    Attributes:
        texts: `[B, K]` strings, the best first.
        decoded: the `Decoded`: ids, lengths, scores and alignments.

    Example:

    >>> from keras_rnnx.seq2seq import DecodedText
    >>> DecodedText._fields
    ('texts', 'decoded')
    """

    texts: Tensor
    decoded: Decoded


@keras.saving.register_keras_serializable(package="keras_rnnx")
class Translator(keras.Model):
    """A `Seq2Seq` with its vocabularies: strings in, strings out, also when saved and exported.

    The tokens that end and start a target come after those of the vocabulary: for a target layer
    of n tokens, `end=n`, `start=n + 1`, and the decoder has a `vocabulary_size` of `n + 2`.

    Args:
        model: a `keras_rnnx.seq2seq.Seq2Seq`.
        source, target: layers from strings `[B]` to ids `[B, S]`, 0 being padding, such as
            `keras.layers.TextVectorization` that was adapted or got a vocabulary. The target must
            tell its vocabulary by `get_vocabulary()`.
        separator: what is written between the tokens of a target.
        **kwargs: of `keras.Model`.

    Call arguments:
        inputs: `[B]` strings.

    Returns:
        `[B]` strings, the best of each.

    Raises:
        ValueError: for a model whose start and end are not those tokens.

    Example:

    >>> import keras, keras_rnnx, tensorflow as tf
    >>> from keras_rnnx.attention import LuongAttention
    >>> from keras_rnnx.seq2seq import Decoder, Encoder, Seq2Seq, Translator
    >>> letters = keras.layers.TextVectorization(split="character", vocabulary=list("abc"))
    >>> words = keras.layers.TextVectorization(standardize=None, vocabulary=["x", "y"])
    >>> n = words.vocabulary_size()
    >>> rnn = keras_rnnx.GRU(8, return_sequences=True, return_state=True)
    >>> cell = keras_rnnx.AttentionCell(keras_rnnx.GRUCell(8), LuongAttention())
    >>> model = Seq2Seq(
    ...     Encoder(rnn, letters.vocabulary_size(), 4), Decoder(cell, n + 2, 4), start=n + 1, end=n
    ... )
    >>> translator = Translator(model, letters, words)
    >>> source, targets = translator.pairs(["ab", "c"], ["x y x", "y"])
    >>> targets.numpy().tolist()
    [[2, 3, 2, 4], [3, 4, 0, 0]]
    >>> translator.decode(["cab"], beam_width=3, max_length=5).texts.shape
    TensorShape([1, 3])
    """

    def __init__(
        self,
        model: Seq2Seq,
        source: keras.layers.Layer,
        target: keras.layers.Layer,
        separator: str = " ",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model, self.source, self.target, self.separator = model, source, target, separator
        if len(target.get_vocabulary()) > 2:  # one that is being loaded has only padding and UNK
            self._vocabulary()
        self.supports_jit = False
        self.built = True  # it has no weights but those of the model

    def _vocabulary(self):
        """The tokens of the target, checked against those of the model."""
        with tf.init_scope():  # a lookup tells its words eagerly only
            vocabulary = list(self.target.get_vocabulary())
        model, size = self.model, len(vocabulary)
        decoder = model.decoder.vocabulary_size
        if (model.end, model.start, decoder) != (size, size + 1, size + 2):
            raise ValueError(
                f"Translator got a model with end={model.end}, start={model.start} and a decoder "
                f"of {decoder} tokens, expected {size}, {size + 1} and {size + 2}: the tokens "
                f"after the {size} of the target's vocabulary."
            )
        return vocabulary

    def pairs(
        self, sources: Sequence[str] | Tensor, targets: Sequence[str] | Tensor
    ) -> tuple[Tensor, Tensor]:
        """Sources and targets for `model.fit`: ids `[B, S]` and `[B, T]`, with end tokens."""
        sources, targets = map(tf.convert_to_tensor, (sources, targets))
        return tf.cast(self.source(sources), tf.int32), self.with_end(self.target(targets))

    def with_end(self, ids: Tensor) -> Tensor:
        """Ids `[B, T]` with the end token after the last one: `[B, T + 1]`."""
        ids = tf.pad(tf.cast(ids, tf.int32), [[0, 0], [0, 1]])
        at = tf.range(tf.shape(ids)[1])
        length = tf.reduce_max(tf.where(ids != 0, at + 1, 0), axis=1, keepdims=True)
        return tf.where(at == length, self.model.end, ids)

    def text_of(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Strings `[...]` of ids `[..., T]`, of which the first `lengths` count."""
        vocabulary = tf.constant([*self._vocabulary(), "", ""])
        shape = tf.shape(lengths)
        rows = tf.reshape(ids, [-1, tf.shape(ids)[-1]])
        tokens = tf.RaggedTensor.from_tensor(rows, lengths=tf.reshape(lengths, [-1]))
        words = tf.ragged.map_flat_values(lambda flat: tf.gather(vocabulary, flat), tokens)
        return tf.reshape(tf.strings.reduce_join(words, axis=-1, separator=self.separator), shape)

    def decode(self, texts: Sequence[str] | Tensor, **options: Any) -> DecodedText:
        """The K best targets of each text `[B]`, a `DecodedText`.

        options: as of `Seq2Seq.decode`.
        """
        texts = tf.convert_to_tensor(texts)
        if texts.shape.rank == 0:
            raise ValueError("Translator got one text, expected a list of texts: [text].")
        found = self.model.decode(self.source(texts), **options)
        return DecodedText(self.text_of(found.ids, found.lengths), found)

    def call(self, inputs: Tensor) -> Tensor:
        return self.decode(inputs).texts[:, 0]

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Array:
        """As Keras' `predict`; strings may come as a list or in any array."""
        x = x if isinstance(x, tf.data.Dataset) else tf.convert_to_tensor(x)
        return super().predict(x, *args, **kwargs)

    def export(self, path: PathLike, verbose: bool = True) -> None:
        """Write a SavedModel that takes strings: stock TensorFlow operations, and no file beside.

        Its signatures are the `endpoints`. `keras_rnnx.serving.export` writes the same for a
        server, with all that it needs beside.
        """
        archive = keras.export.ExportArchive()
        archive.track(self)
        for name, (function, specs) in self.endpoints().items():
            archive.add_endpoint(name, function, input_signature=specs)
        archive.write_out(str(path), verbose=verbose)

    def endpoints(self) -> dict[str, tuple[Callable[..., dict[str, Tensor]], list[tf.TensorSpec]]]:
        """What an export answers, by name: functions and the specs of what they take.

        * serving_default: `text [B]` -> `text [B]` and `score [B]`, decoded as the model's
          `decoding` says.
        * decode: `text [B]`, and of each row its own `beam_width [B]`, `max_length [B]` and
          `length_penalty [B]` -> `texts [B, K]`, `scores`, `lengths`, `ids [B, K, T]`, and, with
          one attention, `alignments [B, K, T, S]`. K is the largest width.
        """

        def serve(text):
            found = self.decode(text)
            return {"text": found.texts[:, 0], "score": found.decoded.scores[:, 0]}

        def decode(text, **numbers):
            texts, found = self.decode(text, method="beam", **numbers)
            return {"texts": texts, **found.named()}

        text = tf.TensorSpec([None], tf.string, name="text")
        return {
            "serving_default": (serve, [text]),
            "decode": (with_numbers(decode, 1), [text, *NUMBERS]),
        }

    def get_config(self):
        write = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            **{name: write(getattr(self, name)) for name in ("model", "source", "target")},
            "separator": self.separator,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        read = lambda one: keras.saving.deserialize_keras_object(one, custom_objects)
        parts = {name: read(config[name]) for name in ("model", "source", "target")}
        return cls(**{**config, **parts})

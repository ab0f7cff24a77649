"""From a memory to a target, token by token or frame by frame."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_rnnx.annotations import States
from keras_rnnx.annotations import Tensor
from keras_rnnx.layers import RNN
from keras_rnnx.layers import Cell
from keras_rnnx.seq2seq.in_graph import Step


@keras.saving.register_keras_serializable(package="keras_rnnx")
class Decoder(keras.layers.Layer):
    """Cells, mostly with attention, between an embedding and an output layer, for `Seq2Seq`.

    Args:
        cell: a cell, or a list of cells from bottom to top; those that look at the memory are
            `keras_rnnx.AttentionCell`s. Without one the decoder knows its first states only. Or a
            `keras_rnnx.RNN` of such cells, for its options.
        vocabulary_size, embedding_size: of a decoder of ids, 0 being padding.
        features: size of the frames of a decoder of numbers `[B, T, features]`, instead of the two
            before.
        tie_embeddings: use the embedding as the kernel of the output layer too; an output of
            another size than the embedding's goes through a matrix first. Press and Wolf, "Using
            the Output Embedding to Improve Language Models", EACL 2017 (arXiv:1608.05859).
        dropout: rate of dropout on the embedding and before the output layer.
        **kwargs: of `keras.layers.Layer`.

    Call arguments:
        inputs: `[B, T]` ids or `[B, T, features]`, each the target of the step before.
        states: the states before the first step: a list for each cell.
        memory: `[B, S, M]`, or a list of them, or None.
        memory_mask: `[B, S]` booleans, or a list, or None.
        training: whether dropout acts.

    Returns:
        Logits `[B, T, V]`, or frames `[B, T, features]`.

    Raises:
        ValueError: for neither or both of vocabulary and features.

    Example:

    >>> import keras_rnnx, numpy as np, tensorflow as tf
    >>> from keras_rnnx.attention import BahdanauAttention
    >>> from keras_rnnx.seq2seq import Decoder
    >>> cell = keras_rnnx.AttentionCell(keras_rnnx.GRUCell(8), BahdanauAttention(8))
    >>> decoder = Decoder(cell, vocabulary_size=20, embedding_size=4)
    >>> memory = tf.ones([2, 7, 6])
    >>> decoder(np.ones((2, 5)), states=[[tf.zeros([2, 8])]], memory=memory).shape
    TensorShape([2, 5, 20])
    """

    def __init__(
        self,
        cell: keras.layers.Layer | Sequence[keras.layers.Layer],
        vocabulary_size: int | None = None,
        embedding_size: int | None = None,
        features: int | None = None,
        tie_embeddings: bool = False,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if (vocabulary_size is None) == (features is None):
            raise ValueError(
                f"Decoder got vocabulary_size={vocabulary_size} and features={features}, expected "
                "one of them: it gives ids or numbers."
            )
        if vocabulary_size is not None and embedding_size is None:
            raise ValueError("Decoder got a vocabulary_size without an embedding_size.")
        if tie_embeddings and vocabulary_size is None:
            raise ValueError("Decoder got tie_embeddings=True without a vocabulary to embed.")
        if isinstance(cell, RNN):
            self.rnn = cell
            self.rnn.return_sequences = True
        else:
            self.rnn = RNN(cell, return_sequences=True, name="rnn")
        self.vocabulary_size, self.embedding_size = vocabulary_size, embedding_size
        self.features, self.tie_embeddings, self.dropout = features, tie_embeddings, dropout
        self.embedding: Any = None
        if vocabulary_size is not None:
            self.embedding = keras.layers.Embedding(
                vocabulary_size, embedding_size, mask_zero=True, name="embedding"
            )
        self.drop = keras.layers.Dropout(dropout)
        self.resize = None
        if not tie_embeddings:
            self.output_layer = keras.layers.Dense(vocabulary_size or features, name="output")
        self.supports_masking = True

    @property
    def cells(self) -> list[keras.layers.Layer]:
        """The cells from bottom to top."""
        return self.rnn.cells

    @property
    def start_sizes(self) -> list[list[int]]:
        """Sizes of the states that a bridge gives, those of each cell, without an attention's."""
        inside = [getattr(cell, "cell", cell) for cell in self.cells]
        return [keras.tree.flatten(cell.state_size) for cell in inside]

    def build(self, inputs_shape, states_shape=None, memory_shape=None, memory_mask_shape=None):
        constants = None if memory_shape is None else {"memory": memory_shape}
        width = self.embedding_size or self.features
        if not self.rnn.built:
            self.rnn.build((*inputs_shape[:2], width), constants_shape=constants)
        if self.tie_embeddings:
            self.output_bias = self.add_weight(
                shape=(self.vocabulary_size,), initializer="zeros", name="output_bias"
            )
            size = self.rnn.output_size
            if (size[0] if isinstance(size, (list, tuple)) else size) != self.embedding_size:
                self.resize = keras.layers.Dense(self.embedding_size, use_bias=False, name="resize")
        self.built = True

    def call(
        self,
        inputs: Tensor,
        states: Sequence[States] | None = None,
        memory: Tensor | Sequence[Tensor] | None = None,
        memory_mask: Tensor | Sequence[Tensor | None] | None = None,
        training: bool | None = None,
    ) -> Tensor:
        x = inputs if self.embedding is None else self.embedding(inputs)
        x = self.drop(x, training=training)
        if states is not None and not self.rnn._is_stack:
            (states,) = states
        outputs = self.rnn(
            x,
            initial_state=states,
            training=training,
            constants=self.constants(memory, memory_mask),
        )
        outputs = outputs[0] if isinstance(outputs, (list, tuple)) else outputs
        return self.logits(self.drop(outputs, training=training))

    def compute_mask(self, inputs, mask=None):
        return mask if self.embedding is None else self.embedding.compute_mask(inputs)

    def compute_output_shape(self, inputs_shape, *shapes, **others):
        return (*inputs_shape[:2], self.vocabulary_size or self.features)

    def constants(
        self,
        memory: Tensor | Sequence[Tensor] | None,
        memory_mask: Tensor | Sequence[Tensor | None] | None,
    ) -> dict[str, Any] | None:
        """The constants of the cells; None if none of them looks at a memory."""
        takes = any("memory" in getattr(c.spec, "constant_names", ()) for c in self._own_cells)
        if not takes:
            return None
        if memory is None:
            raise ValueError(f"{self.name} has a cell with attention and got no memory.")
        return {"memory": memory, "memory_mask": memory_mask}

    @property
    def _own_cells(self):
        return [cell for cell in self.cells if isinstance(cell, Cell)]

    def logits(self, outputs: Tensor) -> Tensor:
        """Logits, or frames, from the outputs of the cells."""
        if not self.tie_embeddings:
            return self.output_layer(outputs)
        if self.resize is not None:
            outputs = self.resize(outputs)
        kernel = tf.cast(tf.convert_to_tensor(self.embedding.embeddings), outputs.dtype)
        logits = keras.ops.matmul(outputs, tf.transpose(kernel))
        return logits + tf.cast(tf.convert_to_tensor(self.output_bias), outputs.dtype)

    # -- one step after the other ------------------------------------------------------------

    def begin(
        self,
        states: Sequence[States],
        memory: Tensor | Sequence[Tensor] | None = None,
        memory_mask: Tensor | Sequence[Tensor | None] | None = None,
    ) -> tuple[list[States], list[dict[str, Any]]]:
        """`(state, constants)` for `step`: all states, and what is made of the memory once."""
        constants = self.constants(memory, memory_mask) or {}
        found, ready = [], []
        for cell, own in zip(self.cells, states, strict=True):
            if isinstance(cell, Cell):
                own, made = cell.begin_steps(own, constants)
            else:
                made = {}
            found.append([tf.cast(state, self.compute_dtype) for state in own])
            ready.append(made)
        return found, ready

    def step(
        self, inputs: Tensor, state: Sequence[States], constants: Sequence[dict[str, Any]]
    ) -> tuple[Any, ...]:
        """One step: ids `[N]`, or frames `[N, features]`, to logits, states and alignments.

        It is the step function of `keras_rnnx.seq2seq.beam_search`. `state` and `constants` are
        those of each cell.
        """
        return self.steps()(inputs, state, constants)

    def steps(self) -> Step:
        """`step` as a function that makes what it can of the weights once, for a loop."""
        ready = [cell.ready() if isinstance(cell, Cell) else None for cell in self.cells]

        def step(inputs, state, constants):
            x = inputs if self.embedding is None else self.embedding(inputs)
            found, alignments = [], []
            for cell, own, given, mine in zip(self.cells, state, constants, ready, strict=True):
                if isinstance(cell, Cell):
                    x, own, shown = cell.one_step(x, own, given, mine)
                    alignments.extend(shown)
                else:
                    x, own = cell(x, own)
                found.append(list(own))
            logits = self.logits(x)
            return (logits, found, alignments) if alignments else (logits, found)

        return step

    def get_config(self):
        return {
            **super().get_config(),
            "cell": keras.saving.serialize_keras_object(self.rnn),
            "vocabulary_size": self.vocabulary_size,
            "embedding_size": self.embedding_size,
            "features": self.features,
            "tie_embeddings": self.tie_embeddings,
            "dropout": self.dropout,
        }

    @classmethod
    def from_config(cls, config):
        cell = keras.saving.deserialize_keras_object(config["cell"])
        return cls(**{**config, "cell": cell})

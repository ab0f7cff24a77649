"""Seq2Seq: an encoder, a bridge and a decoder as one Keras model."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import keras
import tensorflow as tf

from keras_rnnx.annotations import States
from keras_rnnx.annotations import Tensor
from keras_rnnx.seq2seq import decoding as ways
from keras_rnnx.seq2seq import in_graph
from keras_rnnx.seq2seq.decoder import Decoder
from keras_rnnx.seq2seq.encoder import Bridge
from keras_rnnx.seq2seq.scheduled import ScheduledSampling
from keras_rnnx.seq2seq.search import Decoded


class Pair(NamedTuple):
    """A source and what the decoder gets at each step: the input of a `Seq2Seq` in training."""

    source: Any
    inputs: Any


class Encoded(NamedTuple):
    """A source, encoded; memory and mask are lists if there are several memories."""

    memory: Any
    mask: Any
    states: Any  # a list of the states of each cell of the decoder


@keras.saving.register_keras_serializable(package="keras_rnnx")
class Seq2Seq(keras.Model):
    """A model from sequences to sequences, trained with the targets as the decoder's inputs.

    `fit(source, targets)` takes target ids `[B, T]`, each row ending with the end token and then
    padded with 0, and shifts them by itself: the decoder gets the start token and then the target
    of the step before. `predict(source)` decodes, in one loop of the graph.

    Args:
        encoder: `keras_rnnx.seq2seq.Encoder`, or any Keras layer or model that gives a memory
            `[B, S, M]`, a tuple of that and states, or a dict of "memory" (perhaps a list, for as
            many attentions) and "states". Masks of memories are the Keras masks of the tensors.
        decoder: a `keras_rnnx.seq2seq.Decoder`.
        bridge: a `Bridge`; None makes `Bridge("dense")`.
        start, end: ids of the start and end token, for a decoder of ids. (A decoder of numbers
            starts with zeros and has no end.)
        decoding: dict of how `predict` and `decode` decode unless they are told otherwise:
            `method`, `"beam"`, `"greedy"` or `"sample"`, and the options of
            `keras_rnnx.seq2seq.beam_search`, `greedy_search` or `sample`. Padding (id 0) is never
            decoded.
        scheduled_sampling: a `ScheduledSampling` for training, or None.
        seed: of scheduled sampling.
        **kwargs: of `keras.Model`.

    Call arguments:
        inputs: the source; the logits of the first token come back, `[B, 1, V]`. In training a
            pair of the source and the inputs of the decoder, which give logits `[B, T, V]`.
        training: whether dropout acts.

    Masks: the source's hides positions of the memory. Steps of padding (id 0) in the decoder are
    masked, and the logits have that mask, so that losses and metrics of Keras leave them out.

    Raises:
        ValueError: for tokens outside the vocabulary, or decoding options that are none.

    Example:

    >>> import keras_rnnx, numpy as np
    >>> from keras_rnnx.attention import LuongAttention
    >>> from keras_rnnx.seq2seq import Decoder, Encoder, Seq2Seq, SequenceLoss
    >>> rnn = keras_rnnx.GRU(8, return_sequences=True, return_state=True)
    >>> cell = keras_rnnx.AttentionCell(keras_rnnx.GRUCell(8), LuongAttention())
    >>> model = Seq2Seq(
    ...     Encoder(rnn, vocabulary_size=9, embedding_size=4),
    ...     Decoder(cell, vocabulary_size=7, embedding_size=4),
    ...     start=1, end=2, decoding={"beam_width": 3, "max_length": 6},
    ... )
    >>> model.compile("adam", SequenceLoss())
    >>> source, targets = np.ones((4, 5), "int32"), np.array(4 * [[3, 4, 2, 0]])
    >>> _ = model.fit(source, targets, verbose=0)
    >>> model.predict(source, verbose=0)["ids"].shape
    (4, 3, 6)
    >>> model.decode(source, beam_width=2).alignments.shape[-1]
    5
    """

    def __init__(
        self,
        encoder: keras.layers.Layer,
        decoder: Decoder,
        bridge: Bridge | None = None,
        start: int | None = None,
        end: int | None = None,
        decoding: Mapping[str, Any] | None = None,
        scheduled_sampling: ScheduledSampling | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.encoder, self.decoder = encoder, decoder
        self.bridge = Bridge() if bridge is None else bridge
        self.start, self.end = start, end
        self.scheduled_sampling, self.seed = scheduled_sampling, seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        for name in ("start", "end"):
            self._check_token(name, getattr(self, name))
        self._decoding = ways.checked(decoding or {})
        # Loops compile themselves, and lengths are those of the batch.
        self.supports_jit = False
        self._built_for = None

    @property
    def decoding(self) -> dict[str, Any]:
        """A copy of the dict that says how the model decodes unless it is told otherwise."""
        return dict(self._decoding)

    def _check_token(self, name, token):
        size = self.decoder.vocabulary_size
        if size is None and token is not None:
            raise ValueError(f"{name} is {token}, and the decoder gives numbers: leave it out.")
        if size is not None and (not isinstance(token, int) or not 0 < token < size):
            raise ValueError(
                f"{name} is {token!r}, expected an id from 1 to {size - 1}: the decoder has "
                f"{size} tokens, of which 0 is padding."
            )

    # -- from a source to logits -------------------------------------------------------------

    def encode(self, source: Any, training: bool | None = None) -> Encoded:
        """The source as an `Encoded`."""
        found = self.encoder(source, training=training)
        if isinstance(found, dict):
            memory, states = found["memory"], found.get("states", [])
        elif isinstance(found, (list, tuple)):
            memory, *states = found
        else:
            memory, states = found, []
        mask = keras.tree.map_structure(lambda m: getattr(m, "_keras_mask", None), memory)
        first = lambda tree: tree[0] if isinstance(tree, (list, tuple)) else tree
        sizes, states = self.decoder.start_sizes, keras.tree.flatten(states)
        started = self.bridge.start(sizes, first(memory), first(mask), states)
        return Encoded(memory, mask, started)

    def begin(self, source: Any) -> tuple[Encoded, list[States], list[dict[str, Any]]]:
        """`(encoded, state, constants)`: what the decoder's `step` starts with, for inference."""
        if not self.decoder.built:
            self(source)
        encoded = self.encode(source, training=False)
        return encoded, *self.decoder.begin(encoded.states, encoded.memory, encoded.mask)

    def call(self, inputs: Any, training: bool | None = None) -> Tensor:
        if not isinstance(inputs, Pair):
            any_input = keras.tree.flatten(inputs)[0]
            first = self._first_inputs(tf.shape(any_input)[0])[:, None]
            if tf.distribute.has_strategy():
                # Before it fits, Keras holds the shape of this call against that of the targets.
                first = tf.raw_ops.PlaceholderWithDefault(
                    input=first, shape=[None, None, *first.shape[2:]]
                )
            inputs = Pair(inputs, first)
        self._remember(inputs)
        encoded = self.encode(inputs.source, training=training)
        return self.decoder(
            inputs.inputs,
            states=encoded.states,
            memory=encoded.memory,
            memory_mask=encoded.mask,
            training=training,
        )

    def _first_inputs(self, batch):
        if self.decoder.vocabulary_size is None:
            return tf.zeros([batch, self.decoder.features], self.compute_dtype)
        return tf.fill([batch], tf.cast(self.start, tf.int32))

    def teacher_inputs(self, targets: Tensor) -> Tensor:
        """What the decoder gets where `targets` are to come: each one a step later."""
        targets = tf.convert_to_tensor(targets)
        if self.decoder.vocabulary_size is None:
            return tf.pad(targets[:, :-1], [[0, 0], [1, 0], [0, 0]])
        targets = tf.cast(targets, tf.int32)
        shifted = tf.pad(targets[:, :-1], [[0, 0], [1, 0]], constant_values=self.start)
        return tf.where(targets != 0, shifted, 0)

    # -- training ----------------------------------------------------------------------------

    def train_step(self, data):
        source, targets, weight = keras.utils.unpack_x_y_sample_weight(data)
        inputs = self.teacher_inputs(targets)
        if self.scheduled_sampling is not None:
            inputs = self._with_own(source, inputs)
        return super().train_step((Pair(source, inputs), targets, weight))

    def test_step(self, data):
        source, targets, weight = keras.utils.unpack_x_y_sample_weight(data)
        return super().test_step((Pair(source, self.teacher_inputs(targets)), targets, weight))

    def _with_own(self, source, inputs):
        """The inputs, some of them what the decoder gave itself."""
        _, state, constants = self.begin(source)
        rate = self.scheduled_sampling.at(self.optimizer.iterations)
        seed = tf.cast(self.seed_generator.next(), tf.int32)
        step = self.decoder.steps()
        return self.scheduled_sampling.mix(step, state, constants, inputs, rate, seed)

    # -- decoding ----------------------------------------------------------------------------

    def decode(self, source: Any, **options: Any) -> Decoded:
        """The best targets for a source, as a `Decoded`; in one loop of the graph.

        Args:
            source: as of the call.
            **options: as `decoding` of the model, which they go before: `method`, `beam_width`,
                `max_length`, penalties and so on, each call anew. Numbers may be scalar tensors,
                and those of beam search that say so tensors `[B]`.
        """
        if self.decoder.vocabulary_size is None:
            raise ValueError(f"{self.name} has a decoder of numbers: use `rollout`.")
        options = ways.merged(self._decoding, options)
        fixed, numbers = ways.split(options)
        inputs = {"source": self._as_source(source), "numbers": numbers}
        jit_compile = bool(options.get("jit_compile"))
        return in_graph.shortened(in_graph.call(_decode, self, fixed, inputs, jit_compile))

    def _as_source(self, source):
        source = keras.tree.map_structure(tf.convert_to_tensor, source)
        if not self.decoder.built:  # weights are not made within the graph of a loop
            self(keras.tree.map_structure(lambda a: a[:1], source))
        return source

    def endpoints(self) -> dict[str, tuple[Callable[..., dict[str, Tensor]], list[tf.TensorSpec]]]:
        """What `keras_rnnx.serving.export` offers: functions and the specs of what they take.

        Of a source of ids `[B, S]` or features `[B, S, D]`; its steps from `lengths [B]` on are
        padding, whatever they hold.

        * serving_default: `source`, `lengths` -> `ids [B, T]`, `length [B]` and `score [B]` of the
          best target, decoded as `decoding` says; of a decoder of numbers `frames [B, T, F]`.
        * decode: these and of each row its own `beam_width [B]`, `max_length [B]` and
          `length_penalty [B]` -> `ids [B, K, T]`, `lengths`, `scores [B, K]`, and, with one
          attention, `alignments [B, K, T, S]`. K is the largest width.
        """
        if self._built_for is None or keras.tree.is_nested(self._built_for["structure"]):
            raise ValueError(
                f"{self.name} has no source of one tensor yet, by which an export would know what "
                "to ask for: call the model once, with one tensor as its source."
            )
        (seen,) = self._built_for["source"]
        shape = [None, None, *seen["shape"][2:]]
        ids = seen["dtype"].startswith(("int", "uint")) or len(shape) == 2
        specs = [tf.TensorSpec(shape, tf.int32 if ids else tf.float32, name="source")]
        specs.append(tf.TensorSpec([None], tf.int32, name="lengths"))

        def real(source, lengths):
            mask = tf.sequence_mask(lengths, tf.shape(source)[1])
            wide = tf.reshape(mask, tf.concat([tf.shape(mask), [1] * (len(shape) - 2)], axis=0))
            source = tf.where(wide, source, tf.zeros_like(source))
            if not ids:
                source._keras_mask = mask
            return source

        def serve(source, lengths):
            if self.decoder.vocabulary_size is None:
                steps = self._decoding.get("max_length", 50)
                return {"frames": self.rollout(real(source, lengths), steps)}
            found = self.decode(real(source, lengths))
            best = {"ids": found.ids, "length": found.lengths, "score": found.scores}
            return {name: a[:, 0] for name, a in best.items()}

        def decode(source, lengths, **numbers):
            return self.decode(real(source, lengths), method="beam", **numbers).named()

        found = {"serving_default": (serve, specs)}
        if self.decoder.vocabulary_size is not None:
            found["decode"] = (ways.with_numbers(decode, 2), [*specs, *ways.NUMBERS])
        return found

    def rollout(self, source: Any, steps: int | Tensor) -> Tensor:
        """The frames `[B, steps, features]` of a decoder of numbers, each made from the last."""
        if self.decoder.vocabulary_size is not None:
            raise ValueError(f"{self.name} has a decoder of ids: use `decode`.")
        in_graph.check_count("steps", steps)
        source = self._as_source(source)
        steps = in_graph.positive("steps", steps)
        return in_graph.call(ways.rollout, self, (), {"source": source, "steps": steps})

    def predict_step(self, data):
        source, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        longest = self._decoding.get("max_length", 50)
        if self.decoder.vocabulary_size is None:
            return self.rollout(source, longest)
        found = self.decode(source)
        # Batches are put together, so that all have to be of one length.
        missing = longest - tf.shape(found.ids)[-1]
        ids = tf.pad(found.ids, [[0, 0], [0, 0], [0, missing]], constant_values=self.end)
        return {"ids": ids, "lengths": found.lengths, "scores": found.scores}

    def log_probability(self, source: Any, targets: Tensor) -> Tensor:
        """The log-probability `[B]` of targets `[B, T]`, padded with 0 after their end token."""
        targets = tf.cast(targets, tf.int32)
        logits = self(Pair(source, self.teacher_inputs(targets)), training=False)
        scores = tf.nn.log_softmax(tf.cast(logits, tf.float32))
        chosen = tf.gather(scores, targets, axis=2, batch_dims=2)
        return tf.reduce_sum(tf.where(targets != 0, chosen, 0.0), axis=1)

    def evaluate_decoded(
        self,
        source: Any,
        targets: Tensor,
        metrics: Sequence[keras.metrics.Metric],
        batch_size: int = 64,
        **options: Any,
    ) -> dict[str, float]:
        """Metrics of what is decoded: `{name: value}`, from the best hypothesis of each source.

        Args:
            source: as of the call.
            targets: `[B, T]`, or `[B, R, T]` for R references of each source, those of zeros being
                none.
            metrics: list of `ErrorRate`, `ExactMatch` or any that take ids for ids.
            batch_size: how many rows are decoded at a time.
            **options: as of `decode`.
        """
        for metric in metrics:
            metric.reset_state()
        rows = lambda tree, k: keras.tree.map_structure(lambda a: a[k : k + batch_size], tree)
        for k in range(0, len(targets), batch_size):
            found = self.decode(rows(source, k), **options)
            for metric in metrics:
                metric.update_state(rows(targets, k), found.ids[:, 0])
        return {metric.name: float(metric.result()) for metric in metrics}

    # -- configuration -----------------------------------------------------------------------

    def _remember(self, inputs):
        if self._built_for is None:
            dtype = lambda a: keras.backend.standardize_dtype(a.dtype)
            describe = lambda a: {"shape": [None, *a.shape[1:]], "dtype": dtype(a)}
            described = [describe(a) for a in keras.tree.flatten(inputs.source)]
            structure = keras.tree.map_structure(lambda _: 0, inputs.source)
            self._built_for = {"source": described, "structure": structure}

    def get_build_config(self):
        return self._built_for

    def build(self, *shapes):
        self.built = True  # the parts are built as they are called, with what the others give

    def build_from_config(self, config):
        flat = [keras.KerasTensor(tuple(s["shape"]), s["dtype"]) for s in config["source"]]
        source = keras.tree.pack_sequence_as(config["structure"], flat)
        ids = self.decoder.vocabulary_size is not None
        inputs = keras.KerasTensor((None, None), "int32")
        if not ids:
            inputs = keras.KerasTensor((None, None, self.decoder.features), self.compute_dtype)
        self(Pair(source, inputs))

    def get_config(self):
        write = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            **{name: write(getattr(self, name)) for name in PARTS},
            "start": self.start,
            "end": self.end,
            "decoding": {name: write(value) for name, value in self._decoding.items()},
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        read = lambda one: keras.saving.deserialize_keras_object(one, custom_objects)
        config = {**config, **{name: read(config[name]) for name in PARTS}}
        config["decoding"] = {name: read(value) for name, value in config["decoding"].items()}
        return cls(**config)


PARTS = ("encoder", "decoder", "bridge", "scheduled_sampling")


def _decode(model, fixed, inputs):
    encoded, state, constants = model.begin(inputs["source"])
    mask = encoded.mask[0] if isinstance(encoded.mask, (list, tuple)) else encoded.mask
    return ways.run(
        model.decoder.steps(),
        state,
        constants,
        fixed,
        inputs["numbers"],
        tokens={"start": model._first_inputs(tf.shape(encoded.states[0][0])[0]), "end": model.end},
        memory_mask=mask,
    )

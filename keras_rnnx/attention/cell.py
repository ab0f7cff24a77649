"""A cell with attention, as a Keras layer."""

import dataclasses
from collections.abc import Sequence
from typing import Any
from typing import Literal

import keras
import tensorflow as tf

from keras_rnnx.annotations import Activation
from keras_rnnx.annotations import Dtype
from keras_rnnx.annotations import States
from keras_rnnx.annotations import Tensor
from keras_rnnx.attention import checks
from keras_rnnx.attention.base import Attention
from keras_rnnx.attention.spec import AllSteps
from keras_rnnx.attention.spec import AttentionSpec
from keras_rnnx.layers import Cell


@keras.saving.register_keras_serializable(package="keras_rnnx")
class AttentionCell(Cell):
    """A cell that looks at one or more memories at every step, for decoders.

        query="output"      h, s = cell([x, a'], s)         a', the attention vector of the step
                            c = attend(h)                   before, only with input feeding
        query="state"       c = attend(s[0])
                            h, s = cell([x, c], s)
        both                a = activation([h, c] Wa)       or c, without an attention_size

    `query="output"`: Luong et al. (arXiv:1508.04025); `"state"`: Bahdanau et al.
    (arXiv:1409.0473). In `keras_rnnx.RNN` it runs on the engine. Where the scores are of content
    only, the query is the output and nothing is fed, the cell runs over the whole sequence first
    (on a GPU with cuDNN if it can), and all steps attend at once.

    Args:
        cell: a cell of this package, with its own initializers and noise. Dropout on its input
            does not act on what is fed.
        attention: a `keras_rnnx.attention.BahdanauAttention`, `LuongAttention` or
            `LocationAttention`, or a list of them.
        input_feeding: feed the attention vector of the step before to the cell, beside the input.
            Not with `query="state"`, whose cell gets the context of the same step.
        attention_size: size of the attention vector a; None takes the contexts themselves.
        attention_activation: of the attention vector.
        query: `"output"` or `"state"`: what is compared with the memory.
        output_mode: `"attention"`, `"cell"` or `"both"` side by side; None means `"attention"`
            with an attention_size, else `"both"`.
        return_alignments: give the alignments of each attention beside the output.
        **kwargs: `kernel_initializer`, `bias_initializer`, regularizers and constraints of the
            weights of the attention; and those of `keras.layers.Layer`.

    Constants, which `RNN` takes at each call, `constants={"memory": ..., "memory_mask": ...}`:

    * memory: `[B, S, M]`, or a list with one for each attention; one memory serves all.
    * memory_mask: `[B, S]` booleans, True where a position is real, or a list of them; None for
      all. A Keras mask of the memory holds too. Masked positions get no alignment, whatever they
      hold; a row without a real position has alignments and a context of zeros.

    States: those of the cell, then, with input feeding, the attention vector, then for
    monotonic, location-sensitive and coverage attention what they keep of the alignments,
    `[B, S]` each. They begin as zeros. An `initial_state` may hold those of the cell only.

    Call arguments of a single step: as of `keras_rnnx.Cell`.

    Returns (of `RNN` with `return_sequences`):
        `[B, T, A]`, or with `return_alignments` a tuple of that and of `[B, T, S]` for each
        attention.

    Raises:
        ValueError: for options that do not go together, noise given to this cell instead of the
            one inside, a memory of another batch size or depth, or a mask of another shape.
        TypeError: for a cell or an attention of another kind.

    Example:

    >>> import keras_rnnx, numpy as np
    >>> from keras_rnnx.attention import LuongAttention
    >>> cell = keras_rnnx.AttentionCell(
    ...     keras_rnnx.LSTMCell(8), LuongAttention("dot"), attention_size=10, return_alignments=True
    ... )
    >>> decoder = keras_rnnx.RNN(cell, return_sequences=True)
    >>> memory = np.ones((2, 7, 8), "float32")
    >>> output, alignments = decoder(np.ones((2, 5, 3), "float32"), constants={"memory": memory})
    >>> output.shape, alignments.shape
    (TensorShape([2, 5, 10]), TensorShape([2, 5, 7]))
    """

    optional_constants = ("memory_mask", "keys")
    further_noise = ("sigmoid_noise",)

    @property
    def sigmoid_noise(self) -> bool:
        """Whether scores get noise in training."""
        return dataclasses.replace(self.spec, training=True).noisy

    def __init__(
        self,
        cell: Cell,
        attention: Attention | Sequence[Attention],
        input_feeding: bool = False,
        attention_size: int | None = None,
        attention_activation: Activation = "tanh",
        query: Literal["output", "state"] = "output",
        output_mode: Literal["attention", "cell", "both"] | None = None,
        return_alignments: bool = False,
        **kwargs: Any,
    ) -> None:
        attentions = list(attention) if isinstance(attention, (list, tuple)) else [attention]
        checks.parts(cell, attentions, AttentionCell)
        checks.no_noise(kwargs)
        checks.options(query, input_feeding, output_mode, attention_size)
        output_mode = output_mode or ("attention" if attention_size else "both")
        arguments = {
            "cell": cell,
            "attention": attentions,
            "input_feeding": input_feeding,
            "attention_size": attention_size,
            "attention_activation": attention_activation,
            "query": query,
            "output_mode": output_mode,
            "return_alignments": return_alignments,
        }
        noise = {name: getattr(cell, name) for name in checks.NOISE}
        super().__init__(arguments, **noise, **kwargs)
        self.arguments = tuple(name for name in self.arguments if name not in checks.NOISE)
        if self.recurrence() is self and self.spec.feed_size != 0:
            checks.may_be_fed(cell)

    # -- the spec, which delegates to the cell inside ----------------------------------------

    def make_spec(self) -> AttentionSpec:
        return AttentionSpec(
            self.cell.spec,
            attentions=tuple(self.attention),
            input_feeding=self.input_feeding,
            attention_size=self.attention_size,
            attention_activation=self.attention_activation,
            query=self.query,
            output_mode=self.output_mode,
            return_alignments=self.return_alignments,
        )

    def regularized(self, training: bool | None) -> AttentionSpec:
        inside = self.cell.regularized(training)
        return dataclasses.replace(self.spec, spec=inside, training=bool(training))

    def recurrence(self) -> Cell:
        content = not any(attention.state_names for attention in self.attention)
        if content and self.query == "output" and not self.input_feeding:
            return self.cell
        return self

    def after(self, output: Tensor, given: dict[str, Any]) -> Tensor | tuple[Tensor, ...]:
        """The outputs for those of the cell inside, `[T, B, U]`, or `[B, U]` of one step."""
        if output.shape.rank == 2:
            return keras.tree.map_structure(lambda a: a[0], self.after(output[None], given))
        weights = self.tensors()
        _, constants, _ = self.spec.enter(weights, given, (), None, None, False)
        prepared = self.spec.prepare(weights)
        prepared = {name: tf.cast(w, output.dtype) for name, w in prepared.items()}
        return self.spec.after(prepared, AllSteps(prepared, constants), output, constants)

    # -- Keras -------------------------------------------------------------------------------

    def build(self, input_shape, constants_shape=None):
        self.input_dim = input_shape[-1]
        sizes = checks.memory_sizes(self, constants_shape, len(self.attention))
        self.spec = dataclasses.replace(self.spec, memory_sizes=sizes)
        for attention, size in zip(self.attention, sizes):
            attention.check(self.spec.query_size, size)
        self.state_size = list(self.spec.state_sizes)
        self.output_size = self.spec.output_size
        if not self.cell.built:
            known = self.input_dim is not None  # else the cell refuses it
            width = self.input_dim + self.spec.feed_size if known else None
            self.cell.build((*input_shape[:-1], width))
            self.cell.built = True
        starts = {}
        for attention, suffix in zip(self.attention, self.spec.suffixes):
            starts.update({name + suffix: start for name, start in attention.starts.items()})
        self._own = {
            name: self.add_weight(
                shape=weight.shape,
                name=name,
                initializer=starts.get(name) or self.initializer(name, weight.role),
                regularizer=getattr(self, f"{weight.role}_regularizer", None),
                constraint=getattr(self, f"{weight.role}_constraint", None),
                autocast=False,
            )
            for name, weight in self.spec.own_weights().items()
        }
        self.built = True

    def tensors(self) -> dict[str, Tensor]:
        inside = self.cell.tensors()
        if self.spec.feed_size:
            kernel = inside["kernel"]
            inside["kernel"] = kernel[: self.input_dim]
            inside["feed_kernel"] = kernel[self.input_dim :]
        return {**inside, **{n: tf.convert_to_tensor(v) for n, v in self._own.items()}}

    def take_constants(self, given: dict[str, Any], batch: int | None) -> dict[str, Any]:
        """The memories and masks of a call as lists, checked, one for each attention."""
        given, count = dict(given), len(self.attention)
        listed = lambda one: list(one) if isinstance(one, (list, tuple)) else [one]
        if given.get("memory") is None:
            raise ValueError(f'{self.name} got no memory: pass constants={{"memory": ...}}.')
        memories = [tf.convert_to_tensor(m) for m in listed(given["memory"])]
        masks = listed(given.get("memory_mask"))
        masks = len(memories) * [None] if masks == [None] else masks
        checks.memories(self, memories, masks, count)
        for k, (memory, mask) in enumerate(zip(memories, masks)):
            checks.memory(self, memory, self.spec.memory_sizes[k], batch)
            if mask is not None:
                masks[k] = tf.cast(tf.convert_to_tensor(mask), tf.bool)
                checks.memory_mask(self, masks[k], memory)
        if len(memories) < count:
            memories, masks = count * memories, count * masks
        more = {"keys": listed(given["keys"])} if given.get("keys") is not None else {}
        return {**given, "memory": memories, "memory_mask": masks, **more}

    def begin_steps(
        self, states: States, constants: dict[str, Any]
    ) -> tuple[States, dict[str, Any]]:
        """States as wide as the memory, and constants with the keys, which no step makes again."""
        given = self.take_constants(constants, None)
        cast = lambda a: tf.cast(a, self.compute_dtype)
        given["memory"] = [cast(memory) for memory in given["memory"]]
        states = tuple(map(cast, self.complete_states(states)))
        _, ready, states = self.spec.enter(self.tensors(), given, states, None, None, False)
        listed = lambda name: [ready.get(name + suffix) for suffix in self.spec.suffixes]
        return states, {**given, "memory": listed("memory"), "keys": listed("keys")}

    def one_step(
        self,
        inputs: Tensor,
        states: States,
        constants: dict[str, Any] | None,
        ready: list[dict[str, Tensor]] | None = None,
    ) -> tuple[Tensor, States, list[Tensor]]:
        spec = dataclasses.replace(self.regularized(training=False), return_alignments=True)
        (output, *alignments), states = self._step(spec, inputs, states, constants, ready)
        return output, states, alignments

    @property
    def least_states(self) -> int:
        """How many states are those of the cell inside."""
        return len(self.cell.state_size)

    def sizes_to_start(self, states: States) -> list[int | None]:
        own = self.state_size[: self.least_states]
        return own if len(states) == len(own) else self.state_size

    def complete_states(self, states: States) -> States:
        if len(states) != self.least_states:
            return states
        batch = states[0].shape[0] or tf.shape(states[0])[0]
        return [*states, *self._own_states(batch, states[0].dtype)]

    def get_initial_state(
        self,
        inputs: Tensor | None = None,
        batch_size: int | Tensor | None = None,
        dtype: Dtype | None = None,
    ) -> list[Tensor]:
        """Zeros; those as wide as a memory have no width yet and get it in the call."""
        if batch_size is None and inputs is not None:
            batch_size = tf.shape(inputs)[0]
        inside = self.cell.get_initial_state(batch_size=batch_size, dtype=dtype)
        return [*inside, *self._own_states(batch_size, dtype or self.compute_dtype)]

    def _own_states(self, batch, dtype):
        """The states beside those of the cell, zeros."""
        sizes = self.state_size[self.least_states :]
        return [tf.zeros([batch, size or 0], dtype) for size in sizes]

    def get_config(self):
        write = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "cell": write(self.cell),
            "attention": [write(attention) for attention in self.attention],
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        read = lambda one: keras.saving.deserialize_keras_object(one, custom_objects)
        config["cell"] = read(config["cell"])
        config["attention"] = [read(attention) for attention in config["attention"]]
        return cls(**config)

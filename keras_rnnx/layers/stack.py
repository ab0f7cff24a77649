"""Stack: recurrent layers one above the other, as one layer."""

from collections.abc import Sequence
from typing import Any
from typing import Literal

import keras
import tensorflow as tf

from keras_rnnx import engine
from keras_rnnx.annotations import States
from keras_rnnx.annotations import Tensor
from keras_rnnx.layers import checks
from keras_rnnx.layers import lengths
from keras_rnnx.layers import one_call
from keras_rnnx.layers.base import SequenceLayer
from keras_rnnx.layers.bidirectional import Bidirectional
from keras_rnnx.layers.cell import reseeded
from keras_rnnx.layers.rnn import RNN
from keras_rnnx.layers.shapes import shapes_of
from keras_rnnx.regularization import draw_kept
from keras_rnnx.regularization import drop

DROPOUT_MODES = ("locked", "step")


@keras.saving.register_keras_serializable(package="keras_rnnx")
class Stack(SequenceLayer):
    """Recurrent layers one above the other: `torch.nn.LSTM(num_layers=...)` for any of ours.

    Every layer but the last gives its whole sequence to the next. What the last one returns,
    outputs and states, follows its own `return_sequences` and `return_state`.

        x = input
        for layer k:
            y = layer(drop(x))            dropout before every layer but the first
            y = y + x                     with `residual`, where the sizes are equal
            x = y                         or, with `skip`, concat(y, input) for the next layer
        output = y                        or, with `skip`, concat of the outputs of all layers

    References: residual connections Wu et al., "Google's Neural Machine Translation System",
    arXiv:1609.08144 (2016); skip connections Graves, "Generating Sequences With Recurrent Neural
    Networks", arXiv:1308.0850 (2013); locked dropout Gal and Ghahramani, NeurIPS 2016, and Merity
    et al., arXiv:1708.02182 (2017); dropout per step Zaremba et al., arXiv:1409.2329 (2014).

    Args:
        layers: a layer (LSTM, GRU, SimpleRNN, RNN or Bidirectional of this package) that is made
            `num_layers` times, each with its own weights and seed; or a list of layers.
        num_layers: how many, where one layer is given.
        dropout: rate at which the outputs of a layer are dropped on their way to the next.
        dropout_mode: `"locked"`, one mask per sample for all steps, or `"step"`, one for each.
        residual: add a layer's input to its output, from the second layer on.
        skip: every layer also sees the stack's input, and the output holds that of all layers.
        seed: of the dropout between layers.
        return_sequences, return_state, return_ragged: None means as the last layer says.
        **kwargs: of `keras.layers.Layer`; `dtype` is that of the last layer where it is not given.

    Call arguments:
        sequences: `[B, T, D]` (also named `inputs`), or a `tf.RaggedTensor`.
        initial_state: list of the states of all layers, from bottom to top.
        mask, training, sequence_length, reset_mask: see `keras_rnnx.RNN`.

    Returns:
        What the last layer returns; with `return_state` the states of all layers, from bottom to
        top. Without `return_sequences` that is the last layer's last output; with `residual` or
        `skip` the output of the last real step, and zeros in rows without one.

    Masks: every layer honours the mask, and it goes on to the next layer.

    Weights: those of the layers, from bottom to top, which can be exchanged with single ones.

    Raises:
        ValueError: for layers that do not go together, and for sizes that `residual` cannot add.

    Example:

    >>> import numpy as np, keras_rnnx
    >>> layer = keras_rnnx.Stack(keras_rnnx.LSTM(4), num_layers=3, dropout=0.2)
    >>> layer(np.ones((2, 5, 3), "float32")).shape
    TensorShape([2, 4])
    >>> both = keras_rnnx.Bidirectional(keras_rnnx.GRU(4, return_sequences=True))
    >>> keras_rnnx.Stack(both, num_layers=2)(np.ones((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 8])
    """

    def __init__(
        self,
        layers: RNN | Bidirectional | Sequence[RNN | Bidirectional],
        num_layers: int | None = None,
        dropout: float = 0.0,
        dropout_mode: Literal["locked", "step"] = "locked",
        residual: bool = False,
        skip: bool = False,
        seed: int | None = None,
        return_sequences: bool | None = None,
        return_state: bool | None = None,
        return_ragged: bool | None = None,
        **kwargs: Any,
    ) -> None:
        made_of_one = not isinstance(layers, (list, tuple))
        layers = _given(layers, num_layers)
        super().__init__(**{"dtype": layers[-1].dtype_policy, **kwargs})
        checks.one_of("dropout_mode", dropout_mode, DROPOUT_MODES)
        self.dropout = checks.rate("dropout", dropout)
        self.dropout_mode = dropout_mode
        self.residual = residual
        self.skip = skip
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        last = layers[-1]
        as_last = lambda value, name: getattr(last, name, False) if value is None else value
        self.return_sequences = as_last(return_sequences, "return_sequences")
        self.return_state = as_last(return_state, "return_state")
        self.return_ragged = as_last(return_ragged, "return_ragged")
        # What is added or put together of all layers is so at every step.
        whole = self.return_sequences or residual or skip
        self.layers = [
            _copy(layer, k, return_sequences=k + 1 < len(layers) or whole, reseed=made_of_one)
            for k, layer in enumerate(layers)
        ]
        self.stateful = any(layer.stateful for layer in self.layers)
        self.supports_masking = True
        self.supports_jit = all(layer.supports_jit for layer in self.layers)

    # -- shapes ----------------------------------------------------------------------------

    def build(self, sequences_shape, initial_state_shape=None):
        shape = tuple(sequences_shape)
        for layer in self.layers:
            if not layer.built:
                layer.build(shape)
                layer.built = True
            shape = self._next_shape(layer, shape, tuple(sequences_shape))
        self.built = True

    def _next_shape(self, layer, shape, first):
        features = _features(layer)
        if self._adds(layer) and shape[-1] != features:
            raise ValueError(
                f"{self.name} has residual=True, and its layer {layer.name} makes {features} "
                f"features of {shape[-1]}, which cannot be added. Give all layers above the first "
                "the size of the one below, without skip."
            )
        return (*shape[:2], features + first[-1] if self.skip else features)

    def _adds(self, layer):
        return self.residual and layer is not self.layers[0]

    def compute_output_shape(self, sequences_shape, initial_state_shape=None):
        batch, steps = sequences_shape[:2]
        last = self.layers[-1]
        features = sum(map(_features, self.layers)) if self.skip else _features(last)
        output = (batch, steps, features) if self.return_sequences else (batch, features)
        if not self.return_state:
            return output
        sizes = keras.tree.flatten(self.state_size)
        return output, *((batch, size) for size in sizes)

    def compute_mask(self, sequences, mask=None):
        mask = keras.tree.flatten(mask)[0] if mask is not None else None
        output = mask if self.return_sequences else None
        if not self.return_state:
            return output
        return [output, *(None for _ in keras.tree.flatten(self.state_size))]

    # -- states ----------------------------------------------------------------------------

    @property
    def state_size(self) -> list[int]:
        """Sizes of the states of all layers, from bottom to top, as one flat list."""
        return [n for layer in self.layers for n in _state_sizes(layer)]

    def get_initial_state(self, batch_size: int | Tensor) -> list[Tensor]:
        """Zeros for every layer: a list of the states, with `batch_size` rows."""
        return [
            state
            for layer in self.layers
            for inner in _directions(layer)
            for state in keras.tree.flatten(inner.get_initial_state(batch_size))
        ]

    def initial_states(self, batch: int | Tensor) -> list[Tensor]:
        """The states of `batch` rows before the first step, to start `step` with: `[B, U]` each."""
        for layer in self.layers:
            if isinstance(layer, Bidirectional):
                layer.step()
            checks.causal(layer)
        return self.get_initial_state(batch)

    @property
    def states(self) -> list[Tensor] | None:
        """The kept states of all layers, if stateful and built."""
        kept = [layer.states for layer in self.layers]
        return None if None in kept else keras.tree.flatten(kept)

    def reset_state(self) -> None:
        """Set the kept states of all layers to zeros."""
        for layer in self.layers:
            layer.reset_state()

    def reset_states(self) -> None:
        """The name of Keras 2 for `reset_state`."""
        self.reset_state()

    # -- call ------------------------------------------------------------------------------

    def call(
        self,
        sequences: Tensor,
        initial_state: States | None = None,
        mask: Tensor | None = None,
        training: bool | None = None,
        sequence_length: Tensor | None = None,
        reset_mask: Tensor | None = None,
    ) -> Any:
        lengths_given = sequence_length is not None or lengths.is_ragged(sequences)
        sequences, mask = lengths.with_mask(self, sequences, mask, sequence_length)
        if self.skip:
            sequences = engine.zero_padding(sequences, mask)  # it also goes to the output
        options = {"mask": mask, "training": training}
        if reset_mask is not None:
            options["reset_mask"] = reset_mask

        def run(layer, x, states):
            if states is not None:
                states = _nested(states, layer)
            output, *last = layer(x, initial_state=states, **options)
            return output, last

        given = None if initial_state is None else self._by_layer(initial_state)
        if self._in_one_call(training, resets=reset_mask is not None):
            ways, flat = self._ways(), None if given is None else keras.tree.flatten(given)
            outputs, states = one_call.run(ways, sequences, flat, mask, training)
            output = self.layers[-1].merge(*outputs) if len(outputs) == 2 else outputs[0]
        else:
            output, states = self._through(sequences, given, run, training)
        if output.shape.rank == 3 and not self.return_sequences:
            output = engine.last_real(output, mask)
        output = self.as_asked(output, mask, lengths_given)
        return (output, *states) if self.return_state else output

    @tf.autograph.experimental.do_not_convert  # as Keras does for calls
    def step(
        self, x: Tensor, states: States, training: bool | None = False
    ) -> tuple[Tensor, list[Tensor]]:
        """One step: `x [B, D]` and the states of all layers, as a flat list, give the output
        `[B, U]` and new states. Start with `initial_states(batch)`."""
        if not self.built:
            batch, *rest = shapes_of(x)
            self.build((batch, None, *rest))
        for layer in self.layers:
            if isinstance(layer, Bidirectional):
                layer.step()
        run = lambda layer, x, states: layer.step(x, _nested(states, layer), training=training)
        return self._through(tf.convert_to_tensor(x), self._by_layer(states), run, training)

    def _through(self, first, states, run, training):
        """The layers from bottom to top: the output and all last states, flat."""
        x, outputs, last = first, [], []
        for k, layer in enumerate(self.layers):
            into = x if k == 0 else self._dropped(x, training)
            output, new = run(layer, into, None if states is None else states[k])
            output = tf.cast(output, self.compute_dtype)
            if self._adds(layer):
                output += x
            outputs.append(output)
            last.extend(keras.tree.flatten(new))
            x = tf.concat([output, first], axis=-1) if self.skip else output
        return tf.concat(outputs, axis=-1) if self.skip else output, last

    def _dropped(self, x, training):
        if not training or not 0 < self.dropout < 1:
            return x
        sizes = tf.unstack(tf.shape(x))
        if self.dropout_mode == "locked" and x.shape.rank == 3:
            sizes[1] = 1
        return drop(x, draw_kept(self.seed_generator.next(), sizes, self.dropout), self.dropout)

    def _ways(self):
        return [_directions(layer) for layer in self.layers]

    def _in_one_call(self, training, resets):
        """Whether one call of cuDNN runs all layers; what happens between them it cannot know."""
        between = self.residual or self.skip or (training and 0 < self.dropout < 1)
        merged = any(getattr(one, "merge_mode", "concat") != "concat" for one in self.layers[:-1])
        dtypes = {one.compute_dtype for one in [self, *self.layers]}  # of what they hand on
        if between or merged or len(dtypes) > 1:
            return False
        return one_call.obstacle(self._ways(), training, resets) is None

    def _by_layer(self, states):
        """The flat list of states, as a list for each layer."""
        flat = keras.tree.flatten(states)
        sizes = [len(_state_sizes(layer)) for layer in self.layers]
        if len(flat) != sum(sizes):
            raise ValueError(
                f"{self.name} got {len(flat)} states, expected {sum(sizes)}: those of all its "
                f"layers from bottom to top, {sizes} each."
            )
        flat = iter(flat)
        return [[next(flat) for _ in range(size)] for size in sizes]

    # -- configuration ---------------------------------------------------------------------

    def get_config(self):
        # The layers give sequences and states; what the stack was asked for stands beside.
        return {
            **super().get_config(),
            "layers": [keras.saving.serialize_keras_object(layer) for layer in self.layers],
            "num_layers": None,
            "dropout": self.dropout,
            "dropout_mode": self.dropout_mode,
            "residual": self.residual,
            "skip": self.skip,
            "seed": self.seed,
            "return_sequences": self.return_sequences,
            "return_state": self.return_state,
            "return_ragged": self.return_ragged,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        read = lambda layer: keras.saving.deserialize_keras_object(layer, custom_objects)
        layers = [read(one) if isinstance(one, dict) else one for one in config["layers"]]
        return cls(**{**config, "layers": layers})


def _given(layers, num_layers):
    """The layers to copy, one for each of the stack."""
    several = isinstance(layers, (list, tuple))
    if not several:
        checks.positive("num_layers", 1 if num_layers is None else num_layers)
        layers = (num_layers or 1) * [layers]
    elif num_layers is not None and num_layers != len(layers):
        raise ValueError(
            f"Stack got {len(layers)} layers and num_layers={num_layers}: leave num_layers out, or "
            "give one layer to be made so many times."
        )
    wrong = [one for one in layers if not isinstance(one, (RNN, Bidirectional))]
    if wrong or not layers:
        raise ValueError(
            f"Stack got {wrong or layers!r}, expected recurrent layers of keras_rnnx, such as "
            "LSTM(32) or Bidirectional(GRU(32))."
        )
    return layers


def _copy(layer, k, return_sequences, reseed, zeros=None):
    """A layer of the same configuration that returns its states, with its own name."""
    name = f"{layer.name.split('__')[0]}__{k}"
    if isinstance(layer, Bidirectional):
        ways = (layer.forward_layer, layer.backward_layer)
        pairs = zip(ways, layer.zeros_as_given, strict=True)
        forward, backward = (_copy(way, k, return_sequences, reseed, z) for way, z in pairs)
        copy = Bidirectional(
            forward,
            merge_mode=layer.merge_mode,
            backward_layer=backward,
            name=name,
            dtype=layer.dtype_policy,
        )
        if layer.merge_mode is None:
            raise ValueError(
                f"{layer.name} has merge_mode=None, whose two outputs are no input for the next "
                'layer of a stack. Use "concat", "sum", "mul" or "ave".'
            )
        return copy
    changes = dict(return_sequences=return_sequences, return_state=True, return_ragged=False)
    if zeros is not None:  # Bidirectional may have changed it, for sequences
        changes["zero_output_for_mask"] = zeros
    config = {**layer.get_config(), **changes, "name": name}
    # Equal seeds would drop the same units in all layers that are made of one.
    return type(layer).from_config(reseeded(config, 2 * k) if reseed else config)


def _directions(layer):
    """`(layer,)`, or `(forward, backward)`."""
    both = isinstance(layer, Bidirectional)
    return (layer.forward_layer, layer.backward_layer) if both else (layer,)


def _state_sizes(layer):
    return [n for one in _directions(layer) for n in keras.tree.flatten(one.state_size)]


def _nested(states, layer):
    """A flat list of states as the layer takes it."""
    states = iter(states)
    return [
        state
        for one in _directions(layer)
        for state in keras.tree.map_structure(lambda _: next(states), one.state_size)
    ]


def _features(layer):
    sizes = [one.output_size for one in _directions(layer)]
    return sum(sizes) if getattr(layer, "merge_mode", None) == "concat" else sizes[0]

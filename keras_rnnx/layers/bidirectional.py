"""Bidirectional: one layer forward in time and one backward."""

from collections.abc import Sequence
from typing import Any
from typing import Literal
from typing import NoReturn

import keras
import tensorflow as tf

from keras_rnnx.annotations import Array
from keras_rnnx.annotations import States
from keras_rnnx.annotations import Tensor
from keras_rnnx.layers import checks
from keras_rnnx.layers import lengths
from keras_rnnx.layers import one_call
from keras_rnnx.layers.base import SequenceLayer
from keras_rnnx.layers.cell import reseeded
from keras_rnnx.layers.streams import stream

MERGE_MODES = ("sum", "mul", "concat", "ave", None)


@keras.saving.register_keras_serializable(package="keras_rnnx")
class Bidirectional(SequenceLayer):
    """Runs a recurrent layer in both directions and merges the outputs.

    Drop-in for `keras.layers.Bidirectional`. Schuster and Paliwal, "Bidirectional Recurrent
    Neural Networks", IEEE Transactions on Signal Processing 45 (1997).

    Args:
        layer: a recurrent layer of this package or of Keras, for the forward direction.
        merge_mode: how the two outputs become one: "concat", "sum", "mul", "ave", or None, which
            returns both.
        weights: initial weights, forward then backward, set when the layer is built.
        backward_layer: the layer for the other direction, with `go_backwards` the other way round;
            None makes one with the forward layer's configuration and a seed of its own.
        **kwargs: of `keras.layers.Layer`.

    Call arguments:
        sequences: `[B, T, D]` (also named `inputs`).
        initial_state: list of the states of the forward layer, then of the backward one.
        mask: `[B, T]` booleans, in any pattern; both directions honour it.
        training: whether dropout acts.
        sequence_length, reset_mask: see `keras_rnnx.RNN`. Steps before which documents begin
            (`reset_mask [B, T]`) part them in both directions.

    Returns:
        The merged output, `[B, T, 2U]` with "concat" and `return_sequences`; with `return_state` a
        tuple of that, the forward layer's states and the backward layer's.

    Masks: as in `keras_rnnx.RNN`, except that with `return_sequences` the outputs of masked steps
    are zeros, as in Keras: a repeated output would come from the other side in each direction.

    A stream has no end to begin the other direction from: `step` is refused.

    Raises:
        ValueError: for layers that do not go together, and for steps of a stream.

    Example:

    >>> import numpy as np, keras_rnnx
    >>> layer = keras_rnnx.Bidirectional(keras_rnnx.LSTM(4))
    >>> layer(np.ones((2, 5, 3), "float32")).shape
    TensorShape([2, 8])
    """

    def __init__(
        self,
        layer: keras.layers.Layer,
        merge_mode: Literal["sum", "mul", "concat", "ave"] | None = "concat",
        weights: Sequence[Array] | None = None,
        backward_layer: keras.layers.Layer | None = None,
        **kwargs: Any,
    ) -> None:
        for given in (layer, backward_layer):
            if given is not None and not isinstance(given, keras.layers.Layer):
                raise ValueError(
                    f"Bidirectional got {given!r}, expected a recurrent Keras layer such as "
                    "keras_rnnx.LSTM(32). Please initialize `Bidirectional` layer with a "
                    "`keras.layers.Layer` instance."
                )
        checks.one_of("merge_mode", merge_mode, MERGE_MODES)
        super().__init__(**kwargs)
        self.return_ragged = False
        self.forward_layer = _copy(layer, "forward_")
        if backward_layer is None:
            self.backward_layer = _copy(
                layer, "backward_", reseed=True, go_backwards=not layer.go_backwards
            )
        else:
            self.backward_layer = backward_layer
        self._check_pair()
        ways = (self.forward_layer, self.backward_layer)
        self.zeros_as_given = [getattr(one, "zero_output_for_mask", False) for one in ways]
        for one in ways:
            if one.return_sequences:
                one.zero_output_for_mask = True
            if getattr(one, "return_ragged", False):
                self.return_ragged, one.return_ragged = True, False  # merged before that
        self.merge_mode = merge_mode
        self.weights_to_set = weights
        self.return_sequences = layer.return_sequences
        self.return_state = layer.return_state
        self.stateful = layer.stateful
        self.supports_masking = True

    def _check_pair(self):
        forward, backward = self.forward_layer, self.backward_layer
        if forward.go_backwards == backward.go_backwards:
            raise ValueError(
                f"layer and backward_layer both have go_backwards={forward.go_backwards}. Forward "
                "layer and backward layer should have different `go_backwards` value: set it on "
                "the backward layer."
            )
        for name in ("stateful", "return_sequences", "return_state"):
            ours, other = getattr(forward, name), getattr(backward, name)
            if ours != other:
                raise ValueError(
                    f"layer has {name}={ours!r} and backward_layer {other!r}. Forward layer and "
                    "backward layer are expected to have the same value for attribute "
                    f'"{name}".'
                )

    # -- shapes ----------------------------------------------------------------------------

    def build(self, sequences_shape, initial_state_shape=None):
        for layer in (self.forward_layer, self.backward_layer):
            if not layer.built:
                layer.build(sequences_shape)
                layer.built = True
        self.built = True
        if self.weights_to_set is not None:
            self.set_weights(self.weights_to_set)
            self.weights_to_set = None

    def compute_output_shape(self, sequences_shape, initial_state_shape=None):
        shape = self.forward_layer.compute_output_shape(sequences_shape)
        shape, *states = shape if self.return_state else (shape,)
        if self.merge_mode == "concat":
            output = (*shape[:-1], 2 * shape[-1])
        else:
            output = tuple(shape)
        outputs = (output, output) if self.merge_mode is None else (output,)
        if self.return_state:
            return (*outputs, *states, *states)
        return outputs if self.merge_mode is None else output

    def compute_mask(self, sequences, mask=None):
        mask = keras.tree.flatten(mask)[0] if mask is not None else None
        output = mask if self.return_sequences else None
        outputs = [output, output] if self.merge_mode is None else [output]
        if self.return_state:
            states = 2 * len(keras.tree.flatten(self.forward_layer.state_size))
            return outputs + states * [None]
        return outputs if self.merge_mode is None else output

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
        if stream(self) is not None:
            self.step()
        lengths_given = sequence_length is not None or lengths.is_ragged(sequences)
        sequences, mask = lengths.with_mask(self, sequences, mask, sequence_length)
        half = None if initial_state is None else self._half(initial_state)
        ways = (self.forward_layer, self.backward_layer)
        if one_call.obstacle([ways], training, resets=reset_mask is not None) is None:
            (y, y_back), states = one_call.run([ways], sequences, initial_state, mask, training)
        else:
            given = (None, None)
            if initial_state is not None:
                given = (initial_state[:half], initial_state[half:])
            options = dict(mask=mask, training=training)
            y, y_back, states = self._one_by_one(sequences, given, reset_mask, options)
        y = keras.ops.cast(y, self.compute_dtype)
        y_back = keras.ops.cast(y_back, self.compute_dtype)
        output = self.as_asked(self.merge(y, y_back), mask, lengths_given)
        if self.return_state:
            return (*output, *states) if self.merge_mode is None else (output, *states)
        return output

    def _one_by_one(self, sequences, given, reset_mask, options):
        """The outputs of both directions, in the order of the input, and the states."""
        outputs, states = [], []
        for layer, start in zip((self.forward_layer, self.backward_layer), given, strict=True):
            more = self._resets(reset_mask)[layer.go_backwards]
            y = layer(sequences, initial_state=start, **options, **more)
            if self.return_state:
                y, *last = y
                states.extend(last)
            if self.return_sequences and layer.go_backwards:
                y = keras.ops.flip(y, axis=1)  # it gives its outputs in its own order
            outputs.append(y)
        return *outputs, states

    def _resets(self, reset_mask):
        """The argument for a layer that goes forward and for one that goes backwards."""
        if reset_mask is None:
            return {}, {}
        reset = tf.cast(tf.convert_to_tensor(reset_mask), tf.bool)
        if reset.shape.rank != 2:
            return {"reset_mask": reset}, {"reset_mask": reset}
        # Going backwards a document begins with its last step, the one before the next one's first.
        ends = tf.concat([reset[:, 1:], tf.zeros_like(reset[:, :1])], axis=1)
        return {"reset_mask": reset}, {"reset_mask": ends}

    def step(self, *arguments: Any, **options: Any) -> NoReturn:
        """Refused: the backward layer begins with the last step, which a stream does not have."""
        raise ValueError(
            f"{self.name} goes through its sequence from both ends, and a stream has only one: the "
            "backward layer would begin with a step that has not come yet. Call it with whole "
            "sequences or chunks, or use a layer that goes forward."
        )

    initial_states = step

    def _half(self, initial_state):
        """Where the states of the backward layer begin."""
        size = len(self.forward_layer.state_size)
        count = len(initial_state) if isinstance(initial_state, (list, tuple)) else 1
        if count != 2 * size:
            raise ValueError(
                f"{self.name} got {count} initial states, expected {2 * size}: {size} of the "
                "forward layer, then as many of the backward layer."
            )
        return size

    def merge(self, y: Tensor, y_back: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """The outputs of both directions, `y` and `y_back`, as one, as `merge_mode` says."""
        if self.merge_mode == "concat":
            return keras.ops.concatenate([y, y_back], axis=-1)
        if self.merge_mode == "sum":
            return y + y_back
        if self.merge_mode == "ave":
            return (y + y_back) / 2
        if self.merge_mode == "mul":
            return y * y_back
        return y, y_back

    @property
    def states(self) -> tuple[States, ...] | None:
        """The kept states of both directions, if stateful and built."""
        if self.forward_layer.states is None or self.backward_layer.states is None:
            return None
        return (*self.forward_layer.states, *self.backward_layer.states)

    def reset_state(self) -> None:
        """Set the kept states of both directions to zeros."""
        self.forward_layer.reset_state()
        self.backward_layer.reset_state()

    def reset_states(self) -> None:
        """The name of Keras 2 for `reset_state`."""
        self.reset_state()

    # -- configuration ---------------------------------------------------------------------

    def get_config(self):
        forward = keras.saving.serialize_keras_object(self.forward_layer)
        if self.return_ragged:
            forward["config"]["return_ragged"] = True  # where it was asked for
        config = {
            **super().get_config(),
            "layer": forward,
            "merge_mode": self.merge_mode,
            "weights": None,  # saved as weights, not as configuration
            "backward_layer": keras.saving.serialize_keras_object(self.backward_layer),
        }
        return config

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        for name in ("layer", "backward_layer"):
            if isinstance(config.get(name), dict):
                config[name] = keras.saving.deserialize_keras_object(
                    config[name], custom_objects=custom_objects
                )
        return cls(**config)


def _copy(layer, prefix, reseed=False, **changes):
    """A layer of the same configuration, perhaps with a seed of its own."""
    config = {**layer.get_config(), **changes, "name": prefix + layer.name.removeprefix(prefix)}
    if reseed:
        config = reseeded(config, 1)  # equal seeds would drop the same units in both directions
    return type(layer).from_config(config)

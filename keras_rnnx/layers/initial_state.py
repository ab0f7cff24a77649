"""Initial states that are learned: one for all sequences, or one for each key."""

from typing import Any

import keras
import tensorflow as tf

from keras_rnnx.annotations import Initializer
from keras_rnnx.annotations import Regularizer
from keras_rnnx.annotations import States
from keras_rnnx.annotations import Tensor
from keras_rnnx.layers import checks
from keras_rnnx.layers.shapes import map_sizes


@keras.saving.register_keras_serializable(package="keras_rnnx")
class InitialState(keras.layers.Layer):
    """Trainable states to start a recurrent layer with, for all sequences or for each key.

    Instead of zeros: `lstm(x, initial_state=InitialState(lstm.state_size)(x))`. With `num_keys`
    each sample comes with an integer (a speaker, a product, a user), and every key has its own
    states.

    Args:
        state_size: sizes of the states, as the `state_size` of the layer to start.
        num_keys: None for one start for all, or how many keys there are.
        initializer: of the states, `"zeros"` by default.
        regularizer: penalty on the states.
        **kwargs: of `keras.layers.Layer`.

    Call arguments:
        inputs: without `num_keys` any tensor `[B, ...]`, of which only the batch counts; with it
            integer keys `[B]` from 0 to `num_keys - 1`.

    Returns:
        A list of states, `[B, size]` each.

    Masks: none is used or passed on.

    Raises:
        ValueError: for sizes that are no positive integers, and keys that are no integers.

    Example:

    >>> import numpy as np, keras_rnnx
    >>> layer = keras_rnnx.LSTM(4)
    >>> x, speaker = np.ones((3, 5, 2), "float32"), np.array([0, 7, 7])
    >>> start = keras_rnnx.InitialState(layer.state_size, num_keys=10)
    >>> layer(x, initial_state=start(speaker)).shape
    TensorShape([3, 4])
    >>> [tuple(w.shape) for w in start.weights]
    [(10, 4), (10, 4)]
    """

    def __init__(
        self,
        state_size: int | tuple[int, ...] | list[Any] | dict[str, Any],
        num_keys: int | None = None,
        initializer: Initializer = "zeros",
        regularizer: Regularizer = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.state_size = state_size
        self.num_keys = num_keys
        self.initializer = keras.initializers.get(initializer)
        self.regularizer = keras.regularizers.get(regularizer)
        sizes = state_size if isinstance(state_size, (list, dict)) else [state_size]
        map_sizes(lambda size: [checks.positive("state_size", n) for n in size], sizes)
        self._sizes = sizes
        if num_keys is not None:
            checks.positive("num_keys", num_keys)
        self.states = None
        self.supports_masking = True  # of the inputs only their number is looked at

    def compute_mask(self, inputs, previous_mask=None):
        return None

    def build(self, inputs_shape):
        self.states = map_sizes(
            lambda size: self.add_weight(
                shape=(self.num_keys or 1, *size),
                initializer=self.initializer,
                regularizer=self.regularizer,
                name="state",
            ),
            self._sizes,
        )
        self.built = True

    def call(self, inputs: Tensor) -> States:
        inputs = tf.convert_to_tensor(inputs)
        if self.num_keys is None:
            keys = tf.zeros(tf.shape(inputs)[:1], tf.int32)
        elif inputs.dtype.is_integer and inputs.shape.rank in (1, None):
            keys = inputs
        else:
            raise ValueError(
                f"{self.name} got keys of shape {tuple(inputs.shape)} and type "
                f"{inputs.dtype.name}, expected one integer per sample, (batch,)."
            )
        of_keys = lambda states: tf.gather(tf.convert_to_tensor(states), keys)
        return keras.tree.map_structure(of_keys, self.states)

    def compute_output_shape(self, inputs_shape):
        return map_sizes(lambda size: (inputs_shape[0], *size), self._sizes)

    def compute_output_spec(self, inputs):
        spec = lambda size: keras.KerasTensor((inputs.shape[0], *size), self.compute_dtype)
        return map_sizes(spec, self._sizes)

    def get_config(self):
        return {
            **super().get_config(),
            "state_size": self.state_size,
            "num_keys": self.num_keys,
            "initializer": keras.initializers.serialize(self.initializer),
            "regularizer": keras.regularizers.serialize(self.regularizer),
        }

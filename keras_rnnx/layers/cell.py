"""A cell as a Keras layer: the weights of a spec, with everything Keras lets one say about them."""

import keras
import tensorflow as tf

from keras_rnnx.engine import Products
from keras_rnnx.layers import checks
from keras_rnnx.regularization import RecurrentDropout

# How an argument is read and written, by the end of its name.
KINDS = {
    "activation": (keras.activations.get, keras.activations.serialize),
    "initializer": (keras.initializers.get, keras.initializers.serialize),
    "regularizer": (keras.regularizers.get, keras.regularizers.serialize),
    "constraint": (keras.constraints.get, keras.constraints.serialize),
}


def read(name, value):
    """An argument as it is used: `"tanh" -> keras.activations.tanh`."""
    kind = KINDS.get(name.split("_")[-1])
    return kind[0](value) if kind else value


def write(name, value):
    """An argument as `get_config` gives it."""
    kind = KINDS.get(name.split("_")[-1])
    return kind[1](value) if kind and value is not None else value


class Cell(keras.layers.Layer):
    """Base of the cells: holds the weights of a `CellSpec` and runs single steps.

    In `keras_rnnx.RNN` the engine runs a cell's spec over the whole sequence. A cell also works
    by itself, `output, states = cell(x, states)`, and so in `keras.layers.RNN`; there dropout is
    refused in training, since Keras has no public hook to draw a mask once per sequence.

    A subclass passes its arguments on as a dict and says which spec they make (`make_spec`).
    """

    def __init__(self, arguments, **kwargs):
        kwargs.pop("implementation", None)  # Keras' choice between two formulations; here is one
        super().__init__(**kwargs)
        checks.positive("units", arguments["units"])
        self.arguments = tuple(arguments)
        for name, value in arguments.items():
            setattr(self, name, read(name, value))
        self.dropout = checks.rate("dropout", self.dropout)
        self.recurrent_dropout = checks.rate("recurrent_dropout", self.recurrent_dropout)
        self.seed_generator = keras.random.SeedGenerator(self.seed)
        self.spec = self.make_spec()
        self.state_size = list(self.spec.state_sizes)
        self.output_size = self.spec.output_size
        self.input_dim = None

    def make_spec(self):
        raise NotImplementedError(f"{type(self).__name__} says not which spec it holds")

    def regularized(self, training):
        """The spec with the noise of this cell around it."""
        if training and 0 < self.recurrent_dropout < 1:  # a rate of 1 drops nothing, as in Keras
            return RecurrentDropout(self.spec, self.recurrent_dropout)
        return self.spec

    def build(self, input_shape):
        self.input_dim = input_shape[-1]
        checks.known_features(self, input_shape)
        self.bias = None
        for name, weight in self.spec.weights(self.input_dim).items():
            variable = self.add_weight(
                shape=weight.shape,
                name=name,
                initializer=self.initializer(name, weight.role),
                regularizer=getattr(self, f"{weight.role}_regularizer"),
                constraint=getattr(self, f"{weight.role}_constraint"),
                # The engine casts, and so can sum gradients in the variable's own precision.
                autocast=False,
            )
            setattr(self, name, variable)
        self.built = True

    def initializer(self, name, role):
        """The initializer of a weight."""
        return getattr(self, f"{role}_initializer")

    def tensors(self):
        """The weights by name."""
        names = self.spec.weights(self.input_dim)
        return {name: tf.convert_to_tensor(getattr(self, name)) for name in names}

    def call(self, inputs, states, training=False):
        """One step: `inputs [B, D]`, states `[B, U]` each -> `(output [B, U], new states)`."""
        if training and (self.dropout or self.recurrent_dropout):
            raise ValueError(
                f"{type(self).__name__} has dropout={self.dropout} and recurrent_dropout="
                f"{self.recurrent_dropout} and was called for a single training step. Its masks "
                "are drawn once per sequence, which keras.layers.RNN gives a cell no chance to "
                "do: use keras_rnnx.RNN(cell) instead."
            )
        nested = isinstance(states, (list, tuple))
        states = list(states) if nested else [states]
        spec, weights = self.regularized(training=False), self.tensors()
        x = spec.project(weights, tf.cast(inputs, self.compute_dtype))
        prepared = {n: tf.cast(w, x.dtype) for n, w in spec.prepare(weights).items()}
        product = Products(prepared, {}, states)
        output, states = spec.step(prepared, product, x, tuple(states), {})
        return output, list(states) if nested else states[0]

    def get_initial_state(self, inputs=None, batch_size=None, dtype=None):
        """Zeros, one per state. `inputs` and `dtype` are Keras 2's way to ask."""
        if batch_size is None and inputs is not None:
            batch_size = tf.shape(inputs)[0]
        dtype = dtype or self.compute_dtype
        return [keras.ops.zeros((batch_size, size), dtype=dtype) for size in self.state_size]

    def get_config(self):
        return {
            **super().get_config(),
            **{name: write(name, getattr(self, name)) for name in self.arguments},
        }


def arguments(values):
    """The arguments of an `__init__` from its `locals()`."""
    return {k: v for k, v in values.items() if k not in ("self", "kwargs", "__class__")}

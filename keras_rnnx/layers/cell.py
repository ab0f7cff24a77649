"""A cell as a Keras layer: the weights of a spec, with everything Keras lets one say about them."""

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from keras_rnnx.annotations import Dtype
from keras_rnnx.annotations import Initializer
from keras_rnnx.annotations import States
from keras_rnnx.annotations import Tensor
from keras_rnnx.cells import Around
from keras_rnnx.cells import CellSpec
from keras_rnnx.engine import Prepared
from keras_rnnx.engine import Products
from keras_rnnx.layers import checks
from keras_rnnx.regularization import RecurrentDropout
from keras_rnnx.regularization import Zoneout

# How an argument is read and written, by the end of its name.
KINDS = {
    "activation": (keras.activations.get, keras.activations.serialize),
    "initializer": (keras.initializers.get, keras.initializers.serialize),
    "regularizer": (keras.regularizers.get, keras.regularizers.serialize),
    "constraint": (keras.constraints.get, keras.constraints.serialize),
}


# Arguments of every cell and of the layer around it, beside those of its own.
COMMON = {
    "kernel_initializer": "glorot_uniform",
    "recurrent_initializer": "orthogonal",
    "bias_initializer": "zeros",
    "kernel_regularizer": None,
    "recurrent_regularizer": None,
    "bias_regularizer": None,
    "kernel_constraint": None,
    "recurrent_constraint": None,
    "bias_constraint": None,
    "dropout": 0.0,
    "recurrent_dropout": 0.0,
    "seed": None,
    "dropout_mode": "variational",
    "recurrent_dropout_mode": "variational",
    "zoneout": 0.0,
    "weight_dropout": 0.0,
}
ROLES = ("kernel", "recurrent", "bias", "gain")
INPUT_MODES = ("variational", "gates", "step")
RECURRENT_MODES = ("variational", "gates", "step", "candidate")


def read(name, value):
    """An argument as it is used: `"tanh" -> keras.activations.tanh`."""
    kind = KINDS.get(name.split("_")[-1])
    return kind[0](value) if kind else value


def write(name, value):
    """An argument as `get_config` gives it."""
    kind = KINDS.get(name.split("_")[-1])
    return kind[1](value) if kind and value is not None else value


@keras.saving.register_keras_serializable(package="keras_rnnx")
class Cell(keras.layers.Layer):
    """Base of the cells: holds the weights of a `CellSpec` and runs single steps.

    In `keras_rnnx.RNN` the engine runs a cell's spec over the whole sequence. A cell also works
    by itself, `output, states = cell(x, states)`, and so in `keras.layers.RNN`; there dropout is
    refused in training, since Keras has no public hook to draw a mask once per sequence.

    A subclass names its `spec_class`, of which each field is an argument, and passes its arguments
    on as a dict; those below may be left to `**kwargs`.

    Args:
        arguments: dict of a subclass's own arguments, by name.
        kernel_initializer, recurrent_initializer, bias_initializer: of the weights.
        kernel_regularizer, recurrent_regularizer, bias_regularizer: penalties on the weights.
        kernel_constraint, recurrent_constraint, bias_constraint: applied after each update.
        dropout, recurrent_dropout: rates of dropout on the input and within the recurrence.
        dropout_mode: `"variational"`, one mask per sample for all steps and gates; `"gates"`, one
            for each gate; `"step"`, one for each step.
        recurrent_dropout_mode: the same for what enters the recurrent products, or `"candidate"`:
            what is added to the state is dropped, with a mask for each step.
        zoneout: rate at which units of a state keep their old value at a step; a list has a rate
            for each state, h and c of an LSTM. At inference the expectation is taken.
        weight_dropout: rate at which numbers of the recurrent matrices are dropped, once a batch.
        seed: of all noise.

    Call arguments:
        inputs: `[B, D]`.
        states: list of the states, `[B, U]` each.
        training: refused with noise, which belongs to a sequence.
        constants: dict of what the steps of the cell look up, for cells that say so.

    Returns:
        The output `[B, U]` and the list of new states.

    Papers: docs/regularization.md, and the docstrings in `keras_rnnx.regularization`.

    Example:

    >>> import keras_rnnx
    >>> cell = keras_rnnx.LSTMCell(4, zoneout=(0.05, 0.5), weight_dropout=0.3)
    >>> isinstance(cell, keras_rnnx.Cell)
    True
    """

    def __init__(self, arguments: dict[str, Any], **kwargs: Any) -> None:
        kwargs.pop("implementation", None)  # Keras' choice between two formulations; here is one
        others = {n: kwargs.pop(n, default) for n, default in COMMON.items() if n not in arguments}
        super().__init__(**kwargs)
        if "units" in arguments:
            checks.positive("units", arguments["units"])
        self.arguments = (*arguments, *others)
        for name, value in (*arguments.items(), *others.items()):
            setattr(self, name, read(name, value))
        for name in ("dropout", "recurrent_dropout"):
            setattr(self, name, checks.rate(name, getattr(self, name)))
        checks.rate("weight_dropout", self.weight_dropout)
        checks.one_of("dropout_mode", self.dropout_mode, INPUT_MODES)
        checks.one_of("recurrent_dropout_mode", self.recurrent_dropout_mode, RECURRENT_MODES)
        self.seed_generator = keras.random.SeedGenerator(self.seed)
        self.spec: Any = self.make_spec()  # a `CellSpec`, or one around it that has weights too
        checks.spec(self)
        self.state_size = list(self.spec.state_sizes)
        self.output_size = self.spec.output_size
        self.input_dim: int | None = None
        self.zoneout_rates = checks.zoneout(self, self.zoneout, self.state_size)
        checks.noise(self)

    spec_class: type[CellSpec]  # where a subclass does not make its spec by itself
    learns = True  # whether its weights are trained
    # Names of attributes that say of noise beside that of every cell.
    further_noise: tuple[str, ...] = ()
    # What a call may leave out, beside the spec's `constant_names`.
    optional_constants: tuple[str, ...] = ()

    def make_spec(self) -> CellSpec | Around:
        """The spec of this cell's arguments."""
        fields = [field.name for field in dataclasses.fields(self.spec_class)]
        return self.spec_class(**{name: getattr(self, name) for name in fields})

    def recurrence(self) -> "Cell":
        """The cell whose loop this is: another one, where the rest needs no state and so is
        computed for all steps at once, by `after(output, constants)`."""
        return self

    def take_constants(self, given: dict[str, Any], batch: int | None) -> dict[str, Any]:
        """The constants of a call, checked; here as they came."""
        return given

    def sizes_to_start(self, states: States) -> list[Any]:
        """The sizes of the states that a sequence may begin with: here of all."""
        return self.state_size

    def complete_states(self, states: States) -> States:
        """All states, where a cell may begin with a part of them; here as they came."""
        return states

    def acts(self, name: str, training: bool | None) -> bool:
        """Whether this dropout acts: a rate of 1 drops nothing, as in Keras."""
        return bool(training) and 0 < getattr(self, name) < 1

    def regularized(self, training: bool | None) -> CellSpec | Around:
        """The spec with the noise of this cell around it."""
        spec = self.spec
        if self.acts("recurrent_dropout", training):
            spec = RecurrentDropout(spec, self.recurrent_dropout, self.recurrent_dropout_mode)
        if any(self.zoneout_rates):
            spec = Zoneout(spec, self.zoneout_rates, bool(training))
        return spec

    def build(self, input_shape):
        self.input_dim = input_shape[-1]
        checks.known_features(self, input_shape)
        self.bias = None
        for name, weight in self.spec.weights(self.input_dim).items():
            if name in self.arguments:
                raise ValueError(
                    f"{type(self).__name__} has an argument and a weight of the name {name!r}, and "
                    "keeps both as attributes. Give the weight another name."
                )
            checks.role(self, weight, ROLES)
            variable = self.add_weight(
                shape=weight.shape,
                name=name,
                trainable=self.learns,
                initializer=self.initializer(name, weight.role),
                regularizer=getattr(self, f"{weight.role}_regularizer", None),
                constraint=getattr(self, f"{weight.role}_constraint", None),
                # The engine casts, and so can sum gradients in the variable's own precision.
                autocast=False,
            )
            setattr(self, name, variable)
        self.built = True

    def initializer(self, name: str, role: str) -> Initializer:
        """The initializer of a weight."""
        return "ones" if role == "gain" else getattr(self, f"{role}_initializer")

    def tensors(self) -> dict[str, Tensor]:
        """The weights by name."""
        names = self.spec.weights(self.input_dim)
        return {name: tf.convert_to_tensor(getattr(self, name)) for name in names}

    def call(
        self,
        inputs: Tensor,
        states: States,
        training: bool | None = False,
        constants: dict[str, Any] | None = None,
    ) -> tuple[Tensor, States]:
        """One step: `inputs [B, D]`, states `[B, U]` each -> `(output [B, U], new states)`."""
        kinds = ("dropout", "recurrent_dropout", "weight_dropout", *self.further_noise)
        noise = {n: getattr(self, n) for n in kinds}
        noise = {
            n: rate for n, rate in {**noise, "zoneout": any(self.zoneout_rates)}.items() if rate
        }
        if training and noise:
            raise ValueError(
                f"{type(self).__name__} has {' and '.join(noise)} and was called for a single "
                "training step. Noise is drawn once per sequence, which keras.layers.RNN gives a "
                "cell no chance to do: use keras_rnnx.RNN(cell) instead."
            )
        nested = isinstance(states, (list, tuple))
        states = list(states) if nested else [states]
        output, states = self._step(self.regularized(training=False), inputs, states, constants)
        return output, list(states) if nested else states[0]

    def begin_steps(
        self, states: States, constants: dict[str, Any]
    ) -> tuple[States, dict[str, Any]]:
        """What single steps begin with and get: `(all states, constants)`."""
        return self.complete_states(states), {}

    def ready(self) -> list[dict[str, Tensor]]:
        """What single steps make of the weights, for `one_step`: once for many steps."""
        weights = self.tensors()
        cast = lambda w: tf.cast(w, self.compute_dtype) if w.dtype.is_floating else w
        prepared = self.regularized(training=False).prepare(weights)
        weights, prepared = (
            {name: cast(w) for name, w in named.items()} for named in (weights, prepared)
        )
        return [weights, Prepared(prepared)]

    def one_step(
        self,
        inputs: Tensor,
        states: States,
        constants: dict[str, Any],
        ready: list[dict[str, Tensor]] | None = None,
    ) -> tuple[Tensor, States, list[Tensor]]:
        """`(output, states, alignments)` of one step, alignments being a list of `[B, S]`."""
        spec = self.regularized(training=False)
        return *self._step(spec, inputs, states, constants, ready), []

    def _step(self, spec, inputs, states, constants, ready=None):
        weights, prepared = self.ready() if ready is None else ready
        x = tf.cast(inputs, self.compute_dtype)
        cast = lambda a: tf.cast(a, x.dtype) if a is not None and a.dtype.is_floating else a
        given = self.take_constants(constants or {}, x.shape[0])
        given = keras.tree.map_structure(cast, given)
        _, constants, states = spec.enter(weights, given, tuple(states), None, 1, False)
        x = spec.project(weights, x)
        product = Products(prepared, constants, states)
        return spec.step(prepared, product, x, tuple(states), constants)

    def get_initial_state(
        self,
        inputs: Tensor | None = None,
        batch_size: int | Tensor | None = None,
        dtype: Dtype | None = None,
    ) -> list[Tensor]:
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
    """The arguments of an `__init__` from its `locals()`, without its `kwargs`."""
    return {k: v for k, v in values.items() if k not in ("self", "kwargs", "__class__")}


def reseeded(config, by):
    """The configuration of a layer or cell, `by` added to every seed in it of what is drawn."""
    if not isinstance(config, dict):
        return [reseeded(one, by) for one in config] if isinstance(config, list) else config
    config = dict(config)
    if isinstance(config.get("seed"), int):
        config["seed"] += by
    for name in ("cell", "cells", "config"):
        if name in config:
            config[name] = reseeded(config[name], by)
    return config

"""One row per layer: how it is made, what it must compute, what it can do.

A new layer gets all tests of the contract by a row here.
"""

import dataclasses
from collections.abc import Callable

import cell_oracles
import keras
import numpy as np
import oracles
import tensorflow as tf
from helpers import B, D, T, U, states_like, weights_like

import keras_rnnx


@dataclasses.dataclass(frozen=True)
class Descriptor:
    """One layer.

    make: (namespace with LSTM, GRU, ..., options) -> the layer
    oracle: (weights, x, mask, flat states, options) -> flat list: output, then last states
    states: sizes of the states, nested as `initial_state` is
    fixed: options that this layer does not offer, with the value that it has
    """

    name: str
    make: Callable
    oracle: Callable
    states: list
    causal: bool = True
    fixed: dict = dataclasses.field(default_factory=dict)

    def build(self, namespace, options, shape=(B, T, D), seed=1):
        """The layer with random weights: for one seed the same in every namespace."""
        layer = self.make(namespace, dict(options))
        layer.build(shape)
        layer.set_weights(weights_like(layer, seed))
        return layer

    def expected(self, weights, x, mask=None, states=None, options=None):
        """What the equations give, as `layer(...)` returns it, in a flat list."""
        options = options or {}
        if states is None:
            states = keras.tree.map_structure(
                lambda s: s * 0, states_like(self.states, batch=len(x), dtype="float64")
            )
        result = self.oracle(weights, x, mask, keras.tree.flatten(states), options)
        return result if options.get("return_state") else result[: -self.state_count]

    @property
    def state_count(self):
        return len(keras.tree.flatten(self.states))

    def allows(self, options):
        return all(options.get(k, v) == v for k, v in self.fixed.items())


def _layer(name, layer, step, state_count, **kwargs):
    def oracle(weights, x, mask, states, options):
        outputs, last, states = oracles.run(
            step,
            weights,
            x,
            states,
            mask,
            options.get("go_backwards", False),
            options.get("zero_output_for_mask", False),
        )
        return [outputs if options.get("return_sequences") else last, *states]

    def make(namespace, options):
        return getattr(namespace, layer)(U, **kwargs, **options)

    return Descriptor(name, make, oracle, [U] * state_count)


def _rnn(name, cells, step, states):
    def oracle(weights, x, mask, states, options):
        outputs, last, states = oracles.run(
            step,
            weights,
            x,
            states,
            mask,
            options.get("go_backwards", False),
            options.get("zero_output_for_mask", False),
        )
        return [outputs if options.get("return_sequences") else last, *states]

    def make(namespace, options):
        dtype = {"dtype": options["dtype"]} if "dtype" in options else {}
        made = cells(namespace, dtype)
        if namespace is keras.layers and isinstance(made, list):
            # Given a list, Keras' RNN makes a stack that forgets the dtype.
            made = keras.layers.StackedRNNCells(made, **dtype)
        return namespace.RNN(made, **options)

    return Descriptor(name, make, oracle, states)


def _bidirectional(name, layer, step, state_count, merge, **kwargs):
    def oracle(weights, x, mask, states, options):
        output, states = oracles.run_bidirectional(
            step, weights, x, states, mask, merge, options.get("return_sequences", False)
        )
        return [*(output if merge is None else [output]), *states]

    def make(namespace, options):
        dtype = {"dtype": options["dtype"]} if "dtype" in options else {}
        # Bidirectional itself has neither direction nor padding rule: both follow from it.
        inner = {
            k: v for k, v in options.items() if k not in ("go_backwards", "zero_output_for_mask")
        }
        return namespace.Bidirectional(
            getattr(namespace, layer)(U, **kwargs, **inner), merge_mode=merge, **dtype
        )

    fixed = {"go_backwards": False, "zero_output_for_mask": False}
    return Descriptor(name, make, oracle, [U] * 2 * state_count, causal=False, fixed=fixed)


def _stack(namespace, options):
    return [
        namespace.LSTMCell(U, **options),
        namespace.GRUCell(U + 1, **options),
        namespace.SimpleRNNCell(U + 2, **options),
    ]


class KerasStack(keras.layers.Layer):
    """What `Stack` computes, from layers of Keras that return sequences and states."""

    def __init__(self, layers, residual, skip, return_sequences, return_state, dtype):
        super().__init__(dtype=dtype)
        self.layers, self.residual, self.skip = layers, residual, skip
        self.return_sequences, self.return_state = return_sequences, return_state
        self.supports_masking = True

    def build(self, shape):
        for layer in self.layers:
            layer.build(shape)
            directions = 2 if isinstance(layer, keras.layers.Bidirectional) else 1
            shape = (*shape[:2], U * directions + (D if self.skip else 0))

    def call(self, x, mask=None, initial_state=None, training=None):
        first, outputs, last = x, [], []
        states = None if initial_state is None else list(initial_state)
        per_layer = len(states) // len(self.layers) if states else 0
        for k, layer in enumerate(self.layers):
            given = states[k * per_layer : (k + 1) * per_layer] if states else None
            y, *new = layer(x, mask=mask, initial_state=given, training=training)
            y = y + x if self.residual and k else y
            outputs.append(y)
            last.extend(new)
            x = tf.concat([y, first], -1) if self.skip else y
        y = tf.concat(outputs, -1) if self.skip else y
        if not self.return_sequences:
            y = y[:, -1]
        return (y, *last) if self.return_state else y


def _deep(name, layer, step, state_count, both=False, residual=False, skip=False):
    """Two layers one above the other, each perhaps in both directions."""

    def oracle(weights, x, mask, states, options):
        first, outputs, last = np.asarray(x, "float64"), [], []
        half, per_layer = len(weights) // 2, len(states) // 2
        for k in range(2):
            w, s = weights[k * half : (k + 1) * half], states[k * per_layer : (k + 1) * per_layer]
            if both:
                y, new = oracles.run_bidirectional(step, w, x, s, mask, "concat", True)
            else:
                y, _, new = oracles.run(step, w, x, s, mask)
            y = y + x if residual and k else y
            outputs.append(y)
            last.extend(new)
            x = np.concatenate([y, first], -1) if skip else y
        y = np.concatenate(outputs, -1) if skip else y
        return [y if options.get("return_sequences") else y[:, -1], *last]

    def make(namespace, options):
        options = {
            k: v for k, v in options.items() if k not in ("go_backwards", "zero_output_for_mask")
        }
        inside = {**options, "return_sequences": True, "return_state": True}
        around = {k: options.get(k, False) for k in ("return_sequences", "return_state")}
        dtype = options.get("dtype")

        def one():
            made = getattr(namespace, layer)(U, **inside)
            return namespace.Bidirectional(made, dtype=dtype) if both else made

        if namespace is keras.layers:
            return KerasStack([one(), one()], residual, skip, **around, dtype=dtype)
        return namespace.Stack(one(), 2, residual=residual, skip=skip, **around, dtype=dtype)

    fixed = {"go_backwards": False, "zero_output_for_mask": False}
    if both:  # the last output of both directions is at neither end
        fixed["return_sequences"] = True
    states = [U] * state_count * 2 * (2 if both else 1)
    return Descriptor(name, make, oracle, states, causal=not both, fixed=fixed)


class KerasProjectedLSTMCell(keras.layers.Layer):
    """The projected LSTM, which Keras does not have, as a cell for its RNN."""

    def __init__(self, units, projection_units, **kwargs):
        super().__init__(**kwargs)
        self.state_size, self.output_size = [projection_units, units], projection_units

    def build(self, shape):
        P, U = self.state_size
        shapes = ((shape[-1], 4 * U), (P, 4 * U), (4 * U,), (U, P))
        self.all = [self.add_weight(shape=s, name=f"w{k}") for k, s in enumerate(shapes)]

    def call(self, inputs, states):
        kernel, recurrent, bias, projection = self.all
        h, c = states
        i, f, g, o = keras.ops.split(inputs @ kernel + h @ recurrent + bias, 4, axis=1)
        c = keras.ops.sigmoid(f) * c + keras.ops.sigmoid(i) * keras.ops.tanh(g)
        h = (keras.ops.sigmoid(o) * keras.ops.tanh(c)) @ projection
        return h, [h, c]


def _projected():
    made = _layer("lstm_projected", "LSTM", oracles.projected_lstm_step(), 2)

    def make(namespace, options):
        if namespace is keras.layers:
            dtype = {"dtype": options["dtype"]} if "dtype" in options else {}
            return keras.layers.RNN(KerasProjectedLSTMCell(U, U - 2, **dtype), **options)
        return namespace.LSTM(U, projection_units=U - 2, **options)

    return dataclasses.replace(made, make=make, states=[U - 2, U])


def _own(name, layer, step, states, units=U, **kwargs):
    """A cell that Keras does not have: its twin is Keras' RNN over our cell, one step at a time."""
    row = _layer(name, layer, step, len(states))

    def make(namespace, options):
        if namespace is not keras.layers:
            return getattr(namespace, layer)(units, **kwargs, **options)
        dtype = {"dtype": options["dtype"]} if "dtype" in options else {}
        cell = getattr(keras_rnnx, f"{layer}Cell")(units, **kwargs, **dtype)
        return keras.layers.RNN(cell, **options)

    return dataclasses.replace(row, make=make, states=states)


SIMPLE = (
    _layer("simple", "SimpleRNN", oracles.simple_step(), 1),
    _layer("simple_relu", "SimpleRNN", oracles.simple_step("relu"), 1, activation="relu"),
    _layer("simple_no_bias", "SimpleRNN", oracles.simple_step(use_bias=False), 1, use_bias=False),
)
LSTM = (
    _layer("lstm", "LSTM", oracles.lstm_step(), 2),
    _layer("lstm_no_bias", "LSTM", oracles.lstm_step(use_bias=False), 2, use_bias=False),
    _layer(
        "lstm_activations",
        "LSTM",
        oracles.lstm_step("softsign", "hard_sigmoid"),
        2,
        activation="softsign",
        recurrent_activation="hard_sigmoid",
        unit_forget_bias=False,
    ),
    _layer("lstm_linear", "LSTM", oracles.lstm_step("linear"), 2, activation=None),
    _projected(),
)
GRU = (
    _layer("gru", "GRU", oracles.gru_step(), 1),
    _layer("gru_no_bias", "GRU", oracles.gru_step(use_bias=False), 1, use_bias=False),
    _layer("gru_before", "GRU", oracles.gru_step(reset_after=False), 1, reset_after=False),
    _layer(
        "gru_before_no_bias",
        "GRU",
        oracles.gru_step(reset_after=False, use_bias=False),
        1,
        reset_after=False,
        use_bias=False,
    ),
    _layer(
        "gru_activations",
        "GRU",
        oracles.gru_step("elu", "hard_sigmoid"),
        1,
        activation="elu",
        recurrent_activation="hard_sigmoid",
    ),
    _layer(
        "gru_before_activations",
        "GRU",
        oracles.gru_step("relu", "sigmoid", reset_after=False),
        1,
        activation="relu",
        reset_after=False,
    ),
)
CELLS = (
    _rnn("rnn_lstm_cell", lambda k, o: k.LSTMCell(U, **o), oracles.lstm_step(), [U, U]),
    _rnn("rnn_gru_cell", lambda k, o: k.GRUCell(U, **o), oracles.gru_step(), [U]),
    _rnn("rnn_simple_cell", lambda k, o: k.SimpleRNNCell(U, **o), oracles.simple_step(), [U]),
    _rnn(
        "rnn_stack",
        _stack,
        oracles.stacked_step(
            (oracles.lstm_step(), oracles.gru_step(), oracles.simple_step()), (3, 3, 3), (2, 1, 1)
        ),
        [[U, U], U + 1, U + 2],
    ),
)
BOTH = (
    _bidirectional("both_lstm", "LSTM", oracles.lstm_step(), 2, "concat"),
    _bidirectional("both_gru", "GRU", oracles.gru_step(), 1, "sum"),
    _bidirectional("both_simple", "SimpleRNN", oracles.simple_step(), 1, "mul"),
    _bidirectional("both_unmerged", "LSTM", oracles.lstm_step(), 2, None),
)
DEEP = (
    _deep("deep_lstm", "LSTM", oracles.lstm_step(), 2),
    _deep("deep_gru_residual", "GRU", oracles.gru_step(), 1, residual=True),
    _deep("deep_simple_skip", "SimpleRNN", oracles.simple_step(), 1, skip=True),
    _deep("deep_both_lstm", "LSTM", oracles.lstm_step(), 2, both=True),
)
general = cell_oracles.general_lstm_step
projected = dict(projection_units=U - 2, projection_clip=0.2, cell_clip=0.3)
VARIANTS = (
    _own("lstm_peephole", "LSTM", general(peephole=True), [U, U], peephole=True),
    _own(
        "lstm_coupled",
        "LSTM",
        general(peephole=True, coupled=True),
        [U, U],
        peephole=True,
        coupled=True,
    ),
    _own(
        "lstm_clipped",
        "LSTM",
        general(cell_clip=0.3, projection=True, projection_clip=0.2),
        [U - 2, U],
        **projected,
    ),
    _own("ln_lstm", "LayerNormLSTM", cell_oracles.layer_norm_lstm_step(), [U, U]),
    _own(
        "ln_lstm_carried",
        "LayerNormLSTM",
        cell_oracles.layer_norm_lstm_step(1e-3, ("recurrent", "cell"), carry_normalized=True),
        [U, U],
        normalize=("recurrent", "cell"),
        epsilon=1e-3,
        carry="normalized",
    ),
    _own("ln_gru", "LayerNormGRU", cell_oracles.layer_norm_gru_step(), [U]),
    _own("ln_simple", "LayerNormSimpleRNN", cell_oracles.layer_norm_simple_step(), [U]),
    _own("indrnn", "IndRNN", cell_oracles.indrnn_step("tanh"), [U], activation="tanh"),
    _own("nas", "NAS", cell_oracles.nas_step(), [U, U]),
    _own(
        "nas_projected",
        "NAS",
        cell_oracles.nas_step(use_bias=True, projection=True),
        [U - 2, U],
        use_bias=True,
        projection_units=U - 2,
    ),
    _own("esn", "ESN", cell_oracles.esn_step(0.3), [U], leaky=0.3, connectivity=0.5),
    _own("min_gru", "MinGRU", cell_oracles.min_gru_step(), [U]),
    _own("min_lstm", "MinLSTM", cell_oracles.min_lstm_step(), [U]),
    _own("rg_lru", "RGLRU", cell_oracles.rg_lru_step(), [D], units=D),
)


def _zoned(step, rates):
    """Zoneout's expectation (Krueger et al. 2017): what a layer computes outside training."""

    def zoned(weights, x, states):
        _, new = step(weights, x, states)
        states = [r * old + (1 - r) * n for r, old, n in zip(rates, states, new, strict=True)]
        return states[0], tuple(states)

    return zoned


def _quiet(row):
    """A layer with noise, which is told to be still: training is tested in test_noise.py."""
    return dataclasses.replace(row, fixed={"training": None})


REGULARIZED = (
    _quiet(
        _own(
            "lstm_zoneout",
            "LSTM",
            _zoned(oracles.lstm_step(), (0.2, 0.6)),
            [U, U],
            zoneout=(0.2, 0.6),
        )
    ),
    _quiet(_own("gru_variational", "VariationalGRU", oracles.gru_step(), [U])),
    _quiet(
        _own(
            "lstm_dropped",
            "VariationalLSTM",
            oracles.lstm_step(),
            [U, U],
            dropout_mode="gates",
            recurrent_dropout_mode="candidate",
            weight_dropout=0.5,
        )
    ),
)
ALL = SIMPLE + LSTM + GRU + CELLS + BOTH + DEEP + VARIANTS + REGULARIZED
BY_NAME = {d.name: d for d in ALL}

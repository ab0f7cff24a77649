"""Inspection: what is recorded against NumPy, gradients against tapes and finite differences."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import keras
import matplotlib
import numpy as np
import pytest
import tensorflow as tf
from helpers import B, D, T, U, assert_close, inputs, make_mask, weights_like
from oracles import sigmoid

import keras_rnnx as rnnx
from keras_rnnx import inspection
from keras_rnnx.attention import BahdanauAttention, LuongAttention
from keras_rnnx.inspection import gradient_flow, memory_length, record
from keras_rnnx.seq2seq import Decoder, Encoder, Seq2Seq
from keras_rnnx.seq2seq.model import Pair

matplotlib.use("Agg")
import matplotlib.pyplot as plt

X, HOLES = inputs(), make_mask("holes")
PLAIN = {"jit_compile": False}  # compiles faster
SEQUENCES = {"return_sequences": True, **PLAIN}


@keras.saving.register_keras_serializable(package="tests")
@dataclasses.dataclass(frozen=True)
class Updating(rnnx.CellSpec):
    """A cell of a user's that shows its gate."""

    gates = 2

    def step(self, weights, product, x, states, constants):
        (h,) = states
        g, c = product("recurrent_kernel", h, plus=x, pieces=2)
        g = tf.sigmoid(g)
        h = g * h + (1 - g) * product.candidate(tf.tanh(c))
        product.show(g=g)
        return h, (h,)


LAYERS = {
    "lstm": lambda: rnnx.LSTM(U, **SEQUENCES),
    "peephole": lambda: rnnx.LSTM(U, peephole=True, coupled=True, cell_clip=0.5, **SEQUENCES),
    "projected": lambda: rnnx.LSTM(U, projection_units=3, zoneout=(0.1, 0.2), **SEQUENCES),
    "norm_lstm": lambda: rnnx.LayerNormLSTM(U, **SEQUENCES),
    "gru": lambda: rnnx.GRU(U, unroll=True, return_sequences=True, jit_compile=True),
    "gru_before": lambda: rnnx.GRU(U, reset_after=False, backward="autodiff", **SEQUENCES),
    "norm_gru": lambda: rnnx.LayerNormGRU(U, backward=rnnx.Checkpointed(3), **SEQUENCES),
    "min_gru": lambda: rnnx.MinGRU(U, **SEQUENCES),
    "min_lstm": lambda: rnnx.MinLSTM(U, **SEQUENCES),
    "rg_lru": lambda: rnnx.RGLRU(D, **SEQUENCES),
    "nas": lambda: rnnx.NAS(U, **SEQUENCES),
    "esn": lambda: rnnx.ESN(U, connectivity=0.8, **SEQUENCES),
    "simple": lambda: rnnx.SimpleRNN(U, zero_output_for_mask=True, **SEQUENCES),
    "ind": lambda: rnnx.IndRNN(U, **SEQUENCES),
    "own": lambda: rnnx.RNN(rnnx.CustomCell(Updating(U)), **SEQUENCES),
    "two": lambda: rnnx.RNN([rnnx.GRUCell(3), rnnx.LSTMCell(U)], **SEQUENCES),
    "foreign": lambda: rnnx.RNN(keras.layers.GRUCell(U), **SEQUENCES),
}
GATES = {
    **dict.fromkeys(("lstm", "projected", "norm_lstm", "two/1"), list("ifgo")),
    "peephole": list("igof"),  # in the order of the kernel, and then f, which has no columns
    **dict.fromkeys(("gru", "gru_before", "norm_gru", "two/0"), list("zrn")),
    **dict.fromkeys(("min_gru", "min_lstm", "rg_lru"), list("ab")),
    **dict.fromkeys(("esn", "simple", "ind", "foreign", "two"), []),
    "nas": list("abde"),
    "own": ["g"],
}


def random_weights(model, seed=1):
    model.set_weights(weights_like(model, seed))
    return model


def named(make, name):
    layer = make()
    return type(layer).from_config({**layer.get_config(), "name": name})


def model_of(*layers, shape=(None, D), **options):
    return random_weights(keras.Sequential([keras.Input(shape, **options), *layers], name="model"))


def of_masked(layer, mask, **options):
    """A model of one layer whose input is masked, and an input with that mask."""
    model = model_of(keras.layers.Masking(), layer, **options)
    return model, X if mask is None else np.where(mask[..., None], X, 0).astype(X.dtype)


@pytest.fixture(scope="module")
def everything():
    """All layers side by side in one model, masked: `(record, outputs by name)`."""
    start = keras.Input((T, D))
    masked = keras.layers.Masking()(start)
    layers = {name: named(make, name) for name, make in LAYERS.items()}
    model = random_weights(keras.Model(start, {n: la(masked) for n, la in layers.items()}))
    x = np.where(HOLES[..., None], X, 0).astype("float32")
    outputs = tf.function(model)(x, training=False)
    return record(model, x), {name: np.asarray(a) for name, a in outputs.items()}, layers


@pytest.mark.quick
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.thin(4)
def test_outputs_are_those_of_the_layer(everything, name):
    found, outputs, _ = everything
    assert_close(found[f"{name}/output"], outputs[name], 1e-5, name)
    np.testing.assert_array_equal(found.masks[name], HOLES)


@pytest.mark.quick
def test_names_of_gates_and_states(everything):
    found, _, layers = everything
    for name, gates in GATES.items():
        assert list(found.of(name, "gate")) == gates, name
    states = {"gru": ["h"], "lstm": ["h", "c"], "two/0": ["h"], "two/1": ["h", "c"], "foreign": []}
    assert {name: list(found.of(name, "state")) for name in states} == states
    assert found["projected/h"].shape == (B, T, 3) and found["projected/c"].shape == (B, T, U)
    for name, layer in layers.items():  # nothing is left on a layer or cell
        for thing in (layer, *layer.cells):
            assert not {"_run", "regularized", "recurrence", "call"} & set(vars(thing)), name
    assert layers["norm_gru"].backward == rnnx.Checkpointed(3)


@pytest.mark.quick
@pytest.mark.parametrize("name", ["lstm", "peephole", "norm_lstm", "two/1", "gru", "gru_before"])
def test_gates_make_the_next_state(everything, name):
    """`c = f c + i g` and `h = z h + (1 - z) n`, and states stay in masked steps."""
    found, _, _ = everything
    gate, state = found.of(name, "gate"), found.of(name, "state")
    keep, add = ("f", gate.get("i")) if "f" in gate else ("z", 1 - gate["z"])
    now = state.get("c", state["h"])
    before = np.concatenate([np.zeros_like(now[:, :1]), now[:, :-1]], axis=1)
    new = gate[keep] * before + add * gate["g" if "g" in gate else "n"]
    if name == "peephole":
        assert np.nanmax(np.abs(new)) > 0.5
        new = np.clip(new, -0.5, 0.5)
    assert_close(now, np.where(HOLES[..., None], new, before), 1e-5, name)
    for values in gate.values():
        np.testing.assert_array_equal(np.isnan(values).any(axis=-1), ~HOLES)


def lstm_gates(weights, x, states):
    kernel, recurrent, bias = weights
    h, c = states
    zi, zf, zg, zo = np.split(x @ kernel + h @ recurrent + bias, 4, axis=1)
    gates = {"i": sigmoid(zi), "f": sigmoid(zf), "g": np.tanh(zg), "o": sigmoid(zo)}
    c = gates["f"] * c + gates["i"] * gates["g"]
    return gates, (gates["o"] * np.tanh(c), c)


def gru_gates(weights, x, states):
    kernel, recurrent, (bias, recurrent_bias) = weights
    (h,) = states
    xz, xr, xn = np.split(x @ kernel + bias, 3, axis=1)
    pz, pr, pn = np.split(h @ recurrent + recurrent_bias, 3, axis=1)
    gates = {"z": sigmoid(xz + pz), "r": sigmoid(xr + pr)}
    gates["n"] = np.tanh(xn + gates["r"] * pn)
    return gates, (gates["z"] * h + (1 - gates["z"]) * gates["n"],)


@pytest.mark.quick
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("mask_kind", ["none", "left", "empty_rows"])
@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.thin(4)
def test_gates_against_the_equations(kind, mask_kind, backwards):
    """Step t is that of the input, which way ever the layer goes."""
    mask = make_mask(mask_kind)
    layer = {"lstm": rnnx.LSTM, "gru": rnnx.GRU}[kind](
        U, go_backwards=backwards, name=kind, **PLAIN
    )
    model, x = of_masked(layer, mask)
    found = record(model, x)
    oracle, weights = {"lstm": lstm_gates, "gru": gru_gates}[kind], layer.get_weights()
    states = len(layer.state_size) * [np.zeros((B, U))]
    real = np.ones((B, T), bool) if mask is None else mask
    for t in reversed(range(T)) if backwards else range(T):
        on = real[:, t, None]
        gates, new = oracle(weights, x[:, t], states)
        states = [np.where(on, n, s) for n, s in zip(new, states, strict=True)]
        for name, expected in gates.items():
            actual = found[f"{kind}/{name}"][:, t]
            np.testing.assert_allclose(actual, np.where(on, expected, np.nan), atol=1e-5)
        for name, expected in zip("hc", states):
            np.testing.assert_allclose(found[f"{kind}/{name}"][:, t], expected, atol=1e-5)
    last = found[f"{kind}/output"][:, 0 if backwards else -1]
    np.testing.assert_allclose(last, model(x), atol=1e-6)  # the model gives the last one only


@pytest.mark.quick
def test_states_given_are_those_before_the_first_real_step():
    x, start = keras.Input((None, D)), keras.Input((U,))
    layer = rnnx.GRU(U, name="gru")
    masked = keras.layers.Masking()(x)
    model = random_weights(keras.Model([x, start], layer(masked, initial_state=[start])))
    mask, given = make_mask("left"), inputs(3)[:, 0, :1] * np.ones((B, U), "float32")
    found = record(model, [np.where(mask[..., None], X, 0), given])
    assert not mask[2, 0]
    np.testing.assert_array_equal(found["gru/h"][2, 0], given[2])


class Nested(keras.Model):
    """Layers in layers, lengths, and what record does not see."""

    def __init__(self):
        super().__init__(name="nested")
        self.both = rnnx.Bidirectional(rnnx.LSTM(3, **SEQUENCES, name="lstm"), name="both")
        self.deep = rnnx.Stack(rnnx.GRU(U, **SEQUENCES, name="gru"), 2, name="deep")
        self.pool = rnnx.AttentionOverTime(6, name="pool")
        self.hidden = rnnx.GRU(2, name="hidden", **PLAIN)
        self.again = tf.function(lambda x: self.hidden(x))

    def call(self, inputs):
        x, lengths = inputs
        h = self.deep(self.both(x, sequence_length=lengths), mask=tf.sequence_mask(lengths, T))
        return self.pool(h, mask=tf.sequence_mask(lengths, T)) + self.again(x)[:, :1]


def test_layers_in_layers_of_a_subclassed_model():
    model, lengths = Nested(), np.array([7, 3, 1])
    model([X, lengths])
    random_weights(model)
    found = record(model, [X, lengths])
    mask = np.arange(T) < lengths[:, None]
    both = np.asarray(model.both(X, sequence_length=lengths))
    ways = [found[f"both/{way}_lstm/output"] for way in ("forward", "backward")]
    assert_close(np.concatenate(ways, axis=-1), both, 1e-6, "both directions, in one order")
    h = model.deep(both, mask=mask)
    assert_close(found["deep/gru__1/output"], h, 1e-5, "the stack")
    assert {"deep/gru__0/z", "deep/gru__1/h", "both/backward_lstm/c"} <= set(found)
    np.testing.assert_array_equal(found.masks["both/backward_lstm"], mask)
    weighed = rnnx.AttentionOverTime(6, return_weights=True)
    weighed(h)
    weighed.set_weights(model.pool.get_weights())
    assert_close(found["pool/weights"], weighed(h, mask=mask)[1], 1e-6, "weights")
    assert found.axes("pool/weights") == ("batch", "time")
    assert not any(name.startswith("hidden") for name in found)


def test_ragged_and_half_precision():
    inputs = keras.Input((None, D), ragged=True, dtype="float32")
    layer = rnnx.LSTM(U, name="lstm", dtype="mixed_bfloat16")
    model = random_weights(keras.Model(inputs, layer(inputs)))
    ragged = tf.RaggedTensor.from_row_lengths(X[0, [0, 1, 2, 3]], [3, 1])
    found = record(model, ragged)
    np.testing.assert_array_equal(found.masks["lstm"], [[True] * 3, [True, False, False]])
    assert {a.dtype.name for a in found.values()} == {"float32"}
    assert np.isfinite(found["lstm/f"][0]).all() and np.isnan(found["lstm/f"][1, 1:]).all()


@pytest.mark.quick
def test_a_stateful_model_is_left_as_it_was():
    layer = rnnx.GRU(U, stateful=True, name="gru", **PLAIN)
    norm = keras.layers.BatchNormalization()
    model = random_weights(
        keras.Sequential([keras.Input(batch_shape=(B, T, D)), norm, layer, keras.layers.Dense(1)])
    )
    norm.moving_variance.assign([0.5, 1.0, 1.5, 2.0])
    model.compile("sgd", "mse", metrics=["mae"])
    model(X)
    weights, kept = model.get_weights(), np.asarray(layer.states[0])
    assert np.any(kept)
    first = record(model, X)
    gradient_flow(model, X, np.ones((B, 1)))
    memory_length(model, X)
    np.testing.assert_array_equal(record(model, X)["gru/h"], first["gru/h"])
    np.testing.assert_array_equal(layer.states[0], kept)
    for now, before in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(now, before)
    layer.reset_state()
    model(X)
    assert_close(first["gru/h"][:, -1], layer.states[0], 1e-6, "from zeros")


# -- attention -----------------------------------------------------------------------------------

ATTENTIONS = {
    "content": dict(attention=LuongAttention("general"), attention_size=6),  # all steps at once
    "fed": dict(attention=BahdanauAttention(6), attention_size=6, input_feeding=True),
    "several": dict(attention=[LuongAttention("general"), BahdanauAttention(3)]),
}


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_alignments_are_those_of_the_cell(kind):
    def made(return_alignments):
        options = {**ATTENTIONS[kind], "return_alignments": return_alignments}
        cell = rnnx.AttentionCell(rnnx.LSTMCell(U), **options)
        x, memory = keras.Input((None, D)), keras.Input((None, 8))
        layer = rnnx.RNN(cell, name="decoder", **SEQUENCES)
        output = layer(keras.layers.Masking()(x), constants={"memory": memory})
        return random_weights(keras.Model([x, memory], output))

    x = np.where(HOLES[..., None], X, 0)
    given = [x, inputs(5, steps=9, features=8)]
    output, *alignments = made(True)(given)
    model = made(False)
    found = record(model, given)
    assert_close(found["decoder/output"], output, 1e-5, "output")
    assert_close(found["decoder/output"], model(given), 1e-5, "output")
    names = [n for n in found if "alignments" in n]
    suffixes = ["_1", "_2"] if kind == "several" else [""]
    assert names == [f"decoder/alignments{suffix}" for suffix in suffixes]
    for name, expected in zip(names, alignments, strict=True):
        expected = np.asarray(expected)
        assert np.ptp(expected[HOLES]) > 0.1, "even alignments test nothing"
        assert_close(found[name][HOLES], expected[HOLES], 1e-5, name)
        assert np.isnan(found[name][~HOLES]).all()
        assert found.axes(name) == ("batch", "time", "memory")
    assert list(found.of("decoder", "gate")) == list("ifgo")
    states = ["h", "c", "state_2"] if kind == "fed" else ["h", "c"]
    assert list(found.of("decoder", "state")) == states


def test_a_seq2seq_model_against_its_decoder_step_by_step():
    rnn = rnnx.GRU(U, return_state=True, name="gru", **SEQUENCES)
    cell = rnnx.AttentionCell(rnnx.GRUCell(6), BahdanauAttention(3), attention_size=4)
    encoder, decoder = Encoder(rnn, 9, 4, name="encoder"), Decoder(cell, 7, 4, name="decoder")
    model = Seq2Seq(encoder, decoder, start=1, end=2)
    source, targets = np.array([[3, 4, 5, 0], [3, 6, 8, 7]]), np.array([[3, 4, 2], [5, 2, 0]])
    pair = Pair(source, model.teacher_inputs(targets))
    model(pair)
    random_weights(model)
    found = record(model, pair)
    assert {"encoder/gru/z", "decoder/rnn/h"} <= set(found)
    _, state, constants = model.begin(source)
    for t in range(3):
        _, state, (alignments,) = model.decoder.step(pair.inputs[:, t], state, constants)
        real = targets[:, t] != 0
        actual = found["decoder/rnn/alignments"][:, t]
        np.testing.assert_allclose(actual[real], alignments[real], atol=1e-5)
        np.testing.assert_allclose(found["decoder/rnn/h"][real, t], state[0][0][real], atol=1e-5)
        assert np.isnan(actual[~real]).all()
    np.testing.assert_array_equal(found.masks["encoder/gru"], source != 0)


# -- gradients -----------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["compiled", "name", "function"])
@pytest.mark.thin(3)
def test_gradient_flow_is_that_of_a_tape(given):
    mask = make_mask("right")[[1, 2, 2]]  # the last steps are masked in every row
    lower = rnnx.LSTM(U, name="lower", **SEQUENCES)
    upper = rnnx.GRU(6, go_backwards=True, name="upper", **PLAIN)
    head = keras.layers.Dense(2)
    masking = keras.layers.Masking()
    model = model_of(masking, lower, upper, head)
    x, y = np.where(mask[..., None], X, 0), inputs(7)[:, 0, :2]
    loss = {"compiled": None, "name": "mse", "function": lambda y, p: (y - p) ** 2}[given]
    if given == "compiled":
        model.compile("sgd", "mse")
    flow = gradient_flow(model, x, y, loss=loss)
    with tf.GradientTape() as tape:
        a = tf.constant(x, tf.float32)
        tape.watch(a)
        b = tf.identity(lower(a, mask=mask))
        value = tf.reduce_mean((head(upper(b, mask=mask)) - y) ** 2)
    gradients = tape.gradient(value, [a, b])
    real = mask.any(axis=0)
    assert not real.all() and real.any()
    for name, gradient in zip(("lower", "upper"), gradients, strict=True):
        expected = np.linalg.norm(gradient, axis=(0, 2))
        np.testing.assert_allclose(flow[name][real], expected[real], rtol=1e-4)
        assert np.isnan(flow[name][~real]).all()


def test_a_loss_at_every_step_leaves_masked_steps_out():
    model, x = of_masked(rnnx.GRU(U, name="gru", **SEQUENCES), HOLES)
    y = inputs(8, features=U)
    flow = gradient_flow(model, x, y, loss="mse")["gru"]
    far = np.where(HOLES[..., None], y, 1e3)  # what is asked of masked steps does not count
    np.testing.assert_allclose(gradient_flow(model, x, far, loss="mse")["gru"], flow, rtol=1e-4)


@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("mask_kind", ["none", "holes", "empty_rows"])
def test_memory_against_finite_differences(mask_kind, sequences):
    keras.config.set_dtype_policy("float64")
    mask, x = make_mask(mask_kind), X.astype("float64")
    layer = rnnx.LSTM(U, return_sequences=sequences, backward="autodiff")
    inputs_, masks = keras.Input((T, D), dtype="float64"), keras.Input((T,), dtype="bool")
    output = keras.layers.Dense(2)(layer(inputs_, mask=masks))
    model = random_weights(keras.Model([inputs_, masks], output))
    real = np.ones((B, T), bool) if mask is None else mask
    found = memory_length(model, [x, real])

    # Rows do not meet: a number of all rows is moved at once, and all numbers side by side.
    shifts = 1e-5 * np.eye(T * D).reshape(T * D, 1, T, D)
    moved = np.concatenate([x + shifts, x - shifts]).reshape(-1, T, D)
    y = np.asarray(model([moved, np.tile(real, (2 * T * D, 1))]))
    last = [np.flatnonzero(row)[-1] if row.any() else None for row in real]
    y = y.reshape(2, T * D, B, *y.shape[1:])
    by_input = ((y[0] - y[1]) / 2e-5).reshape(T, D, *y.shape[2:])
    expected = np.full(T, np.nan)
    for k in range(T):
        rows = [b for b in range(B) if last[b] is not None and last[b] >= k]
        at_last = [by_input[last[b] - k, :, b] for b in rows]  # [D, 2], or [D, T, 2]
        at_last = [a[:, last[b]] if sequences else a for b, a in zip(rows, at_last)]
        if rows:
            expected[k] = np.sqrt(np.mean([np.sum(a**2) for a in at_last]))
    np.testing.assert_allclose(found.norms, expected, rtol=1e-6, atol=1e-9)
    assert found.length == np.flatnonzero(expected >= 0.01 * np.nanmax(expected)).max()


@pytest.mark.quick
def test_memory_of_ids_is_that_of_their_embeddings():
    identity = keras.initializers.Identity(0.5)
    rnn = rnnx.SimpleRNN(3, activation="linear", recurrent_initializer=identity)
    layers = [keras.layers.Embedding(9, 4), rnn, keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((None,), dtype="int32"), *layers])
    found = memory_length(model, np.arange(18).reshape(2, 9) % 9)
    by_input = np.linalg.norm(rnn.get_weights()[0] @ layers[2].get_weights()[0])
    np.testing.assert_allclose(found.norms, by_input * 0.5 ** np.arange(9), rtol=1e-5)
    assert found.length == 6  # 0.5 ** 6 > 0.01 > 0.5 ** 7
    assert memory_length(model, np.ones((2, 9)), fraction=0.2).length == 2


def test_memory_of_many_outputs_is_estimated():
    model = model_of(rnnx.GRU(U, **PLAIN), keras.layers.Dense(200))
    found = memory_length(model, X)
    x = tf.constant(X)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        y = tf.reduce_sum(model(x), axis=0)
    by_input = tape.jacobian(y, x, experimental_use_pfor=False).numpy()  # [200, B, T, D]
    expected = np.sqrt(np.mean(np.sum(by_input**2, axis=(0, 3)), axis=0))[::-1]
    np.testing.assert_allclose(found.norms, expected, rtol=0.25)


# -- summary -------------------------------------------------------------------------------------


def test_summary_counts_every_parameter(everything):
    _, _, layers = everything
    start = keras.Input((T, D))
    model = keras.Model(start, [layer(start) for layer in layers.values()])
    lines = []
    rows = {row.name: row for row in inspection.summary(model, print_fn=lines.append)}
    for name, layer in layers.items():
        mine = [row for n, row in rows.items() if n.split("/")[0] == name]
        assert sum(sum(row.parameters.values()) for row in mine) == layer.count_params(), name
    per_gate = (D + U + 1) * U
    assert rows["lstm"].parameters == dict.fromkeys("ifgo", per_gate)
    assert rows["gru"].parameters == dict.fromkeys("zrn", per_gate + U)
    assert rows["peephole"].parameters == {**dict.fromkeys("igo", per_gate), "peephole_kernel": 10}
    projected = {**dict.fromkeys("ifgo", (D + 3 + 1) * U), "projection_kernel": 15}
    assert rows["projected"].parameters == projected
    assert rows["rg_lru"].parameters == {"r": 20, "i": 20, "decay": 4}
    assert rows["own"].parameters == {"0": per_gate, "1": per_gate}
    assert (rows["two/0"].output_shape, rows["two/1"].cell) == ((None, None, 3), "LSTMCell")
    plan = layers["gru_before"].plan(training=True)
    assert rows["gru_before"].training == plan and plan.backend == "differentiated"
    text = "\n".join(lines)
    assert "training, differentiated: gru_before" in text
    assert all(f"    {reason}" in lines for reason in plan.reasons)


@pytest.mark.quick
def test_summary_of_a_cell_with_attention():
    cell = rnnx.AttentionCell(rnnx.GRUCell(U), LuongAttention("general"), attention_size=6)
    x, memory = keras.Input((None, D)), keras.Input((None, 8))
    model = keras.Model([x, memory], rnnx.RNN(cell, name="d")(x, constants={"memory": memory}))
    (row,) = inspection.summary(model, print_fn=lambda line: None)
    own = {"memory_kernel": 8 * U, "attention_kernel": (U + 8) * 6}
    assert row.parameters == {**dict.fromkeys("zrn", (D + U + 2) * U), **own}


# -- pictures ------------------------------------------------------------------------------------


@pytest.fixture
def drawn():
    model, x = of_masked(rnnx.LSTM(U, name="lstm"), make_mask("right"))
    yield record(model, x)
    plt.close("all")


@pytest.mark.quick
def test_pictures_of_gates_and_states(drawn):
    row = 1
    steps = int(make_mask("right")[row].sum())
    assert steps == 3
    figure = inspection.plot_gates(drawn, "lstm", row=row, tokens="abcdefg", signal=X[row])
    signal, *panels = figure.axes[:5]
    assert signal.get_ylabel() == "signal" and len(signal.lines) == D
    assert [p.get_ylabel() for p in panels] == list("ifgo")
    for panel, name in zip(panels, "ifgo"):
        np.testing.assert_array_equal(
            panel.images[0].get_array(), drawn[f"lstm/{name}"][row, :steps].T
        )
    assert [t.get_text() for t in panels[-1].get_xticklabels()] == list("abc")
    assert panels[0].images[0].get_clim() == (0, 1) and panels[2].images[0].get_clim() == (-1, 1)
    ax = inspection.plot_states(drawn, "lstm", "c", row=row, units=[4, 1])
    for line, unit in zip(ax.lines, (4, 1), strict=True):
        np.testing.assert_array_equal(line.get_ydata(), drawn["lstm/c"][row, :steps, unit])
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["4", "1"]
    _, axes = plt.subplots(4)
    assert inspection.plot_gates(drawn, "lstm", axes=axes) is axes[0].figure
    assert len(axes[0].images) == 1


@pytest.mark.quick
def test_other_pictures():
    alignments = np.random.default_rng(0).random((5, 4))
    ax = inspection.plot_alignments(alignments, source="abc", target=["X", "Y"])
    np.testing.assert_array_equal(ax.images[0].get_array(), alignments[:2, :3])
    assert [t.get_text() for t in ax.get_xticklabels()] == list("abc")
    ax = inspection.plot_gradient_flow({"a": [0.0, 1.0, np.nan], "b": [1.0, 2.0, 3.0]})
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["a", "b"]
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [np.nan, 1, np.nan])
    memory = inspection.Memory(1, np.array([1.0, 0.5, 0.001]))
    ax = inspection.plot_memory({"lstm": memory}, ax=plt.subplots()[1])
    assert ax.lines[1].get_xdata() == [1] and ax.lines[1].get_ydata() == [0.5]
    assert ax.get_legend().get_texts()[0].get_text() == "lstm: 1 steps"
    plt.close("all")


@pytest.mark.quick
def test_without_matplotlib(drawn, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match="drawn by matplotlib, .* pip install matplotlib"):
        inspection.plot_gates(drawn, "lstm")


# -- refused -------------------------------------------------------------------------------------


@pytest.mark.quick
def test_what_is_no_model_or_batch_is_refused():
    model = model_of(rnnx.LSTM(U, name="lstm"))
    with pytest.raises(TypeError, match="record got a LSTM, expected a Keras model"):
        record(rnnx.LSTM(U), X)
    with pytest.raises(TypeError, match="got a .*Dataset, expected one batch"):
        record(model, tf.data.Dataset.from_tensors(X))
    with pytest.raises(ValueError, match="no recurrent layer of keras_rnnx.*accelerate"):
        memory_length(model_of(keras.layers.LSTM(U)), X)
    with pytest.raises(ValueError, match="not been compiled and so has no loss"):
        gradient_flow(model, X, np.ones((B, U)))
    for fraction in (0, 1.5):
        with pytest.raises(ValueError, match="expected above 0 and at most 1"):
            memory_length(model, X, fraction=fraction)
    model.set_weights([0 * w for w in model.get_weights()])
    with pytest.raises(ValueError, match="derivative of its output is zero at every step"):
        memory_length(model, X)
    with pytest.raises(ValueError, match="derivative of its output is not finite"):
        memory_length(random_weights(model), X * np.nan)


@pytest.mark.quick
def test_what_was_not_recorded_is_refused(drawn):
    with pytest.raises(KeyError, match="'lstm/z' was not recorded; what was: lstm/i"):
        drawn["lstm/z"]
    assert "lstm/z" not in drawn and len(drawn) == 7
    with pytest.raises(ValueError, match="'gru' was not recorded, expected one of 'lstm'"):
        inspection.plot_gates(drawn, "gru")
    with pytest.raises(ValueError, match="state='x', and 'lstm' has h, c"):
        inspection.plot_states(drawn, "lstm", "x")
    with pytest.raises(ValueError, match="Got 2 tokens for a sequence whose last real step is 6"):
        inspection.plot_gates(drawn, "lstm", tokens="ab")
    with pytest.raises(ValueError, match=r"array \(2, 3, 4\), expected \[T, S\]"):
        inspection.plot_alignments(np.ones((2, 3, 4)))
    with pytest.raises(ValueError, match="5 labels for source, expected at most 4"):
        inspection.plot_alignments(np.ones((3, 4)), source="abcde")
    plain = record(model_of(rnnx.SimpleRNN(U, name="rnn")), X)
    with pytest.raises(ValueError, match="shows no gates"):
        inspection.plot_gates(plain, "rnn")


@pytest.mark.slow
def test_the_example_runs(tmp_path):
    script = Path(__file__).parents[1] / "examples" / "inspecting.py"
    command = [sys.executable, str(script), "--quick", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ}, check=False)
    assert done.returncode == 0, done.stderr
    names = ("gates", "states", "signal", "gradients", "memory", "alignments")
    assert {p.name for p in tmp_path.iterdir()} == {f"inspecting_{name}.png" for name in names}

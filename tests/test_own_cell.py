"""A cell of the user's own: in every layer, saved and loaded; and `check_cell`, for faults."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import B, D, T, U, inputs, make_mask, weights_like
from oracles import run

import keras_rnnx as rnnx
from keras_rnnx.testing import check_cell


@keras.saving.register_keras_serializable(package="tests")
@dataclasses.dataclass(frozen=True)
class Leaky(rnnx.CellSpec):
    rate: float = 0.3
    powers: tuple = (1, 1)

    def step(self, weights, product, x, states, constants):
        (h,) = states
        new = tf.tanh(product("recurrent_kernel", h, plus=x))
        h = (1 - self.rate) * h + self.rate * new
        return h, (h,)


def oracle(weights, x, states):
    kernel, recurrent, bias = weights
    (h,) = states
    h = 0.7 * h + 0.3 * np.tanh(x @ kernel + h @ recurrent + bias)
    return h, (h,)


def layer_of(spec, **options):
    layer = rnnx.RNN(rnnx.CustomCell(spec), return_sequences=True, **options)
    layer.build((B, T, D))
    layer.set_weights(weights_like(layer))
    return layer


@pytest.mark.quick
@pytest.mark.parametrize("mask", ["none", "holes"])
def test_an_own_cell_computes_its_step(mask):
    layer, mask = layer_of(Leaky(U), dtype="float32"), make_mask(mask)
    expected, *_ = run(oracle, layer.get_weights(), inputs(), [np.zeros((B, U))], mask)
    np.testing.assert_allclose(layer(inputs(), mask=mask), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_in_every_layer(tmp_path):
    """In a stack, in both directions, in a stream; trained, saved, loaded, exported."""
    x = keras.Input((None, D))
    own = lambda **options: rnnx.RNN(
        rnnx.CustomCell(Leaky(U), seed=1, **options), return_sequences=True
    )
    h = rnnx.Stack(own(zoneout=0.1), 2, residual=True)(x)
    h = rnnx.Bidirectional(own(recurrent_dropout=0.2))(h)
    model = keras.Model(x, keras.layers.Dense(1)(h))
    model.compile(keras.optimizers.Adam(0.02), "mse")
    losses = model.fit(inputs(), np.ones((B, T, 1)), epochs=20, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    expected = model.predict(inputs(), verbose=0)
    model.save(tmp_path / "own.keras")
    loaded = keras.saving.load_model(tmp_path / "own.keras")
    np.testing.assert_allclose(loaded.predict(inputs(), verbose=0), expected, rtol=1e-5, atol=1e-6)
    assert loaded.layers[1].layers[0].cell.spec == Leaky(U)
    model.export(tmp_path / "export", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "export"))
    np.testing.assert_allclose(served.serve(inputs()), expected, rtol=1e-5, atol=1e-6)
    causal = keras.Sequential([keras.Input((None, D)), own()])
    session = rnnx.StreamingSession(causal)
    steps = [session.feed("me", inputs()[0, t : t + 1]) for t in range(T)]
    np.testing.assert_allclose(
        np.concatenate([np.asarray(s).reshape(1, U) for s in steps]),
        causal(inputs()[:1])[0],
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.quick
def test_what_is_no_spec_is_refused():
    with pytest.raises(TypeError, match="expected a keras_rnnx.CellSpec: an object of a class"):
        rnnx.CustomCell(keras.layers.GRUCell(3))
    with pytest.raises(TypeError, match="cannot be hashed .*list"):
        rnnx.CustomCell(Leaky(U, powers=[1]))
    takes = dataclasses.make_dataclass(
        "Takes", [], bases=(Leaky,), namespace={"constant_names": ("speaker",)}, frozen=True
    )
    with pytest.raises(TypeError, match="takes constants .'speaker'"):
        check_cell(takes(4))
    with pytest.raises(TypeError, match=r"state_sizes is 4, expected a tuple .* \(4,\)"):
        rnnx.CustomCell(faulty(state_sizes=4))
    with pytest.raises(TypeError, match="recurrent is a method, expected a property"):
        rnnx.CustomCell(faulty(recurrent=lambda self: {"recurrent_kernel": 1}))
    odd = lambda self, input_dim: {"kernel": rnnx.Weight((input_dim, 4), "biass")}
    with pytest.raises(ValueError, match="a weight of role 'biass', expected one of 'kernel'"):
        rnnx.CustomCell(faulty(weights=odd)).build((None, 3))
    with pytest.raises(TypeError, match="GRUCell.* ordinary loop, and there is nothing to check"):
        check_cell(keras.layers.GRUCell(3))


# -- check_cell: every row of the table passes, and every kind of fault is found ---------------

GOOD = {
    "own": lambda: Leaky(4),
    "lstm": lambda: rnnx.LSTMCell(4, peephole=True, zoneout=(0.1, 0.2)),
    "lstm_projected": lambda: rnnx.LSTMCell(4, coupled=True, projection_units=3, cell_clip=1.0),
    "gru_before": lambda: rnnx.GRUCell(4, reset_after=False, dropout=0.3),
    "simple": lambda: rnnx.SimpleRNNCell(4),
    "layer_norm_lstm": lambda: rnnx.LayerNormLSTMCell(4),
    "layer_norm_gru": lambda: rnnx.LayerNormGRUCell(4),
    "layer_norm_simple": lambda: rnnx.LayerNormSimpleRNNCell(4),
    "indrnn": lambda: rnnx.IndRNNCell(4, activation="tanh"),
    "nas": lambda: rnnx.NASCell(4, use_bias=True),
    "esn": lambda: rnnx.ESNCell(4, connectivity=0.9, seed=1),
    "min_gru": lambda: rnnx.MinGRUCell(4),
    "min_lstm": lambda: rnnx.MinLSTMCell(4),
    "rg_lru": lambda: rnnx.RGLRUCell(3),
    "variational": lambda: rnnx.VariationalGRUCell(4),
}
QUICK, FIRST = ("own", "min_gru"), ("lstm",)
MARKS = {name: pytest.mark.slow for name in GOOD}
MARKS |= {name: pytest.mark.quick for name in QUICK} | {name: () for name in FIRST}


@pytest.mark.parametrize("name", [pytest.param(n, marks=MARKS[n]) for n in GOOD])
@pytest.mark.thin(5)
def test_good_cells_pass(name, capsys):
    check_cell(GOOD[name]())
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7 and all(line.startswith("ok ") for line in lines)


def faulty(**parts):
    made = dataclasses.make_dataclass("Faulty", [], bases=(Leaky,), namespace=parts, frozen=True)
    return keras.saving.register_keras_serializable(package="tests", name=f"F{id(parts)}")(made)(4)


def unused_bias(self, weights, x):
    return tf.tensordot(x, weights["kernel"], 1)


def wrong_gradient(self, weights, product, x, states, constants):
    h = tf.tanh(tf.stop_gradient(states[0]) + product("recurrent_kernel", states[0], plus=x))
    return h, (h,)


def half_as_float32(self, weights, product, x, states, constants):
    h = tf.tanh(product("recurrent_kernel", states[0], plus=x))
    h = tf.cast(h, tf.float32) if h.dtype == tf.bfloat16 else h
    return h, (h,)


def across_rows(self, weights, product, x, states, constants):
    h = tf.tanh(product("recurrent_kernel", states[0], plus=x))
    h = h - tf.reduce_mean(h, axis=0)
    return h, (h,)


def forgotten_weight(self, weights, product, x, states, constants):
    h = tf.tanh(product("recurrent_kernel", states[0], plus=x) + weights["mix"])
    return h, (h,)


def with_mix(self, input_dim):
    return {**Leaky.weights(self, input_dim), "mix": rnnx.Weight((4, 4), "recurrent")}


def second_matrix(self, weights, product, x, states, constants):
    (h,) = states
    h = tf.tanh(product("recurrent_kernel", h, plus=x) * tf.sigmoid(product("mix", h)))
    return h, (h,)


def second_matrix_past_the_engine(self, weights, product, x, states, constants):
    (h,) = states
    h = tf.tanh(product("recurrent_kernel", h, plus=x) * tf.sigmoid(h @ weights["mix"]))
    return h, (h,)


def both_matrices(self, weights):
    return {name: weights[name] for name in ("recurrent_kernel", "mix")}


def no_states(self, weights, product, x, states, constants):
    return tf.tanh(product("recurrent_kernel", states[0], plus=x))


def past_product(self, weights, product, x, states, constants):
    h = tf.tanh(x + tf.matmul(states[0], weights["recurrent_kernel"]))
    return h, (h,)


FAULTS = {
    "a weight that is not prepared": (
        dict(weights=with_mix, step=forgotten_weight),
        "looks up weights.'mix'., and `prepare` gave recurrent_kernel",
    ),
    "a recurrent matrix that noise would leave out": (
        dict(weights=with_mix, prepare=both_matrices, step=second_matrix),
        "noise: .*multiplies a state by mix, which `recurrent` does not name",
    ),
    "a recurrent matrix past the engine": (
        dict(
            weights=with_mix,
            prepare=both_matrices,
            recurrent=property(lambda self: {"recurrent_kernel": 1, "mix": 1}),
            step=second_matrix_past_the_engine,
        ),
        "noise: .*weights.'mix'.*multiply by a recurrent matrix through `product` only",
    ),
    "no states": (dict(step=no_states), r"returned .*Tensor, expected \(output, new states\)"),
    "a product past the engine": (dict(step=past_product), "noise: .*through `product`"),
    "a weight that is not used": (dict(project=unused_bias), "weight 'bias' has no gradient"),
    "a gradient that is stopped": (dict(step=wrong_gradient), "gradients: .*is off by"),
    "another dtype": (dict(step=half_as_float32), "dtypes: .*float32"),
    "rows that see each other": (dict(step=across_rows), "masks: .*is off by"),
    "a configuration that is lost": (
        dict(get_config=lambda self: {"units": 4, "rate": 0.5}),
        "saving: ",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.thin(7)
def test_faults_are_found(fault, capsys):
    parts, sentence = FAULTS[fault]
    with pytest.raises(AssertionError, match=sentence) as error:
        check_cell(faulty(**parts))
    if "cannot run" not in str(error.value):
        assert "FAILED" in capsys.readouterr().out

"""Every kind of noise against the equations, with the masks that were drawn.

The oracle is given the draws of the layer, in their order, and computes in NumPy what the paper
says of them. That the draws themselves are right is tested by their statistics.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import B, D, T, U, assert_all_close, inputs, outputs_and_gradients, weights_like
from oracles import sigmoid

import keras_rnnx as rnnx
from keras_rnnx import regularization

RATE = 0.4
KINDS = {
    "lstm": lambda **o: rnnx.LSTM(U, **o),
    "gru": lambda **o: rnnx.GRU(U, **o),
    "gru_before": lambda **o: rnnx.GRU(U, reset_after=False, **o),
    "simple": lambda **o: rnnx.SimpleRNN(U, **o),
}
GATES = {"lstm": 4, "gru": 3, "gru_before": 3, "simple": 1}
STATES = {"lstm": 2, "gru": 1, "gru_before": 1, "simple": 1}
NOISES = {
    "input": {"dropout": RATE},
    "input_gates": {"dropout": RATE, "dropout_mode": "gates"},
    "input_step": {"dropout": RATE, "dropout_mode": "step"},
    "recurrent": {"recurrent_dropout": RATE},
    "recurrent_gates": {"recurrent_dropout": RATE, "recurrent_dropout_mode": "gates"},
    "recurrent_step": {"recurrent_dropout": RATE, "recurrent_dropout_mode": "step"},
    "candidate": {"recurrent_dropout": RATE, "recurrent_dropout_mode": "candidate"},
    "zoneout": {"zoneout": RATE},
    "weights": {"weight_dropout": RATE},
    "all": {
        "dropout": RATE,
        "dropout_mode": "step",
        "recurrent_dropout": RATE,
        "recurrent_dropout_mode": "gates",
        "zoneout": RATE,
        "weight_dropout": RATE,
    },
}
CASES = [
    (kind, noise)
    for kind in KINDS
    for noise in NOISES
    if not (kind == "simple" and noise == "candidate")  # it adds nothing to its state: refused
]


def build(kind, noise, **options):
    layer = KINDS[kind](
        **{"return_sequences": True, "dtype": "float64", "seed": 3} | options | noise
    )
    layer.build((B, T, D))
    layer.set_weights(weights_like(layer))
    return layer


@pytest.fixture
def draws(monkeypatch):
    """Every mask that a layer draws, in its order."""
    found, draw = [], regularization.draw_kept

    def recorded(seed, shape, rate):
        kept = draw(seed, shape, rate)
        found.append(np.asarray(kept))
        return kept

    monkeypatch.setattr(regularization, "draw_kept", recorded)
    return found


# -- the oracle ------------------------------------------------------------------------------


def dropped(a, kept):
    return np.where(kept, a / (1 - RATE), 0)


def lstm(W, R, b, xs, hs, states, keep):
    i, f, g, o = (x @ w + h @ r + c for x, w, h, r, c in zip(xs, W, hs, R, b))
    c = sigmoid(f) * states[1] + sigmoid(i) * keep(np.tanh(g))
    return sigmoid(o) * np.tanh(c), c


def gru(W, R, b, xs, hs, states, keep):
    b, b_h = b
    xz, xr, xn = (x @ w + c for x, w, c in zip(xs, W, b))
    pz, pr, pn = (h @ r + c for h, r, c in zip(hs, R, b_h))
    z, n = sigmoid(xz + pz), np.tanh(xn + sigmoid(xr + pr) * pn)
    return (z * states[0] + (1 - z) * keep(n),)


def gru_before(W, R, b, xs, hs, states, keep):
    z, r = (sigmoid(xs[k] @ W[k] + hs[k] @ R[k] + b[k]) for k in (0, 1))
    # Dropping (r * h) is r times the dropped h.
    n = np.tanh(xs[2] @ W[2] + (r * hs[2]) @ R[2] + b[2])
    return (z * states[0] + (1 - z) * keep(n),)


def simple(W, R, b, xs, hs, states, keep):
    return (np.tanh(xs[0] @ W[0] + hs[0] @ R[0] + b[0]),)


STEPS = {"lstm": lstm, "gru": gru, "gru_before": gru_before, "simple": simple}


def expected(kind, layer, noise, draws, x):
    """The outputs `[B, T, U]` that the equations give with these draws."""
    draws, gates = list(draws), GATES[kind]
    kernel, recurrent, bias = layer.get_weights()
    take = draws.pop
    # In the order of what is drawn: input, weights, recurrence, zoneout.
    xs = [x] * gates
    if "dropout" in noise:
        count = gates if noise.get("dropout_mode") == "gates" else 1
        xs = [dropped(x, take(0)) for _ in range(count)] * (gates // count)
    if "weight_dropout" in noise:
        recurrent = dropped(recurrent, take(0))
    mode = noise.get(
        "recurrent_dropout_mode", "variational" if "recurrent_dropout" in noise else ""
    )
    kept = take(0) if mode else None
    zones = [take(0) for _ in range(STATES[kind])] if "zoneout" in noise else None
    assert not draws
    W, R = np.split(kernel, gates, axis=1), np.split(recurrent, gates, axis=1)
    b = np.split(bias, gates, axis=-1) if bias.ndim == 1 else [np.split(row, gates) for row in bias]
    states = [np.zeros((B, U))] * STATES[kind]
    outputs = []
    for t in range(T):
        h, keep = states[0], lambda g: g
        hs = [h] * gates
        if mode == "variational":
            hs = [dropped(h, kept[0])] * gates
        elif mode == "gates":
            hs = [dropped(h, mask) for mask in kept]
        elif mode == "step":
            hs = [dropped(h, kept[t])] * gates
        elif mode == "candidate":
            keep = lambda g, t=t: dropped(g, kept[t])
        new = STEPS[kind](W, R, b, [a[:, t] for a in xs], hs, states, keep)
        if zones:
            new = [np.where(zone[t], n, s) for zone, n, s in zip(zones, new, states)]
        states = new
        outputs.append(states[0])
    return np.stack(outputs, axis=1)


# -- against the equations -------------------------------------------------------------------


@pytest.mark.quick
@pytest.mark.parametrize("kind, noise", CASES)
@pytest.mark.thin(3)
def test_noise_does_what_its_paper_says(kind, noise, draws):
    layer, x = build(kind, NOISES[noise]), inputs(dtype="float64")
    found = np.asarray(layer(x, training=True))
    assert draws
    masks = [np.swapaxes(d, 0, 1) if d.shape == (T, B, D) else d for d in draws]
    masks = [m[0][:, None] if m.shape == (1, B, D) else m for m in masks]
    np.testing.assert_allclose(found, expected(kind, layer, NOISES[noise], masks, x), rtol=1e-10)


@pytest.mark.parametrize("kind, noise", CASES)
@pytest.mark.parametrize(
    "options", [{}, pytest.param({"jit_compile": False}, marks=pytest.mark.slow)]
)
@pytest.mark.thin(16)
def test_gradients_are_those_of_the_loop_with_that_noise(kind, noise, options):
    """Against TensorFlow's own differentiation of the loop, on the same noise."""
    x, both = tf.constant(inputs(dtype="float64")), []
    for backward in ("full", "autodiff"):
        layer = build(kind, NOISES[noise], backward=backward, **options)
        outputs, gradients = outputs_and_gradients(layer, training=True)(x, None, None)
        both.append([*outputs, *gradients])
    assert_all_close(*both, 1e-10, ["output", "x", *(w.path for w in layer.weights)])


@pytest.mark.parametrize("kind, noise", [("lstm", n) for n in NOISES])
@pytest.mark.thin(10)
def test_checkpoints_have_the_same_noise(kind, noise):
    x, both = tf.constant(inputs(dtype="float64")), []
    for backward in ("full", rnnx.Checkpointed(3)):
        layer = build(kind, NOISES[noise], backward=backward)
        outputs, gradients = outputs_and_gradients(layer, training=True)(x, None, None)
        both.append([*outputs, *gradients])
    assert_all_close(*both, 1e-10, ["output", "x", *(w.path for w in layer.weights)])


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.thin(5)
def test_eager_graph_and_xla_draw_the_same(noise):
    x, found = inputs(dtype="float64"), []
    for way in (lambda f: f, tf.function, lambda f: tf.function(f, jit_compile=True)):
        layer = build("lstm", NOISES[noise])
        found.append(np.asarray(way(lambda x, layer=layer: layer(x, training=True))(x)))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-9)
    np.testing.assert_allclose(found[2], found[0], rtol=1e-9)
    other = build("lstm", NOISES[noise], seed=4)
    assert not np.allclose(np.asarray(other(x, training=True)), found[0])
    again = np.asarray(layer(x, training=True))
    assert not np.allclose(again, found[0]), "the next batch has the same noise"


@pytest.mark.quick
@pytest.mark.parametrize("kind, noise", CASES)
@pytest.mark.thin(4)
def test_nothing_random_at_inference(kind, noise, draws):
    """No draw, and but for zoneout the outputs of the layer without noise."""
    layer, plain = build(kind, NOISES[noise]), build(kind, {})
    x = inputs(dtype="float64")
    found, without = np.asarray(layer(x)), np.asarray(plain(x))
    assert not draws
    if "zoneout" not in NOISES[noise]:
        np.testing.assert_array_equal(found, without)
    graph = tf.function(layer).get_concrete_function(tf.TensorSpec([None, None, D], tf.float64))
    assert not [op.type for op in graph.graph.get_operations() if "Random" in op.type]


@pytest.mark.quick
@pytest.mark.parametrize("rates", [0.3, (0.1, 0.7), (0.0, 0.5)])
def test_zoneout_takes_the_expectation_at_inference(rates):
    """s = rate * old + (1 - rate) * new, for h and for c (Krueger et al. 2017, section 3.2)."""
    layer = build("lstm", {"zoneout": rates}, return_state=True)
    rate_h, rate_c = rates if isinstance(rates, tuple) else (rates, rates)
    kernel, recurrent, bias = layer.get_weights()
    W, R = np.split(kernel, 4, axis=1), np.split(recurrent, 4, axis=1)
    b, x, outputs = np.split(bias, 4), inputs(dtype="float64"), []
    h, c = np.zeros((B, U)), np.zeros((B, U))
    for t in range(T):
        h_new, c_new = lstm(W, R, b, [x[:, t]] * 4, [h] * 4, (h, c), lambda g: g)
        h, c = rate_h * h + (1 - rate_h) * h_new, rate_c * c + (1 - rate_c) * c_new
        outputs.append(h)
    found = layer(x)
    assert_all_close(found, [np.stack(outputs, 1), h, c], 1e-10, ["outputs", "h", "c"])
    step, states = layer.initial_states(B), None
    for t in range(T):
        output, states = layer.step(x[:, t], states or step)
    assert_all_close([output, *states], [h, h, c], 1e-10, ["output", "h", "c"])


@pytest.mark.quick
def test_zoneout_of_everything_changes_nothing():
    """Also in training, where the rate is a threshold for random bits."""
    layer = build("lstm", {"zoneout": 1.0})
    for training in (False, True):
        np.testing.assert_array_equal(layer(inputs(dtype="float64"), training=training), 0)


@pytest.mark.quick
def test_directions_and_layers_around_a_cell_draw_their_own():
    cell = lambda: rnnx.SimpleRNNCell(4, dropout=0.5, seed=1)
    both = rnnx.Bidirectional(rnnx.RNN(cell()))
    assert (both.forward_layer.cell.seed, both.backward_layer.cell.seed) == (1, 2)
    stack = rnnx.Stack(rnnx.RNN([cell(), cell()]), 3)
    seeds = lambda stack: [[c.seed for c in layer.cells] for layer in stack.layers]
    assert seeds(stack) == [[1, 1], [3, 3], [5, 5]]
    again = rnnx.Stack.from_config(stack.get_config())
    assert seeds(again) == seeds(stack)
    assert [
        layer.cell.seed for layer in rnnx.Stack([rnnx.RNN(cell()), rnnx.RNN(cell())]).layers
    ] == [1, 1]


# -- statistics ------------------------------------------------------------------------------

MANY = 3000


@pytest.mark.parametrize("noise", [n for n in NOISES if n != "all"])
def test_statistics(noise, draws):
    """Rate per unit, and no two units, samples, steps, gates alike, to 5 standard deviations."""
    layer = rnnx.LSTM(U, seed=8, **NOISES[noise])
    layer(np.ones((MANY, 4, D), "float32"), training=True)
    sizes = {
        "input": [(1, MANY, D)],
        "input_gates": [(1, MANY, D)] * 4,
        "input_step": [(4, MANY, D)],
        "recurrent": [(1, MANY, U)],
        "recurrent_gates": [(4, MANY, U)],
        "recurrent_step": [(4, MANY, U)],
        "candidate": [(4, MANY, U)],
        "zoneout": [(4, MANY, U)] * 2,
        "weights": [(U, 4 * U)],
    }[noise]
    assert [d.shape for d in draws] == sizes
    kept = np.concatenate([d.reshape(-1, *d.shape[-2:]) for d in draws])
    if noise != "weights":
        deviation = np.sqrt(RATE * (1 - RATE) / MANY)
        assert np.all(np.abs(kept.mean(axis=1) - (1 - RATE)) < 5 * deviation)
    centred = (kept - (1 - RATE)) / np.sqrt(RATE * (1 - RATE))
    axes = (0, 1, 2) if len(kept) > 1 else (1, 2)
    for axis in axes:
        product = centred * np.roll(centred, 1, axis=axis)
        assert abs(product.mean()) < 5 / np.sqrt(product.size), f"alike along axis {axis}"


# -- weight drop -----------------------------------------------------------------------------


@pytest.mark.quick
def test_weight_drop_leaves_the_raw_weights(draws):
    """One draw for the whole batch; dropped numbers get no gradient, and none is changed."""
    layer = build("lstm", NOISES["weights"])
    before = layer.get_weights()
    x = tf.constant(inputs(dtype="float64"))
    _, gradients = outputs_and_gradients(layer, training=True)(x, None, None)
    (kept,) = draws
    assert kept.shape == (U, 4 * U)
    gradient = np.asarray(gradients[2])
    assert np.all(gradient[~kept] == 0) and np.all(gradient[kept] != 0)
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_weight_drop_in_fit_moves_only_what_the_optimizer_moves():
    model = keras.Sequential([keras.Input((T, D)), rnnx.GRU(U, weight_dropout=0.5, seed=1)])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    before = model.get_weights()
    model.fit(inputs(), np.zeros((B, U)), verbose=0, epochs=2)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


# -- what is refused -------------------------------------------------------------------------


@pytest.mark.quick
@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda: rnnx.LSTM(U, zoneout=1.5), "zoneout=1.5, expected a rate from 0 to 1"),
        (lambda: rnnx.LSTM(U, zoneout=(0.1,)), "expected .* a list of 2, one for each state"),
        (lambda: rnnx.GRU(U, zoneout=True), "zoneout=True"),
        (
            lambda: rnnx.GRU(U, weight_dropout=1.5),
            "weight_dropout=1.5, expected a rate from 0 to 1",
        ),
        (lambda: rnnx.MinGRU(U, weight_dropout=0.5), "no recurrent matrix to drop"),
        (lambda: rnnx.IndRNN(U, recurrent_dropout=0.5), "multiplies its state by no matrix"),
        (lambda: rnnx.GRU(U, dropout_mode="candidate"), "dropout_mode is 'candidate'"),
        (lambda: rnnx.GRU(U, recurrent_dropout_mode="gate"), "recurrent_dropout_mode is 'gate'"),
        (
            lambda: rnnx.SimpleRNN(U, recurrent_dropout=0.1, recurrent_dropout_mode="candidate"),
            "no candidate",
        ),
        (
            lambda: rnnx.LSTMCell(U, zoneout=0.1, weight_dropout=0.2)(
                np.ones((2, D)), [np.zeros((2, U))] * 2, training=True
            ),
            "LSTMCell has weight_dropout and zoneout and was called for a single training step",
        ),
        (lambda: rnnx.LSTM(U, cell_clip=-1), "cell_clip is -1, expected a positive number"),
    ],
)
def test_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()

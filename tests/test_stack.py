"""Stack: several layers as one, held to single layers and to PyTorch."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import B, D, T, U, inputs, make_mask, states_like

import keras_rnnx as rnnx

LAYERS = {
    "LSTM": lambda **k: rnnx.LSTM(U, **k),
    "GRU": lambda **k: rnnx.GRU(U, **k),
    "SimpleRNN": lambda **k: rnnx.SimpleRNN(U, **k),
    "both": lambda **k: rnnx.Bidirectional(rnnx.LSTM(U, **k)),
}


def filled(layer, shape=(B, T, D)):
    layer.build(shape)
    rng = np.random.default_rng(1)
    layer.set_weights([rng.normal(scale=0.5, size=w.shape) for w in layer.get_weights()])
    return layer


@pytest.mark.parametrize("name", LAYERS)
def test_weights_are_those_of_single_layers(name):
    stack = filled(rnnx.Stack(LAYERS[name](return_sequences=True), 3))
    x, each = inputs(), len(stack.get_weights()) // 3
    for k in range(3):
        layer = LAYERS[name](return_sequences=True)
        layer.build(x.shape)
        layer.set_weights(stack.get_weights()[k * each : (k + 1) * each])
        x = np.asarray(layer(x, mask=make_mask("holes")))
    np.testing.assert_allclose(stack(inputs(), mask=make_mask("holes")), x, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "kind, both, layers",
    [(k, b, n) for k in ("LSTM", "GRU", "projected") for b in (False, True) for n in (1, 3)],
)
@pytest.mark.thin(3)
def test_torch_computes_the_same(kind, both, layers):
    torch = pytest.importorskip("torch", reason="PyTorch is an extra: pip install '.[torch]'")
    size = {"proj_size": 3} if kind == "projected" else {}
    if kind == "GRU":
        one = rnnx.GRU(U, return_sequences=True, return_state=True)
    else:
        projected = {"projection_units": 3} if size else {}
        one = rnnx.LSTM(U, return_sequences=True, return_state=True, **projected)
    torch_kind = "GRU" if kind == "GRU" else "LSTM"
    stack = filled(rnnx.Stack(rnnx.Bidirectional(one) if both else one, layers))
    theirs = getattr(torch.nn, torch_kind)(
        D, U, layers, bidirectional=both, batch_first=True, **size
    )
    order = [1, 0, 2] if kind == "GRU" else [0, 1, 2, 3]  # Keras' gates in PyTorch's order
    turned = lambda a: np.concatenate([np.split(a, len(order), -1)[k] for k in order], -1).T
    arrays = iter(stack.get_weights())
    with torch.no_grad():
        for k in range(layers):
            for end in ("", "_reverse")[: 2 if both else 1]:
                kernel, recurrent, bias = next(arrays), next(arrays), next(arrays)
                bias_x, bias_h = bias if bias.ndim == 2 else (bias, 0 * bias)
                for name, a in zip(("ih", "hh"), (kernel, recurrent)):
                    getattr(theirs, f"weight_{name}_l{k}{end}").copy_(torch.tensor(turned(a)))
                for name, a in zip(("ih", "hh"), (bias_x, bias_h)):
                    getattr(theirs, f"bias_{name}_l{k}{end}").copy_(torch.tensor(turned(a)))
                if size:
                    getattr(theirs, f"weight_hr_l{k}{end}").copy_(torch.tensor(next(arrays).T))
    x = torch.tensor(inputs(), requires_grad=True)
    expected, last = theirs(x)
    (torch.sin(3 * expected)).sum().backward()
    ours = tf.constant(inputs())
    with tf.GradientTape() as tape:
        tape.watch(ours)
        output, *states = stack(ours, training=True)
        loss = tf.reduce_sum(tf.sin(3 * output))
    np.testing.assert_allclose(output, expected.detach(), rtol=1e-5, atol=1e-6)
    gradient = tape.gradient(loss, ours)
    np.testing.assert_allclose(gradient, x.grad, rtol=1e-4, atol=1e-5)
    last = last if isinstance(last, tuple) else (last,)  # h, c of [layers * directions, B, U]
    flat = [last[i][n] for n in range(last[0].shape[0]) for i in range(len(last))]
    for state, e in zip(states, flat, strict=True):
        np.testing.assert_allclose(state, e.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["locked", "step"])
def test_dropout_between_layers(mode):
    """On what goes to an upper layer, at its rate, for all steps or for each; not before the first
    layer, not after the last, and not at inference."""
    one = rnnx.SimpleRNN(50, activation=None, return_sequences=True, recurrent_initializer="zeros")
    stack = rnnx.Stack(one, 2, dropout=0.3, dropout_mode=mode, seed=3)
    x = np.ones((40, 20, 2), "float32")
    stack.build(x.shape)
    first, second = stack.layers
    second.set_weights([np.eye(50), np.zeros((50, 50)), np.zeros(50)])  # shows its input
    under = np.asarray(first(x)[0])
    ratio = np.asarray(stack(x, training=True)) / under
    assert np.all(np.isclose(ratio, 0) | np.isclose(ratio, 1 / 0.7, rtol=1e-4))
    dropped = np.isclose(ratio, 0)
    assert abs(dropped.mean() - 0.3) < (0.03 if mode == "locked" else 0.01)
    assert np.all(dropped == dropped[:, :1]) == (mode == "locked")
    np.testing.assert_allclose(stack(x), under, rtol=1e-5)
    again = rnnx.Stack.from_config(stack.get_config())
    again.build(x.shape)
    again.set_weights(stack.get_weights())
    np.testing.assert_array_equal(
        np.isclose(np.asarray(again(x, training=True)), 0), dropped, "the seed decides"
    )


def test_layers_draw_noise_of_their_own():
    stack = rnnx.Stack(rnnx.LSTM(U, dropout=0.5, recurrent_dropout=0.2, seed=4), 3)
    assert len({layer.cell.seed for layer in stack.layers}) == 3
    both = rnnx.Stack(rnnx.Bidirectional(rnnx.LSTM(U, dropout=0.5, seed=4)), 2)
    seeds = [
        way.cell.seed for one in both.layers for way in (one.forward_layer, one.backward_layer)
    ]
    assert len(set(seeds)) == 4


@pytest.mark.parametrize("options", [{}, {"residual": True}, {"skip": True}])
def test_last_output_is_that_of_the_last_real_step(options):
    mask = make_mask("empty_rows")
    whole = filled(rnnx.Stack(rnnx.GRU(U, return_sequences=True), 2, **options))
    last = rnnx.Stack(rnnx.GRU(U), 2, **options)
    last.build((B, T, D))
    last.set_weights(whole.get_weights())
    sequence, ends = np.asarray(whole(inputs(), mask=mask)), mask.sum(axis=1) - 1
    expected = [sequence[b, ends[b]] if ends[b] >= 0 else 0 * sequence[b, 0] for b in range(B)]
    np.testing.assert_allclose(last(inputs(), mask=mask), expected, rtol=1e-5, atol=1e-6)


def test_layers_may_differ():
    stack = rnnx.Stack([rnnx.LSTM(U), rnnx.Bidirectional(rnnx.GRU(U + 1)), rnnx.SimpleRNN(U + 2)])
    assert stack(inputs()).shape == (B, U + 2) == stack.compute_output_shape((B, T, D))
    assert stack.state_size == [U, U, U + 1, U + 1, U + 2]


@pytest.mark.slow
def test_saved_and_loaded(tmp_path):
    x = keras.Input((None, D))
    stack = rnnx.Stack(
        rnnx.Bidirectional(rnnx.LSTM(U)), 2, dropout=0.1, dropout_mode="step", seed=1
    )
    model = keras.Model(x, keras.layers.Dense(2)(stack(x)))
    model.compile("adam", "mse")
    model.fit(inputs(), np.ones((B, 2)), verbose=0)
    expected = model.predict(inputs(), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(inputs(), verbose=0), expected)
    config = loaded.layers[1].get_config()
    assert (config["dropout"], config["dropout_mode"], config["seed"]) == (0.1, "step", 1)
    model.export(tmp_path / "exported", verbose=False)
    exported = tf.saved_model.load(tmp_path / "exported")
    served = exported.serve(tf.constant(inputs()))
    np.testing.assert_allclose(served, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("stateful", [True, "any_batch"])
def test_stateful(stateful):
    stack = filled(rnnx.Stack(rnnx.LSTM(U, stateful=stateful, return_sequences=True), 2))
    plain = filled(rnnx.Stack(rnnx.LSTM(U, return_sequences=True), 2))
    parts = [stack(inputs()[:, :3]), stack(inputs()[:, 3:])]
    np.testing.assert_allclose(tf.concat(parts, 1), plain(inputs()), rtol=1e-5, atol=1e-6)
    stack.reset_state()
    assert all(not np.any(s) for s in stack.states)


@pytest.mark.quick
@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: rnnx.Stack([rnnx.GRU(3)], 2), "1 layers and num_layers=2"),
        (lambda: rnnx.Stack(keras.layers.Dense(3), 2), "expected recurrent layers of keras_rnnx"),
        (lambda: rnnx.Stack([]), "expected recurrent layers of keras_rnnx"),
        (lambda: rnnx.Stack(rnnx.GRU(3), 2, dropout_mode="all"), "dropout_mode is 'all'"),
        (
            lambda: rnnx.Stack(rnnx.Bidirectional(rnnx.GRU(3), merge_mode=None), 2),
            "merge_mode=None, whose two outputs are no input",
        ),
        (
            lambda: rnnx.Stack([rnnx.GRU(3), rnnx.GRU(4)], residual=True).build((B, T, D)),
            "residual=True.*makes 4 features of 3",
        ),
        (
            lambda: rnnx.Stack(rnnx.GRU(3), 2)(inputs(), initial_state=states_like([3])),
            "got 1 states, expected 2",
        ),
    ],
)
def test_what_does_not_go_together(make, message):
    with pytest.raises(ValueError, match=message):
        make()

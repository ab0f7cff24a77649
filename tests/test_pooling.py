"""Pooling over time: against NumPy over the real steps of each row, one at a time."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import MASK_KINDS, B, D, T, U, assert_close, inputs, loss_of, make_mask, weights_like
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_rnnx import GRU, RNN, GRUCell
from keras_rnnx.layers.pooling import (
    AttentionOverTime,
    LastOverTime,
    MaxOverTime,
    MeanOverTime,
)

MAKERS = {
    "mean": MeanOverTime,
    "max": MaxOverTime,
    "last": LastOverTime,
    "attention": lambda **options: AttentionOverTime(U, **options),
}
GARBAGE = (np.nan, np.inf, 1e9)
every_kind = pytest.mark.parametrize("kind", MAKERS)
every_mask = pytest.mark.parametrize("mask_kind", MASK_KINDS)


def made(kind, seed=1, **options):
    """A layer with random weights, none of them zero."""
    layer = MAKERS[kind](**options)
    layer(inputs())
    layer.set_weights(weights_like(layer, seed))
    return layer


def oracle(kind, x, mask, weights=()):
    """Each row in a loop of its own, over a shorter array that holds its real steps only."""
    x = np.asarray(x, "float64")
    mask = np.ones(x.shape[:2], bool) if mask is None else mask
    outputs, all_weights = np.zeros((len(x), x.shape[2])), np.zeros(x.shape[:2])
    for b in range(len(x)):
        steps = np.flatnonzero(mask[b])
        if not len(steps):
            continue
        rows = x[b, steps]
        if kind == "mean":
            outputs[b] = rows.mean(axis=0)
        elif kind == "max":
            outputs[b] = rows.max(axis=0)
        elif kind == "last":
            outputs[b] = rows[-1]
        else:
            kernel, bias, context = weights
            energy = np.exp([context @ np.tanh(kernel.T @ row + bias) for row in rows])
            all_weights[b, steps] = energy / energy.sum()
            outputs[b] = all_weights[b, steps] @ rows
    return outputs, all_weights


def gradients(layer, x, mask):
    """Gradients of a loss in which every element counts, for input and weights."""
    x = tf.constant(x)
    variables = [w.value for w in layer.trainable_weights]
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = loss_of(layer(x, mask=mask))
    return [g.numpy() for g in tape.gradient(loss, [x, *variables])]


@pytest.mark.quick
@every_mask
@every_kind
def test_values(kind, mask_kind):
    layer, x, mask = made(kind), inputs(3), make_mask(mask_kind)
    expected, _ = oracle(kind, x, mask, layer.get_weights())
    assert_close(layer(x, mask=mask), expected, 1e-6, kind)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(data=st.data())
@every_kind
def test_any_mask(kind, data):
    batch, steps = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 6))
    bits = data.draw(st.lists(st.booleans(), min_size=batch * steps, max_size=batch * steps))
    mask = np.reshape(bits, (batch, steps))
    layer, x = made(kind), inputs(batch, batch=batch, steps=steps)
    expected, _ = oracle(kind, x, mask, layer.get_weights())
    dirty = np.where(mask[..., None], x, np.nan)
    assert_close(layer(dirty, mask=mask), expected, 1e-6, kind)


def test_weights_of_the_attention():
    layer, x, mask = made("attention", return_weights=True), inputs(3), make_mask("empty_rows")
    pooled, weights = layer(x, mask=mask)
    expected, expected_weights = oracle("attention", x, mask, layer.get_weights())
    assert_close(pooled, expected, 1e-6, "pooled")
    assert_close(weights, expected_weights, 1e-6, "weights")
    assert np.all(weights.numpy()[~mask] == 0)
    assert np.ptp(weights.numpy()[0]) > 0.05, "weights that hardly differ test nothing"


@pytest.mark.parametrize("mask_kind", ["right", "holes", "empty_rows"])
@every_kind
def test_gradients_against_finite_differences(kind, mask_kind):
    keras.config.set_dtype_policy("float64")
    layer, x, mask = made(kind), inputs(4, dtype="float64"), make_mask(mask_kind)
    found = gradients(layer, x, mask)
    rng = np.random.default_rng(5)
    values = [x, *layer.get_weights()]
    direction = [rng.normal(size=v.shape) for v in values]

    def loss(shift):
        moved = [v + shift * d for v, d in zip(values, direction)]
        layer.set_weights(moved[1:])
        return loss_of(layer(moved[0], mask=mask)).numpy()

    numeric = (loss(1e-6) - loss(-1e-6)) / 2e-6
    exact = sum(np.sum(g * d) for g, d in zip(found, direction))
    assert abs(exact) > 0.01
    assert_close(exact, numeric, 1e-7, "directional derivative")
    assert np.all(found[0][~mask] == 0)


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("mask_kind", ["left", "holes", "empty_rows"])
@every_kind
@pytest.mark.thin(3)
def test_the_padding_reaches_nothing(kind, mask_kind, garbage):
    layer, x, mask = made(kind), inputs(6), make_mask(mask_kind)
    dirty = np.where(mask[..., None], x, np.float32(garbage))
    assert not np.array_equal(dirty, x)
    np.testing.assert_array_equal(layer(dirty, mask=mask), layer(x, mask=mask))
    for found, expected in zip(gradients(layer, dirty, mask), gradients(layer, x, mask)):
        assert np.all(np.isfinite(found))
        np.testing.assert_array_equal(found, expected)


@every_kind
def test_nan_in_a_real_step_is_not_hidden(kind):
    x = inputs(6)
    x[1, -1] = np.nan
    output = made(kind)(x).numpy()
    assert np.all(np.isnan(output[1])) and np.all(np.isfinite(output[[0, 2]]))


@pytest.mark.parametrize("empty", ["mask", "no steps"])
@every_kind
def test_nothing_real_gives_zeros(kind, empty):
    layer = made(kind)
    x, mask = (inputs(), np.zeros((B, T), bool)) if empty == "mask" else (inputs(steps=0), None)
    np.testing.assert_array_equal(layer(x, mask=mask), np.zeros((B, D)))
    for gradient in gradients(layer, x, mask):
        np.testing.assert_array_equal(gradient, np.zeros_like(gradient))


def test_max_of_negative_values_and_of_infinity():
    x = -np.abs(inputs(7)) - 1
    x[0, 2, 1] = -np.inf
    x[2, 0] = -np.inf  # the only real step of its row
    mask = make_mask("right")
    assert mask[2].sum() == 1
    np.testing.assert_array_equal(
        MaxOverTime()(x, mask=mask), [x[b][mask[b]].max(axis=0) for b in range(B)]
    )


@every_mask
def test_last_is_the_last_output_of_a_recurrent_layer(mask_kind):
    x, mask = inputs(8), make_mask(mask_kind)
    every_step = GRU(U, return_sequences=True)
    every_step(x)
    every_step.set_weights(weights_like(every_step))
    last = RNN(GRUCell(U))
    last(x)
    last.set_weights(every_step.get_weights())
    found = LastOverTime()(every_step(x, mask=mask), mask=mask)
    assert_close(found, last(x, mask=mask), 1e-6, "last output")


def test_mean_is_that_of_keras_where_keras_has_one():
    x, mask = inputs(8), make_mask("holes")
    expected = keras.layers.GlobalAveragePooling1D()(x, mask=tf.constant(mask))
    assert_close(MeanOverTime()(x, mask=mask), expected, 1e-6, "mean")


@every_kind
def test_takes_the_mask_of_the_layer_before_and_hands_none_on(kind):
    layer, x = made(kind), inputs(9)
    mask = make_mask("holes")
    x[~mask] = 0
    model = keras.Sequential([keras.layers.Masking(), layer])
    expected, _ = oracle(kind, x, mask, layer.get_weights())
    output = model(x)
    assert_close(output, expected, 1e-6, kind)
    assert getattr(output, "_keras_mask", None) is None


@pytest.mark.parametrize("jit_compile", [False, True])
@every_kind
def test_unknown_batch_and_time(kind, jit_compile):
    layer = made(kind)

    @tf.function(
        jit_compile=jit_compile,
        input_signature=[tf.TensorSpec([None, None, D]), tf.TensorSpec([None, None], tf.bool)],
    )
    def run(x, mask):
        with tf.GradientTape() as tape:
            tape.watch(x)
            output = layer(x, mask=mask)
            loss = loss_of(output)
        return output, tape.gradient(loss, x)

    for batch, steps in ((B, T), (2, 9), (1, 1)):
        x, mask = inputs(10, batch, steps), make_mask("right", batch, steps)
        mask[-1] = False
        output, gradient = run(x, mask)
        expected, _ = oracle(kind, x, mask, layer.get_weights())
        assert_close(output, expected, 1e-6, kind)
        assert_close(gradient, gradients(layer, x, mask)[0], 1e-6, "gradient")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@every_kind
def test_half_precision_sums_in_single(kind, dtype):
    """Over 5,000 steps: a sum in half precision is off by far more than one rounding."""
    layer = made(kind, dtype=f"mixed_{dtype}")
    x = np.asarray(tf.cast(1 + 0.1 * inputs(11, steps=5000), dtype), "float32")
    mask = np.random.default_rng(12).random((B, 5000)) > 0.3
    output = layer(tf.cast(x, dtype), mask=mask)
    assert output.dtype == dtype
    expected, _ = oracle(kind, x, mask, layer.get_weights())
    # One rounding of the result; of the scores' product too for the attention.
    rounding = {"float16": 2**-11, "bfloat16": 2**-8}[dtype]
    assert_close(output, expected, rounding * (2 if kind == "attention" else 1), kind)


@every_kind
def test_integers_come_out_in_the_dtype_of_the_layer(kind):
    x = np.arange(B * T * D).reshape(B, T, D)
    layer = made(kind)
    expected, _ = oracle(kind, x, None, layer.get_weights())
    output = layer(x)
    assert output.dtype == "float32"
    assert_close(output, expected, 1e-6, kind)


@every_kind
def test_symbolic_shapes_are_those_of_values(kind):
    options = {"return_weights": True} if kind == "attention" else {}
    layer = made(kind, **options)
    symbolic = keras.tree.flatten(layer(keras.Input((None, D), batch_size=B)))
    values = keras.tree.flatten(layer(inputs()))
    assert [tuple(v.shape) for v in values] == [(B, D), (B, T)][: len(values)]
    assert [s.shape for s in symbolic] == [(B, D), (B, None)][: len(values)]
    assert [s.dtype for s in symbolic] == [v.dtype.name for v in values]


def test_fit_save_and_load(tmp_path):
    x = keras.Input((None, D))
    masked = keras.layers.Masking()(x)
    pooled, weights = AttentionOverTime(U, return_weights=True, name="attention")(masked)
    others = [layer()(masked) for layer in (MeanOverTime, MaxOverTime, LastOverTime)]
    y = keras.layers.Dense(2)(keras.layers.Concatenate()([pooled, *others]))
    model = keras.Model(x, [y, weights])
    model.set_weights(weights_like(model))
    model.compile("sgd", ["mse", None])
    values = inputs(13)
    values[1, 3:] = 0
    before = model.get_weights()
    model.fit(values, np.ones((B, 2), "float32"), verbose=0)
    moved = [np.abs(a - b).max() for a, b in zip(before, model.get_weights())]
    assert min(moved) > 1e-6, "every weight gets a gradient"
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for found, expected in zip(loaded(values), model(values)):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.quick
@every_kind
def test_configuration(kind):
    options = {"return_weights": True} if kind == "attention" else {}
    layer = MAKERS[kind](name="other", dtype="float64", **options)
    config = layer.get_config()
    again = type(layer).from_config(config)
    assert again.get_config() == config
    assert (again.name, again.compute_dtype) == ("other", "float64")
    if kind == "attention":
        assert (again.units, again.return_weights) == (U, True)


@pytest.mark.quick
def test_errors():
    with pytest.raises(ValueError, match=r"MeanOverTime .* got input of shape \(3, 4\), expected"):
        MeanOverTime()(np.ones((3, 4), "float32"))
    with pytest.raises(ValueError, match=r"got a mask of shape \(3, 6\).*expected \(batch, time\)"):
        MaxOverTime()(inputs(), mask=np.ones((B, 6), bool))
    with pytest.raises(ValueError, match="number of features, is unknown"):
        AttentionOverTime(U)(keras.Input((T, None)))
    with pytest.raises(TypeError, match="units.*positive integer.*'5'"):
        AttentionOverTime("5")
    with pytest.raises(ValueError, match="units.*positive integer, got 0"):
        AttentionOverTime(0)

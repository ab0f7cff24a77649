"""TimeDistributed: against Keras where Keras can do it, and against the layer step by step."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import B, D, T, U, assert_close, inputs, loss_of, make_mask, weights_like

from keras_rnnx import GRU, LSTM, Bidirectional
from keras_rnnx.layers.pooling import AttentionOverTime, MeanOverTime
from keras_rnnx.layers.time_distributed import TimeDistributed, mixes_samples

S = 6  # an axis inside each step


def values(*inside, seed=0, dtype="float32"):
    return np.random.default_rng(seed).normal(size=(B, T, *inside)).astype(dtype)


# name: (makes the layer, shape of a step)
LAYERS = {
    "Dense": (lambda: keras.layers.Dense(U, activation="tanh"), (D,)),
    "Dense of sequences": (lambda: keras.layers.Dense(U), (S, D)),
    "Conv2D": (lambda: keras.layers.Conv2D(U, 3, strides=2), (9, 8, 2)),
    "LSTM": (lambda: keras.layers.LSTM(U), (S, D)),
    "our LSTM": (lambda: LSTM(U, return_sequences=True, jit_compile=False), (S, D)),
    "LayerNormalization": (lambda: keras.layers.LayerNormalization(), (S, D)),
    "BatchNormalization": (lambda: keras.layers.BatchNormalization(), (D,)),
    "Flatten": (lambda: keras.layers.Flatten(), (S, D)),
    "Sequential": (
        lambda: keras.Sequential(
            [
                keras.layers.Conv1D(U, 2),
                keras.layers.BatchNormalization(),
                GRU(3, jit_compile=False),
            ]
        ),
        (S, D),
    ),
}
every_layer = pytest.mark.parametrize("name", LAYERS)
every_fold = pytest.mark.parametrize("fold", [True, False])


def pair(make, x, fold="auto", **options):
    """Ours and Keras' around layers of the same random weights, moving variances above 0."""
    ours, theirs = TimeDistributed(make(), fold=fold), keras.layers.TimeDistributed(make())
    ours(x), theirs(x)
    weights = [np.abs(w) + 0.1 for w in weights_like(ours)]
    signs = np.random.default_rng(3).choice([-1, 1], size=len(weights))
    variance = [w.path.endswith("variance") for w in ours.weights]
    weights = [w if keep else s * w for w, s, keep in zip(weights, signs, variance)]
    ours.set_weights(weights)
    theirs.set_weights(weights)
    return ours, theirs


def output_and_gradients(layer, x, **arguments):
    x = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        output = layer(x, **arguments)
        loss = loss_of(output)
    variables = [w.value for w in layer.trainable_weights]
    return [output, *tape.gradient(loss, [x, *variables])]


@every_fold
@every_layer
@pytest.mark.thin(3)
def test_inference_equals_keras(name, fold):
    make, step = LAYERS[name]
    x = values(*step)
    ours, theirs = pair(make, x, fold)
    found, expected = output_and_gradients(ours, x), output_and_gradients(theirs, x)
    assert len(found) == len(expected) == 2 + len(ours.trainable_weights)
    for a, e in zip(found, expected):
        assert_close(a, e, 3e-6, name)


@pytest.mark.quick
@every_layer
def test_training_equals_keras(name):
    """Batch statistics and moving averages too, step by step."""
    make, step = LAYERS[name]
    x = values(*step)
    ours, theirs = pair(make, x)
    found = output_and_gradients(ours, x, training=True)
    expected = output_and_gradients(theirs, x, training=True)
    for a, e in zip(found, expected):
        assert_close(a, e, 2e-5, name)
    for a, e in zip(ours.get_weights(), theirs.get_weights()):
        assert_close(a, e, 1e-6, "weights after the call")


def test_folded_batch_statistics_are_those_of_all_steps():
    x = values(D)
    ours, _ = pair(lambda: keras.layers.BatchNormalization(scale=False, center=False), x, fold=True)
    expected = (x - x.mean((0, 1))) / np.sqrt(x.var((0, 1)) + 1e-3)
    assert_close(ours(x, training=True), expected, 1e-5, "over batch and time")


def test_same_dropout_as_keras_step_by_step():
    make = lambda: keras.layers.Dropout(0.4, seed=5)
    x = values(D) + 3
    ours, theirs = TimeDistributed(make(), fold=False), keras.layers.TimeDistributed(make())
    found = ours(x, training=True).numpy()
    np.testing.assert_array_equal(found, theirs(x, training=True))
    assert 0 < np.mean(found == 0) < 1


def test_folded_dropout_differs_between_steps():
    layer = TimeDistributed(keras.layers.Dropout(0.4, seed=5))
    x = np.ones((B, 50, 20), "float32")
    np.testing.assert_array_equal(layer(x), x)
    output = layer(x, training=True).numpy()
    assert set(np.unique(output)) == {0, np.float32(1 / 0.6)}
    assert abs(np.mean(output == 0) - 0.4) < 0.04
    assert len({step.tobytes() for step in output.swapaxes(0, 1)}) == 50


def test_dropout_with_one_mask_for_the_batch_has_one_per_step():
    x = np.ones((B, 20, 30), "float32")
    layer = TimeDistributed(keras.layers.Dropout(0.4, noise_shape=(1, 30)))
    output = layer(x, training=True).numpy()
    assert np.all(output == output[:1])
    assert len({step.tobytes() for step in output[0]}) == 20
    assert layer.folds() and not layer.folds(training=True)


@pytest.mark.quick
def test_the_rule_of_folding():
    dense, norm = keras.layers.Dense(U), keras.layers.BatchNormalization()
    inside = keras.Sequential([keras.layers.Dense(U), keras.Sequential([norm])])
    stateful = keras.Sequential([LSTM(U, stateful="any_batch")])
    table = [(dense, False, False), (norm, False, True), (inside, False, True)]
    table += [(stateful, True, True), (keras.layers.GRU(U, stateful=True), True, True)]
    table += [(Bidirectional(LSTM(U, stateful="any_batch")), True, True)]
    for layer, in_inference, in_training in table:
        assert mixes_samples(layer, False) == in_inference
        assert mixes_samples(layer, True) == in_training
        assert TimeDistributed(layer).folds(True) != in_training
        assert TimeDistributed(layer, fold=True).folds(True)
        assert not TimeDistributed(layer, fold=False).folds()
    norm.trainable = False
    assert TimeDistributed(inside).folds(True), "frozen: moving averages in training too"


class Counting(keras.layers.Layer):
    """Counts its calls and keeps the shapes that it got."""

    def call(self, inputs, training=None):
        self.seen = [*getattr(self, "seen", []), (tuple(inputs.shape), training)]
        return inputs + 1


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("fold, calls", [("auto", [(B * T, D)]), (False, T * [(B, D)])])
def test_how_often_and_with_what_the_layer_is_called(fold, calls, training):
    layer = TimeDistributed(Counting(), fold=fold)
    layer(values(D), training=training)
    assert layer.layer.seen == [(shape, training) for shape in calls]


def test_training_of_the_model_around():
    inner = Counting()
    model = keras.Sequential([keras.Input((T, D)), TimeDistributed(inner)])
    inner.seen = []
    model(values(D), training=True)
    assert inner.seen == [((B * T, D), True)]


@pytest.mark.parametrize("known_steps", [True, False])
def test_state_goes_on_from_step_to_step(known_steps):
    x = values(S, D)
    layer = TimeDistributed(LSTM(U, stateful=True, jit_compile=False))
    layer.build((B, T, S, D))
    layer.set_weights(weights_like(layer))
    signature = [tf.TensorSpec([B, T if known_steps else None, S, D])]
    run = tf.function(layer, input_signature=signature)
    found = [run(tf.constant(x)), run(tf.constant(x))]  # the second call goes on from the first

    alone = LSTM(U, jit_compile=False)
    alone.build((B, S, D))
    alone.set_weights(layer.layer.get_weights()[:3])
    long = np.reshape(np.concatenate([x, x], axis=1), (B, 2 * T * S, D))
    expected = [alone(long[:, : (t + 1) * S]) for t in range(2 * T)]
    assert_close(np.concatenate(found, axis=1), np.stack(expected, axis=1), 1e-5, "one long run")


# -- masks ---------------------------------------------------------------------------------


class Masked(keras.layers.Layer):
    """Multiplies by the mask, so that the output shows which one came."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs, mask=None):
        if mask is None:
            return inputs
        factor = keras.ops.cast(mask, inputs.dtype)
        return inputs * keras.ops.reshape(factor, (*mask.shape, *[1] * (inputs.ndim - mask.ndim)))


@pytest.mark.quick
@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize("mask_kind", ["right", "left", "holes", "empty_rows"])
def test_mask_of_a_step_as_in_keras(mask_kind, fold):
    x, mask = values(D), tf.constant(make_mask(mask_kind))
    found = TimeDistributed(Masked(), fold=fold)(x, mask=mask)
    expected = keras.layers.TimeDistributed(Masked())(x, mask=mask)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found._keras_mask, mask)
    np.testing.assert_array_equal(expected._keras_mask, mask)


@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize("make", [keras.layers.LSTM, LSTM])
def test_mask_inside_the_steps(make, fold):
    """`[B, T, S]`: what an Embedding gives for documents of sentences."""
    x, mask = values(S, D), np.random.default_rng(4).random((B, T, S)) > 0.4
    mask[1, 2] = False
    ours, theirs = pair(lambda: make(U), x, fold)
    mask = tf.constant(mask)
    found = ours(x, mask=mask)
    assert_close(found, theirs(x, mask=mask), 3e-6, "values")
    np.testing.assert_array_equal(found._keras_mask, np.any(mask, axis=2))
    assert not found._keras_mask[1, 2]


def test_mask_is_handed_on_whole_where_the_layer_does_so():
    x, mask = values(S, D), tf.constant(np.random.default_rng(4).random((B, T, S)) > 0.4)
    for inner in (LSTM(U, return_sequences=True), keras.layers.Dense(U)):
        output = TimeDistributed(inner)(x, mask=mask)
        assert output.shape == (B, T, S, U)
        np.testing.assert_array_equal(output._keras_mask, mask)
    sequence, *states = TimeDistributed(LSTM(U, return_sequences=True, return_state=True))(
        x, mask=mask
    )
    np.testing.assert_array_equal(sequence._keras_mask, mask)
    for state in states:
        np.testing.assert_array_equal(state._keras_mask, np.any(mask, axis=2))


@pytest.mark.parametrize("make", [keras.layers.LSTM, LSTM])
def test_masked_step_is_a_sequence_without_a_real_step(make):
    """Keras raises an IndexError here."""
    x, mask = values(S, D), make_mask("holes")
    x[~mask] = np.nan
    ours, theirs = pair(lambda: make(U), np.nan_to_num(x))
    with pytest.raises(IndexError):
        keras.layers.TimeDistributed(keras.layers.LSTM(U))(x, mask=tf.constant(mask))
    if make is LSTM:  # which keeps NaN in the padding out; in Keras' own it spreads
        output = ours(x, mask=mask).numpy()
        assert np.all(output[~mask] == 0)
    output = ours(np.nan_to_num(x), mask=mask).numpy()
    assert np.all(output[~mask] == 0)
    assert_close(output[mask], theirs(np.nan_to_num(x)).numpy()[mask], 3e-6, "real steps")


def hierarchy():
    """Documents of sentences of words, after Yang et al. 2016."""
    ids = keras.Input((None, None), dtype="int32")
    words = keras.layers.Embedding(11, D, mask_zero=True)(ids)
    gru = lambda: GRU(U, return_sequences=True, jit_compile=False)
    words = TimeDistributed(Bidirectional(gru()))(words)
    sentences = TimeDistributed(AttentionOverTime(3))(words)
    sentences = Bidirectional(gru())(sentences)
    return keras.Model(ids, keras.layers.Dense(2)(AttentionOverTime(4)(sentences)))


def test_hierarchical_attention_does_not_see_the_padding():
    model = hierarchy()
    model.set_weights(weights_like(model))
    ids = np.random.default_rng(5).integers(1, 11, (1, 3, 4))
    ids[0, 1, 2:] = 0
    padded = np.zeros((1, 5, 7), int)
    padded[:, :3, :4] = ids
    assert_close(model(padded), model(ids), 1e-6, "padded by words and sentences")
    longer = ids.copy()
    longer[0, 1, 2] = 3
    assert np.abs(model(longer) - model(ids)).max() > 1e-3, "a word counts"


# -- nested inputs and outputs ----------------------------------------------------------------


@keras.saving.register_keras_serializable(package="test_time_distributed")
class Two(keras.layers.Layer):
    """Two inputs, two outputs of other shapes and dtypes."""

    def build(self, shapes):
        self.kernel = self.add_weight((shapes["a"][-1], shapes["b"][-1]), name="kernel")

    def call(self, inputs):
        product = inputs["a"] @ self.kernel
        total = product + keras.ops.sum(inputs["b"], axis=1)
        return {"total": total, "best": (keras.ops.argmax(total, axis=-1), product)}

    def compute_output_shape(self, shapes):
        rows, units = shapes["a"][0], shapes["b"][-1]
        return {"total": (rows, units), "best": ((rows,), (rows, units))}


def test_nested_inputs_and_outputs(tmp_path):
    a, b = values(D), values(S, U, seed=1)
    given = {"a": a, "b": b}
    for fold in (True, False):
        layer = TimeDistributed(Two(), fold=fold)
        output = layer(given)
        kernel = layer.get_weights()[0]
        total = a @ kernel + b.sum(2)
        assert_close(output["total"], total, 1e-5, "total")
        np.testing.assert_array_equal(output["best"][0], total.argmax(-1))
        assert_close(output["best"][1], a @ kernel, 1e-5, "product")
        shapes = {"a": (B, T, D), "b": (B, T, S, U)}
        expected = {"total": (B, T, U), "best": ((B, T), (B, T, U))}
        assert layer.compute_output_shape(shapes) == expected

    symbolic = {"a": keras.Input((None, D)), "b": keras.Input((None, S, U))}
    layer = TimeDistributed(Two())
    output = layer(symbolic)
    assert output["total"].shape == (None, None, U) and output["total"].dtype == "float32"
    assert output["best"][0].shape == (None, None) and "int" in output["best"][0].dtype
    model = keras.Model(symbolic, output)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for found, expected in zip(*map(keras.tree.flatten, (loaded(given), model(given)))):
        np.testing.assert_array_equal(found, expected)


def test_several_masks_are_joined():
    x, y = values(D), values(D, seed=1)
    masks = [make_mask("right"), make_mask("holes")]
    output = TimeDistributed(keras.layers.Add())([x, y], mask=[tf.constant(m) for m in masks])
    assert_close(output, x + y, 1e-6, "sum")
    np.testing.assert_array_equal(output._keras_mask, masks[0] & masks[1])
    output = TimeDistributed(keras.layers.Add())([x, y], mask=[None, tf.constant(masks[1])])
    np.testing.assert_array_equal(output._keras_mask, masks[1])


def test_model_of_two_inputs():
    a, b = keras.Input((D,)), keras.Input((S, U))
    inner = keras.Model([a, b], keras.layers.Concatenate()([a, MeanOverTime()(b)]))
    x, y = values(D), values(S, U, seed=1)
    assert_close(TimeDistributed(inner)([x, y])[..., D:], y.mean(2), 1e-6, "mean")


# -- unknown sizes, precision, saving ----------------------------------------------------------


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("training", [False, True])
@every_fold
@pytest.mark.thin(4)
def test_unknown_batch_and_time(fold, training, jit_compile):
    make = lambda: keras.layers.BatchNormalization()
    for batch, steps in ((B, T), (2, 4), (4, 1)):
        x = inputs(6, batch, steps)
        traced, plain = pair(make, x, fold)[0], pair(make, x, fold)[0]
        run = tf.function(
            lambda x: output_and_gradients(traced, x, training=training),  # noqa: B023
            jit_compile=jit_compile,
            input_signature=[tf.TensorSpec([None, None, D])],
        )
        found, expected = run(x), output_and_gradients(plain, x, training=training)
        for a, e in zip(found, expected):
            assert_close(a, e, 1e-4, "against known sizes")
        for a, e in zip(traced.get_weights(), plain.get_weights()):
            assert_close(a, e, 1e-6, "moving averages")


def test_symbolic_shape_with_unknown_sizes():
    layer = TimeDistributed(keras.layers.Conv1D(U, 2))
    assert layer(keras.Input((None, S, D))).shape == (None, None, S - 1, U)
    assert layer(keras.Input((T, None, D), batch_size=B)).shape == (B, T, None, U)
    x = values(S, D)
    run = tf.function(layer, input_signature=[tf.TensorSpec([None, None, None, D])])
    assert_close(run(x), layer(x), 1e-6, "inner axis unknown too")


@pytest.mark.parametrize("fold", [True, False])
def test_no_steps(fold):
    layer = TimeDistributed(keras.layers.Dense(U), fold=fold)
    layer(values(D))
    assert layer(np.ones((B, 0, D), "float32")).shape == (B, 0, U)


def test_ids_of_tokens():
    ids = np.random.default_rng(7).integers(0, 11, (B, T))
    layer = TimeDistributed(keras.layers.Embedding(11, U))
    output = layer(ids)
    np.testing.assert_array_equal(output, layer.get_weights()[0][ids])


def test_precision_is_that_of_the_layer_inside():
    x = values(D, dtype="float64")
    layer = TimeDistributed(keras.layers.Dense(U, dtype="float64"))
    output = layer(x)
    kernel = layer.get_weights()[0]
    assert output.dtype == "float64"
    assert_close(output, x @ kernel, 1e-14, "double")
    half = TimeDistributed(keras.layers.Dense(U, dtype="mixed_bfloat16"))
    assert half(x).dtype == "bfloat16"
    assert half(keras.Input((T, D))).dtype == "bfloat16"


def test_activity_regularizer():
    x = values(D)
    for fold, expected in ((True, x.sum() / (B * T)), (False, x.sum() / B)):
        inner = keras.layers.Activation("linear", activity_regularizer=keras.ops.sum)
        layer = TimeDistributed(inner, fold=fold)
        layer(x)
        assert_close(sum(layer.losses), expected, 1e-5, "loss")


@keras.saving.register_keras_serializable(package="test_time_distributed")
class WithoutBuild(keras.layers.Layer):
    """Composed, and built by Keras in its call."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(U)

    def call(self, inputs):
        return self.dense(inputs)


@pytest.mark.parametrize("make", [WithoutBuild, *(make for make, _ in LAYERS.values())])
@pytest.mark.thin(12)
def test_save_and_load(make, tmp_path):
    step = next((step for other, step in LAYERS.values() if other is make), (D,))
    model = keras.Sequential([keras.Input((T, *step)), TimeDistributed(make(), fold=False)])
    model.set_weights([np.abs(w) for w in weights_like(model)])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = values(*step)
    np.testing.assert_array_equal(loaded(x), model(x))
    assert loaded.layers[0].fold is False
    assert type(loaded.layers[0].layer) is type(model.layers[0].layer)


@pytest.mark.parametrize("fold, steps", [("auto", None), (False, None), (False, 3)])
@pytest.mark.thin(3)
def test_export(fold, steps, tmp_path):
    model = keras.Sequential(
        [
            keras.Input((steps, S, D)),
            TimeDistributed(keras.layers.BatchNormalization(), fold=fold),
            TimeDistributed(LSTM(U, jit_compile=False), fold=fold),
        ]
    )
    model.set_weights([np.abs(w) for w in weights_like(model)])
    model.export(tmp_path / "model", verbose=False)
    served = tf.saved_model.load(tmp_path / "model")
    x = inputs(8, 2, (steps or 5) * S).reshape(2, -1, S, D)
    assert_close(served.serve(x), model(x), 1e-6, "exported")


@pytest.mark.slow
def test_fit():
    model = hierarchy()
    model.compile("adam", "mse")
    ids = np.random.default_rng(9).integers(0, 11, (8, 3, 4))
    before = model.get_weights()
    model.fit(ids, np.ones((8, 2)), verbose=0)
    moved = [np.abs(a - b).max() for a, b in zip(before, model.get_weights())]
    assert min(moved) > 0


# -- errors ---------------------------------------------------------------------------------


@pytest.mark.quick
def test_errors():
    with pytest.raises(ValueError, match="got 3, expected a Keras layer such as"):
        TimeDistributed(3)
    with pytest.raises(ValueError, match="fold is 'always', expected one of 'auto', True, False"):
        TimeDistributed(keras.layers.Dense(U), fold="always")
    with pytest.raises(ValueError, match=r"got input of shape \(3,\), expected \(batch, time"):
        TimeDistributed(keras.layers.Dense(U))(np.ones(3, "float32"))
    with pytest.raises(ValueError, match=r"\(3, 7, 4\), \(3, 6, 4\)\], expected the same"):
        TimeDistributed(keras.layers.Add())([values(D), values(D)[:, 1:]])
    for shape in ((B, T - 1), (B - 1, T), (B,), (B, T - 1, S)):
        message = rf"got a mask of shape \[\({shape[0]}.*expected \(batch, time, ...\) of the input"
        with pytest.raises(ValueError, match=message):
            TimeDistributed(Masked())(values(D), mask=np.ones(shape, bool))
        with pytest.raises(ValueError, match=message):
            TimeDistributed(keras.layers.Dense(U))(values(D), mask=np.ones(shape, bool))


def test_a_loss_in_each_of_an_unknown_number_of_steps():
    inner = keras.layers.Dense(U, activity_regularizer="l2")
    layer = TimeDistributed(inner, fold=False)
    run = tf.function(layer, input_signature=[tf.TensorSpec([None, None, D])])
    with pytest.raises(ValueError, match="unknown number of steps.*which adds a loss in each"):
        run(values(D))


def test_a_layer_that_loses_the_batch():
    layer = TimeDistributed(keras.layers.Lambda(lambda x: keras.ops.sum(x)))
    with pytest.raises(ValueError, match=r"got a scalar from .*expected \(batch, ...\)"):
        layer(values(D))

"""Monte-Carlo dropout, dropout of words, and penalties on outputs."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import B, D, T, U, inputs

import keras_rnnx as rnnx
from keras_rnnx import regularization


def dropping(rate=0.5):
    """An output that is 0 with probability `rate` and 1 / (1 - rate) otherwise."""
    layer = rnnx.SimpleRNN(1, activation=None, use_bias=False, dropout=rate, seed=1)
    model = keras.Sequential([keras.Input((1, 1)), layer])
    model.set_weights([np.ones((1, 1)), np.zeros((1, 1))])
    return model


@pytest.mark.quick
def test_mean_and_spread_are_those_of_the_noise():
    samples, rows = 400, 5
    mean, spread = rnnx.mc_predict(dropping(), np.ones((rows, 1, 1)), samples, batch_size=2)
    assert mean.shape == spread.shape == (rows, 1)
    # Bernoulli: mean 1 and standard deviation 1; 5 standard deviations of the estimates
    assert np.all(np.abs(mean - 1) < 5 / np.sqrt(samples))
    assert np.all(np.abs(spread - 1) < 5 / np.sqrt(samples))
    np.testing.assert_allclose(spread, np.sqrt(mean * (2 - mean)), rtol=1e-9)  # of 0s and 2s
    assert len(np.unique(mean)) > 1, "rows have noise of their own"


@pytest.mark.quick
def test_quantiles_are_those_of_the_samples():
    model, x = dropping(), np.ones((6, 1, 1))
    mean, spread, (low, middle, high) = rnnx.mc_predict(model, x, 2, quantiles=(0, 0.5, 1))
    np.testing.assert_allclose(low, mean - spread, atol=1e-9)  # of two samples, the smaller one
    np.testing.assert_allclose(middle, mean, atol=1e-9)
    np.testing.assert_allclose(high, mean + spread, atol=1e-9)
    assert spread.any() and low.shape == (6, 1)


@pytest.mark.quick
def test_batch_normalization_stays_as_it_is():
    inputs_ = keras.Input((T, D))
    h = keras.layers.BatchNormalization()(rnnx.GRU(U, dropout=0.5, seed=1)(inputs_))
    model = keras.Model(inputs_, [h, keras.layers.Dense(2)(h)])
    before = model.get_weights()
    (first, second), (spread, _) = rnnx.mc_predict(model, inputs(), samples=3)
    assert first.shape == (B, U) and second.shape == (B, 2) and spread.any()
    for old, new in zip(before, model.get_weights(), strict=True):
        if old.dtype.kind == "f":  # the others are states of the seeds
            np.testing.assert_array_equal(old, new)
    assert all(layer.trainable for layer in model.layers)


@pytest.mark.quick
@pytest.mark.parametrize(
    "model, options, sentence",
    [
        (
            lambda: keras.Sequential([keras.Input((T, D)), rnnx.GRU(U)]),
            {},
            "nothing in it is random",
        ),
        (dropping, {"samples": 0}, "samples=0 and batch_size=32, expected at least 1"),
        (dropping, {"quantiles": [2.5]}, r"quantiles=\[2.5\], expected numbers of 0 to 1"),
        (dropping, {"x": inputs()[:0]}, r"inputs of \{0\} rows"),
        (dropping, {"x": [inputs(), inputs()[:2]]}, "expected arrays of as many rows each"),
    ],
)
def test_refused(model, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        rnnx.mc_predict(model(), **{"x": inputs(), **options})


@pytest.mark.quick
def test_a_dropped_word_is_dropped_everywhere():
    layer = rnnx.Embedding(50, D, dropout=0.4, seed=3, mask_zero=True)
    words = np.random.default_rng(0).integers(0, 50, size=(20, 30))
    plain, found = np.asarray(layer(words)), np.asarray(layer(words, training=True))
    dropped = {}
    for word, vector, noisy in zip(words.ravel(), plain.reshape(-1, D), found.reshape(-1, D)):
        off = bool(np.all(noisy == 0))
        assert dropped.setdefault(word, off) == off
        np.testing.assert_allclose(noisy, 0 * vector if off else vector / 0.6, rtol=1e-5)
    assert 5 < sum(dropped.values()) < 35
    np.testing.assert_array_equal(layer.compute_mask(words), words != 0)
    again = rnnx.Embedding.from_config(layer.get_config())
    assert again.dropout == 0.4 and again.seed == 3 and again.mask_zero


@pytest.mark.quick
def test_no_word_is_dropped_at_inference(monkeypatch):
    monkeypatch.setattr(regularization, "draw_kept", None)
    layer, words = rnnx.Embedding(9, D, dropout=0.4), np.array([[1, 2]])
    np.testing.assert_array_equal(layer(words), keras.ops.take(layer.embeddings, words, axis=0))


@pytest.mark.quick
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_activation_penalty(dtype):
    penalty = rnnx.ActivationPenalty(activation=2.0, temporal=3.0)
    layer = rnnx.LSTM(U, return_sequences=True, activity_regularizer=penalty, dtype=dtype)
    h = np.asarray(tf.cast(layer(inputs()), tf.float64))
    expected = 2 * np.mean(h**2) + 3 * np.mean((h[:, 1:] - h[:, :-1]) ** 2)
    (loss,) = layer.losses
    np.testing.assert_allclose(loss, expected, rtol=1e-5 if dtype == "float32" else 1e-3)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(penalty))
    assert again.get_config() == {"activation": 2.0, "temporal": 3.0}


@pytest.mark.quick
def test_activation_penalty_is_one_of_sequences():
    """Of one step there is no change, and states that a layer returns too have no penalty."""
    penalty = rnnx.ActivationPenalty(activation=1.0, temporal=1.0)
    x = inputs(features=U)
    np.testing.assert_allclose(penalty(x[:, :1]), B * np.mean(x[:, :1] ** 2), rtol=1e-5)
    assert penalty(x[:, 0]) == 0
    alone = rnnx.LSTM(U, return_sequences=True, activity_regularizer=penalty)
    stack = rnnx.Stack(rnnx.LSTM(U, return_sequences=True, activity_regularizer=penalty), 1)
    alone(inputs())
    stack.build((B, T, D))
    stack.set_weights(alone.get_weights())
    stack(inputs())
    np.testing.assert_allclose(sum(map(float, stack.losses)), float(alone.losses[0]), rtol=1e-6)
    with pytest.raises(
        ValueError, match="ActivationPenalty got a RaggedTensor.*leave return_ragged"
    ):
        penalty(tf.RaggedTensor.from_tensor(x))


@pytest.mark.quick
def test_dropped_words_of_ragged_sequences():
    words = tf.ragged.constant([[1, 2, 1], [3]])
    layer = rnnx.Embedding(9, D, dropout=0.5, seed=1)
    found = layer(words, training=True)
    assert isinstance(found, tf.RaggedTensor) and found.row_lengths().numpy().tolist() == [3, 1]
    np.testing.assert_array_equal(found[0, 0], found[0, 2])
    plain = layer(words).flat_values.numpy()
    values = found.flat_values.numpy()
    np.testing.assert_allclose(values, np.where(values == 0, 0, plain / 0.5), rtol=1e-6)


@pytest.mark.quick
def test_kept_states_and_statistics_are_put_back():
    """A stateful net without noise gives one answer, and is afterwards what it was."""
    layer = rnnx.LSTM(U, stateful=True)
    model = keras.Sequential([keras.Input((None, D), batch_size=B), layer])
    model(inputs())
    before = [np.array(s) for s in layer.states]
    with pytest.raises(ValueError, match="nothing in it is random"):
        rnnx.mc_predict(model, inputs(seed=3), samples=3, batch_size=B)
    for old, new in zip(before, layer.states, strict=True):
        np.testing.assert_array_equal(old, np.array(new))

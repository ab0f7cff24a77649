"""What cells of our own start from: reservoirs, decays, gains, biases."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import B, T, U, inputs

import keras_rnnx as rnnx


def reservoir(units, **options):
    layer = rnnx.ESN(units, **options)
    layer.build((None, None, 3))
    return layer.get_weights()[1]


@pytest.mark.quick
@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("units, connectivity", [(5, 0.1), (20, 0.1), (40, 0.5)])
def test_the_spectral_radius_is_what_was_asked_for(units, connectivity, seed):
    """Of small sparse draws more than half have no loop, and radius 0."""
    matrix = reservoir(units, connectivity=connectivity, spectral_radius=0.7, seed=seed)
    assert np.abs(np.linalg.eigvals(matrix)).max() == pytest.approx(0.7, rel=1e-4)
    share = np.mean(matrix != 0)
    assert abs(share - connectivity) < 5 * np.sqrt(connectivity / units**2) + 0.1


@pytest.mark.quick
def test_reservoirs():
    assert np.linalg.norm(reservoir(20, use_norm2=True, seed=1)) == pytest.approx(0.9, rel=1e-5)
    with pytest.raises(ValueError, match="ESNCell drew 100 reservoirs of 3 units.*close a loop"):
        reservoir(3, connectivity=0.0)
    with pytest.raises(ValueError, match="radius is 0"):
        reservoir(10, recurrent_initializer="zeros", connectivity=1.0)
    assert np.isfinite(reservoir(8, recurrent_initializer="identity", seed=7)).all()
    keras.utils.set_random_seed(3)
    first = reservoir(20)
    keras.utils.set_random_seed(3)
    np.testing.assert_array_equal(first, reservoir(20))


@pytest.mark.quick
def test_a_reservoir_is_built_in_a_graph_and_not_trained():
    layer = rnnx.ESN(20)
    tf.function(lambda x: layer(x))(inputs())
    assert not layer.trainable_weights and len(layer.non_trainable_weights) == 3
    model = keras.Sequential([keras.Input((T, 4)), rnnx.ESN(20), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    before = model.layers[0].get_weights()
    model.fit(inputs(), np.ones((B, 1)), verbose=0)
    for old, new in zip(before, model.layers[0].get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.quick
def test_decays_of_rg_lru():
    layer = rnnx.RGLRU(400)
    layer.build((None, None, 400))
    decay = layer.get_weights()[2].astype("float64")
    powers = (1 / (1 + np.exp(-decay))) ** 8
    assert 0.899 < powers.min() < 0.91 and 0.989 < powers.max() < 0.9995
    with pytest.raises(ValueError, match="got an input of 3 features.*Put a Dense"):
        rnnx.RGLRU(4)(inputs(features=3))


@pytest.mark.quick
def test_rg_lru_is_built_by_fit():
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.recurrent, self.head = rnnx.RGLRU(4), keras.layers.Dense(1)

        def call(self, x):
            return self.head(self.recurrent(x))

    model = Model()
    model.compile("sgd", "mse")
    model.fit(inputs(), np.ones((B, 1)), verbose=0)
    assert model.built


@pytest.mark.quick
def test_layer_norm_starts_as_a_normalization():
    layer = rnnx.LayerNormLSTM(U, bias_initializer="ones")
    layer.build((None, None, 4))
    start = {w.name: w.numpy() for w in layer.weights}
    for name in ("input_gain", "recurrent_gain", "cell_gain", "bias"):
        np.testing.assert_array_equal(start[name], 1)
    np.testing.assert_array_equal(start["cell_shift"], 0)
    bias = rnnx.LayerNormLSTM(U)
    bias.build((None, None, 4))
    np.testing.assert_array_equal(bias.get_weights()[2].reshape(4, U)[:, 0], [0, 1, 0, 0])

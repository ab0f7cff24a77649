"""Known limits of Keras' recurrent layers, each shown to be right here."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_rnnx as rnnx

B, T, D, U = 3, 7, 4, 5


def inputs(batch=B, steps=T):
    return np.random.default_rng(0).normal(size=(batch, steps, D)).astype("float32")


def op_types(function, *specs):
    """The types of all ops that a traced function reaches."""
    graph = tf.function(function, autograph=False).get_concrete_function(*specs).graph
    definition = graph.as_graph_def()
    nodes = list(definition.node)
    for library_function in definition.library.function:
        nodes += library_function.node_def
    return [node.op for node in nodes]


def test_use_cudnn_survives_saving(tmp_path):
    """Limit 2: Keras leaves `use_cudnn` out of the configuration."""
    model = keras.Sequential(
        [
            keras.Input((None, D)),
            rnnx.Bidirectional(rnnx.LSTM(U, use_cudnn=False, return_sequences=True)),
            rnnx.GRU(U, use_cudnn=False),
        ]
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    both, gru = loaded.layers
    assert both.forward_layer.use_cudnn is both.backward_layer.use_cudnn is gru.use_cudnn is False


@pytest.mark.parametrize("layer", [rnnx.LSTM, rnnx.GRU, rnnx.SimpleRNN])
@pytest.mark.thin(2)
def test_the_mask_reaches_the_next_layer(layer):
    """Limit 6: from Keras 3.16 on, recurrent layers lose the mask after the first one."""
    embedding = keras.layers.Embedding(10, D, mask_zero=True)
    first, second = layer(U, return_sequences=True), layer(U)
    both = rnnx.Bidirectional(layer(U, return_sequences=True))
    for one in (first, second, both):
        assert one.supports_masking
    ids = np.array([[3, 4, 5, 0, 0], [1, 2, 3, 4, 5]])
    whole = second(both(first(embedding(ids))))
    short = second(both(first(embedding(ids[:1, :3]))))
    np.testing.assert_allclose(whole[:1], short, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layer", [rnnx.LSTM, rnnx.GRU, rnnx.SimpleRNN])
def test_implementation_one_trains_with_dropout(layer):
    """Limit 8: `implementation=1` with dropout crashes in training."""
    outputs = layer(U, implementation=1, dropout=0.5)(inputs(), training=True)
    assert np.isfinite(outputs).all()


@pytest.mark.parametrize("stateful", [True, "any_batch"])
def test_reset_state(stateful):
    """Limit 9: `reset_state` crashes for nested states and takes no `states`."""
    x = inputs()
    layer = rnnx.RNN([rnnx.LSTMCell(U), rnnx.GRUCell(6)], stateful=stateful)
    first, second = layer(x).numpy(), layer(x).numpy()
    assert np.abs(first - second).max() > 1e-3
    layer.reset_state()
    np.testing.assert_array_equal(layer(x), first)
    kept = keras.tree.map_structure(lambda v: v.numpy(), layer.states)
    following = layer(x).numpy()
    layer.reset_state(states=kept)
    np.testing.assert_array_equal(layer(x), following)
    layer.reset_states()
    np.testing.assert_array_equal(layer(x), first)


def test_stateful_for_any_batch():
    """Limit 10: a stateful layer needs a static batch and refuses a smaller last one."""
    x = inputs()
    layer, whole = rnnx.LSTM(U, stateful="any_batch"), rnnx.LSTM(U, return_sequences=True)
    model = keras.Sequential([keras.Input((None, D)), layer])
    whole.build((None, None, D))
    whole.set_weights(layer.get_weights())
    expected = whole(x).numpy()
    np.testing.assert_allclose(model.predict(x[:, :2], verbose=0), expected[:, 1], rtol=1e-5)
    # A smaller batch goes on with the first rows and leaves the others as they are.
    np.testing.assert_allclose(layer(x[:2, 2:5]), expected[:2, 4], rtol=1e-5)
    np.testing.assert_allclose(layer(x[:2, 5:]), expected[:2, 6], rtol=1e-5)
    np.testing.assert_allclose(layer.states[0][2], whole(x[:, :2])[2, -1], rtol=1e-5)
    # A row that no batch had so far starts at zero.
    layer.reset_state()
    layer(x[:1])
    np.testing.assert_allclose(layer(x)[1:], expected[1:, -1], rtol=1e-5)


def test_stateful_true_is_as_in_keras():
    """Limit 10, the default: the batch is fixed."""
    layer = rnnx.LSTM(U, stateful=True)
    layer(inputs())
    with pytest.raises(ValueError, match="stateful for batches of 3"):
        layer(inputs(batch=2))


@pytest.mark.parametrize("layer", [rnnx.LSTM, rnnx.GRU, rnnx.SimpleRNN])
def test_inference_draws_nothing(layer):
    """Limit 11: dropout leaves random draws and assignments in the inference graph."""
    layer = layer(U, dropout=0.3, recurrent_dropout=0.3)
    spec = tf.TensorSpec([None, None, D])
    layer.build((None, None, D))
    found = set(op_types(lambda x: layer(x, training=False), spec))
    assert not [op for op in found if "Random" in op or "Assign" in op]
    assert [op for op in op_types(lambda x: layer(x, training=True), spec) if "Random" in op]


def test_the_input_product_is_outside_of_the_loop():
    """Limit 13: Keras multiplies the input inside the loop, and runs the first step twice."""
    layer = rnnx.LSTM(U, return_sequences=True)
    layer.build((None, None, D))
    # With a batch of unknown size there would be a second loop, for large ones.
    concrete = tf.function(layer, autograph=False).get_concrete_function(
        tf.TensorSpec([B, None, D])
    )
    definition = concrete.graph.as_graph_def()
    outside = [node.op for node in definition.node]
    assert outside.count("MatMul") == 1  # the input, all steps at once; no first step
    assert outside.count("While") + outside.count("StatelessWhile") == 1
    inside = [n.op for f in definition.library.function for n in f.node_def]
    assert inside.count("MatMul") == 1  # the recurrent product


@pytest.mark.parametrize("layer", [rnnx.LSTM, rnnx.GRU, rnnx.SimpleRNN])
@pytest.mark.thin(3)
def test_jit_compile_is_honest(layer):
    """Limit 16: layers that could be compiled say that they cannot."""
    model = keras.Sequential([keras.Input((T, D)), layer(U, dropout=0.2, recurrent_dropout=0.2)])
    assert all(one.supports_jit for one in model.layers)
    model.compile("sgd", "mse", jit_compile=True)
    assert model.jit_compile
    model.fit(inputs(), np.ones((B, U)), verbose=0)
    assert not rnnx.LSTM(U, stateful="any_batch").supports_jit


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("layer", [rnnx.LSTM, rnnx.GRU, rnnx.SimpleRNN])
def test_zero_steps(layer, training):
    """Limit 18: a sequence of zero steps fails."""
    layer = layer(U, return_sequences=True, return_state=True)
    start = [np.full((B, U), 0.5, "float32") for _ in layer.state_size]
    layer.build((B, None, D))

    def run(x):
        return layer(x, initial_state=[tf.constant(s) for s in start], training=training)

    unknown = [tf.TensorSpec([None, None, D])]
    for call in (run, tf.function(run, autograph=False, input_signature=unknown)):
        output, *states = call(tf.zeros([B, 0, D]))
        assert output.shape == (B, 0, U)
        for state, first in zip(states, start):
            np.testing.assert_array_equal(state, first)


def test_keras_two_arguments():
    """Limit 20: what Keras 2 took is refused."""
    x = inputs()
    layer = rnnx.LSTM(U, time_major=False, implementation=1)
    np.testing.assert_array_equal(layer(inputs=x), layer(x))
    model = keras.Sequential([rnnx.LSTM(U, batch_input_shape=(None, T, D)), keras.layers.Dense(1)])
    assert model.built and model.input_shape == (None, T, D)
    model = keras.Sequential([rnnx.LSTM(U, batch_input_shape=(B, T, D), stateful=True)])
    assert model.predict(x, batch_size=B, verbose=0).shape == (B, U)
    with pytest.raises(ValueError, match="time_major=True is Keras 2's"):
        rnnx.LSTM(U, time_major=True)

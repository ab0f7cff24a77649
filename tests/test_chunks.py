"""A sequence in pieces, the state carried from one to the next, is the whole sequence."""

import descriptors
import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import B, D, T, U, assert_all_close, inputs, loss_of, make_mask, states_like
from subject import rnnx

gives_zeros = lambda name: descriptors.BY_NAME[name].allows({"zero_output_for_mask": True})
CAUSAL = sorted(d.name for d in descriptors.ALL if d.causal)
SEQUENCES = {"return_sequences": True, "return_state": True, "dtype": "float64"}


def whole(layer, x, mask, states):
    output, *states = layer(x, mask=mask, initial_state=states)
    return output, states


def in_pieces(sizes):
    def run(layer, x, mask, states):
        outputs, start = [], 0
        for size in sizes:
            piece = slice(start, start + size)
            output, *states = layer(
                x[:, piece], mask=None if mask is None else mask[:, piece], initial_state=states
            )
            outputs.append(output)
            start += size
        return tf.concat(outputs, axis=1), states

    return run


def outputs_and_gradients(way, layer, x, mask, states):
    flat = keras.tree.flatten(states)
    with tf.GradientTape() as tape:
        tape.watch([x, *flat])
        outputs = keras.tree.flatten(way(layer, x, mask, states))
        loss = loss_of(outputs)
    variables = [w.value for w in layer.trainable_weights]
    return outputs, tape.gradient(loss, [x, *flat, *variables])


@pytest.mark.parametrize(
    "name, mask_kind, sizes",
    # A repeated output comes from the chunk before; one that cannot give zeros has no mask here.
    [(name, "holes" if gives_zeros(name) else "none", (3, 4)) for name in CAUSAL]
    + [(name, "none", (1,) * T) for name in ("simple", "lstm", "gru", "gru_before")],
)
@pytest.mark.thin(24)
def test_pieces_with_carried_state_are_the_whole(name, mask_kind, sizes):
    descriptor = descriptors.BY_NAME[name]
    layer = descriptor.build(rnnx, {**SEQUENCES, "zero_output_for_mask": True})
    x = tf.constant(inputs(dtype="float64"))
    mask = make_mask(mask_kind)
    states = keras.tree.map_structure(tf.constant, states_like(descriptor.states, dtype="float64"))
    compute = tf.function(outputs_and_gradients)
    expected, expected_gradients = compute(whole, layer, x, mask, states)
    outputs, gradients = compute(in_pieces(sizes), layer, x, mask, states)
    assert_all_close(outputs, expected, 1e-12, [f"output {i}" for i in range(len(outputs))])
    names = [f"gradient {i}" for i in range(len(gradients))]
    assert_all_close(gradients, expected_gradients, 1e-12, names)


@pytest.mark.parametrize("name", ["simple", "lstm", "gru", "gru_before"])
def test_cell_called_step_by_step_is_the_layer(name):
    descriptor = descriptors.BY_NAME[name]
    layer = descriptor.build(rnnx, SEQUENCES)
    x = inputs(dtype="float64")
    states = states_like(descriptor.states, dtype="float64")
    expected, *last = layer(x, initial_state=states)
    for t in range(T):
        output, states = layer.cell(x[:, t], states)
        np.testing.assert_allclose(output, expected[:, t], rtol=1e-12, atol=1e-12)
    for a, e in zip(states, last, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("stateful", [True, "any_batch"])
@pytest.mark.parametrize("name", ["simple", "lstm", "gru", "rnn_stack"])
@pytest.mark.thin(3)
def test_stateful_layer_called_with_pieces_is_the_whole(name, stateful):
    descriptor = descriptors.BY_NAME[name]
    options = {"return_sequences": True, "dtype": "float64"}
    layer = descriptor.build(rnnx, {**options, "stateful": stateful})
    expected = descriptor.build(rnnx, options)(inputs(dtype="float64"))
    x = tf.constant(inputs(dtype="float64"))
    for call in (layer, tf.function(layer)):  # two sequences, one after the other
        layer.reset_state()
        found = tf.concat([call(x[:, :3]), call(x[:, 3:4]), call(x[:, 4:])], axis=1)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_stateful_fit_with_a_smaller_last_batch():
    """Each batch goes on where the last one stood: the rows that it has, and only those."""
    layer = rnnx.GRU(U, stateful="any_batch")
    model = keras.Sequential([keras.Input((None, D)), layer])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    x = inputs(batch=B + 2)
    model.fit(x, np.zeros((B + 2, U)), batch_size=B, shuffle=False, verbose=0)
    plain = rnnx.GRU(U)
    plain.build(x.shape)
    plain.set_weights(layer.get_weights())
    first = plain(x[:B])
    second = plain(x[B:], initial_state=[first[:2]])
    np.testing.assert_allclose(layer.states[0], tf.concat([second, first[2:]], 0), rtol=1e-5)


@pytest.mark.parametrize(
    "name", ["simple", "lstm", "gru", "rnn_stack", "both_gru", "both_unmerged"]
)
@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("state", [False, True])
def test_symbolic_call_knows_the_shapes_and_types(name, sequences, state):
    descriptor = descriptors.BY_NAME[name]
    layer = descriptor.make(rnnx, {"return_sequences": sequences, "return_state": state})
    symbolic = layer(keras.Input((None, D)))
    real = layer(inputs())
    assert [tuple(s.shape)[1:] for s in keras.tree.flatten(symbolic)] == [
        (None, *r.shape[2:]) if len(r.shape) == 3 else tuple(r.shape[1:])
        for r in keras.tree.flatten(real)
    ]
    assert [s.dtype for s in keras.tree.flatten(symbolic)] == [
        r.dtype.name for r in keras.tree.flatten(real)
    ]
    computed = layer.compute_output_shape((B, T, D))
    shapes = [tuple(r.shape) for r in keras.tree.flatten(real)]
    assert _shapes(computed) == shapes


def _shapes(computed):
    """Flat list of shapes from what compute_output_shape gives."""
    if all(isinstance(n, int) for n in computed):
        return [tuple(computed)]
    return [shape for part in computed for shape in _shapes(part)]

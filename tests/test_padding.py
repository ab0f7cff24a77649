"""What stands in padded steps reaches neither outputs nor gradients, and empty inputs work."""

import descriptors
import keras
import numpy as np
import pytest
from helpers import (
    B,
    D,
    T,
    U,
    arrays,
    assert_all_close,
    in_mode,
    inputs,
    make_mask,
    outputs_and_gradients,
    run_in_mode,
    states_like,
)
from subject import rnnx

# One of each kind: the rest differ in what a step computes, which padding does not see.
KINDS = ("simple", "lstm", "gru", "gru_before", "rnn_stack", "both_lstm")
every_layer = pytest.mark.parametrize("name", KINDS)
SEQUENCES = {"return_sequences": True, "return_state": True}


@every_layer
@pytest.mark.parametrize(
    "mask, mode, backward",
    [("holes", "eager", "full"), ("left", "function", "autodiff"), ("empty_rows", "xla", "full")],
)
@pytest.mark.thin(18)
def test_nan_in_padding_changes_nothing(name, mask, mode, backward):
    descriptor = descriptors.BY_NAME[name]
    layer = descriptor.build(rnnx, {**SEQUENCES, "backward": backward})
    compute = in_mode(outputs_and_gradients(layer), mode)
    mask = make_mask(mask)
    states = states_like(descriptor.states)
    clean = np.where(mask[:, :, None], inputs(), 0)
    dirty = np.where(mask[:, :, None], inputs(), np.nan).astype("float32")
    outputs, gradients = map(arrays, compute(clean, mask, states))
    dirty_outputs, dirty_gradients = map(arrays, compute(dirty, mask, states))
    for a, e in zip(dirty_outputs + dirty_gradients, outputs + gradients, strict=True):
        np.testing.assert_array_equal(a, e)
    padded_gradient = dirty_gradients[0][~mask]
    assert padded_gradient.size and not padded_gradient.any()


@every_layer
@pytest.mark.thin(4)
def test_nan_in_padding_of_one_row_leaves_the_other_rows(name):
    """A row alone gives what it gives beside rows of other lengths."""
    descriptor = descriptors.BY_NAME[name]
    layer = descriptor.build(rnnx, SEQUENCES)
    compute = in_mode(outputs_and_gradients(layer), "function")
    mask = make_mask("right")
    x = np.where(mask[:, :, None], inputs(), np.nan).astype("float32")
    together, _ = compute(x, mask)
    for row in range(B):
        alone, _ = compute(x[row : row + 1], mask[row : row + 1])
        assert_all_close(alone, [t[row : row + 1] for t in together], 1e-6, ["output"] * len(alone))


@every_layer
@pytest.mark.parametrize(
    "mode, masked", [("eager", False), ("function", True), ("unknown", True), ("xla", False)]
)
@pytest.mark.thin(27)
def test_batch_of_zero_rows(name, mode, masked):
    descriptor = descriptors.BY_NAME[name]
    layer = descriptor.build(rnnx, SEQUENCES)
    x = np.zeros((0, T, D), "float32")
    mask = np.zeros((0, T), bool) if masked else None
    outputs, gradients = map(
        arrays, run_in_mode(outputs_and_gradients(layer, training=True), mode, x, mask)
    )
    expected = keras.tree.flatten(layer(inputs()))
    assert [o.shape for o in outputs] == [(0, *o.shape[1:]) for o in expected]
    assert gradients[0].shape == x.shape
    for g, w in zip(gradients[1:], layer.trainable_weights, strict=True):
        assert g.shape == w.shape
        assert not g.any(), "the gradient of a sum over nothing is zero"


@every_layer
@pytest.mark.parametrize(
    "mode, sequences", [("eager", True), ("function", False), ("unknown", True), ("xla", True)]
)
@pytest.mark.thin(9)
def test_sequence_of_zero_steps(name, mode, sequences):
    """No step: no outputs, the last output is zero as before a first valid step, states stay."""
    descriptor = descriptors.BY_NAME[name]
    layer = descriptor.build(rnnx, {"return_sequences": sequences, "return_state": True})
    x = np.zeros((B, 0, D), "float32")
    states = states_like(descriptor.states)
    outputs, gradients = map(
        arrays, run_in_mode(outputs_and_gradients(layer, training=True), mode, x, None, states)
    )
    count = descriptor.state_count
    for given, last in zip(keras.tree.flatten(states), outputs[-count:], strict=True):
        np.testing.assert_array_equal(last, given)
    for output in outputs[:-count]:
        assert output.shape[:2] == (B, 0) if sequences else output.shape[0] == B
        assert output.shape[-1] in (U, U + 2, 2 * U)
        assert not output.any()
    for g in gradients[1 + count :]:
        assert not g.any(), "no step, so no weight was used"
    for given, g in zip(keras.tree.flatten(states), gradients[1 : 1 + count], strict=True):
        assert g.shape == given.shape and g.any(), "the state is returned, so it has a gradient"

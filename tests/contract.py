"""The one contract that every layer keeps, whatever its options.

`check` makes a layer with one choice of options, runs it on one mask in one mode, and holds it
to the equations (oracle) and to Keras: outputs, states and every gradient.
"""

import keras
from helpers import (
    arrays,
    assert_all_close,
    assert_close,
    inputs,
    make_mask,
    outputs_and_gradients,
    run_in_mode,
    states_like,
)
from subject import IS_KERAS, rnnx

OUTPUT_TOLERANCE = {"float32": 1e-5, "float64": 1e-10}
GRADIENT_TOLERANCE = {"float32": 1e-4, "float64": 1e-10}
BACKWARD = {} if IS_KERAS else {"checkpointed": rnnx.Checkpointed(3)}  # T is no multiple of 3
FLAGS = ("return_sequences", "return_state", "go_backwards", "zero_output_for_mask")


def names_of(descriptor, layer, with_states):
    states = [f"initial state {i}" for i in range(descriptor.state_count)] if with_states else []
    return ["x", *states, *(w.path for w in layer.trainable_weights)]


def check(descriptor, case):
    """case: mask, mode, dtype, initial_state, training and the layer's own options, by name."""
    dtype = case["dtype"]
    flags = {name: case[name] for name in FLAGS}
    own = {name: case[name] for name in ("unroll", "jit_compile")}
    own["backward"] = BACKWARD.get(case["backward"], case["backward"])
    layer = descriptor.build(rnnx, {**flags, **own, "dtype": dtype})
    x = inputs(dtype=dtype)
    mask = make_mask(case["mask"])
    states = states_like(descriptor.states, dtype=dtype) if case["initial_state"] else None

    ours = outputs_and_gradients(layer, training=case["training"])
    outputs, gradients = map(arrays, run_in_mode(ours, case["mode"], x, mask, states))

    # From the equations
    weights = [w.astype("float64") for w in layer.get_weights()]
    expected = descriptor.expected(weights, x, mask, states, flags)
    assert_all_close(
        outputs, expected, OUTPUT_TOLERANCE[dtype], [f"output {i}" for i in range(len(expected))]
    )

    # From Keras, never unrolled: it forgets to turn the mask round when it unrolls backwards
    twin = descriptor.build(keras.layers, {**flags, "dtype": dtype})
    twin.set_weights(layer.get_weights())
    theirs = outputs_and_gradients(twin, training=case["training"])
    keras_outputs, keras_gradients = map(arrays, run_in_mode(theirs, "eager", x, mask, states))
    for i, (a, e) in enumerate(zip(outputs, keras_outputs, strict=True)):
        assert_close(a, e, OUTPUT_TOLERANCE[dtype], f"output {i} against Keras")
        assert a.dtype == e.dtype
    assert_all_close(
        gradients,
        keras_gradients,
        GRADIENT_TOLERANCE[dtype],
        [f"gradient of {n}" for n in names_of(descriptor, layer, states is not None)],
    )

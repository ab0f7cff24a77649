"""Gradients against central differences, and in every way in which a user may ask for them."""

import descriptors
import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import (
    B,
    D,
    T,
    U,
    arrays,
    assert_all_close,
    assert_close,
    inputs,
    loss_of,
    make_mask,
    outputs_and_gradients,
    states_like,
)
from subject import rnnx

CELLS = ("simple", "lstm", "gru", "gru_before")
cells = pytest.mark.parametrize("name", CELLS)
SEQUENCES = {"return_sequences": True, "return_state": True}


def pair(name, options=(), **own):
    """Our layer and Keras' with the same weights."""
    descriptor = descriptors.BY_NAME[name]
    return descriptor.build(rnnx, {**dict(options), **own}), descriptor.build(keras.layers, options)


def central_differences(loss, tensor, change, step=1e-5):
    """d loss / d tensor, one element after the other; `change` puts a new value in its place."""
    gradient = np.zeros_like(tensor)
    for place in np.ndindex(tensor.shape):
        sides = []
        for sign in (1, -1):
            moved = tensor.copy()
            moved[place] += sign * step
            change(moved)
            sides.append(float(loss()))
        gradient[place] = (sides[0] - sides[1]) / (2 * step)
    change(tensor)
    return gradient


DIFFERENTIATED = [*CELLS, "simple_relu", "lstm_activations", "gru_before_activations", "both_gru"]
OTHERS = [d.name for d in descriptors.VARIANTS + descriptors.REGULARIZED if d.name != "esn"]


@pytest.mark.parametrize(
    "name, training",
    [(name, training) for name in DIFFERENTIATED for training in (None, True)]
    + [(name, None) for name in OTHERS],  # the echo state network has nothing to train
)
@pytest.mark.thin(12)
def test_gradients_are_central_differences(name, training):
    steps = 4
    descriptor = descriptors.BY_NAME[name]
    layer = descriptor.build(rnnx, {**SEQUENCES, "dtype": "float64"}, shape=(B, steps, D))
    mask = make_mask("holes", steps=steps)
    x = tf.Variable(inputs(steps=steps, dtype="float64"))
    states = [tf.Variable(s) for s in states_like(descriptor.states, dtype="float64")]

    @tf.function
    def loss():
        return loss_of(layer(x, mask=mask, initial_state=[s + 0 for s in states]))

    @tf.function
    def gradients():
        variables = [x, *states, *(w.value for w in layer.trainable_weights)]
        with tf.GradientTape() as tape:
            total = loss_of(
                layer(x, mask=mask, initial_state=[s + 0 for s in states], training=training)
            )
        return tape.gradient(total, variables)

    places = [x, *states, *(w.value for w in layer.trainable_weights)]
    names = ["x", *(f"state {i}" for i in range(len(states))), *(w.path for w in layer.weights)]
    for place, gradient, what in zip(places, gradients(), names, strict=True):
        expected = central_differences(loss, place.numpy(), place.assign)
        assert np.abs(expected).max() > 1e-3, f"{what}: a gradient that vanishes tests nothing"
        assert_close(gradient, expected, 1e-7, f"gradient of {what}")


# Second derivatives ----------------------------------------------------------------------------


def gradient_penalty(layer, mask=None, **call_arguments):
    """Gradients of the squared norm of the input's gradient, as WGAN-GP has it."""

    def compute(x):
        variables = [w.value for w in layer.trainable_weights]
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                loss = loss_of(layer(x, mask=mask, **call_arguments))
            penalty = tf.reduce_sum(tf.square(inner.gradient(loss, x)))
        # The last bias of a linear read-out has no second derivative; here none is left out.
        return outer.gradient(penalty, [x, *variables])

    return compute


@cells
@pytest.mark.parametrize("wrap", [lambda f: f, tf.function], ids=["eager", "function"])
@pytest.mark.parametrize("mask_kind", ["none", "holes"])
@pytest.mark.thin(7)
def test_second_derivative_with_autodiff_equals_keras(name, wrap, mask_kind):
    ours, theirs = pair(name, {"dtype": "float64", **SEQUENCES}, backward="autodiff")
    x, mask = tf.constant(inputs(dtype="float64")), make_mask(mask_kind)
    found = wrap(gradient_penalty(ours, mask, training=True))(x)
    expected = gradient_penalty(theirs, mask)(x)
    assert_all_close(found, expected, 1e-8, ["x", *(w.path for w in ours.weights)])


@pytest.mark.parametrize("name", ["simple", "lstm"])
@pytest.mark.parametrize("wrap", [lambda f: f, tf.function], ids=["eager", "function"])
@pytest.mark.parametrize("training", [None, True])
@pytest.mark.parametrize("jit_compile", ["auto", False])
@pytest.mark.thin(4)
def test_second_derivative_of_the_fast_backward_pass_is_refused(name, wrap, training, jit_compile):
    ours, _ = pair(name, SEQUENCES, backward="full", jit_compile=jit_compile)
    with pytest.raises((ValueError, LookupError), match="backward=.autodiff"):
        wrap(gradient_penalty(ours, training=training))(tf.constant(inputs()))


def test_second_derivative_by_a_weight_is_refused_too():
    ours, _ = pair("lstm")
    kernel = ours.cell.recurrent_kernel.value
    with pytest.raises((ValueError, LookupError), match="backward=.autodiff"):
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                loss = loss_of(ours(inputs()))
            gradient = inner.gradient(loss, kernel)
        outer.gradient(gradient, kernel)


def test_forward_mode_is_right_or_refused():
    """A Jacobian-vector product goes through the backward pass twice."""
    ours, theirs = pair("lstm", {"dtype": "float64"})
    x = tf.constant(inputs(dtype="float64"))
    direction = tf.constant(inputs(seed=5, dtype="float64"))

    def product(layer):
        with tf.autodiff.ForwardAccumulator(x, direction) as forward:
            y = layer(x)
        return forward.jvp(y)

    try:
        found = product(ours)
    except (ValueError, LookupError) as error:
        assert "autodiff" in str(error)
    else:
        assert_close(found, product(theirs), 1e-10, "product")


def test_outer_tape_that_asks_for_no_second_derivative_is_served():
    """First-order meta-learning: the inner gradient is used, but not differentiated."""
    ours, theirs = pair("gru")
    x = tf.constant(inputs())

    def compute(layer):
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                inner.watch(x)
                loss = loss_of(layer(x))
            moved = x - 0.1 * tf.stop_gradient(inner.gradient(loss, x))
            total = loss_of(layer(moved))
        return outer.gradient(total, [w.value for w in layer.weights])

    assert_all_close(compute(ours), compute(theirs), 1e-4, [w.path for w in ours.weights])


# First derivatives, in every way ----------------------------------------------------------------


@cells
@pytest.mark.parametrize("wrap", [lambda f: f, tf.function], ids=["eager", "function"])
@pytest.mark.thin(9)
def test_two_tapes_side_by_side(name, wrap):
    """Generator and discriminator of a GAN: both tapes record both layers."""
    generators = pair(name, {"return_sequences": True})
    critics = [
        descriptors.BY_NAME["lstm"].build(k, {}, shape=(B, T, U)) for k in (rnnx, keras.layers)
    ]

    def compute(generator, critic):
        def gradients(x, real):
            with tf.GradientTape() as g_tape, tf.GradientTape() as c_tape:
                fake = generator(x, training=True)
                g_loss = loss_of(critic(fake, training=True))
                c_loss = loss_of(critic(real, training=True)) - g_loss
            return [
                *g_tape.gradient(g_loss, [w.value for w in generator.weights]),
                *c_tape.gradient(c_loss, [w.value for w in critic.weights]),
            ]

        return gradients

    x, real = tf.constant(inputs()), tf.constant(inputs(seed=4, features=U))
    found = wrap(compute(generators[0], critics[0]))(x, real)
    expected = compute(generators[1], critics[1])(x, real)
    assert_all_close(found, expected, 1e-4, [f"weight {i}" for i in range(len(found))])


@cells
@pytest.mark.parametrize("wrap", [lambda f: f, tf.function], ids=["eager", "function"])
@pytest.mark.thin(4)
def test_persistent_tape(name, wrap):
    ours, theirs = pair(name, SEQUENCES)

    def compute(layer):
        def gradients(x):
            variables = [x, *(w.value for w in layer.weights)]
            with tf.GradientTape(persistent=True) as tape:
                tape.watch(x)
                outputs = layer(x, training=True)
                first, second = loss_of(outputs[0]), loss_of(outputs[1])
            return [*tape.gradient(first, variables), *tape.gradient(second, variables)]

        return gradients

    x = tf.constant(inputs())
    found, expected = wrap(compute(ours))(x), compute(theirs)(x)
    assert_all_close(found, expected, 1e-4, [f"gradient {i}" for i in range(len(found))])


@pytest.mark.parametrize("name", [*CELLS, "both_lstm", "rnn_stack"])
@pytest.mark.parametrize("training", [None, True])
@pytest.mark.thin(5)
def test_eager_tape_around_a_compiled_function(name, training):
    """TensorFlow issue 108080: the backward pass of a compiled loop with an unknown bound."""
    ours, theirs = pair(name, {"return_sequences": True})
    compiled = tf.function(ours, jit_compile=True)
    x = tf.constant(inputs())

    def compute(call, layer):
        variables = [x, *(w.value for w in layer.trainable_weights)]
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = loss_of(call(x))
        return tape.gradient(loss, variables)

    found = compute(lambda x: compiled(x, training=training), ours)
    assert_all_close(found, compute(theirs, theirs), 1e-4, [f"{i}" for i in range(len(found))])


@cells
@pytest.mark.parametrize("place", [0, 1], ids=["output", "state"])
@pytest.mark.thin(9)
def test_loss_on_one_result_only(name, place):
    """The other results then come back without a gradient of their own."""
    ours, theirs = pair(name, SEQUENCES)

    def compute(layer, wrap):
        def gradients(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = loss_of(layer(x)[place - 1])
            return tape.gradient(loss, [x, *(w.value for w in layer.weights)])

        return wrap(gradients)(tf.constant(inputs()))

    expected = compute(theirs, lambda f: f)
    for wrap in (lambda f: f, tf.function):
        found = compute(ours, wrap)
        assert_all_close(found, expected, 1e-4, [f"gradient {i}" for i in range(len(found))])


def test_layer_used_twice_in_one_tape():
    ours, theirs = pair("gru", {"return_sequences": True})
    both = [inputs(), inputs(seed=8, steps=T + 2)]

    def compute(layer):
        with tf.GradientTape() as tape:
            loss = sum(loss_of(layer(x)) for x in both)
        return tape.gradient(loss, [w.value for w in layer.weights])

    assert_all_close(compute(ours), compute(theirs), 1e-4, [w.path for w in ours.weights])


def test_frozen_layer_passes_the_gradient_on():
    ours, theirs = pair("lstm")
    x = tf.constant(inputs())

    def compute(layer):
        layer.trainable = False
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            loss = loss_of(layer(x, training=True))
        return [tape.gradient(loss, x)]

    assert_all_close(compute(ours), compute(theirs), 1e-4, ["x"])


def test_old_gradients_function_in_a_graph():
    ours, theirs = pair("lstm", SEQUENCES)

    @tf.function
    def compute(x):
        return tf.gradients(loss_of(ours(x)), [x, *(w.value for w in ours.weights)])

    x = tf.constant(inputs())
    _, expected = outputs_and_gradients(theirs)(x, None, None)
    assert_all_close(compute(x), expected, 1e-4, [f"gradient {i}" for i in range(len(expected))])


@pytest.mark.parametrize("training", [None, True])
def test_layer_inside_a_loop_of_the_user(training):
    """The tape is around a tf.while_loop which calls the layer again and again."""
    ours, theirs = pair("gru", {"return_sequences": True})
    back = tf.constant(np.random.default_rng(3).normal(size=(U, D)).astype("float32"))

    def compute(layer):
        def gradients(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                _, y = tf.while_loop(
                    lambda i, _: i < 3,
                    lambda i, y: (i + 1, tf.tensordot(layer(y, training=training), back, 1)),
                    (0, x),
                )
                loss = loss_of(y)
            return tape.gradient(loss, [x, *(w.value for w in layer.weights)])

        return gradients

    x = tf.constant(inputs())
    found, expected = tf.function(compute(ours))(x), compute(theirs)(x)
    assert_all_close(found, expected, 1e-4, [f"gradient {i}" for i in range(len(found))])


def test_jacobian():
    """A saliency map: the derivative of each output by each input.

    Row by row: TensorFlow cannot vectorize (`experimental_use_pfor`) the loop in a backward pass.
    """
    ours, theirs = pair("lstm")
    x = tf.constant(inputs())

    def compute(layer):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            y = layer(x)
        return tape.jacobian(y, x, experimental_use_pfor=False)

    expected = compute(theirs)
    assert_close(compute(ours), expected, 1e-4, "Jacobian")


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("training", [None, True])
def test_traced_output_keeps_the_known_number_of_steps(training, masked):
    ours, theirs = pair("lstm", {"return_sequences": True})
    mask = make_mask("right") if masked else None
    shapes = []

    @tf.function
    def compute(x):
        shapes.append([layer(x, mask=mask, training=training).shape for layer in (ours, theirs)])

    compute(tf.constant(inputs()))
    assert shapes == [[(B, T, U)] * 2]


def test_gradient_of_a_sequence_that_is_longer_than_the_last():
    """One traced function with unknown time, called with one length after the other."""
    ours, theirs = pair("lstm", SEQUENCES)

    @tf.function(input_signature=[tf.TensorSpec([None, None, D])])
    def compute(x):
        return outputs_and_gradients(ours, training=True)(x, None, None)

    for steps in (5, 1, 18, 40, 17):
        x = tf.constant(inputs(seed=steps, steps=steps))
        found = compute(x)
        expected = outputs_and_gradients(theirs)(x, None, None)
        for part in (0, 1):
            assert_all_close(
                arrays(found[part]),
                arrays(expected[part]),
                1e-4,
                [f"result {part} {i}" for i in range(len(expected[part]))],
            )

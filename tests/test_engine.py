"""The engine by itself: the contract of a step, against plain automatic differentiation."""

import numpy as np
import pytest
import tensorflow as tf

import keras_rnnx
from keras_rnnx import engine
from keras_rnnx.engine import products
from keras_rnnx.engine.plan import Plan
from keras_rnnx.engine.padding import bucket

B, T, D, U, M = 3, 7, 4, 5, 6

COMPILED = Plan("compiled", True, ())
PLANS = {
    "compiled": COMPILED,
    "compiled, nothing kept": Plan("compiled", False, ()),
    "plain": Plan("plain", True, ()),
    "plain, nothing kept": Plan("plain", False, ()),
}
DIFFERENTIATED = Plan("differentiated", False, ())


def rich_step(weights, product, x, states, constants):
    """Nested inputs, states and outputs; a memory per sample; a bias; a transposed product; a
    weight used element by element; an output that is no state."""
    h, (c,) = states["h"], states["inner"]
    z = x["a"] + product("square", h, bias="offset") + x["b"][0]
    scores = product("memory", h, transpose=True)  # [B, M]
    context = product("memory", tf.nn.softmax(scores))  # [B, U]
    c = tf.tanh(c * weights["peephole"] + z) + 0.1 * constants["shift"]
    h = tf.sigmoid(z + context) * c + product("square", tf.tanh(c), transpose=True)
    return (h + c, {"alignment": tf.nn.softmax(scores)}), {"h": h, "inner": (c,)}


def rich_problem(seed=0):
    rng = np.random.default_rng(seed)
    normal = lambda *shape: tf.constant(rng.normal(size=shape) * 0.5)
    return dict(
        xs={"a": normal(T, B, U), "b": (normal(T, B, U),)},
        weights={"square": normal(U, U), "offset": normal(U), "peephole": normal(U)},
        states={"h": normal(B, U), "inner": (normal(B, U),)},
        constants={"memory": normal(B, M, U), "shift": normal(B, U)},
    )


def values_and_gradients(step, problem, plan, graph=False, **options):
    def compute(problem):
        with tf.GradientTape() as tape:
            tape.watch(problem)
            outputs, states = engine.run(
                step,
                problem["xs"],
                problem["weights"],
                problem["states"],
                problem["constants"],
                plan=plan,
                **options,
            )
            results = tf.nest.flatten((outputs, states))
            loss = tf.add_n([tf.reduce_sum(tf.sin(3.0 * r)) for r in results])
        return results, tape.gradient(loss, problem)

    return (tf.function(compute, autograph=False) if graph else compute)(problem)


def assert_same(got, expected):
    tf.nest.map_structure(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12), got, expected
    )


MASK = tf.constant(np.random.default_rng(1).random((T, B)) > 0.4)


@pytest.mark.quick
@pytest.mark.parametrize("options", [{}, {"mask": MASK}, {"mask": MASK, "last_only": True}])
@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.thin(6)
def test_every_input_gets_its_gradient(plan, options):
    problem = rich_problem()
    expected = values_and_gradients(rich_step, problem, DIFFERENTIATED, **options)
    got = values_and_gradients(rich_step, problem, PLANS[plan], graph=plan == "plain", **options)
    assert_same(got, expected)


@pytest.mark.parametrize(
    "options", [{"zero_masked": True}, {"zero_masked": True, "last_only": True}]
)
@pytest.mark.thin(2)
def test_zeros_for_masked_steps(options):
    problem = rich_problem()
    options = {"mask": MASK, **options}
    expected = values_and_gradients(rich_step, problem, DIFFERENTIATED, **options)
    assert_same(values_and_gradients(rich_step, problem, COMPILED, **options), expected)


def test_repeating_in_the_graph():
    problem = rich_problem()
    expected = values_and_gradients(rich_step, problem, DIFFERENTIATED)
    got = values_and_gradients(rich_step, problem, PLANS["plain"], graph=True, unroll=True)
    assert_same(got, expected)


def test_a_step_without_products_or_outputs_like_states():
    def step(weights, product, x, states, constants):
        return tf.reduce_sum(x, axis=-1), (states[0] * weights["decay"] + x,)

    rng = np.random.default_rng(0)
    problem = dict(
        xs=tf.constant(rng.normal(size=(T, B, U))),
        weights={"decay": tf.constant(rng.normal(size=(U,)))},
        states=(tf.constant(rng.normal(size=(B, U))),),
        constants=(),
    )
    expected = values_and_gradients(step, problem, DIFFERENTIATED, mask=MASK)
    assert_same(values_and_gradients(step, problem, COMPILED, mask=MASK), expected)
    assert expected[0][0].shape == (T, B)


def test_integer_inputs_have_no_gradient():
    def step(weights, product, x, states, constants):
        h = tf.tanh(
            product("square", states[0]) + x["scale"] + tf.cast(x["id"], tf.float64)[:, None]
        )
        return h, (h,)

    problem = rich_problem()
    problem = dict(
        xs={"scale": problem["xs"]["a"], "id": tf.ones([T, B], tf.int32)},
        weights={"square": problem["weights"]["square"]},
        states=(problem["states"]["h"],),
        constants=(),
    )
    expected = values_and_gradients(step, problem, DIFFERENTIATED)
    got = values_and_gradients(step, problem, COMPILED)
    assert got[1]["xs"]["id"] is None
    assert_same(got[0], expected[0])
    assert_same(got[1]["weights"], expected[1]["weights"])
    assert_same(got[1]["xs"]["scale"], expected[1]["xs"]["scale"])


def plain_run(step, plan=COMPILED):
    problem = rich_problem()
    return engine.run(
        step,
        problem["xs"]["a"],
        {"square": problem["weights"]["square"]},
        (problem["states"]["h"],),
        plan=plan,
    )


@pytest.mark.parametrize("size", [2, 200], ids=["a small tensor", "a large tensor"])
@pytest.mark.parametrize("plan", ["compiled", "plain"])
def test_a_captured_tensor_is_refused(size, plan):
    memory = tf.ones([size], tf.float64)

    def step(weights, product, x, states, constants):
        h = tf.tanh(product("square", states[0]) + tf.reduce_sum(memory))
        return h, (h,)

    with pytest.raises(ValueError, match="from outside its arguments.*constants"):
        plain_run(step, PLANS[plan])
    with pytest.raises(ValueError, match="from outside its arguments.*constants"):
        tf.function(lambda: plain_run(step, PLANS[plan]), autograph=False)()
    plain_run(step, DIFFERENTIATED)


def test_a_captured_symbolic_tensor_is_refused():
    @tf.function(autograph=False)
    def outer(memory):
        def step(weights, product, x, states, constants):
            h = tf.tanh(product("square", states[0]) + memory)
            return h, (h,)

        return plain_run(step)

    with pytest.raises(ValueError, match="from outside its arguments"):
        outer(tf.ones([], tf.float64))


def test_a_captured_variable_is_refused():
    variable = tf.Variable(tf.ones([U], tf.float64))

    def step(weights, product, x, states, constants):
        h = tf.tanh(product("square", states[0]) + variable)
        return h, (h,)

    with pytest.raises(ValueError, match="from outside its arguments"):
        plain_run(step)


def test_a_random_step_is_refused():
    def step(weights, product, x, states, constants):
        h = product("square", states[0]) + tf.random.normal([U], dtype=tf.float64)
        return h, (h,)

    with pytest.raises(ValueError, match="draw before the loop"):
        plain_run(step)


def test_other_states_than_given_are_refused():
    def step(weights, product, x, states, constants):
        return x, (states[0], states[0])

    with pytest.raises(ValueError, match="expected the like of those it got"):
        plain_run(step)


@pytest.mark.parametrize("name", ["round", "memory"])
def test_an_unknown_product_is_refused(name):
    def step(weights, product, x, states, constants):
        h = product(name, states[0])
        return h, (h,)

    with pytest.raises(ValueError, match="Known are.*square"):
        plain_run(step)


@pytest.mark.quick
def test_buckets_grow_by_an_eighth_at_most():
    sizes = [int(bucket(tf.constant(n))) for n in range(1, 5000)]
    for steps, size in enumerate(sizes, start=1):
        assert steps <= size <= max(1.125 * steps, steps)
    assert len(set(sizes)) < 90
    assert int(bucket(tf.constant(0))) == 1


def test_unknown_lengths_stop_where_they_end():
    """What is compiled sees the length of a bucket; the loop stops at the real one."""
    square = rich_problem()["weights"]["square"]

    def step(weights, product, x, states, constants):
        h = tf.tanh(x + product("square", states[0]))
        return h, (h,)

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, None, U], tf.float64)])
    def run(x):
        start = (tf.zeros([tf.shape(x)[1], U], tf.float64),)
        padded, _, steps = engine.pad_time(x, None, compiled=True)
        outputs, states = engine.run(
            step, padded, {"square": square}, start, plan=COMPILED, steps=steps
        )
        return outputs, states, tf.shape(padded)[0]

    rng = np.random.default_rng(0)
    for steps, size in {65: 72, 70: 72, 72: 72, 1: 1, 0: 1}.items():
        x = rng.normal(size=(steps, B, U))
        outputs, (last,), padded = run(x)
        assert padded == size == outputs.shape[0]
        h = np.zeros((B, U))
        for t in range(steps):
            h = np.tanh(x[t] + h @ square.numpy())
            np.testing.assert_allclose(outputs[t], h, rtol=1e-10)
        np.testing.assert_array_equal(outputs[steps:], 0)
        np.testing.assert_allclose(last, h, rtol=1e-10)


@pytest.mark.quick
@pytest.mark.parametrize(
    "name, options, split, whole",
    [
        ("LSTM", {}, 4, 1),
        ("GRU", {}, 3, 1),
        ("GRU", {"use_bias": False}, 3, 1),
        ("GRU", {"reset_after": False}, 3, 2),
    ],
)
@pytest.mark.parametrize("unknown", [False, True])
@pytest.mark.thin(2)
def test_large_products_of_plain_inference_are_split(
    name, options, split, whole, unknown, monkeypatch
):
    """A matrix in pieces, where the product is large: the numbers of the whole matrix."""
    layer = getattr(keras_rnnx, name)(U, dtype="float64", return_sequences=True, **options)
    layer.build((B, T, D))
    layer.set_weights([np.random.default_rng(0).normal(size=w.shape) for w in layer.get_weights()])
    x = {rows: tf.constant(np.random.default_rng(1).normal(size=(rows, T, D))) for rows in (2, 6)}
    expected = {rows: np.asarray(layer(v)) for rows, v in x.items()}

    numbers = U * U * (2 if options.get("reset_after") is False else split)
    monkeypatch.setattr(products, "LEAST_TO_SPLIT", 4 * numbers)  # so 6 rows are split, 2 are not
    signature = [tf.TensorSpec([None, T, D], tf.float64)] if unknown else None
    traced = tf.function(lambda x: layer(x, training=False), input_signature=signature)
    for rows, v in x.items():
        np.testing.assert_allclose(traced(v), expected[rows], rtol=1e-12, atol=1e-12)
        library = traced.get_concrete_function(v).graph.as_graph_def().library
        found = [
            sum(node.op == "MatMul" for node in function.node_def)
            for function in library.function
            if "while_body" in function.signature.name
        ]
        assert sorted(found) == ([whole, split] if unknown else [split if rows == 6 else whole])

"""Decoders with attention along every way through the engine, and in the hands of Keras."""

import itertools
import json

import keras
import numpy as np
import pytest
import saved_graph
import tensorflow as tf
from helpers import (
    MASK_KINDS,
    B,
    D,
    T,
    U,
    assert_all_close,
    assert_close,
    inputs,
    loss_of,
    make_mask,
    states_like,
    weights_like,
)
from pairwise import pairwise
from test_attention import (
    KINDS,
    MEMORY_MASK,
    ORDERS,
    A,
    K,
    M,
    S,
    decoder,
    expected,
    label,
    memory_like,
    names_of,
)

import keras_rnnx as rnnx
from keras_rnnx.attention import BahdanauAttention, LuongAttention, Monotonic, additive

X = inputs()
GENERAL = KINDS["general"]
MEMORY = memory_like(GENERAL)


def same(layer, **options):
    """A layer of other options with the same weights."""
    other = rnnx.RNN.from_config({**layer.get_config(), "jit_compile": False, **options})
    sizes = layer.cell.spec.memory_sizes
    memory = [(B, None, size) for size in sizes]
    other.build((B, T, D), constants_shape={"memory": memory if len(memory) > 1 else memory[0]})
    other.set_weights(layer.get_weights())
    return other


def flat(outputs):
    return keras.tree.flatten(outputs)


def assert_same(found, wanted, tolerance=1e-5):
    assert_all_close(flat(found), flat(wanted), tolerance, names_of(flat(wanted)))


def differ(one, other):
    return bool(np.any(np.abs(np.asarray(one) - np.asarray(other)) > 1e-4))


# Ways through the engine ------------------------------------------------------------------------


def everything(layer, x, memories, mask, states, memory_mask=None, **options):
    """Outputs, and gradients by inputs, memories, initial states and weights, with names."""
    tensors = [tf.convert_to_tensor(a) for a in (x, *memories, *states)]
    variables = [w.value for w in layer.trainable_weights]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        x, *rest = tensors
        memories, states = rest[: len(memories)], rest[len(memories) :]
        constants = {"memory": memories if len(memories) > 1 else memories[0]}
        if memory_mask is not None:
            constants["memory_mask"] = len(memories) * [memory_mask]
        outputs = layer(x, mask=mask, initial_state=states, constants=constants, **options)
        loss = loss_of(outputs)
    names = [f"gradient of tensor {i}" for i in range(len(tensors))]
    names += [f"gradient of {w.name}" for w in layer.trainable_weights]
    outputs = flat(outputs)
    # The scores behind a choice have no gradient, which is None or zeros.
    gradients = tape.gradient(loss, tensors + variables, unconnected_gradients="zero")
    return outputs + gradients, names_of(outputs) + names


def by_real_steps(layer, x, mask, memory, memory_mask, states, zero_masked=False):
    """The oracle over a row's real steps only; between them outputs stay or are zeros."""
    rows = []
    for b, real in enumerate(mask):
        one = slice(b, b + 1)
        given = [memory[one], None if memory_mask is None else memory_mask[one]]
        start = [s[one] for s in states]
        # Of a row without a real step only the shapes are of use.
        steps = x[one, real] if real.any() else x[one]
        found = expected(layer, steps, *given, start)
        if not real.any():
            found = [np.zeros_like(a) for a in found]
            found[2 : 2 + len(states)] = start
        place = np.cumsum(real) - 1
        shown = real if zero_masked else place >= 0
        last = np.maximum(place, 0)
        found[:2] = [np.where(shown[:, None], a[:, last], 0) for a in found[:2]]
        rows.append(found)
    return [np.concatenate(parts) for parts in zip(*rows)]


def check_masked(way, mask, zero_masked, sequences, checkpoints):
    """The mask of the decoder's own steps, NaN in them."""
    (kind, order), mask = way, make_mask(mask)
    memory = memory_like(KINDS[kind], MEMORY_MASK)
    x = np.where(mask[..., None], X, np.nan).astype("float32")
    options = {"zero_output_for_mask": zero_masked, "return_sequences": sequences}
    if checkpoints:
        options["backward"] = rnnx.Checkpointed(3)
    layer = decoder(KINDS[kind], memory, order, layer=options)
    states = states_like([U])
    constants = {"memory": memory, "memory_mask": MEMORY_MASK}
    found = layer(x, mask=mask, initial_state=states, constants=constants)
    wanted = by_real_steps(layer, x, mask, memory, MEMORY_MASK, states, zero_masked)
    if not sequences:
        wanted[:2] = [a[:, -1] for a in wanted[:2]]
    assert_same(found, wanted)


MASKED = {
    "way": (("location_coverage", "input_feeding"), ("recursive_general", "bahdanau")),
    "mask": MASK_KINDS[1:],
    "zero_masked": (False, True),
    "sequences": (True, False),
    "checkpoints": (False, True),
}


@pytest.mark.parametrize("case", list(pairwise(MASKED)), ids=label)
@pytest.mark.thin(5)
def test_masked_steps(case):
    check_masked(**case)


@pytest.mark.parametrize("mask", ["holes", "left", "empty_rows"])
@pytest.mark.thin(3)
def test_masked_steps_at_once(mask):
    """Where all steps attend at once, the attention of masked steps is hidden afterwards."""
    for zero_masked, sequences, checkpoints in itertools.product([False, True], repeat=3):
        tf.config.run_functions_eagerly(not checkpoints)
        check_masked(("normalized", "output"), mask, zero_masked, sequences, checkpoints)


@pytest.mark.parametrize("kind", ["concat_scaled", "location"])
def test_go_backwards(kind):
    memory, x, states = memory_like(KINDS[kind]), X, states_like([U])
    layer = decoder(KINDS[kind], memory, layer={"go_backwards": True})
    found = layer(x, initial_state=states, constants={"memory": memory})
    wanted = expected(layer, x[:, ::-1], memory, None, states)
    assert_same(found, wanted)


AT_ONCE = ["general", "normalized", "concat_scaled"]


@pytest.fixture(scope="module")
def at_once():
    """A layer that attends with all steps at once, a call of it, and what step by step gives."""
    attentions = [KINDS[kind] for kind in AT_ONCE]
    memory = memory_like(attentions[0], MEMORY_MASK)
    given = X, [memory], make_mask("holes"), states_like([U]), MEMORY_MASK
    layer = decoder(attentions, memory)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rnnx.AttentionCell, "recurrence", lambda self: self)
        wanted, names = everything(layer, *given)
    return layer, given, wanted, names


@pytest.mark.parametrize("steps", [1, 3, T])
def test_all_steps_at_once(monkeypatch, at_once, steps):
    """Compared in chunks of so many steps, they give what each step by itself gives."""
    layer, given, wanted, names = at_once
    monkeypatch.setattr("keras_rnnx.attention.additive.LARGEST", steps * B * S * K + 1)
    monkeypatch.setattr("keras_rnnx.attention.spec.AttentionSpec.step", None)
    tf.config.run_functions_eagerly(True)
    found, _ = everything(layer, *given)
    assert_all_close(found, wanted, 1e-5, names)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.thin(2)
def test_all_steps_at_once_where_lengths_are_unknown(monkeypatch, at_once, jit_compile):
    layer, (x, (memory,), mask, (h,), memory_mask), wanted, names = at_once
    monkeypatch.setattr("keras_rnnx.attention.additive.LARGEST", 3 * B * S * K)
    signature = [tf.TensorSpec([None, None, size]) for size in (D, M)]
    signature += [tf.TensorSpec([None, U]), *2 * [tf.TensorSpec([None, None], tf.bool)]]

    @tf.function(input_signature=signature, jit_compile=jit_compile, autograph=False)
    def call(x, memory, h, mask, memory_mask):
        found, _ = everything(layer, x, [memory], mask, [h], memory_mask)
        return found

    found = call(x, memory, h, mask, memory_mask)
    assert_all_close(found, wanted, 1e-5, names)


def test_second_derivative(monkeypatch):
    """With backward="autodiff", as of any recurrent layer."""
    tf.config.run_functions_eagerly(True)
    memory = tf.constant(MEMORY)
    layer = decoder(KINDS["normalized"], memory, layer={"backward": "autodiff"})
    found = []
    for patched in (False, True):
        if patched:
            monkeypatch.setattr(rnnx.AttentionCell, "recurrence", lambda self: self)
        variables = [w.value for w in layer.trainable_weights]
        with tf.GradientTape() as outer:
            outer.watch(memory)
            with tf.GradientTape() as inner:
                inner.watch(memory)
                loss = loss_of(layer(X, constants={"memory": memory}))
            penalty = tf.reduce_sum(tf.square(inner.gradient(loss, memory)))
        found.append(outer.gradient(penalty, [memory, *variables]))
    assert_all_close(*found, 1e-5, ["memory", *(w.name for w in layer.weights)])


@pytest.mark.parametrize(
    "kind, order",
    [
        ("normalized", "output"),
        ("dot_scaled", "input_feeding"),
        ("hardmax_dot", "bahdanau"),
        ("location_coverage", "input_feeding"),
        ("recursive_general", "bahdanau"),
        ("hard_general", "output"),
    ],
)
def test_steps_one_by_one(kind, order):
    memory, x = memory_like(KINDS[kind], MEMORY_MASK), X
    layer = decoder(KINDS[kind], memory, order, "lstm")
    constants = {"memory": memory, "memory_mask": MEMORY_MASK}
    states = states_like([U, U])
    wanted = layer(x, initial_state=states, constants=constants)
    outputs, states_of_cell = [], [*states, *layer.initial_states(B)[2:]]
    for t in range(T):
        output, states = layer.step(x[:, t], states, constants=constants)
        again, states_of_cell = layer.cell(x[:, t], states_of_cell, constants=constants)
        assert_same(again, output)
        outputs.append(output)
    outputs = [tf.stack(one, axis=1) for one in zip(*outputs)]
    assert_same([*outputs, *states], wanted)
    assert_same(states_of_cell, states)


@pytest.mark.quick
@pytest.mark.parametrize("steps, size, expected", [(10, 273, 10), (10, 4, 4), (9, 4, 3), (1, 5, 1)])
def test_chunks_of_unknown_length_hold_no_more_steps_than_there_are(steps, size, expected):
    """One of 273 steps for 10 would make ten times the work of padding."""

    def chunk(x):
        return tf.fill(tf.shape(x), tf.shape(x)[0]), ()

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32)])
    def sizes(x):
        return additive._in_chunks(chunk, tf.shape(x)[0], size, (x,), ())[0]

    found = sizes(tf.range(steps))
    np.testing.assert_array_equal(found, [expected] * steps)


@pytest.mark.parametrize("kind", ["normalized", "recursive_additive"])
def test_reset_mask(kind):
    """A row that begins anew begins from zeros, the alignments among them."""
    attention, x = KINDS[kind], X
    memory = memory_like(attention)
    layer = decoder(attention, memory, "output" if kind == "normalized" else "input_feeding")
    constants = {"memory": memory}
    reset = np.zeros((B, T), bool)
    reset[1, 3] = True
    found = flat(layer(x, constants=constants, reset_mask=reset))
    plain = flat(layer(x, constants=constants))
    anew = flat(layer(x[:, 3:], constants=constants))
    for a, p, n in zip(found[:2], plain[:2], anew[:2]):
        assert_close(a[1], np.concatenate([p[1, :3], n[1]]), 1e-5, "row that begins anew")
        assert_close(a[::2], p[::2], 1e-5, "other rows")
    for a, p, n in zip(found[2:], plain[2:], anew[2:]):
        assert_close(a, np.stack([p[0], n[1], p[2]]), 1e-5, "states")
    states = plain[2:]
    found = layer(x, initial_state=states, constants=constants, reset_mask=np.eye(1, B)[0] > 0)
    went_on = flat(layer(x, initial_state=states, constants=constants))
    for a, p, n in zip(flat(found), plain, went_on):
        assert_close(a, np.concatenate([p[:1], n[1:]]), 1e-5, "a first row that begins anew")


@pytest.mark.parametrize("rows, steps, length", [(0, T, S), (B, 0, S), (B, T, 1)])
def test_next_to_nothing(rows, steps, length):
    tf.config.run_functions_eagerly(True)
    layer = decoder([KINDS[kind] for kind in ("additive", "coverage", "recursive_general")], MEMORY)
    constants = {"memory": inputs(0, rows, length, M)}
    output, *alignments = layer(inputs(0, rows, steps), constants=constants)[0]
    assert output.shape == (rows, steps, U + A)
    assert [a.shape for a in alignments] == 3 * [(rows, steps, length)]


# Gradients --------------------------------------------------------------------------------------

GRADIENTS = {
    "content": (
        ["dot_scaled", "general", "normalized", "concat_scaled", "hardmax_dot"],
        "output",
        "gru",
    ),
    "location": (["location_coverage", "location_total"], "input_feeding", "lstm"),
    "monotonic": (["recursive_additive"], "bahdanau", "simple"),
    "parallel": (["parallel_dot"], "output", "gru"),
}


def with_gradients(name):
    """A layer in float64, and what it is called with."""
    (kinds, order, cell), dtype = GRADIENTS[name], "float64"
    attentions = [KINDS[kind] for kind in kinds]
    memories = [memory_like(a, MEMORY_MASK, dtype=dtype, k=k) for k, a in enumerate(attentions)]
    layer = decoder(attentions, memories, order, cell, dtype=dtype)
    states = states_like(layer.cell.cell.state_size, dtype=dtype)
    return layer, (inputs(dtype=dtype), memories, make_mask("holes"), states, MEMORY_MASK)


@pytest.fixture(scope="module")
def by_tensorflow():
    """Outputs and gradients by TensorFlow's own means, found once."""
    known = {}

    def find(name):
        if name not in known:
            layer, given = with_gradients(name)
            known[name] = everything(same(layer, backward="autodiff"), *given)
        return known[name]

    return find


def assert_same_gradients(name, by_tensorflow, **options):
    layer, given = with_gradients(name)
    found, names = everything(same(layer, **options), *given)
    wanted, _ = by_tensorflow(name)
    assert_all_close(found, wanted, 1e-9, names)
    count = len(given[1])
    for gradient in found[-len(layer.trainable_weights) - len(given[3]) - count :][:count]:
        np.testing.assert_array_equal(np.asarray(gradient)[~MEMORY_MASK], 0)


@pytest.mark.parametrize("name", ["content", "location", "monotonic"])
@pytest.mark.thin(3)
def test_gradients_plain(name, by_tensorflow):
    assert_same_gradients(name, by_tensorflow)


def test_gradients_compiled(by_tensorflow):
    assert_same_gradients("monotonic", by_tensorflow, jit_compile="auto")


@pytest.mark.slow
@pytest.mark.parametrize("backward", ["full", rnnx.Checkpointed(3)])
@pytest.mark.parametrize("jit_compile", [False, "auto"])
@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_in_every_combination(name, jit_compile, backward, by_tensorflow):
    assert_same_gradients(name, by_tensorflow, jit_compile=jit_compile, backward=backward)


def test_gradients_are_central_differences():
    """Along one random direction for each tensor."""
    layer, (x, memories, mask, states, memory_mask) = with_gradients("content")
    clean = [np.nan_to_num(memory) for memory in memories]
    places = [tf.Variable(a) for a in (x, *clean, *states)]
    variables = [*places, *(w.value for w in layer.trainable_weights)]

    def loss():
        x, *rest = [p + 0 for p in places]
        constants = {"memory": rest[: len(clean)], "memory_mask": len(clean) * [memory_mask]}
        return loss_of(layer(x, mask=mask, initial_state=rest[len(clean) :], constants=constants))

    @tf.function
    def gradients():
        with tf.GradientTape() as tape:
            total = loss()
        return tape.gradient(total, variables)

    loss = tf.function(loss)
    rng = np.random.default_rng(4)
    names = [*(f"tensor {i}" for i in range(len(places))), *(w.name for w in layer.weights)]
    for variable, gradient, what in zip(variables, gradients(), names, strict=True):
        direction, value, sides = rng.normal(size=variable.shape), variable.numpy(), []
        for sign in (1, -1):
            variable.assign(value + sign * 1e-5 * direction)
            sides.append(float(loss()))
        variable.assign(value)
        wanted = (sides[0] - sides[1]) / 2e-5
        assert_close(np.sum(gradient * direction), wanted, 1e-6, f"gradient of {what}")


@pytest.mark.slow
def test_in_parts_of_the_batch():
    """Compiled training splits a batch, the memory and what is kept of the alignments with it."""
    rows = 18
    attention = KINDS["coverage"]
    memory = inputs(3, rows, S, M)
    layer = decoder(attention, memory, "input_feeding")
    given = inputs(0, rows), [memory], make_mask("right", rows), states_like([U], batch=rows)
    given = (*given, np.tile(MEMORY_MASK, (6, 1)))
    compiled, plain = same(layer, jit_compile="auto"), same(layer, backward="autodiff")
    assert compiled.plan(training=True).parts > 1
    found, names = everything(compiled, *given)
    assert_all_close(found, everything(plain, *given)[0], 1e-5, names)


# Memories ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kinds, length, masked",
    [(["location_coverage", "hardmax_additive"], 17, False), (["recursive_general"], 33, True)],
)
@pytest.mark.thin(2)
def test_memory_of_unknown_length_compiled(kinds, length, masked):
    """Padded to 18 and to 36, whose shapes are compiled: what padding gets, it must not keep."""
    attentions = [KINDS[kind] for kind in kinds]
    memory = memory_like(attentions[0], length=length)
    layer = decoder(attentions, memory, "input_feeding", layer={"jit_compile": True})
    mask = np.random.default_rng(8).random((B, length)) > 0.4
    mask = mask | np.eye(B, length, 2, bool) if masked else None
    signature = [tf.TensorSpec([None, None, size]) for size in (D, M)]
    signature += [tf.TensorSpec([None, None], tf.bool)] if masked else []

    @tf.function(input_signature=signature)
    def call(x, memory, *mask):
        constants = {"memory": memory, **({"memory_mask": mask[0]} if mask else {})}
        return layer(x, constants=constants)

    found = call(X, memory, *([mask] if masked else []))
    wanted = expected(layer, X, memory, mask, [np.zeros((B, U))])
    assert_same(found, wanted)


def with_embedded_memory(attention, masked=True, explicit=False, feeding=False, **options):
    """A model whose memory is an embedding of tokens, of which 0 are padding."""
    x, tokens = keras.Input((None, D)), keras.Input((None,), dtype="int32")
    given = [keras.Input((None,), dtype="bool")] if explicit else []
    memory = keras.layers.Embedding(9, M, mask_zero=masked, name="embedding_of_memory")(tokens)
    cell = rnnx.GRUCell(U, name="gru")
    cell = rnnx.AttentionCell(cell, attention, input_feeding=feeding, return_alignments=True)
    layer = rnnx.RNN(cell, return_sequences=True, return_state=True, **options)
    constants = {"memory": memory, **({"memory_mask": given[0]} if explicit else {})}
    model = keras.Model([x, tokens, *given], flat(layer(x, constants=constants)))
    model.set_weights(weights_like(model))
    return model, layer


TOKENS = np.array([[3, 1, 0, 5, 2, 0], [0, 0, 0, 0, 0, 0], [0, 8, 7, 0, 1, 4]])


@pytest.mark.parametrize(
    "kind, masked, explicit",
    [
        ("general", False, False),
        ("general", False, True),
        ("general", True, False),
        ("general", True, True),
        ("parallel_additive", True, True),
    ],
)
def test_keras_mask_of_the_memory(kind, masked, explicit):
    """It is used by itself; with a memory_mask both must say that a position is real."""
    model, layer = with_embedded_memory(KINDS[kind], masked, explicit)
    second = np.array([[1, 1, 1, 0, 1, 0], [1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 0]], bool)
    memory = model.get_layer("embedding_of_memory")(TOKENS)
    mask = np.ones_like(second)
    mask &= TOKENS != 0 if masked else True
    mask &= second if explicit else True
    found = model([X, TOKENS, *([second] if explicit else [])])
    wanted = expected(layer, X, memory, mask, [np.zeros((B, U))])
    assert_same(found, wanted)


def test_keras_mask_of_one_of_two_memories():
    attentions = [GENERAL, KINDS["additive"]]
    embedding = keras.layers.Embedding(9, M, mask_zero=True)
    memories = [embedding(TOKENS), memory_like(attentions[1], length=11)]
    layer = decoder(attentions, memories)
    for mask in (None, [None, np.ones((B, 11), "int32")], [np.ones((B, S), "int32"), None]):
        found = layer(X, constants={"memory": memories, "memory_mask": mask})
        start = [np.zeros((B, U))]
        assert_same(found, expected(layer, X, memories, [TOKENS != 0, None], start))


def test_memory_of_other_types():
    """Float64 in NumPy, a mask of integers, and both for a memory that serves two attentions."""
    memory = memory_like(GENERAL, dtype="float64")
    layer = decoder([GENERAL, KINDS["additive"]], memory)
    constants = {"memory": memory, "memory_mask": MEMORY_MASK.astype("int32")}
    wanted = expected(layer, X, memory, MEMORY_MASK, [np.zeros((B, U))])
    assert_same(layer(X, constants=constants), wanted)


def test_fit_with_a_memory_of_any_length():
    """Compiled training is training: it gives the same weights, with the memory padded."""
    found = []
    for jit_compile in ("auto", False):
        model, layer = with_embedded_memory(GENERAL, feeding=True, jit_compile=jit_compile)
        assert layer.plan(training=True).backend == ("compiled" if jit_compile else "plain")
        model.compile("sgd", ["mse"] + (len(model.outputs) - 1) * [None], jit_compile=False)
        tokens = np.random.default_rng(1).integers(0, 9, (B, 17))
        wanted = [np.ones((B, T, U + M)), *(len(model.outputs) - 1) * [np.zeros(B)]]
        model.fit([X, tokens], wanted, verbose=0)
        found.append(model.get_weights())
    for compiled, plain, start, w in zip(*found, weights_like(model), model.weights, strict=True):
        assert_close(compiled, plain, 1e-5, w.path)
        assert not np.array_equal(compiled, start), f"{w.path} did not learn"


# Saving -----------------------------------------------------------------------------------------


def model_of(kinds, orders=ORDERS, **options):
    """A decoder for each order, of a share of the kinds; dot products have a memory apart."""
    x, states = keras.Input((None, D)), keras.Input((U,))
    deep, small = keras.Input((None, M)), keras.Input((None, U))
    mask = keras.Input((None,), dtype="bool")
    outputs = []
    for k, (order, cell) in enumerate(zip(orders, (rnnx.GRUCell, rnnx.LSTMCell, rnnx.NASCell))):
        attentions = [KINDS[kind] for kind in kinds[k :: len(orders)]]
        memories = [small if getattr(a, "score", 0) == "dot" else deep for a in attentions]
        cell = rnnx.AttentionCell(
            cell(U, dropout=0.1, zoneout=0.1, seed=k),
            attentions,
            input_feeding=order == "input_feeding",
            query="state" if order == "bahdanau" else "output",
            attention_size=A if k else None,
            attention_activation="softsign",
            output_mode="both",
            return_alignments=True,
            kernel_regularizer="l2",
            bias_constraint="non_neg",
        )
        layer = rnnx.RNN(cell, return_sequences=True, return_state=True, **options)
        constants = {"memory": memories, "memory_mask": len(memories) * [mask]}
        start = [states] * len(cell.cell.state_size)
        outputs += flat(layer(x, initial_state=start, constants=constants))
    model = keras.Model([x, states, deep, small, mask], outputs)
    model.set_weights(weights_like(model))
    return model


def request(length, steps=T):
    """Inputs of that model, with memories of this length."""
    mask = np.random.default_rng(9).random((B, length)) > 0.3
    memories = [inputs(k, steps=length, features=size) for k, size in enumerate((M, U))]
    return list(map(tf.constant, [X[:, :steps], *states_like([U]), *memories, mask]))


def test_saved_and_loaded(tmp_path):
    tf.config.run_functions_eagerly(True)
    model = model_of(list(KINDS), jit_compile=False)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for found, wanted in zip(loaded(request(S, 2)), model(request(S, 2)), strict=True):
        np.testing.assert_array_equal(found, wanted)


def check_export(path, kinds, orders):
    model = model_of(kinds, orders)
    model.export(path, verbose=False)
    ops, must_compile = saved_graph.reachable(path)
    assert not must_compile and not saved_graph.strangers(ops)
    loaded = tf.saved_model.load(str(path))
    tf.config.run_functions_eagerly(True)
    plain = model_of(kinds, orders, jit_compile=False)
    for length in (1, 11):
        assert_same(loaded.serve(request(length)), plain(request(length)))


def test_exported(tmp_path):
    """With lengths that the graph does not know."""
    check_export(tmp_path / "model", ["coverage", "hardmax_dot"], ["input_feeding"])


@pytest.mark.slow
def test_every_kind_exported(tmp_path):
    """Those of all steps at once among them."""
    check_export(tmp_path / "content", ["normalized", "concat_scaled", "dot"], ["output"])
    check_export(tmp_path / "all", list(KINDS), ORDERS)


@pytest.mark.parametrize("kind", KINDS)
def test_configuration_of_attentions(kind):
    config = json.loads(json.dumps(KINDS[kind].get_config()))
    again = type(KINDS[kind]).from_config(config)
    assert again == KINDS[kind] and hash(again) == hash(KINDS[kind])


def test_configuration_of_the_cell():
    arguments = ["cell", "attention", "input_feeding", "attention_size", "attention_activation"]
    arguments += ["query", "output_mode", "return_alignments", "bias_constraint", "name", "dtype"]
    for order in ORDERS:
        cell = decoder(KINDS["recursive_additive"], MEMORY, order, attention_size=A).cell
        config = json.loads(json.dumps(cell.get_config()))
        again = rnnx.AttentionCell.from_config(config)
        assert set(arguments) <= set(config)
        for name in arguments[2:]:
            assert again.get_config()[name] == config[name], name
        assert again.attention == cell.attention
        assert again.cell.get_config() == cell.cell.get_config()


def test_starts_and_roles_of_weights():
    """What trained numbers begin with, and whose regularizer and constraint they have."""
    attention = BahdanauAttention(K, normalize=True, alignment=Monotonic(score_bias=-3.0))
    attentions = [attention, LuongAttention("general", scale=True)]
    options = {"kernel_regularizer": "l2", "bias_constraint": "non_neg", "bias_initializer": "ones"}
    cell = rnnx.AttentionCell(rnnx.GRUCell(U), attentions, attention_size=A, **options)
    rnnx.RNN(cell).build((B, T, D), constants_shape={"memory": (B, S, M)})
    weights = {w.name: w for w in cell.weights}
    assert_close(weights["attention_g_1"], K**-0.5, 1e-6, "g")
    assert [float(weights[n]) for n in ("score_bias_1", "score_scale_2")] == [-3.0, 1.0]
    np.testing.assert_array_equal(weights["attention_b_1"], np.ones(K))
    regularized = {n for n, w in weights.items() if w.regularizer is not None}
    kernels = {"query_kernel_1", "memory_kernel_1", "attention_v_1", "memory_kernel_2"}
    assert regularized == kernels | {"attention_kernel"}
    constrained = {n for n, w in weights.items() if w.constraint is not None}
    assert constrained == {"attention_b_1", "score_bias_1"}
    assert weights["kernel"].shape == (D, 3 * U)


# Noise ------------------------------------------------------------------------------------------


def noisy(attention=GENERAL, order="output", jit_compile=False, **noise):
    """A decoder with noise, that with none and the same weights, and a call of either."""
    memory = memory_like(attention)
    cell = rnnx.GRUCell(U, name="gru", seed=5, **noise)
    layer = decoder(attention, memory, order, cell, layer={"jit_compile": jit_compile})
    quiet = decoder(attention, memory, order, rnnx.GRUCell(U))
    quiet.set_weights(layer.get_weights())

    def call(layer, training, x=X):
        return flat(layer(x, constants={"memory": memory}, training=training))

    return layer, quiet, call


@pytest.mark.parametrize(
    "noise, order",
    [
        ({"dropout": 0.5}, "output"),
        ({"dropout": 0.5, "dropout_mode": "gates"}, "input_feeding"),
        ({"recurrent_dropout": 0.5, "recurrent_dropout_mode": "candidate"}, "bahdanau"),
        ({"zoneout": 0.3}, "bahdanau"),
        ({"weight_dropout": 0.5}, "input_feeding"),
    ],
)
def test_noise_of_the_cell_inside(noise, order):
    """It acts in training only, differs from call to call, and zoneout is expected at inference."""
    tf.config.run_functions_eagerly(True)
    layer, quiet, call = noisy(order=order, **noise)
    first, second = call(layer, True)[0], call(layer, True)[0]
    assert differ(first, second)
    assert differ(call(layer, False)[0], call(quiet, False)[0]) == ("zoneout" in noise)
    assert_same(call(layer, False), call(layer, None))


def test_dropout_does_not_act_on_what_is_fed():
    tf.config.run_functions_eagerly(True)
    for order in ORDERS[1:]:
        layer, quiet, call = noisy(order=order, dropout=0.5)
        nothing = np.zeros_like(X)
        assert_same(call(layer, True, nothing), call(quiet, False, nothing))


MONOTONIC = LuongAttention("general", alignment=Monotonic("recursive", sigmoid_noise=1.5))


@pytest.mark.parametrize("backward", ["full", rnnx.Checkpointed(3)])
def test_sigmoid_noise_is_added_to_the_scores(monkeypatch, backward):
    """Other numbers for each step, row, position and attention."""
    drawn = []

    def draw(seed, shape, dtype):
        noise = np.random.default_rng(len(drawn)).normal(size=shape)
        drawn.append(noise)
        return tf.constant(noise, dtype)

    monkeypatch.setattr("keras_rnnx.attention.spec.draw_normal", draw)
    attentions = [MONOTONIC, KINDS["hard_general"], MONOTONIC]
    memory, start = memory_like(MONOTONIC, MEMORY_MASK), [np.zeros((B, U))]
    layer = decoder(attentions, memory, "input_feeding", layer={"backward": backward})
    constants = {"memory": memory, "memory_mask": MEMORY_MASK}
    found = layer(X, constants=constants, training=True)
    assert [noise.shape for noise in drawn] == 2 * [(T, B, S)]
    noise = [1.5 * drawn[0], None, 1.5 * drawn[1]]
    wanted = expected(layer, X, memory, MEMORY_MASK, start, noise=noise)
    assert_same(found, wanted)
    quiet = expected(layer, X, memory, MEMORY_MASK, start)
    assert differ(quiet[0], wanted[0])
    assert_same(layer(X, constants=constants), quiet)
    assert len(drawn) == 2


def test_sigmoid_noise_is_the_same_with_xla():
    """As all noise of one seed; and other numbers in the next call."""
    found = []
    for jit_compile in (False, "auto"):
        layer, _, call = noisy(MONOTONIC, "input_feeding", jit_compile, dropout=0.3)
        found.append([call(layer, True) for _ in range(2)])
    (plain, next_plain), (compiled, next_compiled) = found
    assert_same(compiled, plain)
    assert_same(next_compiled, next_plain)
    assert differ(plain[0], next_plain[0])


def test_sigmoid_noise_is_the_same_with_xla_where_lengths_are_unknown():
    """Then the compiled loop is padded, and what is drawn must not depend on that."""
    found = []
    for jit_compile in (False, "auto"):
        layer, _, _ = noisy(MONOTONIC, jit_compile=jit_compile)
        signature = [tf.TensorSpec([None, None, size]) for size in (D, M)]
        call = lambda x, m, layer=layer: layer(x, constants={"memory": m}, training=True)
        call = tf.function(call, input_signature=signature)
        found.append(flat(call(inputs(steps=17), inputs(3, steps=19, features=M))))
    assert_same(*found)


def test_distribution_of_the_noise():
    noise = rnnx.regularization.draw_normal(tf.constant([1, 2]), [40, 50, 60], tf.float32)
    noise = np.sort(np.asarray(noise, "float64").ravel())
    n = noise.size
    normal = 0.5 * (1 + tf.math.erf(noise / np.sqrt(2.0)).numpy())
    distance = np.abs(normal - np.arange(n) / n).max()
    assert distance < 1.63 / np.sqrt(n), "Kolmogorov and Smirnov, at 1 %"
    assert noise[-1] > 3.5 and noise[0] < -3.5


# States, stacks, precision ----------------------------------------------------------------------


def test_initial_state_of_the_cell_inside_only():
    """As a list or, of a cell with one state, by itself; the rest begins as zeros."""
    tf.config.run_functions_eagerly(True)
    memory = memory_like(KINDS["location_coverage"])
    layer = decoder(KINDS["location_coverage"], memory, "input_feeding")
    constants, (h,) = {"memory": memory}, states_like([U])
    wanted = expected(layer, X, memory, None, [h])
    assert_same(layer(X, initial_state=[h], constants=constants), wanted)
    assert_same(layer(X, initial_state=h, constants=constants), wanted)
    zeros = [np.zeros((B, A)), np.zeros((B, S)), np.zeros((B, S))]
    assert_same(layer(X, initial_state=[h, *zeros], constants=constants), wanted)


def test_stack():
    """A cell below and one with attention above, each with the states that it has by itself."""
    tf.config.run_functions_eagerly(True)
    attention = KINDS["coverage"]
    memory = memory_like(attention)
    upper = decoder(attention, memory, "input_feeding", layer={"return_state": False})
    lower = rnnx.LSTMCell(D)  # as many as the upper one's features
    options = {"return_sequences": True, "jit_compile": False, "zero_output_for_mask": True}
    stack = rnnx.RNN([lower, rnnx.AttentionCell.from_config(upper.cell.get_config())], **options)
    x, mask, constants = inputs(features=11), make_mask("holes"), {"memory": memory}
    upper.zero_output_for_mask = True
    stack(x, constants=constants)
    below = rnnx.LSTM(D, **options)
    below.build(x.shape)
    below.set_weights(weights_like(below))
    stack.cells[0].set_weights(below.get_weights())
    stack.cells[1].set_weights(upper.cell.get_weights())
    assert_same(
        stack(x, mask=mask, constants=constants),
        upper(below(x, mask=mask), mask=mask, constants=constants),
    )
    states = [states_like([D, D]), states_like([U])]
    assert_same(
        stack(x, initial_state=states, constants=constants),
        upper(below(x, initial_state=states[0]), initial_state=states[1], constants=constants),
    )


def test_attention_below_attention():
    tf.config.run_functions_eagerly(True)
    memory = memory_like(GENERAL)
    cell = lambda: rnnx.AttentionCell(rnnx.GRUCell(U), GENERAL, attention_size=A)
    stack = rnnx.RNN([cell(), cell()], return_sequences=True, jit_compile=False)
    stack(X, constants={"memory": memory})
    stack.set_weights(weights_like(stack))
    x = X
    for own in stack.cells:
        x = rnnx.RNN(own, return_sequences=True, jit_compile=False)(x, constants={"memory": memory})
    assert_same(stack(X, constants={"memory": memory}), x)


def test_stateful():
    """What content attention with input feeding keeps is of a known size."""
    attention = GENERAL
    memory = memory_like(attention)
    plain = decoder(attention, memory, "input_feeding")
    layer, constants = same(plain, stateful=True, return_state=False), {"memory": memory}
    halves = [layer(x, constants=constants) for x in (X[:, :3], X[:, 3:])]
    wanted = plain(X, constants=constants)[0]
    assert_same([tf.concat(parts, axis=1) for parts in zip(*halves)], wanted)


def test_linear_recurrence_inside():
    """MinGRU, whose steps need no loop: with attention of all steps at once, and step by step."""
    memory = memory_like(GENERAL)
    for kind in ("general", "coverage"):
        attention = KINDS[kind]
        layer = decoder(attention, memory, cell=rnnx.MinGRUCell(U))
        constants = {"memory": memory}
        wanted, states = [], layer.initial_states(B)
        for t in range(T):
            output, states = layer.step(X[:, t], states, constants=constants)
            wanted.append(output)
        wanted = [tf.stack(one, axis=1) for one in zip(*wanted)]
        assert_same(layer(X, constants=constants), [*wanted, *states])


@pytest.mark.parametrize("kind", ["normalized", "location_coverage", "parallel_additive"])
def test_mixed_precision(kind):
    tf.config.run_functions_eagerly(True)
    attention, options = KINDS[kind], {"attention_size": None}
    memory = memory_like(attention, MEMORY_MASK)
    layer = decoder(attention, memory, "input_feeding", **options)
    half = decoder(attention, memory, "input_feeding", dtype="mixed_bfloat16", **options)
    constants = {"memory": memory, "memory_mask": MEMORY_MASK}
    found = flat(half(X, constants=constants))
    assert {a.dtype for a in found} == {tf.bfloat16}
    for a, wanted in zip(found, flat(layer(X, constants=constants)), strict=True):
        assert_close(tf.cast(a, tf.float32), wanted, 0.05, "half precision")


# Bad input --------------------------------------------------------------------------------------


def call(attention=GENERAL, built=False, given=None, cell=None, **options):
    """A call with these constants instead of the memory that the layer was perhaps built for."""
    cell = rnnx.AttentionCell(cell or rnnx.GRUCell(U), attention, name="cell")
    layer = rnnx.RNN(cell, jit_compile=False, **options)
    if built:
        layer.build(X.shape, constants_shape={"memory": MEMORY.shape})
    return layer(X, constants=given)


MEMORIES = {
    "batch": (
        {"memory": MEMORY[:2]},
        r"cell got a memory of shape \(2, 6, 8\), expected \(3, positions, 8\): the batch",
    ),
    "depth": ({"memory": MEMORY[..., :4]}, r"of shape \(3, 6, 4\), expected \(3, positions, 8\)"),
    "rank": ({"memory": MEMORY[0]}, r"of shape \(6, 8\), expected \(3, positions, 8\)"),
    "none": (None, r"got constants None, expected a dict with \['memory'\]"),
    "mask only": ({"memory_mask": MEMORY_MASK}, r"\['memory_mask'\], expected a dict with"),
    "another name": (
        {"memory": MEMORY, "mask": MEMORY_MASK},
        r"got constants \['mask', 'memory'\]",
    ),
    "length of the mask": (
        {"memory": MEMORY, "memory_mask": MEMORY_MASK[:, 1:]},
        r"a memory_mask of shape \(3, 5\) for a memory of shape \(3, 6, 8\), expected its first",
    ),
    "batch of the mask": (
        {"memory": MEMORY, "memory_mask": MEMORY_MASK[1:]},
        r"a memory_mask of shape \(2, 6\) for a memory",
    ),
    "two memories": ({"memory": 2 * [MEMORY]}, r"got 2 memories and 2 masks for 1 attention"),
    "two masks": (
        {"memory": MEMORY, "memory_mask": 2 * [MEMORY_MASK]},
        r"got 1 memories and 2 masks for 1 attention\(s\), expected one memory",
    ),
}


@pytest.mark.parametrize("name", MEMORIES)
def test_wrong_memory(name):
    given, message = MEMORIES[name]
    with pytest.raises(ValueError, match=message):
        call(built=True, given=given)


def test_wrong_memory_at_first():
    for given in (None, {}):
        with pytest.raises(ValueError, match="built without a memory.*constants={.memory.: ...}"):
            call(given=given)
    with pytest.raises(ValueError, match=r"memories of depths \[8, 8\], expected 3 known"):
        call(3 * [GENERAL], given={"memory": [MEMORY, MEMORY]})
    with pytest.raises(ValueError, match="query of size 5 and a memory of size 8, expected one"):
        call(KINDS["dot"], given={"memory": MEMORY})
    layer = rnnx.RNN(rnnx.AttentionCell(rnnx.GRUCell(U), GENERAL))
    with pytest.raises(ValueError, match=r"depths \[None\], expected 1 known"):
        layer(keras.Input((None, D)), constants={"memory": keras.Input((None, None))})


def test_stateful_with_states_as_wide_as_the_memory():
    for kind in ("recursive_additive", "coverage", "location"):
        with pytest.raises(ValueError, match="as wide as its memory.*return_state=True"):
            call(KINDS[kind], given={"memory": MEMORY}, stateful=True)


GRU = lambda **options: rnnx.GRUCell(U, **options)
REFUSED = {
    "noise": (
        lambda: rnnx.AttentionCell(GRU(), GENERAL, zoneout=0.1, dropout=0.1),
        r"got dropout, zoneout, which belong to the cell inside: AttentionCell\(GRUCell\(64, drop",
    ),
    "mode of noise": (
        lambda: rnnx.AttentionCell(GRU(), GENERAL, dropout_mode="step"),
        "got dropout_mode, which belong",
    ),
    "query": (lambda: rnnx.AttentionCell(GRU(), GENERAL, query="input"), "query is 'input', exp"),
    "output_mode": (
        lambda: rnnx.AttentionCell(GRU(), GENERAL, output_mode="context"),
        "output_mode is 'context', expected one of None, 'attention', 'cell', 'both'",
    ),
    "attention_size": (
        lambda: rnnx.AttentionCell(GRU(), GENERAL, attention_size=0),
        "attention_size is 0, expected a positive integer, or None",
    ),
    "no attention": (lambda: rnnx.AttentionCell(GRU(), []), "no attention, expected one or more"),
    "feeding of a query by the state": (
        lambda: rnnx.AttentionCell(GRU(), GENERAL, input_feeding=True, query="state"),
        "input_feeding is True and query is .state., where the cell gets the context of the same",
    ),
    "feeding of a normalized input": (
        lambda: rnnx.AttentionCell(rnnx.LayerNormLSTMCell(U), GENERAL, input_feeding=True),
        "LayerNormLSTMCell cannot be fed.*normalize=..recurrent., .cell.. for one with layer norm",
    ),
    "feeding of MinGRU": (
        lambda: rnnx.AttentionCell(rnnx.MinGRUCell(U), GENERAL, input_feeding=True),
        "MinGRUCell cannot be fed with an attention",
    ),
    "MinGRU by its state": (
        lambda: rnnx.AttentionCell(rnnx.MinGRUCell(U), GENERAL, query="state"),
        "MinGRUCell cannot be fed with an attention",
    ),
    "alignment": (
        lambda: BahdanauAttention(K, alignment="sparsemax"),
        'alignment is \'sparsemax\', expected "softmax", "hardmax" or keras_rnnx',
    ),
    "alignment without a hash": (lambda: LuongAttention(alignment=["softmax"]), "alignment is"),
    "mode": (lambda: Monotonic("soft"), "mode is 'soft', expected one of 'recursive', 'parallel'"),
    "mode of a function": (
        lambda: rnnx.attention.monotonic_attention(np.ones((1, 2)), np.ones((1, 2)), "soft"),
        "mode is 'soft', expected one of 'recursive', 'parallel', 'hard'",
    ),
    "sigmoid_noise": (lambda: Monotonic(sigmoid_noise=-1), "sigmoid_noise is -1, expected 0 or m"),
    "units": (lambda: BahdanauAttention(0), "units is 0, expected a positive integer"),
    "units of concat": (lambda: LuongAttention("concat"), "units is None, expected a positive"),
    "units of general": (
        lambda: LuongAttention("general", units=K),
        "units is 10, which score=\"concat\" has and 'general' has not",
    ),
    "score": (lambda: LuongAttention("cosine"), 'score is \'cosine\', expected "dot", "general"'),
    "filters": (lambda: rnnx.attention.LocationAttention(K, filters=-1), "filters is -1, expected"),
    "kernel_size": (
        lambda: rnnx.attention.LocationAttention(K, kernel_size=2.5),
        "kernel_size is 2.5, expected a positive integer",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    make, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("cell", [None, "gru", keras.layers.GRUCell(U), rnnx.GRU(U)], ids=repr)
def test_wrong_cell(cell):
    with pytest.raises(TypeError, match="got the cell .*, expected a cell of keras_rnnx, such as"):
        rnnx.AttentionCell(cell, GENERAL)
    with pytest.raises(TypeError, match="got the cell .*, expected a cell of keras_rnnx"):
        rnnx.AttentionCell(rnnx.AttentionCell(GRU(), GENERAL), GENERAL)


@pytest.mark.parametrize("attention", [None, "luong", keras.layers.Attention(), [GENERAL, None]])
def test_wrong_attention(attention):
    with pytest.raises(TypeError, match="got the attention .*, expected one of keras_rnnx.attent"):
        rnnx.AttentionCell(GRU(), attention)

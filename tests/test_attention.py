"""Decoders with attention against NumPy from the papers: what they must compute.

How they compute it, and what Keras does with them, is in `test_attention_cell`.
"""

import functools
import itertools

import attention_oracles
import cell_oracles
import keras
import numpy as np
import oracles
import pytest
import tensorflow as tf
from helpers import B, D, T, U, assert_all_close, assert_close, inputs, states_like, weights_like
from pairwise import pairwise

import keras_rnnx as rnnx
from keras_rnnx.attention import (
    BahdanauAttention,
    LocationAttention,
    LuongAttention,
    Monotonic,
    coverage_loss,
    hardmax,
    monotonic_attention,
    safe_cumprod,
)

S, M, K, A = 6, 8, 10, 9  # positions and features of the memory, units, attention vector
CELLS = {
    "gru": (rnnx.GRUCell, oracles.gru_step()),
    "lstm": (rnnx.LSTMCell, oracles.lstm_step()),
    "simple": (rnnx.SimpleRNNCell, oracles.simple_step()),
}
PARTS = ("recurrent", "cell")
OTHERS = {
    "projected": (
        functools.partial(rnnx.LSTMCell, peephole=True, projection_units=U - 2),
        cell_oracles.general_lstm_step(peephole=True, projection=True),
    ),
    "gru_before": (
        functools.partial(rnnx.GRUCell, reset_after=False),
        oracles.gru_step(reset_after=False),
    ),
    "layer_norm": (
        functools.partial(rnnx.LayerNormLSTMCell, normalize=PARTS),
        cell_oracles.layer_norm_lstm_step(normalize=PARTS),
    ),
    "layer_norm_simple": (rnnx.LayerNormSimpleRNNCell, cell_oracles.layer_norm_simple_step()),
    "indrnn": (rnnx.IndRNNCell, cell_oracles.indrnn_step()),
    "nas": (functools.partial(rnnx.NASCell, use_bias=True), cell_oracles.nas_step(use_bias=True)),
}
ORDERS = ("output", "input_feeding", "bahdanau")  # as the oracle names them
KINDS = {
    "dot": LuongAttention("dot"),
    "dot_scaled": LuongAttention("dot", scale=True),
    "general": LuongAttention("general"),
    "concat_scaled": LuongAttention("concat", units=K, scale=True),
    "additive": BahdanauAttention(K),
    "normalized": BahdanauAttention(K, normalize=True),
    "coverage": BahdanauAttention(K, coverage=True),
    "location": LocationAttention(K, filters=2, kernel_size=5),
    "location_even": LocationAttention(K, filters=2, kernel_size=4),
    "location_total": LocationAttention(
        K, normalize=True, filters=2, kernel_size=15, cumulative=True
    ),
    "location_coverage": LocationAttention(K, coverage=True, filters=2, kernel_size=2),
    "hardmax_dot": LuongAttention("dot", alignment="hardmax"),
    "hardmax_additive": BahdanauAttention(K, normalize=True, alignment="hardmax"),
    "recursive_additive": BahdanauAttention(K, normalize=True, alignment=Monotonic("recursive")),
    "recursive_general": LuongAttention("general", alignment=Monotonic("recursive")),
    "parallel_additive": BahdanauAttention(K, coverage=True, alignment=Monotonic("parallel")),
    "parallel_dot": LuongAttention("dot", scale=True, alignment=Monotonic("parallel")),
    "hard_additive": BahdanauAttention(K, normalize=True, alignment=Monotonic("hard")),
    "hard_general": LuongAttention("general", alignment=Monotonic("hard")),
    "location_monotonic": LocationAttention(
        K, coverage=True, filters=2, kernel_size=3, alignment=Monotonic("recursive")
    ),
}
# A row with holes, one without a real position, and one whose first position is none.
MEMORY_MASK = np.array([[1, 1, 0, 1, 1, 0], [0, 0, 0, 0, 0, 0], [0, 1, 1, 0, 1, 1]], bool)


def listed(one):
    return list(one) if isinstance(one, (list, tuple)) else [one]


def depth(attention, k=0):
    """Features of a memory: those of the query where the score is a product of both."""
    return U if getattr(attention, "score", None) == "dot" else M + 4 * k


def memory_like(attention, mask=None, length=S, seed=3, dtype="float32", k=0):
    """`[B, S, M]` with NaN where it is masked."""
    memory = inputs(seed + k, steps=length, features=depth(attention, k), dtype=dtype)
    return memory if mask is None else np.where(mask[..., None], memory, np.nan).astype(dtype)


def decoder(attention, memory, order="output", cell="gru", dtype=None, layer=None, **options):
    """An RNN that returns everything, with random weights."""
    if isinstance(cell, str):
        cell = {**CELLS, **OTHERS}[cell][0](U, dtype=dtype, name=cell)
    options = {"attention_size": A, "output_mode": "both", "return_alignments": True, **options}
    cell = rnnx.AttentionCell(
        cell,
        attention,
        input_feeding=order == "input_feeding",
        query="state" if order == "bahdanau" else "output",
        dtype=dtype,
        **options,
    )
    given = {"return_sequences": True, "return_state": True, "jit_compile": False, "dtype": dtype}
    decoder = rnnx.RNN(cell, **{**given, **(layer or {})})
    shapes = [tuple(m.shape) for m in memory] if isinstance(memory, list) else memory.shape
    decoder.build((B, T, D), constants_shape={"memory": shapes})
    decoder.set_weights(weights_like(decoder))
    for weight in decoder.weights:
        if weight.name.startswith("score_bias"):
            weight.assign(abs(weight) / 2)  # without scores above 0 nothing is ever chosen
    return decoder


def by_name(layer):
    return {w.name: np.asarray(w, "float64") for w in layer.weights}


def oracle_of(attention, w, noise=None):
    """The oracle of an attention, with weights by name; noise of its scores: `[T, B, S]`."""
    v, g, b = w.get("attention_v"), w.get("attention_g"), w.get("attention_b", 0.0)
    wq, wm, scale = w.get("query_kernel"), w.get("memory_kernel"), w.get("score_scale", 1.0)
    if isinstance(attention, LuongAttention):
        score = {
            "dot": lambda: attention_oracles.luong_dot(scale),
            "general": lambda: attention_oracles.luong_general(wm, scale),
            "concat": lambda: attention_oracles.luong_concat(wq, wm, v, scale),
        }[attention.score]()
    else:
        unit = v if g is None else g * v / np.linalg.norm(v)
        if isinstance(attention, LocationAttention):
            score = attention_oracles.location(
                *(wq, wm, unit, w["location_filters"][:, None], w["location_kernel"], b),
                cumulative=attention.cumulative,
                wc=w.get("coverage_kernel", 0.0),
            )
        elif attention.coverage:
            score = attention_oracles.coverage(wq, wm, unit, w["coverage_kernel"], b)
        else:
            score = attention_oracles.bahdanau(wq, wm, v, g, b)
    if not attention.is_monotonic:
        return attention_oracles.Attention(score, getattr(attention_oracles, attention.alignment))
    mode = getattr(attention_oracles, f"monotonic_{attention.alignment.mode}")
    return attention_oracles.Monotonic(score, mode, w["score_bias"], noise)


def expected(layer, x, memories, masks, states, noise=None):
    """What the layer gives, by the oracle: outputs, alignments, states."""
    cell, w = layer.cell, by_name(layer)
    inner = [np.asarray(weight, "float64") for weight in cell.cell.weights]
    step = {**CELLS, **OTHERS}[cell.cell.name][1]
    attentions = []
    for k, attention in enumerate(cell.attention, start=1):
        end = f"_{k}" if len(cell.attention) > 1 else ""
        own = {n.removesuffix(end): value for n, value in w.items() if n.endswith(end)}
        attentions.append(oracle_of(attention, own, noise and noise[k - 1]))
    count = len(attentions)
    memories, masks = listed(memories), listed(masks)
    found = attention_oracles.run(
        lambda x, s: step(inner, x, s),
        attentions,
        memories if len(memories) == count else count * memories,
        masks if len(masks) == count else count * masks,
        x,
        states,
        "bahdanau" if cell.query == "state" else ORDERS[cell.input_feeding],
        wa=w.get("attention_kernel"),
    )
    shown = {"cell": [found.outputs], "attention": [found.vectors]}
    shown["both"] = shown["cell"] + shown["attention"]
    kept = [found.vector] if cell.input_feeding else []
    for attention, state in zip(cell.attention, found.attention_states, strict=True):
        # Zeros stand for the start of monotonic attention at position 0.
        start = np.eye(1, state.previous.shape[1]) * attention.is_monotonic
        names = {"previous": state.previous - start, "total": state.total}
        kept += [names[n] for n in attention.state_names]
    output = np.concatenate(shown[cell.output_mode], axis=-1)
    return [output, *found.alignments, *found.states, *kept]


def names_of(flat):
    return [f"output {i}" for i in range(len(flat))]


def assert_is_oracle(layer, memory, mask, tolerance=1e-5):
    x, states = inputs(), states_like(layer.cell.cell.state_size)
    constants = {"memory": memory} | ({} if mask is None else {"memory_mask": mask})
    found = keras.tree.flatten(layer(x, initial_state=states, constants=constants))
    wanted = expected(layer, x, memory, mask, states)
    assert_all_close(found, wanted, tolerance, names_of(wanted))
    return found


# Outputs, alignments and states -----------------------------------------------------------------


def label(case):
    return "-".join(map(str, case.values()))


OPTIONS = {
    "kind": list(KINDS),
    "order": ORDERS,
    "cell": list(CELLS),
    "masked": (True, False),
    "size": (A, None),
    "mode": ("both", "attention", "cell"),
}


def check_oracle(case, layer=None):
    attention, mask = KINDS[case["kind"]], MEMORY_MASK if case["masked"] else None
    memory = memory_like(attention, mask)
    options = {"attention_size": case["size"], "output_mode": case["mode"], "layer": layer}
    layer = decoder(attention, memory, case["order"], case["cell"], **options)
    found = assert_is_oracle(layer, memory, mask)
    if mask is not None:
        np.testing.assert_array_equal(np.where(mask[:, None], 0, found[1]), 0)
        assert np.asarray(found[1]).any()


@pytest.mark.parametrize(
    "case", list(pairwise(OPTIONS)), ids=lambda case: "-".join(map(str, case.values()))
)
@pytest.mark.thin(3)
def test_oracle(case):
    tf.config.run_functions_eagerly(True)  # in half the time; graphs are for the tests below
    check_oracle(case)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_oracle_in_every_combination(kind):
    for order, cell, masked in itertools.product(ORDERS, CELLS, (True, False)):
        case = {"order": order, "cell": cell, "masked": masked, "size": A, "mode": "both"}
        check_oracle({"kind": kind, **case})


COMPILED = {
    "location_coverage": ("bahdanau", "lstm"),
    "recursive_general": ("input_feeding", "gru"),
    "parallel_additive": ("output", "simple"),
    "hardmax_additive": ("output", "lstm"),
}


@pytest.mark.parametrize("kind", COMPILED)
def test_oracle_compiled(kind):
    order, cell = COMPILED[kind]
    case = {"kind": kind, "order": order, "cell": cell, "masked": True, "size": A, "mode": "both"}
    check_oracle(case, {"jit_compile": "auto"})


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", KINDS)
def test_oracle_compiled_in_every_combination(kind, order):
    case = {"kind": kind, "order": order, "cell": "gru", "masked": True, "size": A, "mode": "both"}
    check_oracle(case, {"jit_compile": "auto"})


@pytest.mark.parametrize("order", ORDERS)
def test_two_attentions_over_two_memories(order):
    """Of other lengths and depths; the second one is not masked."""
    tf.config.run_functions_eagerly(True)
    attentions = [KINDS["location_coverage"], KINDS["recursive_general"]]
    memories = [memory_like(attentions[0], MEMORY_MASK), memory_like(attentions[1], length=11, k=1)]
    layer = decoder(attentions, memories, order)
    assert_is_oracle(layer, memories, [MEMORY_MASK, None])


@pytest.mark.parametrize("order", ORDERS)
def test_two_attentions_over_one_memory(order):
    attentions = [KINDS["dot_scaled"], KINDS["concat_scaled"]]
    memory = memory_like(attentions[0], MEMORY_MASK)
    assert_is_oracle(decoder(attentions, memory, order, "lstm"), memory, MEMORY_MASK)


@pytest.mark.parametrize("cell, order", list(zip(OTHERS, 3 * ORDERS[1:], strict=True)))
def test_other_cells_are_fed(cell, order):
    tf.config.run_functions_eagerly(True)
    memory = memory_like(KINDS["general"], MEMORY_MASK)
    assert_is_oracle(decoder(KINDS["general"], memory, order, cell), memory, MEMORY_MASK)


@pytest.mark.parametrize(
    "kind, order", list(zip(["location_monotonic", "parallel_dot", "general"], ORDERS, strict=True))
)
def test_goes_on_from_all_its_states(kind, order):
    tf.config.run_functions_eagerly(True)
    attention = KINDS[kind]
    memory, x = memory_like(attention), inputs()
    layer, constants = decoder(attention, memory, order, "lstm"), {"memory": memory}
    states = states_like([U, U])
    whole = keras.tree.flatten(layer(x, initial_state=states, constants=constants))
    (first, alignments), *states = layer(x[:, :3], initial_state=states, constants=constants)
    rest = keras.tree.flatten(layer(x[:, 3:], initial_state=states, constants=constants))
    rest[0] = np.concatenate([first, rest[0]], axis=1)
    rest[1] = np.concatenate([alignments, rest[1]], axis=1)
    assert_all_close(rest, whole, 1e-5, names_of(whole))


# Alignments by themselves -----------------------------------------------------------------------


def test_hardmax():
    scores = inputs(features=S)[:, 0]
    scores[0, [1, 3]] = 9  # a tie
    scores[2, 3] = 9  # masked
    everywhere = np.ones_like(MEMORY_MASK)
    np.testing.assert_array_equal(hardmax(scores), attention_oracles.hardmax(scores, everywhere))
    wanted = attention_oracles.hardmax(scores, MEMORY_MASK)
    np.testing.assert_array_equal(hardmax(scores, MEMORY_MASK), wanted)
    assert wanted[0, 1] == 1 and not wanted[1].any()
    unknown = tf.function(hardmax, input_signature=[tf.TensorSpec([None, None])])
    np.testing.assert_array_equal(unknown(scores), hardmax(scores))
    scores = tf.constant(scores)
    with tf.GradientTape() as tape:
        tape.watch(scores)
        chosen = hardmax(scores, MEMORY_MASK)
    assert tape.gradient(chosen, scores) is None
    assert hardmax(tf.cast(scores, tf.float16), MEMORY_MASK).dtype == tf.float16


@pytest.mark.parametrize("exclusive", [False, True])
def test_safe_cumprod(exclusive):
    x = np.random.default_rng(0).uniform(size=(B, S, T))
    wanted = np.cumprod(x, axis=1)
    if exclusive:
        wanted = np.concatenate([np.ones((B, 1, T)), wanted[:, :-1]], axis=1)
    assert_close(safe_cumprod(x, axis=1, exclusive=exclusive), wanted, 1e-12, "products")
    with_ends = tf.constant([[0.5, 1.0, 0.0, 0.5, 0.0], [0.0, 0.0, 1.0, 1.0, 1.0]])
    with tf.GradientTape() as tape:
        tape.watch(with_ends)
        found = safe_cumprod(with_ends, exclusive=exclusive)
    assert np.isfinite(tape.gradient(found, with_ends)).all()
    wanted = tf.math.cumprod(with_ends, axis=-1, exclusive=exclusive)
    np.testing.assert_allclose(found, wanted, atol=1e-30)


def probabilities():
    """Rows: ordinary, with 0 and 1 among them, all 1, all 0, near 1."""
    p = np.random.default_rng(5).uniform(0.05, 0.9, size=(5, S))
    p[1, [1, 4]], p[1, [0, 3]] = 0, 1
    p[2], p[3], p[4] = 1, 0, 1 - 1e-3 * p[4]
    previous = np.random.default_rng(6).dirichlet(np.ones(S), size=5)
    previous[0] *= 0.6  # less than 1: something went past the end
    return p, previous


@pytest.mark.parametrize("mode", ["recursive", "parallel"])
def test_monotonic_attention(mode):
    p, previous = probabilities()
    wanted = getattr(attention_oracles, f"monotonic_{mode}")(p, previous)
    assert_close(monotonic_attention(p, previous, mode), wanted, 1e-12, "float64")
    single = [tf.constant(a, tf.float32) for a in (p, previous)]
    with tf.GradientTape() as tape:
        tape.watch(single)
        found = monotonic_attention(*single, mode)
    assert_close(found, wanted, 1e-5, "float32")
    for gradient in tape.gradient(found, single):
        assert np.isfinite(gradient).all() and np.any(gradient)


def test_monotonic_attention_is_the_mean_of_all_choices():
    """Every outcome of S coins, of its probability, from every position that was attended to."""
    p, previous = probabilities()
    p, previous = p[:2], previous[:2]
    wanted = np.zeros_like(p)
    for coins in itertools.product([0.0, 1.0], repeat=S):
        coins = np.tile(coins, (2, 1))
        likely = np.prod(np.where(coins > 0, p, 1 - p), axis=1)
        for j in range(S):
            at = np.tile(np.eye(S)[j], (2, 1))
            chosen = monotonic_attention(coins, at, "hard").numpy()
            np.testing.assert_array_equal(chosen, attention_oracles.monotonic_hard(coins, at))
            wanted += likely[:, None] * previous[:, j, None] * chosen
    assert_close(monotonic_attention(p, previous, "recursive"), wanted, 1e-12, "recursive")
    assert_close(
        monotonic_attention(p[:1], previous[:1], "parallel"), wanted[:1], 1e-12, "parallel"
    )


def test_hard_monotonic_attention_of_nothing():
    nothing = np.zeros((1, S))
    np.testing.assert_array_equal(monotonic_attention(np.ones((1, S)), nothing, "hard"), nothing)


def test_coverage_loss():
    alignments = np.random.default_rng(7).dirichlet(np.ones(S), size=(B, T))
    wanted = attention_oracles.coverage_loss(alignments).sum(axis=1)
    assert_close(coverage_loss(alignments), wanted, 1e-12, "loss")

"""Conditional random fields: against enumeration of all tag sequences, in NumPy."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import MASK_KINDS, B, D, T, U, assert_close, inputs, make_mask, weights_like
from hypothesis import given, settings
from hypothesis import strategies as st

import keras_rnnx
from keras_rnnx import serving
from keras_rnnx.heads import (
    CRF,
    CRFLoss,
    CRFModel,
    EntityF1,
    allowed_transitions,
    crf_decode,
    crf_log_likelihood,
    crf_log_norm,
    crf_marginals,
    crf_score,
)

K = 3
every_mask = pytest.mark.parametrize("mask_kind", MASK_KINDS)


class Enumerated:
    """All tag sequences of one row, `paths [N, n]` and their scores `[N]`."""

    def __init__(self, x, transitions, real, start, end):
        steps, n = np.flatnonzero(real), int(np.sum(real))
        self.paths = np.array(list(itertools.product(range(x.shape[1]), repeat=n)), int)
        self.scores = np.zeros(len(self.paths))
        for path, t in zip(self.paths.T, steps):
            self.scores += x[t, path]
        for one, other in zip(self.paths.T, self.paths.T[1:]):
            self.scores += transitions[one, other]
        if n:
            self.scores += start[self.paths[:, 0]] + end[self.paths[:, -1]]
        most = self.scores.max()
        self.log_norm = most + np.log(np.exp(self.scores - most).sum())
        self.probabilities = np.exp(self.scores - self.log_norm)
        self.marginals = np.zeros(x.shape)
        for k, t in enumerate(steps):
            for tag in range(x.shape[1]):
                self.marginals[t, tag] = self.probabilities[self.paths[:, k] == tag].sum()

    def score(self, tags):
        (found,) = np.flatnonzero((self.paths == tags).all(axis=1))
        return self.scores[found]


def chain(seed=0, batch=B, steps=T, tags=K, dtype="float32"):
    """Potentials, transitions, start and end."""
    rng = np.random.default_rng(seed)
    shapes = (batch, steps, tags), (tags, tags), (tags,), (tags,)
    return [rng.normal(scale=1.5, size=shape).astype(dtype) for shape in shapes]


def enumerated(x, transitions, mask, start, end):
    mask = np.ones(x.shape[:2], bool) if mask is None else mask
    return [Enumerated(*row) for row in zip(x, len(x) * [transitions], mask, len(x) * [start],
                                            len(x) * [end])]  # fmt: skip


def check_decoded(tags, score, oracles, mask, tolerance):
    """The tags have the largest score, which is recomputed, and -1 in the padding."""
    tags, score = np.asarray(tags), np.asarray(score)
    mask = np.ones(tags.shape, bool) if mask is None else mask
    assert np.all(tags[~mask] == -1)
    for row, value, oracle, real in zip(tags, score, oracles, mask, strict=True):
        assert abs(oracle.score(row[real]) - oracle.scores.max()) <= tolerance
        assert abs(value - oracle.scores.max()) <= tolerance


# -- the functions -------------------------------------------------------------------------------


@tf.function
def all_of_a_chain(tags, *chain):
    return (
        crf_score(tags, *chain),
        crf_log_norm(*chain, jit_compile=False),
        crf_marginals(*chain, jit_compile=False),
        crf_log_likelihood(tags, *chain, jit_compile=False),
        crf_decode(*chain),
    )


@settings(max_examples=50, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_mask_against_enumeration(data):
    steps = 5
    bits = data.draw(st.lists(st.booleans(), min_size=B * steps, max_size=B * steps))
    mask = np.reshape(bits, (B, steps))
    x, transitions, *ends = chain(data.draw(st.integers(0, 99)), steps=steps, dtype="float64")
    x[~mask] = np.nan
    given_tags = np.random.default_rng(sum(bits)).integers(0, K, size=(B, steps))
    oracles = enumerated(x, transitions, mask, *ends)
    score, log_norm, marginals, likelihood, decoded = all_of_a_chain(
        given_tags, x, transitions, mask, *ends
    )
    assert_close(log_norm, [o.log_norm for o in oracles], 1e-12, "log norm")
    assert_close(marginals, [o.marginals for o in oracles], 1e-12, "marginals")
    scores = [o.score(tags[real]) for o, tags, real in zip(oracles, given_tags, mask)]
    assert_close(score, scores, 1e-12, "score")
    expected = np.array(scores) - [o.log_norm for o in oracles]
    assert np.max(np.abs(likelihood - expected)) < 1e-12
    check_decoded(*decoded, oracles, mask, 1e-12)


def everything(tags, x, transitions, mask, start, end, **options):
    """Log norm, log likelihood, its gradients, decoded tags and their score."""
    values = [tf.convert_to_tensor(a) for a in (x, transitions, start, end)]
    with tf.GradientTape() as tape:
        tape.watch(values)
        x, transitions, start, end = values
        found = crf_log_likelihood(tags, x, transitions, mask, start, end, **options)
        loss = tf.reduce_sum(found * tf.cos(tf.range(tf.shape(x)[0], dtype=found.dtype)))
    log_norm = crf_log_norm(x, transitions, mask, start, end, **options)
    decoded = crf_decode(x, transitions, mask, start, end)
    return log_norm, found, tape.gradient(loss, values), decoded


def by_enumeration(tags, x, transitions, mask, start, end):
    """The same, of which the gradients by counting in all sequences."""
    oracles = enumerated(x, transitions, mask, start, end)
    mask = np.ones(x.shape[:2], bool) if mask is None else mask
    found, gradients = [], [np.zeros(a.shape) for a in (x, transitions, start, end)]
    for b, (oracle, row, real) in enumerate(zip(oracles, tags, mask)):
        found.append(oracle.score(row[real]) - oracle.log_norm)
        every = [*zip(oracle.paths, -oracle.probabilities), (row[real], 1.0)]
        for path, weight in every:
            weight = weight * np.cos(b)
            np.add.at(gradients[0][b], (np.flatnonzero(real), path), weight)
            np.add.at(gradients[1], (path[:-1], path[1:]), weight)
            np.add.at(gradients[2], path[:1], weight)
            np.add.at(gradients[3], path[-1:], weight)
    return [o.log_norm for o in oracles], found, gradients, oracles


@pytest.mark.parametrize(
    "mask_kind, mode",
    [("none", "unknown"), ("left", "function"), ("right", "eager")]
    + [("holes", "xla"), ("holes", "unknown"), ("empty_rows", "function")],
)
@pytest.mark.thin(8)
def test_every_mode(mask_kind, mode):
    mask, (x, transitions, *ends) = make_mask(mask_kind), chain(3)
    tags = np.random.default_rng(4).integers(0, K, size=(B, T))
    arguments = [tf.constant(a) for a in (tags, x, transitions, *ends)]
    masks = [] if mask is None else [tf.constant(mask)]

    def call(tags, x, transitions, start, end, *masks):
        return everything(tags, x, transitions, masks[0] if masks else None, start, end)

    if mode == "unknown":
        loose = lambda a, n: tf.TensorSpec([None] * n + a.shape[n:], a.dtype)
        known = [loose(a, n) for a, n in zip(arguments, (2, 2, 0, 0, 0))]
        call = tf.function(call, input_signature=known + [loose(m, 2) for m in masks])
    elif mode != "eager":
        call = tf.function(call, jit_compile=mode == "xla")
    log_norm, found, gradients, decoded = call(*arguments, *masks)
    expected = by_enumeration(tags, x, transitions, mask, *ends)
    assert_close(log_norm, expected[0], 1e-6, "log norm")
    assert_close(found, expected[1], 1e-6, "log likelihood")
    for gradient, wanted, name in zip(gradients, expected[2], ("x", "transitions", "start", "end")):
        assert_close(gradient, wanted, 3e-6, name)
    check_decoded(*decoded, expected[3], mask, 1e-5)


@pytest.mark.parametrize(
    "mask_kind, options",
    [("right", {"jit_compile": False}), ("holes", {}), ("empty_rows", {"backward": "autodiff"})],
)
def test_gradients_against_finite_differences(mask_kind, options):
    mask, values = make_mask(mask_kind), chain(5, dtype="float64")
    tags = np.random.default_rng(6).integers(0, K, size=(B, T))
    direction = chain(7, dtype="float64")

    def loss(x, transitions, start, end):
        found = crf_log_likelihood(tags, x, transitions, mask, start, end, **options)
        return tf.reduce_sum(found * [1.0, -2.0, 0.5])

    values = [tf.constant(v) for v in values]
    with tf.GradientTape() as tape:
        tape.watch(values)
        total = loss(*values)
    found = tape.gradient(total, values)
    shifted = lambda s: loss(*(v + s * d for v, d in zip(values, direction))).numpy()
    numeric = (shifted(1e-5) - shifted(-1e-5)) / 2e-5
    exact = sum(np.sum(g * d) for g, d in zip(found, direction))
    assert abs(exact) > 0.1
    assert_close(exact, numeric, 1e-8, "directional derivative")
    assert np.all(found[0].numpy()[~mask] == 0)


def test_large_batches_in_parts_against_the_forward_algorithm():
    """In two dozen rows, which run in parts, for 30 steps: a loop over the steps in NumPy."""
    batch, steps, tags = 24, 30, 5
    x, transitions, start, end = chain(8, batch, steps, tags)
    mask = np.random.default_rng(9).random((batch, steps)) < np.linspace(0, 1, batch)[:, None]
    call = tf.function(lambda *a: (crf_log_norm(*a), crf_marginals(*a), crf_decode(*a)))
    found, marginals, (decoded, score) = call(x, transitions, mask, start, end)
    for b in range(batch):
        rows = x[b, mask[b]].astype("float64")
        if not len(rows):
            assert found[b] == 0 and score[b] == 0
            continue
        a, best = start + rows[0], start + rows[0]
        for row in rows[1:]:
            a = row + np.logaddexp.reduce(a[:, None] + transitions, axis=0)
            best = row + np.max(best[:, None] + transitions, axis=0)
        assert_close(found[b], np.logaddexp.reduce(a + end), 2e-6, "log norm")
        assert_close(score[b], np.max(best + end), 2e-6, "score")
    assert_close(tf.reduce_sum(marginals, axis=2), mask.astype(float), 1e-5, "sums")
    again = crf_score(decoded, x, transitions, mask, start, end)
    assert_close(again, score, 2e-6, "recomputed")


@pytest.mark.parametrize(
    "mask_kind, garbage", [("left", np.nan), ("holes", np.inf), ("empty_rows", 1e9)]
)
def test_the_padding_reaches_nothing(mask_kind, garbage):
    mask, (x, transitions, *ends) = make_mask(mask_kind), chain(10)
    tags = np.random.default_rng(11).integers(0, K, size=(B, T))
    dirty = np.where(mask[..., None], x, np.float32(garbage))
    outside = np.where(mask, tags, 10_000)  # no tag at all
    call = tf.function(everything)
    expected = tf.nest.flatten(call(tags, x, transitions, mask, *ends))
    found = tf.nest.flatten(call(outside, dirty, transitions, mask, *ends))
    for one, other in zip(found, expected, strict=True):
        assert np.all(np.isfinite(one))
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("empty", ["mask", "no steps", "no tags"])
def test_nothing_real_costs_nothing(empty):
    x, transitions, *ends = chain(12, steps=0 if empty == "no steps" else T)
    mask = np.zeros((B, T), bool) if empty == "mask" else None
    tags = np.full(x.shape[:2], -1 if empty == "no tags" else 1)
    log_norm, found, gradients, (decoded, score) = everything(tags, x, transitions, mask, *ends)
    np.testing.assert_array_equal(found, np.zeros(B))
    for gradient in gradients:
        np.testing.assert_array_equal(gradient, np.zeros(gradient.shape))
    if empty != "no tags":
        np.testing.assert_array_equal(log_norm, np.zeros(B))
        np.testing.assert_array_equal(score, np.zeros(B))
        np.testing.assert_array_equal(decoded, np.full(x.shape[:2], -1))


def test_large_scores_stay_finite():
    x, transitions, *ends = chain(13)
    tags = np.random.default_rng(14).integers(0, K, size=(B, T))
    found = everything(tags, 1e4 * x, 1e3 * transitions, None, *ends)
    assert all(np.all(np.isfinite(a)) for a in tf.nest.flatten(found))
    assert np.max(found[1]) <= 0


def test_second_derivatives_are_refused_or_right():
    x, transitions, *_ = (tf.constant(a) for a in chain(15, dtype="float64"))
    factor = tf.constant(inputs(16, features=K, dtype="float64"))

    def weighed(x, **options):
        return tf.reduce_sum(factor * crf_marginals(x, transitions, **options))

    with tf.GradientTape() as tape, pytest.raises(ValueError, match='backward="autodiff"'):
        tape.watch(x)
        tape.gradient(weighed(x), x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = weighed(x, backward="autodiff")
    exact = np.sum(tape.gradient(total, x) * factor)
    numeric = (weighed(x + 1e-5 * factor) - weighed(x - 1e-5 * factor)) / 2e-5
    assert_close(exact, numeric, 1e-7, "second derivative")


def test_sets_of_tags_for_each_step():
    """Potentials of -1e30 are tags that are not taken: in the sum, in marginals, in decoding."""
    x, transitions, *ends = chain(17, dtype="float64")
    may = np.random.default_rng(18).random(x.shape) > 0.4
    may[..., 1] |= ~may.any(axis=2)
    filtered = np.where(may, x, -1e30)
    oracles = enumerated(x, transitions, None, *ends)
    marginals = crf_marginals(filtered, transitions, None, *ends).numpy()
    tags, score = crf_decode(filtered, transitions, None, *ends)
    found = crf_log_norm(filtered, transitions, None, *ends)
    for b, oracle in enumerate(oracles):
        kept = np.array([may[b, range(T), path].all() for path in oracle.paths])
        assert_close(found[b], np.logaddexp.reduce(oracle.scores[kept]), 1e-12, "log norm")
        assert_close(score[b], oracle.scores[kept].max(), 1e-12, "score")
        assert_close(oracle.score(tags[b].numpy()), score[b], 1e-12, "recomputed")
    assert np.all(marginals[~may] == 0)


# -- layer, loss, model --------------------------------------------------------------------------


def built(mask=None, seed=1, **options):
    layer = CRF(K, **options)
    layer(inputs())
    layer.set_weights(weights_like(layer, seed))
    return layer


@every_mask
def test_layer_and_loss(mask_kind):
    layer, h, mask = built(), inputs(20), make_mask(mask_kind)
    labels = np.random.default_rng(21).integers(0, K, size=(B, T))
    kernel, bias, transitions, start, end = layer.get_weights()
    oracles = enumerated(h @ kernel + bias, transitions, mask, start, end)
    tags = layer(h, mask=mask)
    check_decoded(tags, [o.scores.max() for o in oracles], oracles, mask, 1e-5)
    real = np.ones((B, T), bool) if mask is None else mask
    costs = np.array([o.log_norm - o.score(row[on]) for o, row, on in zip(oracles, labels, real)])
    weight = np.array([1.0, 0.5, 3.0])
    counts = {"sequences": real.any(axis=1).sum(), "tokens": real.sum(), None: 1}
    for average, count in counts.items():
        loss = CRFLoss(average)
        assert_close(loss(labels, tags), costs.sum() / count, 1e-6, average)
        assert_close(loss(labels, tags, weight), (costs * weight).sum() / count, 1e-6, average)
        assert_close(loss(labels, tags, weight[:, None]), loss(labels, tags, weight), 0, average)


def test_labels_below_zero_are_no_steps():
    layer, h, mask = built(), inputs(22), make_mask("holes")
    labels = np.random.default_rng(23).integers(0, K, size=(B, T))
    hidden = np.where(mask, labels, -100)
    assert_close(CRFLoss()(hidden, layer(h)), CRFLoss()(labels, layer(h, mask=mask)), 0, "loss")
    assert_close(
        CRFLoss("tokens")(hidden, layer(h)),
        CRFLoss("tokens")(labels, layer(h, mask=mask)), 0, "tokens",
    )  # fmt: skip


def test_without_kernel_and_boundary_and_with_given_transitions():
    x, transitions, *_ = chain(24, dtype="float64")
    layer = CRF(K, use_kernel=False, use_boundary=False, transitions=transitions, dtype="float64")
    tags = layer(x)
    assert layer.weights == []
    expected, _ = crf_decode(x, transitions)
    np.testing.assert_array_equal(tags, expected)
    labels = np.ones((B, T), int)
    likelihood = crf_log_likelihood(labels, x, transitions)
    assert_close(CRFLoss()(labels, tags), -np.mean(likelihood), 1e-12, "loss")


@pytest.mark.parametrize("constrain_training", [False, True])
def test_constraints(constrain_training):
    may = np.array([[1, 1, 0, 1], [1, 0, 1, 0], [1, 1, 1, 1], [1, 1, 0, 1]], bool)
    options = {"allowed": may, "constrain_training": constrain_training}
    x, mask = 5 * inputs(25, features=K), make_mask("right")
    layer = CRF(K, use_kernel=False, **options)
    layer(x)
    layer.set_weights(weights_like(layer))
    oracles = enumerated(x, layer.get_weights()[0], mask, *layer.get_weights()[1:])
    tags = layer(x, mask=mask)
    labels = tags.numpy()
    labels[2, 0] = 0
    found = tags._crf_evidence
    likelihood, marginals = found.log_likelihood(labels), found.marginals().numpy()
    broken = 0
    for b, oracle in enumerate(oracles):
        steps = [np.r_[K, path, K] for path in oracle.paths]
        legal = np.array([may[one[:-1], one[1:]].all() for one in steps])
        broken += not legal[oracle.scores.argmax()]
        row = tags.numpy()[b, mask[b]]
        assert_close(oracle.score(row), oracle.scores[legal].max(), 1e-6, "the best legal one")
        among = np.logaddexp.reduce(oracle.scores[legal])
        norm = among if constrain_training else oracle.log_norm
        expected = oracle.score(labels[b, mask[b]]) - norm
        assert abs(likelihood[b] - expected) < 1e-4
        weights = np.where(legal, np.exp(oracle.scores - among), 0)
        for k, t in enumerate(np.flatnonzero(mask[b])):
            sums = np.bincount(oracle.paths[:, k], weights, minlength=K)
            assert_close(marginals[b, t], sums, 1e-5, "marginals")
    assert broken, "the rules have to change something"


def test_labels_that_break_the_rules_do_not_drown_the_others():
    may = np.ones((K + 1, K + 1), bool)
    may[0, 1] = False
    layer = built(allowed=may, constrain_training=True)
    labels = np.zeros((B, T), int)
    labels[1, 3] = 1
    with tf.GradientTape() as tape:
        loss = CRFLoss()(labels, layer(inputs(26)))
    assert abs(loss) < 1e3
    for gradient in tape.gradient(loss, [w.value for w in layer.trainable_weights]):
        assert np.all(np.isfinite(gradient)) and np.max(np.abs(gradient)) < 100


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_only_below_the_potentials(policy):
    layer, mask = built(dtype=policy), make_mask("right")
    kernel, bias, transitions, start, end = layer.get_weights()
    half = layer.compute_dtype
    h = tf.cast(inputs(27), half)
    x = tf.cast(tf.matmul(h, tf.cast(kernel, half)), "float32").numpy() + bias
    labels = np.random.default_rng(28).integers(0, K, size=(B, T))
    expected = crf_log_likelihood(labels, x, transitions, mask, start, end)
    assert_close(CRFLoss()(labels, layer(h, mask=mask)), -np.mean(expected), 1e-6, "loss")


NAMES = ["O", "B-X", "I-X"]


def tagger(recurrent=True, **options):
    """Tags of ids, of which 0 is padding."""
    ids = keras.Input((None,), dtype="int32", name="ids")
    h = keras_rnnx.Embedding(12, D, mask_zero=True)(ids)
    if recurrent:
        h = keras_rnnx.Bidirectional(keras_rnnx.LSTM(U, return_sequences=True))(h)
    return CRFModel(ids, CRF(K, allowed=allowed_transitions(NAMES), name="tags", **options)(h))


def sentences(rows=96, steps=9, seed=29):
    """Ids and their tags: a 3 begins an entity, which goes on up to the next even id.

    The tag of a step depends on those before it, so that no net without memory has them right; a
    CRF upon one has.
    """
    rng = np.random.default_rng(seed)
    ids = rng.integers(1, 12, size=(rows, steps))
    ids[np.arange(steps) >= rng.integers(3, steps + 1, size=(rows, 1))] = 0
    tags = np.zeros_like(ids)
    for t in range(steps):
        inside = (t > 0) & (tags[:, t - 1] > 0) & (ids[:, t] % 2 == 1)
        tags[:, t] = np.where(inside, 2, ids[:, t] == 3)
    return ids, tags


@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_fit_learns(jit_compile):
    ids, tags = sentences()
    model = tagger(recurrent=False, constrain_training=True)
    model.compile(keras.optimizers.Adam(0.1), metrics=[EntityF1(NAMES)], jit_compile=jit_compile)
    before = model.get_weights()
    history = model.fit(ids, tags, epochs=12, batch_size=32, verbose=0).history
    assert history["loss"][-1] < 0.3 * history["loss"][0]
    assert history["entity_f1"][-1] > 0.9
    changed = [np.any(a != b) for a, b in zip(before, model.get_weights())]
    assert all(changed), "every weight gets a gradient"
    found = model.predict(ids, batch_size=32, verbose=0)
    np.testing.assert_array_equal(found == -1, ids == 0)
    assert np.mean(found[ids > 0] == tags[ids > 0]) > 0.95


def test_what_a_model_says_goes_together():
    ids, tags = sentences(B)
    model = tagger(recurrent=False, jit_compile=False)
    model.set_weights(weights_like(model))
    model.compile("sgd", metrics=[EntityF1(NAMES)])
    evaluated = model.evaluate(ids, tags, return_dict=True, verbose=0)
    likelihood = model.log_likelihood(ids, tags)
    assert_close(evaluated["loss"], -np.mean(likelihood), 1e-6, "loss")
    metric, found = EntityF1(NAMES), model.predict(ids, verbose=0)
    metric.update_state(tags, found)
    assert_close(evaluated["entity_f1"], metric.result(), 1e-6, "f1")
    marginals = model.marginals(ids).numpy()
    assert_close(marginals.sum(axis=2), (ids > 0).astype(float), 1e-6, "marginals")


def test_training_decodes_only_if_a_metric_looks():
    """The graph that is run, after TensorFlow has pruned it, has no loop of Viterbi."""
    layer = built()

    @tf.function
    def loss(h):
        return CRFLoss()(np.ones((B, T), int), layer(h))

    pruned = loss.get_concrete_function(tf.TensorSpec([B, T, D])).graph
    needed, waiting = set(), [pruned.outputs[0].op]
    while waiting:
        op = waiting.pop()
        if op not in needed:
            needed.add(op)
            waiting += [tensor.op for tensor in op.inputs] + list(op.control_inputs)
    left_out = {op.type for op in pruned.get_operations() if op not in needed}
    assert "While" in left_out or "StatelessWhile" in left_out
    assert not {op.type for op in needed} & {"ArgMax", "While", "StatelessWhile"}


@pytest.mark.parametrize("as_model", ["CRFModel", pytest.param("Model", marks=pytest.mark.slow)])
def test_save_and_load(tmp_path, as_model):
    ids, tags = sentences(B)
    model = tagger(recurrent=False, transitions=chain()[1], jit_compile=False)
    if as_model == "Model":
        model = keras.Model(model.inputs, model.outputs)
    model.set_weights(weights_like(model))
    model.compile("sgd", CRFLoss(), metrics=[EntityF1(NAMES)])
    model.train_on_batch(ids, tags)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(model)
    np.testing.assert_array_equal(loaded.predict(ids, verbose=0), model.predict(ids, verbose=0))
    found, expected = (m.evaluate(ids, tags, verbose=0) for m in (loaded, model))
    np.testing.assert_array_equal(found, expected)
    loaded.train_on_batch(ids, tags)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    np.testing.assert_array_equal(clone.predict(ids, verbose=0), model.predict(ids, verbose=0))


@pytest.mark.slow
def test_a_server_answers_with_tags(tmp_path):
    ids, _ = sentences(B)
    model = tagger()
    model.set_weights(weights_like(model))
    expected = model.predict(ids, verbose=0)
    path = serving.export(model, tmp_path, example=ids, verbose=False)
    assert not serving.check(path)
    answer = tf.saved_model.load(str(path)).signatures["serving_default"]
    lengths = tf.constant((ids > 0).sum(axis=1), tf.int32)
    found = answer(ids=tf.constant(ids, tf.int32), lengths=lengths)["tags"]
    np.testing.assert_array_equal(found, expected)


def test_keras_exports_it_too(tmp_path):
    ids, _ = sentences(B)
    model = tagger(recurrent=False)
    model.set_weights(weights_like(model))
    model.export(tmp_path / "keras", verbose=False)
    loaded = tf.saved_model.load(str(tmp_path / "keras"))
    found = loaded.serve(tf.constant(ids, tf.int32))
    np.testing.assert_array_equal(found, model.predict(ids, verbose=0))


def test_one_of_several_outputs():
    ids, tags = sentences(32)
    head = tagger(recurrent=False, jit_compile=False)
    length = keras_rnnx.LastOverTime()(head.layers[1].output)
    length = keras.layers.Dense(1, name="length")(length)
    model = keras.Model(head.input, {"tags": head.output, "length": length})
    model.compile("adam", {"tags": CRFLoss(), "length": "mse"})
    y = {"tags": tags, "length": (ids > 0).sum(axis=1)[:, None].astype("float32")}
    model.fit(ids, y, verbose=0)
    found = model.evaluate(ids, y, verbose=0, return_dict=True)
    likelihood = CRFModel(head.input, head.output).log_likelihood(ids, tags)
    assert_close(found["tags_loss"], -np.mean(likelihood), 1e-5, "loss of the tags")


@pytest.mark.quick
def test_symbolic_shapes_are_those_of_values():
    layer = CRF(K)
    found = layer(keras.Input((None, D), batch_size=B))
    assert (found.shape, found.dtype) == ((B, None), "int32")
    assert layer(inputs()).dtype == tf.int32
    names = [weight.name for weight in layer.weights]
    assert names == ["kernel", "bias", "transitions", "start", "end"]


@pytest.mark.quick
def test_configuration():
    options = {
        "allowed": np.eye(K + 1, dtype=bool) | True,
        "constrain_training": True,
        "transitions": chain()[1],
        "use_boundary": False,
        "jit_compile": False,
        "backward": "autodiff",
        "kernel_regularizer": "l2",
        "bias_initializer": "ones",
        "name": "other",
    }
    config = CRF(K, **options).get_config()
    assert CRF.from_config(config).get_config() == config
    assert (config["name"], config["backward"], config["tags"]) == ("other", "autodiff", K)
    assert CRFLoss.from_config(CRFLoss("tokens").get_config()).average == "tokens"


@pytest.mark.quick
def test_errors():
    x, transitions, *_ = chain()
    with pytest.raises(ValueError, match=r"transitions .* shape \(2, 3\), expected \(3, 3\)"):
        crf_log_norm(x, transitions[:2])
    with pytest.raises(ValueError, match=r"mask .* shape \(3, 6\), expected \(3, 7\)"):
        crf_decode(x, transitions, np.ones((B, 6), bool))
    with pytest.raises(ValueError, match=r"potentials have the shape \(3, 7\)"):
        crf_decode(x[..., 0], transitions)
    with pytest.raises(TypeError, match="tags is '9'"):
        CRF("9")
    with pytest.raises(ValueError, match=r"allowed .* \(3, 3\), expected \(4, 4\) for 3 tags"):
        CRF(K, allowed=np.ones((K, K)))
    with pytest.raises(ValueError, match="return_sequences=True"):
        CRF(K)(np.ones((B, D), "float32"))
    with pytest.raises(ValueError, match=r"use_kernel=False .* expected potentials of 3 tags"):
        CRF(K, use_kernel=False)(inputs())
    with pytest.raises(ValueError, match="that no CRF layer gave"):
        CRFLoss()(np.ones((B, T), int), np.ones((B, T), int))
    with pytest.raises(ValueError, match=r"sample_weight of shape \(3, 7\), expected \(batch,\)"):
        CRFLoss()(np.ones((B, T), int), built()(inputs()), np.ones((B, T)))
    with pytest.raises(ValueError, match="average is 'all'"):
        CRFLoss("all")
    with pytest.raises(ValueError, match="backward is \"?'?half"):
        CRF(K, backward="half")

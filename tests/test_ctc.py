"""CTC: against enumeration of all paths, TensorFlow, PyTorch and a decoder written with dicts."""

import functools
import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import MASK_KINDS, B, D, T, U, assert_close, inputs, make_mask, weights_like
from hypothesis import given, settings
from hypothesis import strategies as st

import keras_rnnx as rnnx
from keras_rnnx import serving
from keras_rnnx.heads import CTCDecoder, CTCLoss, LabelErrorRate, ctc_loss, forced_align
from keras_rnnx.seq2seq import ErrorRate

C, L = 6, 4
every_mask = pytest.mark.parametrize("mask_kind", MASK_KINDS)
every_blank = pytest.mark.parametrize("blank", [0, 2, -1])


def log_softmax(logits):
    logits = np.asarray(logits, "float64")
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def spelled(path, blank):
    """The labels of a path."""
    return tuple(s for s, _ in itertools.groupby(path) if s != blank)


def enumerated(logits, blank):
    """`{labels: (log p over all paths, the best path, its log p)}` of one row `[T, C]`."""
    log_p, found = log_softmax(logits), {}
    for path in itertools.product(range(log_p.shape[1]), repeat=len(log_p)):
        score = sum(log_p[t, s] for t, s in enumerate(path))
        total, best, best_score = found.get(spelled(path, blank), (-math.inf, None, -math.inf))
        if score > best_score:
            best, best_score = path, score
        found[spelled(path, blank)] = (np.logaddexp(total, score), best, best_score)
    return found


def labels_of(rng, blank, lengths, classes=C, width=L):
    """`[B, L]` labels with -1 after them; few classes, so that many are repeated."""
    ids = [c for c in range(classes) if c != blank % classes]
    labels = rng.choice(ids[:3], size=(len(lengths), width)).astype("int32")
    return np.where(np.arange(width) < np.array(lengths)[:, None], labels, -1)


def torch_loss(labels, logits, mask, blank):
    """Losses and the gradient of their sum in double precision, each row from its real steps."""
    import torch

    losses, gradients = np.zeros(len(labels)), np.zeros(np.shape(logits))
    for b, row in enumerate(labels):
        steps = np.arange(np.shape(logits)[1]) if mask is None else np.flatnonzero(mask[b])
        real = [int(label) for label in row if label >= 0 and label != blank % C]
        if not len(steps):
            continue
        x = torch.tensor(np.asarray(logits, "float64")[b, steps], requires_grad=True)
        loss = torch.nn.functional.ctc_loss(
            x.log_softmax(-1)[:, None],
            torch.tensor([real], dtype=torch.long),
            (len(steps),),
            (len(real),),
            blank=blank % C,
            reduction="sum",
            zero_infinity=False,
        )
        losses[b] = loss.item()
        if np.isfinite(losses[b]):
            loss.backward()
            gradients[b, steps] = x.grad.numpy()
    return losses, gradients


def loss_and_gradient(labels, logits, **options):
    """Losses `[B]` and the gradient of their weighted sum, with the weights 1, 2, 3, ..."""
    x = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(x)
        losses = ctc_loss(labels, x, **options)
        total = tf.reduce_sum(losses * tf.range(1, 1 + len(labels), dtype=losses.dtype))
    return losses.numpy(), tape.gradient(total, x).numpy()


def weighted(gradients):
    return gradients * np.arange(1, 1 + len(gradients))[:, None, None]


@pytest.fixture
def plain():
    """Nothing is compiled: for tests of numbers that a compiled loop has too."""
    with rnnx.portable():
        yield


@functools.cache
def graph_of(kind, blank):
    """A graph that many small cases share."""

    @tf.function
    def loss(labels, logits, mask):
        with rnnx.portable():  # nothing to compile
            losses = ctc_loss(labels, logits, mask=mask, blank=blank)
            return losses, forced_align(labels, logits, mask=mask, blank=blank)

    decoder = CTCDecoder(blank=blank, beam_width=40, n_best=40)
    search = tf.function(lambda logits, mask: decoder(logits, mask=mask))
    return {"loss": loss, "search": search}[kind]


# The loss


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_loss_is_that_of_all_paths(data):
    blank = 1
    rng = np.random.default_rng(data.draw(st.integers(0, 9999)))
    logits = rng.normal(scale=2, size=(2, 4, 3)).astype("float32")
    labels = rng.integers(-1, 3, size=(2, 3))
    mask = rng.random((2, 4)) < 0.8
    mask[:, data.draw(st.integers(0, 3))] = True
    losses, aligned = graph_of("loss", blank)(labels, logits, mask)
    losses, scores = losses.numpy(), aligned.scores.numpy()
    for b in range(2):
        real = tuple(label for label in labels[b] if label >= 0 and label != blank % 3)
        all_paths = enumerated(logits[b, mask[b]], blank % 3)
        total, path, score = all_paths.get(real, (-math.inf, None, -math.inf))
        assert losses[b] == pytest.approx(-total, rel=1e-5, abs=1e-6)
        assert scores[b] == pytest.approx(score, rel=1e-5, abs=1e-6)
        expected = np.full(4, -1)
        if path is not None:
            expected[mask[b]] = path
        np.testing.assert_array_equal(aligned.ids[b], expected)


@pytest.mark.quick
@pytest.mark.parametrize("compiled", [True, False])
@every_blank
def test_loss_and_gradient_are_those_of_pytorch_and_tensorflow(blank, compiled):
    pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    steps, counts = np.array([23, 9, 17, 23, 1]), [7, 4, 0, 1, 1]
    logits = rng.normal(scale=3, size=(5, 23, C)).astype("float32")
    labels = labels_of(rng, blank, counts, width=8)
    mask = np.arange(23) < steps[:, None]
    expected, gradients = torch_loss(labels, logits, mask, blank)
    assert np.all(np.isfinite(expected))

    def ours():
        return loss_and_gradient(labels, logits, sequence_length=steps, blank=blank)

    if compiled:
        losses, found = ours()
    else:
        with rnnx.portable():
            losses, found = ours()
    assert_close(losses, expected, 1e-5, "loss")
    assert_close(found, weighted(gradients), 1e-4, "gradient")
    assert np.all(found[~mask] == 0)
    theirs = tf.nn.ctc_loss(
        tf.constant(np.maximum(labels, 0)),
        tf.constant(logits),
        tf.constant(counts),
        tf.constant(steps, tf.int32),
        logits_time_major=False,
        blank_index=blank,
    )
    assert_close(losses, theirs, 1e-5, "loss of TensorFlow")


@every_mask
def test_gradient_in_double_precision(mask_kind):
    """For each number of the logits by itself, in a row that may not be spelled too."""
    mask = make_mask(mask_kind)
    logits, labels = (
        inputs(1, features=C, dtype="float64"),
        labels_of(np.random.default_rng(2), 0, [3, 2, 1]),
    )
    _, found = loss_and_gradient(labels, logits, mask=mask)
    assert np.abs(found).max() > 0.1
    with rnnx.portable():  # nothing to compile for the many rows
        numeric = np.zeros_like(logits)
        for b in range(B):
            moves = 1e-5 * np.eye(T * C).reshape(T * C, T, C)
            rows = np.concatenate([logits[b] + moves, logits[b] - moves])
            masks = None if mask is None else np.repeat(mask[b][None], len(rows), 0)
            losses = ctc_loss(np.repeat(labels[b][None], len(rows), 0), rows, mask=masks).numpy()
            losses = np.where(np.isfinite(losses), losses, 0)
            difference = losses[: T * C] - losses[T * C :]
            numeric[b] = (b + 1) * (difference / 2e-5).reshape(T, C)
    np.testing.assert_allclose(found, numeric, rtol=0, atol=2e-9)


@every_mask
def test_masks_of_any_pattern(mask_kind):
    pytest.importorskip("torch")
    mask, logits = make_mask(mask_kind), inputs(4, features=C)
    labels = labels_of(np.random.default_rng(5), 1, [2, 1, 1])
    expected, gradients = torch_loss(labels, logits, mask, 1)
    losses, found = loss_and_gradient(labels, logits, mask=mask, blank=1)
    np.testing.assert_array_equal(np.isinf(losses), np.isinf(expected))
    finite = np.isfinite(expected)
    assert_close(losses[finite], expected[finite], 1e-5, "loss")
    assert_close(found, weighted(gradients), 1e-4, "gradient")
    again, attached = tf.constant(logits), tf.constant(mask) if mask is not None else None
    again._keras_mask = attached
    np.testing.assert_array_equal(ctc_loss(labels, again, blank=1), losses)


@pytest.mark.parametrize("garbage", [np.nan, np.inf])
@pytest.mark.parametrize("mask_kind", ["holes", "empty_rows"])
def test_the_padding_reaches_nothing(mask_kind, garbage):
    mask, logits = make_mask(mask_kind), inputs(6, features=C)
    labels = labels_of(np.random.default_rng(5), 0, [2, 2, 1])
    dirty = np.where(mask[..., None], logits, np.float32(garbage))
    clean, gradient = loss_and_gradient(labels, logits, mask=mask)
    losses, found = loss_and_gradient(labels, dirty, mask=mask)
    np.testing.assert_array_equal(losses, clean)
    np.testing.assert_array_equal(found, gradient)
    assert np.all(found[~mask] == 0) and np.all(np.isfinite(found))
    with rnnx.portable():
        for decoder in (CTCDecoder(n_best=3), CTCDecoder(method="greedy")):
            for name, value in decoder(logits, mask=mask).items():
                np.testing.assert_array_equal(decoder(dirty, mask=mask)[name], value)
        for one, other in zip(*(forced_align(labels, a, mask=mask) for a in (logits, dirty))):
            np.testing.assert_array_equal(one, other)


def test_nan_in_a_real_step_is_not_hidden(plain):
    logits = inputs(6, features=C)
    logits[1, -1] = np.nan
    losses = ctc_loss([[1], [1], [1]], logits).numpy()
    assert np.isnan(losses[1]) and np.all(np.isfinite(losses[[0, 2]]))


@pytest.mark.quick
def test_rows_without_a_step_cost_nothing(plain):
    mask, logits = make_mask("empty_rows"), inputs(6, features=C)
    labels = np.array([[1, 2], [3, 1], [2, -1]])
    losses, gradient = loss_and_gradient(labels, logits, mask=mask)
    assert losses[1] == 0 and np.all(gradient[1] == 0) and np.all(losses[[0, 2]] > 0)
    logits, labels = tf.constant(logits), tf.constant(labels)
    logits._keras_mask = tf.constant(mask)
    assert float(CTCLoss()(labels, logits)) == pytest.approx(losses.sum() / 2, rel=1e-6)
    by_label = CTCLoss(average="labels")(labels, logits)
    assert float(by_label) == pytest.approx(losses.sum() / 3, rel=1e-6)
    assert float(CTCLoss(average=None)(labels, logits)) == pytest.approx(losses.sum(), rel=1e-6)
    weight = np.array([0.5, 7, 2])
    found = CTCLoss(average=None)(labels, logits, sample_weight=weight[:, None])
    assert float(found) == pytest.approx((losses * weight).sum(), rel=1e-6)
    nothing, _ = loss_and_gradient(labels.numpy(), inputs(steps=0, features=C))
    np.testing.assert_array_equal(nothing, np.zeros(B))


def test_rows_that_no_path_spells(plain):
    """Three equal labels need five steps."""
    logits, lengths = inputs(7, features=C), [5, 4, 7]
    labels = np.array([[2, 2, 2], [2, 2, 2], [1, -1, -1]])
    losses, gradient = loss_and_gradient(labels, logits, sequence_length=lengths)
    np.testing.assert_array_equal(np.isinf(losses), [False, True, False])
    assert np.all(gradient[1] == 0) and np.abs(gradient[[0, 2]]).min(axis=(1, 2)).max() < 1
    assert np.abs(gradient[0]).max() > 0.1
    masked = tf.constant(logits)
    masked._keras_mask = tf.sequence_mask(lengths, T)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"no path spells.*The rows of the"):
        CTCLoss()(labels, masked)
    assert np.isinf(CTCLoss(infinite="keep")(labels, masked))
    without = CTCLoss(infinite="zero", average=None)(labels, masked)
    assert float(without) == pytest.approx(losses[[0, 2]].sum(), rel=1e-6)
    weights = np.array([1.0, 0.0, 1.0])
    assert float(CTCLoss(average=None)(labels, masked, weights)) == pytest.approx(float(without))
    impossible = logits.copy()
    impossible[2, :, 1] = -np.inf
    losses, gradient = loss_and_gradient(labels, impossible)
    assert np.isinf(losses[2]) and np.all(gradient[2] == 0) and np.all(np.isfinite(gradient))


def test_labels_by_length_or_by_padding(plain):
    logits = inputs(8, features=C)
    padded = np.array([[3, -1, 1, 1], [-1, 5, 2, 2], [1, 2, 3, -7]])  # 2 is the blank
    lengths = np.array([[3, 1, 1, 4], [5, 4, 3, 1], [1, 3, 3, 3]])
    expected = ctc_loss(lengths, logits, label_length=[3, 1, 2], blank=2)
    np.testing.assert_array_equal(ctc_loss(padded, logits, blank=2), expected)
    assert np.all(np.isfinite(expected))


@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_unknown_sizes(jit_compile):
    @tf.function(
        jit_compile=jit_compile,
        input_signature=[
            tf.TensorSpec([None, None], tf.int32),
            tf.TensorSpec([None, None, C]),
            tf.TensorSpec([None], tf.int32),
        ],
    )
    def run(labels, logits, lengths):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            losses = ctc_loss(labels, logits, sequence_length=lengths)
        found = CTCDecoder(beam_width=5, n_best=5)(logits, sequence_length=lengths)
        return losses, tape.gradient(losses, logits), found

    for batch, steps, width in ((3, 7, 4), (2, 19, 3)):
        rng = np.random.default_rng(steps)
        logits = inputs(steps, batch, steps, C)
        labels = labels_of(rng, 0, [min(width, steps)] + [1] * (batch - 1), width=width)
        lengths = np.array([steps] + [max(1, steps - 3)] * (batch - 1), "int32")
        losses, gradient, found = run(labels, logits, lengths)
        with rnnx.portable():
            expected, wanted = loss_and_gradient(labels, logits, sequence_length=lengths)
        assert_close(losses, expected, 1e-6, "loss")
        assert_close(weighted(gradient), wanted, 1e-5, "gradient")
        for b, length in enumerate(lengths):
            assert_same_results(results(found, b), by_dicts(logits[b, :length], 0, 5))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_single(dtype, plain):
    """Over 300 classes, of which bfloat16 cannot tell 256 from 257."""
    logits = tf.cast(inputs(9, features=300), dtype)
    expected = ctc_loss([[256], [257], [1]], tf.cast(logits, "float32"))
    np.testing.assert_array_equal(ctc_loss([[256], [257], [1]], logits), expected)
    keras.config.set_dtype_policy(f"mixed_{dtype}")
    loss = CTCLoss(average=None)
    found = float(loss(np.array([[256], [257], [1]]), logits))
    assert found == pytest.approx(np.sum(expected))
    decoder = CTCDecoder(method="greedy")
    wide = inputs(9, features=300)
    assert_close(decoder(wide)["scores"], log_softmax(wide).max(-1).sum(-1), 1e-6, "score")


# Alignment


def test_alignment_has_the_place_of_each_label(plain):
    logits = np.full((1, 8, C), -9.0, "float32")
    for t, symbol in enumerate([0, 3, 3, 0, 3, 5, 0, 0]):
        logits[0, t, symbol] = 9.0
    mask = np.array([[True] * 5 + [False, True, True]])
    found = forced_align([[3, 3]], logits, mask=mask)
    np.testing.assert_array_equal(found.ids, [[0, 3, 3, 0, 3, -1, 0, 0]])
    np.testing.assert_array_equal(found.places, [[-1, 0, 0, -1, 1, -1, -1, -1]])
    never = forced_align([[3, 3, 3, 3, 3]], logits)
    assert np.all(never.ids == -1) and np.all(never.places == -1)
    assert never.scores.numpy() == -np.inf


# Decoding


def by_dicts(logits, blank, width, model=None):
    """Prefix beam search of Hannun et al. with a dict of prefixes: `[(prefix, score)]`."""
    log_p, add = log_softmax(logits), np.logaddexp
    beam = {(): (0.0, -np.inf)}
    spoken = lambda prefix: sum(model(prefix[:i])[c] for i, c in enumerate(prefix)) if model else 0
    for step in log_p:
        new = {}

        def put(prefix, in_blank, in_label, new=new):
            old = new.get(prefix, (-np.inf, -np.inf))
            new[prefix] = (add(old[0], in_blank), add(old[1], in_label))

        for prefix, (in_blank, in_label) in beam.items():
            put(prefix, add(in_blank, in_label) + step[blank], -np.inf)
            if prefix:
                put(prefix, -np.inf, in_label + step[prefix[-1]])
            for c in range(len(step)):
                if c != blank:
                    again = prefix and prefix[-1] == c
                    total = in_blank if again else add(in_blank, in_label)
                    put((*prefix, c), -np.inf, total + step[c])
        ranked = sorted(new, key=lambda prefix: -(add(*new[prefix]) + spoken(prefix)))
        beam = {prefix: new[prefix] for prefix in ranked[:width]}
    return [(prefix, add(*found) + spoken(prefix)) for prefix, found in beam.items()]


def results(found, b):
    """`[(prefix, score)]` of a row."""
    rows = zip(found["ids"][b].numpy(), found["lengths"][b].numpy(), found["scores"][b].numpy())
    rows = [(row, n, score) for row, n, score in rows if np.isfinite(score)]
    assert all(np.all(row[n:] == -1) for row, n, _ in rows)
    return [(tuple(int(i) for i in row[:n]), float(score)) for row, n, score in rows]


def assert_same_results(found, expected):
    assert [prefix for prefix, _ in found] == [prefix for prefix, _ in expected]
    scores = [[score for _, score in one] for one in (found, expected)]
    np.testing.assert_allclose(*scores, rtol=1e-5, atol=1e-5)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_wide_beam_is_exact(data):
    blank = data.draw(st.sampled_from([0, 2]))
    rng = np.random.default_rng(data.draw(st.integers(0, 9999)))
    logits = rng.normal(scale=2, size=(2, 4, 3)).astype("float32")
    mask = rng.random((2, 4)) < 0.8
    found = graph_of("search", blank)(logits, mask)
    for b in range(2):
        expected = enumerated(logits[b, mask[b]], blank)
        expected = sorted(((k, v[0]) for k, v in expected.items()), key=lambda item: -item[1])
        assert_same_results(results(found, b), expected)


@pytest.mark.quick
@pytest.mark.parametrize("width", [1, 2, 3, 7])
@every_blank
def test_a_narrow_beam_is_that_of_dicts(blank, width):
    """Many steps and few classes: prefixes are lost, come again, and grow into each other."""
    logits = np.random.default_rng(width).normal(size=(4, 40, 3)).astype("float32")
    lengths = [40, 31, 1, 22]
    decoder = CTCDecoder(blank=blank, beam_width=width, n_best=width)
    found = tf.function(decoder)(logits, sequence_length=tf.constant(lengths))
    for b, length in enumerate(lengths):
        expected = by_dicts(logits[b, :length], blank % 3, width)
        assert_same_results(results(found, b), expected)


@every_mask
def test_decoding_of_any_mask(mask_kind):
    logits, mask = 2 * inputs(10, features=C), make_mask(mask_kind)
    beam, best = CTCDecoder(beam_width=4, n_best=2), CTCDecoder(method="greedy", n_best=1)
    found, path = beam(logits, mask=mask), best(logits, mask=mask)
    for b in range(B):
        steps = logits[b] if mask is None else logits[b, mask[b]]
        assert_same_results(results(found, b), by_dicts(steps, 0, 4)[:2])
        log_p = log_softmax(steps)
        expected = (spelled([int(s) for s in log_p.argmax(axis=1)], 0), log_p.max(axis=1).sum())
        assert_same_results(results(path, b), [expected])


def test_greedy_is_that_of_tensorflow():
    logits, lengths = inputs(11, batch=5, steps=29, features=3), [29, 3, 11, 1, 29]
    found = CTCDecoder(method="greedy", blank=-1)(logits, sequence_length=lengths)
    theirs, _ = tf.nn.ctc_greedy_decoder(np.swapaxes(logits, 0, 1), lengths, blank_index=-1)
    theirs = tf.sparse.to_dense(theirs[0], default_value=-1)
    np.testing.assert_array_equal(found["ids"][:, : theirs.shape[1]], theirs)
    assert np.all(found["ids"][:, theirs.shape[1] :] == -1)


@keras.saving.register_keras_serializable(package="test_ctc")
class Bigrams:
    """A language model: the score of a label after the one before it, or at the start."""

    def __init__(self, table):
        self.table = table

    def __call__(self, prefixes, lengths):
        place = tf.maximum(lengths - 1, 0)
        last = tf.gather(prefixes, place, axis=1, batch_dims=1)
        return tf.gather(tf.constant(self.table), last + 1)  # -1: the start

    def of(self, prefix):
        return self.table[prefix[-1] + 1 if prefix else 0]

    def get_config(self):
        return {"table": self.table}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def bigrams(classes=C):
    return Bigrams(np.random.default_rng(2).normal(size=(classes + 1, classes)).tolist())


def test_language_model(tmp_path):
    logits, model = inputs(12, features=C, steps=9), bigrams()
    decoder = CTCDecoder(beam_width=5, n_best=3, language_model=model)
    found = tf.function(decoder)(logits)
    for b in range(B):
        expected = by_dicts(logits[b], 0, 5, model.of)[:3]
        assert_same_results(results(found, b), expected)
    without = CTCDecoder(beam_width=5, n_best=3)(logits)
    assert not np.array_equal(without["ids"], found["ids"]), "a model that changes nothing"
    x = keras.Input((None, C))
    keras.Model(x, decoder(x)).save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for name, value in loaded.predict(logits, verbose=0).items():
        np.testing.assert_allclose(value, found[name], rtol=1e-6)


def test_rows_do_not_depend_on_their_neighbours():
    logits, lengths = inputs(13, batch=4, steps=12, features=C), np.array([12, 5, 9, 0])
    decoder = CTCDecoder(beam_width=6, n_best=6)
    found = decoder(logits, sequence_length=lengths)
    for b in range(3):
        alone = decoder(logits[b : b + 1, : lengths[b]])
        assert_same_results(results(found, b), results(alone, 0))
    assert results(found, 3) == [((), 0.0)], "no step: nothing, for certain"


# In models


def recognizer(seed=1):
    model = keras.Sequential(
        [
            keras.Input((None, D), name="x"),
            keras.layers.Masking(),
            rnnx.LSTM(
                U, return_sequences=True, jit_compile=False
            ),  # nothing to compile but the loss
            keras.layers.Dense(C),
        ]
    )
    model.set_weights(weights_like(model, seed))
    return model


def masked_batch():
    x = inputs(14)
    x[1, 4:] = 0
    x[2, :3] = 0  # padding on the left
    return x, np.array([[1, 2, 2], [3, -1, -1], [2, 4, -1]])


@pytest.mark.parametrize(
    "policy, jit_compile",
    [
        ("float32", False),
        pytest.param("float32", True, marks=pytest.mark.slow),
        pytest.param("mixed_bfloat16", False, marks=pytest.mark.slow),
    ],
)
def test_fit_with_masks(policy, jit_compile, tmp_path):
    keras.config.set_dtype_policy(policy)
    model, (x, y) = recognizer(), masked_batch()
    model.compile(keras.optimizers.Adam(0.05), CTCLoss(), jit_compile=jit_compile)
    mask = np.any(x != 0, axis=-1)
    expected = ctc_loss(y, model(x), mask=mask).numpy().mean()
    history = model.fit(x, y, epochs=25, batch_size=B, shuffle=False, verbose=0).history["loss"]
    assert history[0] == pytest.approx(expected, rel=1e-2 if "16" in policy else 1e-5)
    assert history[-1] < 0.5 * history[0]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.loss, CTCLoss)
    found, wanted = (m.evaluate(x, y, verbose=0, batch_size=B) for m in (loaded, model))
    assert found == pytest.approx(wanted, rel=1e-5)


def test_error_in_a_graph_names_the_rows():
    model, (x, _) = recognizer(), masked_batch()
    model.compile("sgd", CTCLoss())
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"no path spells.*\[1\]"):
        model.fit(x, np.array([[1, 2, 2], [3, 3, 3], [2, 4, -1]]), batch_size=B, shuffle=False)


@pytest.mark.parametrize(
    "method, n_best", [("beam", 3), pytest.param("greedy", None, marks=pytest.mark.slow)]
)
@pytest.mark.slow
def test_export(method, n_best, tmp_path):
    model = recognizer()
    decoder = CTCDecoder(method=method, n_best=n_best)
    model = keras.Model(model.inputs, decoder(model.outputs[0]))
    values, _ = masked_batch()
    version = serving.export(model, tmp_path / "served", verbose=False)
    assert serving.check(version, verbose=False) == []
    request = {"x": values[:2], "lengths": np.array([7, 4], "int32")}
    loaded = tf.saved_model.load(str(version)).signatures["serving_default"]
    found = loaded(**{name: tf.constant(value) for name, value in request.items()})
    expected = model.predict(values[:2], verbose=0)
    assert set(found) == {"ids", "lengths", "scores"}
    np.testing.assert_array_equal(found["ids"], expected["ids"])
    np.testing.assert_array_equal(found["lengths"], expected["lengths"])
    np.testing.assert_allclose(found["scores"], expected["scores"], rtol=1e-5)


@pytest.mark.quick
@pytest.mark.parametrize("n_best", [None, 1, 2])
def test_shapes_and_types_of_symbols_are_those_of_values(n_best):
    few = (B,) if n_best is None else (B, n_best)
    decoder = CTCDecoder(n_best=n_best)
    symbols = decoder(keras.Input((None, C), batch_size=B))
    values = decoder(inputs(features=C))
    shapes = {"ids": (*few, None), "lengths": few, "scores": few}
    assert {name: symbol.shape for name, symbol in symbols.items()} == shapes
    for name, value in values.items():
        assert value.dtype.name == symbols[name].dtype
        assert tuple(value.shape) == tuple(T if n is None else n for n in shapes[name])
        assert getattr(value, "_keras_mask", None) is None


# The metric


def edit_distance(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row, old = [i], row
        for j, y in enumerate(b, 1):
            row.append(min(old[j] + 1, row[-1] + 1, old[j - 1] + (x != y)))
    return row[-1]


@every_mask
def test_label_error_rate(mask_kind):
    metric, errors, count = LabelErrorRate(blank=1), 0, 0
    mask = make_mask(mask_kind)
    for seed in (1, 2):
        logits = inputs(seed, features=C)
        labels = labels_of(np.random.default_rng(seed), 1, [3, 2, 4])
        for b in range(B):
            steps = logits[b] if mask is None else logits[b, mask[b]]
            if len(steps):
                real = [label for label in labels[b] if label >= 0]
                errors += edit_distance(spelled(steps.argmax(axis=1), 1), real)
                count += len(real)
        logits = tf.constant(logits)
        logits._keras_mask = None if mask is None else tf.constant(mask)
        metric.update_state(labels, logits)
    assert float(metric.result()) == pytest.approx(errors / count)


def test_metric_in_fit_is_that_of_the_decoder():
    model, (x, y) = recognizer(), masked_batch()
    model.compile("sgd", CTCLoss(), metrics=[LabelErrorRate()])
    found = model.evaluate(x, y, verbose=0, return_dict=True)
    rate = ErrorRate(end=-1, padding=-1)
    rate.update_state(y, CTCDecoder(method="greedy")(model(x))["ids"])
    assert found["label_error_rate"] == pytest.approx(float(rate.result()))
    assert found["label_error_rate"] > 0


# Arguments


@pytest.mark.quick
def test_configurations():
    decoder = CTCDecoder(2, "beam", 7, 3, bigrams(), name="other")
    again = CTCDecoder.from_config(decoder.get_config())
    assert again.get_config() == decoder.get_config()
    assert (again.blank, again.beam_width, again.n_best) == (2, 7, 3)
    assert again.language_model.table == bigrams().table
    for made in (CTCLoss(2, "labels", "zero", "other"), LabelErrorRate(2, "other")):
        again = type(made).from_config(made.get_config())
        assert again.get_config() == made.get_config() and again.blank == 2
    loss = CTCLoss.from_config(CTCLoss(2, "labels", "zero").get_config())
    assert (loss.average, loss.infinite) == ("labels", "zero")


@pytest.mark.quick
def test_errors():
    logits, labels = inputs(features=C), np.ones((B, 2), int)
    with pytest.raises(ValueError, match=r"logits of shape \(3, 4\).*expected floats"):
        ctc_loss(labels, np.ones((3, 4), "float32"))
    with pytest.raises(ValueError, match=r"labels of shape \(2, 2\).*expected ids"):
        ctc_loss(labels[:2], logits)
    with pytest.raises(ValueError, match=r"no class: the logits have 6 classes.* largest is 6"):
        ctc_loss(6 * labels, logits)
    with pytest.raises(tf.errors.InvalidArgumentError, match="no class"):
        tf.function(ctc_loss)(tf.constant(6 * labels), tf.constant(logits))
    with pytest.raises(ValueError, match=r"mask of shape \(3, 6\)"):
        ctc_loss(labels, logits, mask=np.ones((3, 6), bool))
    with pytest.raises(ValueError, match=r"sequence_length of shape \(2,\)"):
        ctc_loss(labels, logits, sequence_length=[1, 2])
    with pytest.raises(ValueError, match=r"label_length of .* type float32"):
        ctc_loss(labels, logits, label_length=[1.0, 2.0, 1.0])
    with pytest.raises(ValueError, match="blank=6 .*expected an integer from -6 to 5"):
        forced_align(labels, logits, blank=6)
    with pytest.raises(ValueError, match="average is 'tokens'"):
        CTCLoss(average="tokens")
    with pytest.raises(ValueError, match="infinite is None"):
        CTCLoss(infinite=None)
    with pytest.raises(ValueError, match=r"sample_weight of shape \(3, 7\)"):
        CTCLoss()(labels, logits, sample_weight=np.ones((B, T)))
    with pytest.raises(ValueError, match="method is 'viterbi'"):
        CTCDecoder(method="viterbi")
    with pytest.raises(ValueError, match="n_best is 5 .*expected at most 4"):
        CTCDecoder(beam_width=4, n_best=5)
    with pytest.raises(TypeError, match="beam_width is 4.0"):
        CTCDecoder(beam_width=4.0)
    with pytest.raises(ValueError, match='needs method="beam"'):
        CTCDecoder(method="greedy", language_model=bigrams())
    with pytest.raises(ValueError, match=r"scores of shape \(\d+, 5\), expected"):
        CTCDecoder(language_model=lambda ids, lengths: tf.zeros([tf.shape(ids)[0], 5]))(logits)

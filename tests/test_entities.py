"""Schemes of tags and metrics of entities: against the entities that tags are written from."""

import functools
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_rnnx.heads import EntityF1, EntityPrecision, EntityRecall, allowed_transitions

KINDS = ("X", "Y")
NAMES = {
    scheme: ["O", *(f"{prefix}-{kind}" for prefix in prefixes for kind in KINDS)]
    for scheme, prefixes in (("BIO", "BI"), ("IOB1", "BI"), ("BIOES", "BIES"))
}
METRICS = (EntityPrecision, EntityRecall, EntityF1)


def layouts(steps):
    """All ways to cut `steps` into pieces: steps outside and entities, as `(type or None, n)`."""
    if not steps:
        yield ()
    for n in range(1, steps + 1):
        for rest in layouts(steps - n):
            for kind in (None, *KINDS) if n == 1 else KINDS:
                yield ((kind, n), *rest)


def written(layout, scheme):
    """The tags of a layout."""
    tags, before = [], None
    for kind, n in layout:
        if kind is None:
            tags.append("O")
        elif scheme == "IOB1":
            tags += [f"{'B' if before == kind else 'I'}-{kind}", *((n - 1) * [f"I-{kind}"])]
        elif scheme == "BIO":
            tags += [f"B-{kind}", *((n - 1) * [f"I-{kind}"])]
        else:
            prefixes = "S" if n == 1 else "B" + (n - 2) * "I" + "E"
            tags += [f"{prefix}-{kind}" for prefix in prefixes]
        before = kind
    return tuple(tags)


@pytest.mark.quick
@pytest.mark.parametrize("scheme", NAMES)
def test_allowed_are_just_the_sequences_that_can_be_written(scheme):
    names = NAMES[scheme]
    may = allowed_transitions(names, scheme)
    assert may.dtype == bool and may.shape == (len(names) + 1, len(names) + 1)
    edge = len(names)
    for steps in (1, 2, 3, 4):
        expected = {written(layout, scheme) for layout in layouts(steps)}
        found = set()
        for path in itertools.product(range(len(names)), repeat=steps):
            whole = (edge, *path, edge)
            if all(may[pair] for pair in zip(whole, whole[1:])):
                found.add(tuple(names[k] for k in path))
        assert found == expected


def entities(tags):
    """`{(type, first, last)}` by the definition of seqeval's default mode, step by step."""
    found, kind, first, closed = set(), None, 0, False
    for t, tag in enumerate([*tags, "O"]):
        prefix, _, now = tag.partition("-")
        goes_on = kind is not None and prefix in ("I", "E") and now == kind and not closed
        if kind is not None and not goes_on:
            found.add((kind, first, t - 1))
            kind = None
        if not goes_on and prefix != "O":
            kind, first = now, t
        closed = prefix in ("E", "S")
    return found


def scores(rows):
    """Precision, recall and F1 of pairs of tags, `[(true, predicted)]`."""
    pairs = [(entities(true), entities(found)) for true, found in rows]
    right = sum(len(true & found) for true, found in pairs)
    predicted, there = sum(len(found) for _, found in pairs), sum(len(true) for true, _ in pairs)
    precision, recall = right / max(predicted, 1), right / max(there, 1)
    both = precision + recall
    return precision, recall, 2 * precision * recall / both if both else 0.0


def results(names, true, found, **options):
    """Precision, recall and F1 of a batch, in a graph that is traced once for each scheme."""
    metrics, update = traced(tuple(names))
    for metric in metrics:
        metric.reset_state()
    update(tf.constant(true), tf.convert_to_tensor(found), **options)
    return [float(metric.result()) for metric in metrics]


@functools.cache
def traced(names):
    metrics = [metric(names) for metric in METRICS]

    @tf.function
    def update(true, found, mask=None, sample_weight=None):
        if mask is not None:
            found._keras_mask = mask
        for metric in metrics:
            metric.update_state(true, found, sample_weight)

    return metrics, update


def rows_of(names, true, found):
    for one, other in zip(np.asarray(true), np.asarray(found)):
        real = (one >= 0) & (other >= 0)
        yield [names[k] for k in one[real]], [names[k] for k in other[real]]


def draw_tags(data, names, shape):
    """Random tags, and predictions that agree with most of them; -1 where there is no step."""
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    low = data.draw(st.sampled_from([-1, 0]))
    true, other = rng.integers(low, len(names), (2, *shape))
    return true, np.where(rng.random(shape) < 0.75, true, other)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(data=st.data())
@pytest.mark.parametrize("scheme", ["BIO", "BIOES"])
def test_scores_of_any_tags(scheme, data):
    names = NAMES[scheme]
    true, found = draw_tags(data, names, (4, 9))
    expected = scores(rows_of(names, true, found))
    np.testing.assert_allclose(results(names, true, found), expected, atol=1e-6)


def test_scores_are_those_of_seqeval():
    seqeval = pytest.importorskip("seqeval.metrics", reason="seqeval is not installed")
    rng = np.random.default_rng(3)
    for names in NAMES.values():
        for _ in range(30):
            true, other = rng.integers(0, len(names), (2, 5, 8))
            found = np.where(rng.random(true.shape) < 0.7, true, other)
            one, two = zip(*rows_of(names, true, found))
            one, two = list(one), list(two)
            named = seqeval.precision_score, seqeval.recall_score, seqeval.f1_score
            expected = [score(one, two, zero_division=0) for score in named]
            np.testing.assert_allclose(results(names, true, found), expected, atol=1e-6)


def test_counts_add_up_over_batches_and_weights_and_masks_count():
    names = NAMES["BIO"]
    rng = np.random.default_rng(4)
    true, other = rng.integers(0, len(names), (2, 6, 9))
    found = np.where(rng.random(true.shape) < 0.75, true, other)
    metrics = [metric(names) for metric in METRICS]
    for rows in (slice(0, 2), slice(2, 6)):
        for metric in metrics:
            metric.update_state(true[rows], found[rows])
    expected = scores(rows_of(names, true, found))
    np.testing.assert_allclose([m.result() for m in metrics], expected, atol=1e-6)
    # A row that counts twice is two rows.
    weight = np.array([2.0, 1, 1, 0, 1, 1])
    chosen = [0, 0, 1, 2, 4, 5]
    expected = scores(rows_of(names, true[chosen], found[chosen]))
    weighed = results(names, true, found, sample_weight=tf.constant(weight))
    np.testing.assert_allclose(weighed, expected, atol=1e-6)
    mask = rng.random(true.shape) > 0.3
    expected = scores(rows_of(names, np.where(mask, true, -1), found))
    np.testing.assert_allclose(
        results(names, true, found, mask=tf.constant(mask)), expected, atol=1e-6
    )


def test_scores_of_a_tagger_without_a_crf_in_a_compiled_graph():
    names = NAMES["BIO"]
    rng = np.random.default_rng(5)
    true, logits = rng.integers(0, len(names), (4, 9)), rng.normal(size=(4, 9, len(names)))
    logits += 2 * np.eye(len(names))[true]
    metric = EntityF1(names)
    update = tf.function(metric.update_state, jit_compile=True)
    update(tf.constant(true), tf.constant(logits))
    expected = scores(rows_of(names, true, logits.argmax(axis=2)))[2]
    assert 0.2 < expected < 1
    assert_close(metric.result(), expected, 1e-6, "f1")
    metric.reset_state()
    assert metric.result() == 0
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(metric))
    assert (again.tags, again.name) == (names, "entity_f1")


@pytest.mark.quick
def test_errors():
    with pytest.raises(ValueError, match="scheme is 'BILOU', expected one of BIO, IOB1, BIOES"):
        allowed_transitions(["O"], "BILOU")
    with pytest.raises(ValueError, match=r"tags has 'E-X', expected .* B-, I-"):
        allowed_transitions(["O", "E-X"])
    with pytest.raises(ValueError, match="tags has 'PER'"):
        EntityF1(["O", "PER"])
    with pytest.raises(ValueError, match="expected a list of names"):
        EntityF1("O")
    with pytest.raises(ValueError, match=r"got labels of shape \(2,\)"):
        EntityF1(["O", "B-X"]).update_state(np.zeros(2, int), np.zeros((2, 3), int))

"""What rules leave of a search, against the rules in plain Python; and what is refused.

The toy models, and how what is found is compared, are those of `test_search`.
"""

import dataclasses

import keras
import numpy as np
import pytest
import search_oracles as oracles
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from search_oracles import END, Toy, V
from test_search import (
    BATCHES,
    COVER,
    RANDOM,
    SEARCHES,
    WEIGHTS,
    B,
    assert_found,
    attending,
    constants_of,
    decode,
    hypotheses,
    penalised,
    plain,
)

from keras_rnnx.seq2seq import BannedTokens, beam_search, greedy_search, sample


@dataclasses.dataclass(frozen=True)
class Raising:
    """Bans the token `(the last + t) % V`, and makes all others likelier, which does nothing."""

    def __call__(self, scores, ids, t):
        last = tf.where(t > 0, ids[:, tf.maximum(t - 1, 0)], 2)
        banned = tf.range(V) == ((last + t) % V)[:, None]
        return tf.where(banned, -np.inf, scores / 2 + 3.0)

    @staticmethod
    def banned(before):
        return [((before[-1] if before else 2) + len(before)) % V]


@dataclasses.dataclass(frozen=True)
class Lowering:
    """Takes half from the score of token 0."""

    def __call__(self, scores, ids, t):
        return scores - tf.constant([0.5, 0.0, 0.0, 0.0])


# For a search, and for `oracles.permitted`.
RULES = {
    "min_length": (dict(min_length=2), dict(min_length=2)),
    "no_repeat_1": (dict(no_repeat_ngram=1), dict(no_repeat_ngram=1)),
    "no_repeat_2": (dict(no_repeat_ngram=2, min_length=3),) * 2,
    "no_repeat_3": (dict(no_repeat_ngram=3, min_length=9),) * 2,
    "banned": (dict(constraint=BannedTokens([2, 0])), dict(banned=(0, 2))),
    "constraints": (
        dict(constraint=[Raising(), BannedTokens((3,))], no_repeat_ngram=2),
        dict(banned=lambda before: [3, *Raising.banned(before)], no_repeat_ngram=2),
    ),
}
PREFIX = 3
# Rows with prefixes of different lengths; what is after the end token never comes.
IDS = st.integers(0, V - 1)
PREFIXES = st.tuples(*[st.lists(IDS, max_size=PREFIX) | st.just([-1, 0, -1])] * B)


def padded(prefixes):
    return tf.constant([[*prefix, *[-1] * (PREFIX - len(prefix))] for prefix in prefixes])


ruled = pytest.mark.parametrize("rules, permitted", RULES.values(), ids=RULES)


@ruled
@settings(RANDOM, max_examples=15)
@given(rows=BATCHES, prefixes=PREFIXES, length=st.integers(1, 4), penalty=WEIGHTS, cover=COVER)
@pytest.mark.thin(2)
def test_a_beam_of_all_sequences_finds_all_that_are_permitted(
    rules, permitted, rows, prefixes, length, penalty, cover
):
    options = dict(beam_width=V**length, max_length=length, prefix=padded(prefixes), **rules)
    found = penalised(rows, penalty, cover, **options)
    expected = []
    for row, prefix in zip(rows, prefixes):
        arguments = [row.log_probs, V, END, length, V**length, penalty, cover, row.attend, row.mask]
        expected.append(oracles.best(*arguments, prefix=prefix, **permitted))
    assert_found(found, rows, expected)


@ruled
@settings(RANDOM, max_examples=15)
@given(
    rows=BATCHES,
    prefixes=PREFIXES,
    width=st.integers(1, 4),
    length=st.integers(1, 9),
    penalty=WEIGHTS,
)
@pytest.mark.thin(2)
def test_a_narrow_beam_and_greedy_search(rules, permitted, rows, prefixes, width, length, penalty):
    options = dict(prefix=padded(prefixes), max_length=length, **rules)
    found = penalised(rows, penalty, 0.2, beam_width=width, **options)
    wide, narrow = [], []
    for row, prefix in zip(rows, prefixes):
        permitted = {**permitted, "prefix": prefix}
        a, more = [row.log_probs, V, END], [length, penalty, 0.2, row.attend, row.mask]
        wide.append(oracles.python_beam_search(*a, width, *more, **permitted))
        narrow.append(oracles.python_beam_search(*a, 1, length, **permitted))
    assert_found(found, rows, wide)
    assert_found(decode(rows, greedy_search, **options), rows, narrow)


def test_a_constraint_lowers_scores():
    rows = [Toy(seed, hurry=-1.0) for seed in range(B)]
    lowered = [lambda ids, row=row: row.log_probs(ids) - [0.5, 0, 0, 0] for row in rows]
    options = dict(max_length=6, constraint=Lowering())
    for search, more, arguments in (
        (beam_search, dict(beam_width=3, length_penalty=0.5), (V, END, 3, 6, 0.5)),
        (greedy_search, {}, (V, END, 1, 6)),
    ):
        found = decode(rows, search, **more, **options)
        expected = [oracles.python_beam_search(model, *arguments) for model in lowered]
        assert_found(found, rows, expected)
    drawn = decode(rows, sample, num_samples=4, seed=3, **options)
    for b, model in enumerate(lowered):
        for ids, score, _ in hypotheses(drawn, b):
            own = sum(model(ids[:t])[i] for t, i in enumerate(ids))
            assert abs(score - own) < 1e-5


def test_banned_tokens():
    banned = BannedTokens(np.array([2, 0]))
    assert banned == BannedTokens((2, 0)) and hash(banned) == hash(BannedTokens([2, 0]))
    assert banned != BannedTokens((2,)) and banned.tokens == (2, 0)
    scores = tf.constant([[1.0, 2.0, 3.0, 4.0]] * 2)
    assert banned(scores, None, 0).numpy().tolist() == [[-np.inf, 2.0, -np.inf, 4.0]] * 2
    assert BannedTokens(())(scores, None, 0).numpy().tolist() == scores.numpy().tolist()
    saved = keras.saving.serialize_keras_object(banned)
    assert keras.saving.deserialize_keras_object(saved) == banned


# -- what is drawn ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "temperature, top_k, top_p",
    [(1.0, V, 1.0), (0.5, V, 1.0), (2.0, V, 1.0), (1.0, 2, 1.0), (0.7, V, 0.6), (1.5, 3, 0.8)],
)
def test_sequences_are_drawn_as_often_as_they_are_probable(temperature, top_k, top_p):
    rows, count, length = [Toy(4), Toy(5, start=0, scale=1.5), Toy(6, words=3)], 4000, 3
    numbers = dict(temperature=temperature, top_k=top_k, top_p=top_p)
    tensors = {name: tf.constant(value) for name, value in numbers.items()}
    found = decode(rows, sample, num_samples=count, max_length=length, seed=8, **tensors)
    for b, row in enumerate(rows):
        drawn = hypotheses(found, b)
        assert len(drawn) == count
        model = oracles.drawn(row.log_probs, **numbers)
        chances = {h: p for h, p in oracles.every_hypothesis(model, V, END, length)}
        own = dict(oracles.every_hypothesis(row.log_probs, V, END, length))
        counts = dict.fromkeys(chances, 0)
        for ids, score, _ in drawn:
            counts[ids] += 1
            assert abs(score - own[ids]) < 1e-5  # by the model itself
        for ids, _, shown in drawn[:20]:
            np.testing.assert_array_equal(shown, [row.attend(ids[:t]) for t in range(len(ids))])
        expected = np.exp(list(chances.values())) * count
        observed = np.array(list(counts.values()))
        assert not observed[expected == 0].any()
        common = expected >= 5
        chi = np.sum((observed - expected)[common] ** 2 / expected[common])
        freedom = common.sum() - 1
        assert chi <= freedom + 4 * np.sqrt(2 * freedom), (chi, freedom)
        assert abs(observed[~common].sum() - expected[~common].sum()) < 40


def test_drawing_from_one_token_is_greedy_search():
    rows = [Toy(seed, hurry=-1.0) for seed in range(B)]
    greedy = decode(rows, greedy_search, max_length=9)
    for top_k, top_p in ((1, 1.0), (V, 1e-6), (V, 0.0)):
        options = dict(top_k=tf.constant(top_k), top_p=tf.constant(top_p), temperature=5.0)
        found = decode(rows, sample, num_samples=2, max_length=9, seed=1, **options)
        for b in range(B):
            once = hypotheses(greedy, b)[0]
            for ids, score, _ in hypotheses(found, b):
                assert ids == once[0] and abs(score - once[1]) < 1e-5


def test_the_seed_says_what_is_drawn():
    rows = [Toy(7, hurry=-2.0)] * 2
    draw = lambda seed: decode(rows, sample, num_samples=5, max_length=8, seed=seed)
    first = draw(3)
    np.testing.assert_array_equal(first.ids, draw(tf.constant([3, 0])).ids)
    short = decode(rows, sample, num_samples=5, max_length=4, seed=3)
    np.testing.assert_array_equal(first.ids[:, :, :4], short.ids)
    assert first.ids.shape[:2] == (2, 5)
    assert len({tuple(ids) for ids in first.ids.numpy().reshape(10, -1)}) > 5  # rows differ too
    for other in (4, [3, 1], None):
        assert (
            first.ids.shape != draw(other).ids.shape or (first.ids != draw(other).ids).numpy().any()
        )
    unset = [draw(None).ids for _ in range(2)]
    assert unset[0].shape != unset[1].shape or (unset[0] != unset[1]).numpy().any()


def test_no_two_seeds_share_their_noise():
    even = lambda ids, state, constants: (tf.zeros([tf.shape(ids)[0], 9]), state)
    draw = lambda seed: sample(
        even, (), start=tf.zeros([2]), end=8, num_samples=20, max_length=9, min_length=9, seed=seed
    ).ids.numpy()
    assert np.mean(draw([7, 0])[..., 1:] == draw([7, 1])[..., :-1]) < 0.3


def test_what_is_drawn_is_permitted():
    rows = [Toy(seed, hurry=0.0) for seed in range(B)]
    prefixes = [[0], [], [2, 2, 0]]
    options = dict(min_length=3, no_repeat_ngram=2, constraint=BannedTokens((3,)))
    found = decode(
        rows, sample, num_samples=300, seed=4, max_length=6, prefix=padded(prefixes), **options
    )
    options = dict(min_length=3, no_repeat_ngram=2, banned=[3])
    for row, prefix, b in zip(rows, prefixes, range(B)):
        drawn = {ids for ids, *_ in hypotheses(found, b)}
        every = oracles.every_hypothesis(row.log_probs, V, END, 6)
        own = dict(h for h in every if oracles.permitted(h[0], END, prefix=prefix, **options))
        assert drawn <= set(own) and len(drawn) > min(len(own), 30) // 2
        for ids, score, _ in hypotheses(found, b):
            assert abs(score - own[ids]) < 1e-5


# -- what is refused ----------------------------------------------------------------------------

ROWS = [Toy(1)] * B


@pytest.mark.parametrize("search, options", SEARCHES)
@pytest.mark.parametrize(
    "bad, message",
    [
        (dict(max_length=0), "max_length is 0, expected an integer of 1 or more"),
        (dict(max_length=2.5), "max_length is 2.5"),
        (dict(end=V), f"end is {V}, and the vocabulary has {V} tokens"),
        (dict(end=-1), "end is -1"),
    ],
)
def test_bad_input(search, options, bad, message):
    options = {"start": 0, "end": END, **options, **bad}
    with pytest.raises(ValueError, match=message):
        search(plain, tf.zeros([B], tf.int32), constants_of(ROWS), **options)


@pytest.mark.parametrize(
    "search, bad, message",
    [
        (beam_search, dict(beam_width=0), "beam_width is 0, expected an integer of 1 or more"),
        (beam_search, dict(beam_width=-1), "beam_width is -1"),
        (beam_search, dict(min_length=-1), "min_length is -1, expected an integer of 0 or more"),
        (beam_search, dict(no_repeat_ngram=1.5), "no_repeat_ngram is 1.5, expected an integer"),
        (beam_search, dict(coverage_penalty=-0.1), "coverage_penalty is -0.1, expected 0 or more"),
        (beam_search, dict(coverage_penalty=0.1), "coverage_penalty was given to .* no alignments"),
        (sample, dict(num_samples=0), "num_samples is 0"),
        (sample, dict(top_k=0), "top_k is 0"),
        (sample, dict(top_p=1.1), "top_p is 1.1, expected a number from 0 to 1"),
        (sample, dict(top_p=-0.1), "top_p is -0.1"),
        (sample, dict(temperature=0), "temperature is 0, expected a number above 0"),
        (sample, dict(temperature=-1.0), "temperature is -1.0"),
    ],
)
def test_bad_numbers(search, bad, message):
    with pytest.raises(ValueError, match=message):
        decode(ROWS, search, plain, **bad)


@pytest.mark.parametrize("search, options", SEARCHES)
def test_bad_steps(search, options):
    flat = lambda ids, state, constants: (tf.zeros_like(ids, tf.float32), state)
    with pytest.raises(ValueError, match=r"logits of shape \(3,\), expected \(rows, vocabulary\)"):
        decode(ROWS, search, flat, **options)
    tall = lambda ids, state, constants: (tf.zeros([tf.shape(ids)[0], 1, V]), state)
    with pytest.raises(ValueError, match="expected \\(rows, vocabulary\\) with a known size"):
        decode(ROWS, search, tall, **options)
    with pytest.raises(ValueError, match="no batch size: pass start=tf.fill"):
        search(lambda ids, *_: (tf.zeros([tf.shape(ids)[0], V]), ()), (), start=0, end=1, **options)


@pytest.mark.parametrize(
    "search, name",
    [
        (beam_search, "beam_width"),
        (beam_search, "max_length"),
        (greedy_search, "max_length"),
        (sample, "max_length"),
        (sample, "num_samples"),
    ],
)
def test_tensors_below_1(search, name):
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"{name} is below 1"):
        decode(ROWS, search, **{name: tf.constant(0)})


@pytest.mark.parametrize("search, options", SEARCHES)
@pytest.mark.parametrize("mode", [lambda call: call, tf.function], ids=["eager", "function"])
@pytest.mark.thin(6)
def test_a_start_outside_the_vocabulary(mode, search, options):
    tables, code = constants_of(ROWS), tf.zeros([B], tf.int32)
    for start in (V, [0, -1, 0]):
        call = lambda start=start: search(plain, code, tables, start=start, end=END, **options)
        # What the values of a tensor are is seen only in the graph.
        with pytest.raises(
            (ValueError, tf.errors.InvalidArgumentError), match="start is .* 4 tokens"
        ):
            mode(call)()


@pytest.mark.parametrize(
    "search, name",
    [(beam_search, "beam_width"), (beam_search, "max_length"), (sample, "num_samples")],
)
def test_a_bool_is_no_count(search, name):
    with pytest.raises(ValueError, match=f"{name} is True"):
        decode(ROWS, search, **{name: True})


@pytest.mark.parametrize(
    "search, bad",
    [
        (sample, dict(top_k=0)),
        (sample, dict(temperature=0.0)),
        (sample, dict(top_p=1.5)),
        (beam_search, dict(coverage_penalty=-1.0)),
    ],
)
def test_bad_numbers_in_tensors(search, bad):
    [(name, value)] = bad.items()
    with pytest.raises(tf.errors.InvalidArgumentError, match=name):
        decode(ROWS, search, **{name: tf.constant(value)})


@pytest.mark.parametrize("search, options", SEARCHES)
def test_a_prefix_of_no_tokens_forces_nothing(search, options):
    found = decode(ROWS, search, max_length=5, prefix=tf.zeros([B, 0], tf.int32), **options)
    np.testing.assert_array_equal(found.ids, decode(ROWS, search, max_length=5, **options).ids)


@pytest.mark.parametrize("search, options", SEARCHES)
def test_an_empty_batch(search, options):
    tables = {name: table[:0] for name, table in constants_of(ROWS).items()}
    start = tf.zeros([0], tf.int32)
    found = search(attending, start, tables, start=start, end=END, max_length=5, **options)
    assert found.ids.shape[0] == found.scores.shape[0] == found.alignments.shape[0] == 0


@pytest.mark.parametrize("search, options", SEARCHES[1:])
def test_where_nothing_is_permitted_nothing_is_found(search, options):
    """As in beam search: a score of -inf, a length of 0, and the end token everywhere."""
    for rules in (dict(constraint=BannedTokens(range(V))), dict(no_repeat_ngram=1, min_length=9)):
        assert hypotheses(decode(ROWS, search, max_length=8, **rules, **options), 0) == []

"""Beam search, greedy search and sampling against trying every sequence, in plain Python.

The models are toys: tables of random logits, chosen by all ids before. The tables go in through
`constants` and every number is a tensor, so that all cases of a test share one graph. What the
rules for next tokens change, and bad input, is in `test_seq2seq_rules`.
"""

import dataclasses
import functools
import gc
import weakref

import numpy as np
import pytest
import saved_graph
import search_oracles as oracles
import tensorflow as tf
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from search_oracles import CODES, END, S, Toy, V

from keras_rnnx.seq2seq import beam_search, greedy_search, sample

B = 3
RANDOM = settings(derandomize=True, deadline=None, phases=[Phase.explicit, Phase.generate])


def plain(ids, code, constants):
    code = (code * 5 + ids + 1) % CODES
    return tf.gather(constants["logits"], code, batch_dims=1), code


def attending(ids, code, constants):
    logits, code = plain(ids, code, constants)
    return logits, code, tf.gather(constants["attention"], code, batch_dims=1)


def constants_of(rows):
    logits, attention = zip(*(row.tables for row in rows))
    return {"logits": tf.stack(logits), "attention": tf.stack(attention)}


def decode(rows, search=beam_search, step=attending, **options):
    start = [row.start for row in rows]
    code = tf.zeros([len(rows)], tf.int32)
    return search(step, code, constants_of(rows), start=start, end=END, **options)


def hypotheses(found, b):
    """Those of a row as [(ids with the end token, score, alignments)]; what is not real is checked.

    There the ids are the end token, the alignments 0, and the scores -inf in the last places only.
    """
    ids, lengths, scores = (np.asarray(a)[b] for a in found[:3])
    alignments = None if found.alignments is None else np.asarray(found.alignments)[b]
    exists = scores > -np.inf
    assert (np.sort(~exists) == ~exists).all() and (lengths[~exists] == 0).all()
    result = []
    for k, length in enumerate(np.where(exists, lengths + 1, 0)):
        before, rest = np.split(ids[k], [max(length - 1, 0)])
        assert END not in before and (rest == END).all()
        if alignments is not None:
            assert not alignments[k, length:].any()
        if exists[k]:
            shown = None if alignments is None else alignments[k, :length]
            result.append((tuple(ids[k, :length].tolist()), scores[k], shown))
    return result


def assert_found(found, rows, expected):
    """`expected`: for each row [(ids, log-probability, score)], the best first."""
    longest = max([len(ids) for row in expected for ids, *_ in row], default=1)
    assert found.ids.shape[2] == longest and found.ids.shape[1] >= max(map(len, expected))
    for b, row in enumerate(rows):
        ids, scores, shown = zip(*hypotheses(found, b)) if expected[b] else ((), (), ())
        assert len(set(ids)) == len(ids) == len(expected[b])
        np.testing.assert_allclose(scores, [h[2] for h in expected[b]], 1e-5, 2e-5)
        own = {h[0]: h[2] for h in expected[b]}  # equal ones may come in any order
        np.testing.assert_allclose(scores, [own[i] for i in ids], 1e-5, 2e-5)
        for i, a in zip(ids, shown):
            if a is not None:
                np.testing.assert_array_equal(a, [row.attend(i[:t]) for t in range(len(i))])


TOYS = st.builds(
    Toy,
    seed=st.integers(0, 10**6),
    start=st.integers(0, V - 1),
    words=st.integers(2, V),
    scale=st.sampled_from([0.3, 1.0, 3.0]),
    hurry=st.sampled_from([-3.0, 0.0, 2.0]),
    real=st.integers(1, S),
)
BATCHES = st.tuples(*[TOYS] * B)
WEIGHTS = st.sampled_from([-1.0, -0.3, 0.0, 0.6, 2.0])
COVER = st.sampled_from([0.0, 0.2, 1.5])


def penalised(rows, penalty, cover, **options):
    """Beam search with all that the penalties need, as tensors: one graph for all cases."""
    numbers = dict(length_penalty=tf.constant(penalty), coverage_penalty=tf.constant(cover))
    mask = np.stack([row.mask for row in rows])
    return decode(rows, memory_mask=mask, **numbers, **options)


# -- what beam search finds ---------------------------------------------------------------------


@settings(RANDOM, max_examples=25)
@given(rows=BATCHES, length=st.integers(1, 4), penalty=WEIGHTS, cover=COVER)
def test_a_beam_of_all_sequences_finds_the_best_of_all(rows, length, penalty, cover):
    width = max(row.words for row in rows) ** length
    found = penalised(rows, penalty, cover, beam_width=width, max_length=length)
    arguments = [(row.log_probs, V, END, length, width, penalty, cover) for row in rows]
    expected = [oracles.best(*a, row.attend, row.mask) for a, row in zip(arguments, rows)]
    assert_found(found, rows, expected)


@settings(RANDOM, max_examples=60)
@given(
    rows=BATCHES, width=st.integers(1, 5), length=st.integers(1, 9), penalty=WEIGHTS, cover=COVER
)
def test_a_narrow_beam_finds_what_one_that_never_stops_finds(rows, width, length, penalty, cover):
    found = penalised(rows, penalty, cover, beam_width=width, max_length=length)
    arguments = [(row.log_probs, V, END, width, length, penalty, cover) for row in rows]
    search = oracles.python_beam_search
    assert_found(found, rows, [search(*a, r.attend, r.mask) for a, r in zip(arguments, rows)])


@pytest.mark.parametrize("penalty", [-3.0, -1.0, 0.0, 0.6, 2.0])
@pytest.mark.parametrize("width", [2, 4])
def test_stopping_changes_no_result(penalty, width):
    """Rows where it would, in one of twenty, if the bound took another length than it does."""
    rows = [Toy(n, n % V, 2 + n % 3, scale=3.0, hurry=n % 4 - 1) for n in range(60)]
    found = decode(rows, step=plain, beam_width=width, max_length=7, length_penalty=penalty)
    search = oracles.python_beam_search
    assert_found(found, rows, [search(r.log_probs, V, END, width, 7, penalty) for r in rows])


@settings(RANDOM, max_examples=20)
@given(rows=BATCHES, length=st.integers(1, 9))
def test_a_beam_of_one_is_greedy_search(rows, length):
    greedy = decode(rows, greedy_search, max_length=length)
    one = decode(rows, beam_width=1, max_length=length)
    expected = [oracles.python_beam_search(r.log_probs, V, END, 1, length) for r in rows]
    assert_found(greedy, rows, expected)
    assert_found(one, rows, expected)


@pytest.mark.parametrize(
    "search, options",
    [
        (beam_search, dict(beam_width=3, length_penalty=0.8, coverage_penalty=0.3)),
        (greedy_search, {}),
    ],
)
def test_a_row_does_not_depend_on_its_neighbours(search, options):
    """They end after 1 to 20 tokens, and so when the others go on."""
    rows = [Toy(seed, 2, V, 1.0, hurry) for seed, hurry in enumerate([3.0, -4.0, 0.0, -1.0])]
    together = decode(rows, search, max_length=20, **options)
    lengths = np.asarray(together.lengths)[:, 0]
    assert lengths.min() < 2 and lengths.max() > 15
    for b, row in enumerate(rows):
        alone = hypotheses(decode([row], search, max_length=20, **options), 0)
        for (ids, score, shown), (own, own_score, own_shown) in zip(
            hypotheses(together, b), alone, strict=True
        ):
            assert ids == own and abs(score - own_score) < 1e-5
            np.testing.assert_array_equal(shown, own_shown)


@settings(RANDOM, max_examples=25)
@given(
    rows=BATCHES,
    widths=st.tuples(*[st.integers(1, 5)] * B),
    lengths=st.tuples(*[st.integers(1, 5)] * B),
    penalties=st.tuples(*[WEIGHTS] * B),
    cover=COVER,
)
def test_of_each_row_its_own_width_length_and_penalty(rows, widths, lengths, penalties, cover):
    """What a row finds is what it finds with these numbers for all."""
    found = decode(
        rows,
        memory_mask=np.stack([row.mask for row in rows]),
        beam_width=tf.constant(widths),
        max_length=tf.constant(lengths),
        length_penalty=tf.constant(penalties),
        coverage_penalty=tf.constant(cover),
    )
    for b, numbers in enumerate(zip(widths, lengths, penalties)):
        width, length, penalty = map(tf.constant, numbers)
        alone = penalised(rows, penalty, cover, beam_width=width, max_length=length)
        both = hypotheses(found, b), hypotheses(alone, b)
        longest = lengths[b]  # what has not ended by then is filled with the end token
        assert [h[0][:longest] for h in both[0]] == [h[0] for h in both[1]]
        for one, other in zip(*both):
            np.testing.assert_allclose(one[1], other[1], 1e-5, 2e-5)
            np.testing.assert_array_equal(one[2][:longest], other[2])
            assert not one[2][longest:].any()


@pytest.mark.parametrize("search", [greedy_search, sample])
def test_one_longest_length_for_all_samples(search):
    with pytest.raises(ValueError, match=r"max_length has shape \(3,\), expected one number"):
        decode([Toy(0), Toy(1), Toy(2)], search, max_length=tf.constant([1, 2, 3]))


def test_several_alignments():
    def step(ids, code, constants):
        logits, code, alignments = attending(ids, code, constants)
        return logits, code, [alignments, tf.cast(-alignments[:, 1:], tf.float64)]

    rows = [Toy(seed, hurry=hurry) for seed, hurry in ((1, 1.0), (2, -1.0), (3, 0.0))]
    for search, options in (
        (beam_search, dict(beam_width=4, coverage_penalty=0.5)),  # of the first alignments
        (sample, dict(num_samples=2, seed=3)),
    ):
        one = decode(rows, search, max_length=6, **options)
        two = decode(rows, search, step, max_length=6, **options)
        np.testing.assert_array_equal(one.ids, two.ids)
        np.testing.assert_array_equal(one.alignments, two.alignments[0])
        np.testing.assert_array_equal(-one.alignments[..., 1:], two.alignments[1])
        assert two.alignments[1].dtype == tf.float64


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_logits(dtype):
    """The sums are in float32: the scores are those of the rounded logits, to its precision."""

    def step(ids, code, constants):
        logits, code, alignments = attending(ids, code, constants)
        return tf.cast(logits, dtype), code, tf.cast(alignments, dtype)

    rows = [Toy(seed, hurry=-1.0, dtype=dtype) for seed in range(B)]
    found = decode(rows, step=step, beam_width=3, max_length=8)
    assert found.alignments.dtype == dtype and found.scores.dtype == tf.float32
    expected = [oracles.python_beam_search(row.log_probs, V, END, 3, 8) for row in rows]
    assert_found(found._replace(alignments=tf.cast(found.alignments, "float32")), rows, expected)


# -- states, and graphs -------------------------------------------------------------------------

SEARCHES = [
    (beam_search, dict(beam_width=3)),
    (greedy_search, {}),
    (sample, dict(num_samples=3, seed=2)),
]


@pytest.mark.parametrize("search, options", SEARCHES)
def test_states_and_constants_are_trees(search, options):
    """A step that has the code in a tree of several types finds what `plain` finds."""

    def step(ids, state, constants):
        (tens, ones), [half] = state["code"], constants[0]["half"]
        code = 10 * tf.cast(tens[:, 0, 0], tf.int32) + tf.cast(ones, tf.int32)
        logits, code = plain(ids, code, {"logits": half + constants[1]})
        tens = tf.cast(code // 10, tf.float32)[:, None, None]  # it becomes float64, as it was
        return logits, {"code": (tens, tf.cast(code % 10, tf.int64)), "none": ()}

    rows = [Toy(seed, start=seed) for seed in range(B)]
    code = tf.zeros([B, 1, 1], tf.float64), tf.zeros([B], tf.int64)
    state, half = {"code": code, "none": ()}, constants_of(rows)["logits"] / 2
    tokens = dict(start=range(B), end=END)
    found = search(step, state, ({"half": [half]}, half), **tokens, max_length=7, **options)
    expected = decode(rows, search, plain, max_length=7, **options)
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_allclose(found.scores, expected.scores, 1e-6)
    assert found.alignments is expected.alignments is None


@pytest.mark.parametrize("search, options", [(greedy_search, {}), (beam_search, {"beam_width": 1})])
def test_a_step_without_state_or_constants(search, options):
    """The batch is that of the start ids."""
    bigrams = tf.math.log([[0.1, 0.6, 0.3], [0.3, 0.1, 0.6], [0.6, 0.1, 0.3]])
    step = lambda ids, state, constants: (tf.gather(bigrams, ids), state)
    found = search(step, (), start=tf.constant([0, 1, 2, 0]), end=2, max_length=5, **options)
    assert found.ids[:, 0].numpy().tolist() == [[1, 2, 2], [2, 2, 2], [0, 1, 2], [1, 2, 2]]
    assert found.lengths[:, 0].numpy().tolist() == [1, 0, 2, 1]
    np.testing.assert_allclose(np.exp(found.scores[:, 0]), [0.36, 0.6, 0.216, 0.36], 1e-5)


@pytest.mark.parametrize(
    "search, options, needed",
    [
        (greedy_search, {}, 1),
        (beam_search, dict(beam_width=1), 1),
        (beam_search, dict(beam_width=2), 2),  # .9 and .06 * .9 have ended, .06 * .06 goes on
        (beam_search, dict(beam_width=1, length_penalty=-1.0), 1),
        # log(.06) * n / 7.5 ** 2, if nothing more is lost up to the longest length, and log(.9)
        (beam_search, dict(beam_width=1, length_penalty=2.0), 3),
    ],
)
def test_the_loop_stops_when_nothing_can_change(search, options, needed):
    steps = tf.Variable(0)

    def step(ids, state, constants):
        steps.assign_add(1)
        return tf.math.log([[0.06, 0.9, 0.04]]) + tf.zeros_like(ids, tf.float32)[:, None], state

    def count(length):
        steps.assign(0)
        search(step, (), start=tf.zeros([2]), end=1, max_length=length, **options)
        return int(steps)

    assert count(40) - count(1) + 1 == needed  # a call may take more steps than those of its loop


@pytest.mark.parametrize("search, options", SEARCHES)
def test_eager_calls_share_one_graph(search, options):
    calls = []

    def step(*arguments):
        calls.append(1)
        return attending(*arguments)

    def traces(rows=3, **more):
        calls.clear()
        decode([Toy(rows)] * rows, search, step, **{**options, **more})
        return len(calls)

    other = {
        beam_search: dict(beam_width=5, length_penalty=0.4),
        greedy_search: {},
        sample: dict(num_samples=4, temperature=0.3, seed=9),
    }
    assert traces(max_length=3) and not traces(max_length=4, **other[search])
    assert traces(rows=4) and not traces(rows=5) and not traces(rows=1)  # of any batch at last
    assert traces(min_length=2) and not traces(min_length=2)
    assert not traces()


class Steps:
    """Steps as methods, and as an object."""

    def forwards(self, *arguments):
        return attending(*arguments)

    def backwards(self, *arguments):
        logits, *more = attending(*arguments)
        return -logits, *more

    __call__ = forwards


@dataclasses.dataclass
class Unhashable:
    def __call__(self, *arguments):
        return attending(*arguments)


class Anything:
    def __call__(self, scores, ids, t):
        return scores


@pytest.mark.parametrize(
    "search, kind",
    [
        (beam_search, "function"),
        (beam_search, "method"),
        (greedy_search, "object"),
        (sample, "method"),
    ],
)
@pytest.mark.thin(4)
def test_graphs_are_freed_with_their_step(search, kind):
    owner, constraint = Steps(), Anything()
    if kind == "function":
        owner = lambda *arguments: attending(*arguments)
    step = owner.forwards if kind == "method" else owner
    decode([Toy(1)], search, step, max_length=3, constraint=constraint)
    freed = [weakref.ref(owner), weakref.ref(constraint)]
    del owner, step, constraint
    gc.collect()
    assert [reference() for reference in freed] == [None, None]


def test_methods_and_objects_are_steps():
    steps, rows = Steps(), [Toy(1, hurry=-1.0)]
    ids = lambda step: hypotheses(decode(rows, greedy_search, step, max_length=6), 0)[0][0]
    for step in (steps.forwards, Unhashable(), functools.partial(steps.forwards)):
        assert ids(step) == ids(attending)
    assert ids(steps.backwards) != ids(attending)


def test_numbers_are_inputs_of_a_graph_that_is_exported(tmp_path):
    """The batch too; what is loaded has no Python and only TensorFlow's own ops."""
    wide = dict(beam_width=3, max_length=7, length_penalty=0.7, coverage_penalty=0.2)
    # A loop of the longest length would take minutes.
    long = dict(beam_width=1, max_length=50_000, length_penalty=0.0, coverage_penalty=0.0)
    draw = dict(num_samples=4, max_length=6, temperature=2.0, top_k=3, top_p=0.9, seed=5)

    def graph(search, numbers):
        def run(start, logits, attention, **numbers):
            constants, code = {"logits": logits, "attention": attention}, tf.zeros_like(start)
            found = search(attending, code, constants, start=start, end=END, **numbers)
            return found._asdict()

        specs = {n: tf.TensorSpec([], tf.constant(v).dtype, n) for n, v in numbers.items()}
        specs["start"] = tf.TensorSpec([None], tf.int32, "start")
        specs["logits"] = tf.TensorSpec([None, CODES, V], name="logits")
        specs["attention"] = tf.TensorSpec([None, CODES, S], name="attention")
        return tf.function(run, autograph=False).get_concrete_function(**specs)

    graphs = {search: graph(search, n) for search, n in ((beam_search, wide), (sample, draw))}
    named = {search.__name__: function for search, function in graphs.items()}
    tf.saved_model.save(tf.Module(), tmp_path, named)
    loaded = tf.saved_model.load(tmp_path).signatures
    for name in named:
        ops, must_compile = saved_graph.reachable(tmp_path, name)
        assert not saved_graph.strangers(ops) and not must_compile and "TopKV2" in ops

    def run(search, rows, numbers):
        """What the graph gives, and the one that was loaded."""
        inputs = {"start": [row.start for row in rows], **constants_of(rows), **numbers}
        inputs = {name: tf.convert_to_tensor(value) for name, value in inputs.items()}
        return graphs[search](**inputs), loaded[search.__name__](**inputs)

    cases = (beam_search, wide, 2), (beam_search, long, 4), (sample, draw, 3)
    for search, numbers, batch in cases:
        rows = [Toy(seed, seed % V, hurry=-0.5) for seed in range(batch)]
        expected = decode(rows, search, **numbers)._asdict()
        assert 2 < expected["ids"].shape[2] < 20
        for found in run(search, rows, numbers):
            for name, value in expected.items():
                np.testing.assert_allclose(found[name], value, 1e-5, 1e-6)
    for bad in ("beam_width", "max_length"):
        with pytest.raises(tf.errors.InvalidArgumentError, match=f"{bad} is below 1"):
            run(beam_search, rows, {**wide, bad: 0})

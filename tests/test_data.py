"""Buckets by length: nothing lost, few shapes, and the cap holds."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_rnnx.data import bucket_by_length

D = 3


def sequences(lengths, seed=0):
    """One element per length: features, ids and a number, none of which is 0."""
    rng = np.random.default_rng(seed)
    return [
        (rng.uniform(1, 2, (n, D)).astype("float32"), rng.integers(1, 9, n, "int32"), i + 1)
        for i, n in enumerate(lengths)
    ]


def dataset_of(elements):
    return tf.data.Dataset.from_generator(
        lambda: iter(elements),
        output_signature=(
            tf.TensorSpec([None, D], tf.float32),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([], tf.int64),
        ),
    )


def ids_of(lists):
    return tf.data.Dataset.from_generator(
        lambda: iter(lists), output_signature=tf.TensorSpec([None], tf.int32)
    )


def check_batches(batches, elements, buckets):
    """Each element is in one row, padded with zeros to a length of `buckets`."""
    seen = []
    for x, ids, numbers in batches:
        assert x.shape[1] == ids.shape[1] and x.shape[1] in buckets
        for row, number in enumerate(numbers):
            expected_x, expected_ids, _ = elements[number - 1]
            n = len(expected_ids)
            np.testing.assert_array_equal(x[row, :n], expected_x)
            np.testing.assert_array_equal(ids[row, :n], expected_ids)
            assert not np.any(x[row, n:]) and not np.any(ids[row, n:])
            seen.append(int(number))
    return seen


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=30),
    boundaries=st.sets(st.integers(1, 39), max_size=4),
    rows=st.one_of(st.integers(1, 5), st.none()),
    noise=st.sampled_from([0.0, 0.5]),
    shuffle=st.sampled_from([0, 7]),
)
def test_no_element_is_lost_or_changed(lengths, boundaries, rows, noise, shuffle):
    elements, boundaries = sequences(lengths), [*sorted(boundaries), 40]
    tokens = 100 if rows is None else None
    dataset = bucket_by_length(
        dataset_of(elements),
        batch_size=rows,
        tokens_per_batch=tokens,
        boundaries=boundaries,
        noise=noise,
        shuffle=shuffle,
        seed=1,
    )
    batches = list(dataset.as_numpy_iterator())
    seen = check_batches(batches, elements, boundaries)
    assert sorted(seen) == list(range(1, len(elements) + 1))
    for x, _, _ in batches:
        assert len(x) <= rows if rows else x.shape[0] * x.shape[1] <= 100
    if not noise:  # the smallest bucket that fits
        for x, _, numbers in batches:
            for number in numbers:
                fitting = [b for b in boundaries if b >= lengths[number - 1]]
                assert x.shape[1] == fitting[0]


@pytest.mark.quick
def test_an_element_as_long_as_a_boundary_fits():
    dataset = bucket_by_length(ids_of([[1] * 4, [1] * 5]), batch_size=1, boundaries=[4, 6])
    assert [b.shape for b in dataset.as_numpy_iterator()] == [(1, 4), (1, 6)]


@pytest.mark.parametrize("options", [{"batch_size": 4}, {"tokens_per_batch": 130}])
def test_few_shapes(options):
    lengths = np.random.default_rng(2).integers(1, 61, 400)
    elements = sequences(lengths)
    buckets = [16, 24, 32, 48, 60]
    make = lambda **more: bucket_by_length(dataset_of(elements), max_length=60, **options, **more)

    full = {x.shape for x, _, _ in make(drop_remainder=True).as_numpy_iterator()}
    rows = [options.get("batch_size", 130 // b) for b in buckets]
    assert full == set(zip(rows, buckets, itertools.repeat(D)))

    every = list(make().as_numpy_iterator())
    assert len({x.shape for x, _, _ in every}) <= 2 * len(buckets)
    assert len(check_batches(every, elements, buckets)) == 400


@pytest.mark.parametrize(
    "max_length, buckets",
    [(1, [1]), (16, [16]), (17, [16, 17]), (100, [16, 24, 32, 48, 64, 96, 100])],
)
def test_default_boundaries(max_length, buckets):
    every = [[1] * n for n in range(1, max_length + 1)]
    dataset = bucket_by_length(ids_of(every), batch_size=1, max_length=max_length)
    assert sorted({b.shape[1] for b in dataset.as_numpy_iterator()}) == buckets


def test_structures_dtypes_and_padding_values():
    words = [["a", "bc"], ["d"]]
    elements = [
        {"word": w, "x": np.ones((len(w), D)), "flags": [True] * len(w), "label": [1.0, 2.0]}
        for w in words
    ]
    signature = {
        "word": tf.TensorSpec([None], tf.string),
        "x": tf.TensorSpec([None, D], tf.float16),
        "flags": tf.TensorSpec([None], tf.bool),
        "label": tf.TensorSpec([2], tf.float64),
    }
    source = tf.data.Dataset.from_generator(lambda: iter(elements), output_signature=signature)
    (batch,) = bucket_by_length(source, batch_size=2, boundaries=[3])
    assert {k: v.dtype for k, v in batch.items()} == {k: s.dtype for k, s in signature.items()}
    assert batch["word"].numpy().tolist() == [[b"a", b"bc", b""], [b"d", b"", b""]]
    assert batch["flags"].numpy().tolist() == [[True, True, False], [True, False, False]]
    assert batch["label"].numpy().tolist() == [[1.0, 2.0]] * 2
    assert batch["x"].shape == (2, 3, D)

    padding = {"word": "-", "x": -1.0, "flags": True, "label": 0}
    (batch,) = bucket_by_length(source, batch_size=2, boundaries=[3], padding_values=padding)
    assert batch["word"].numpy().tolist()[1] == [b"d", b"-", b"-"]
    assert batch["x"].numpy()[1, :, 0].tolist() == [1, -1, -1]
    assert batch["flags"].numpy().tolist()[1] == [True, True, True]


def test_ragged_rows():
    ragged = tf.ragged.constant([[1, 2], [3], [4, 5, 6]])
    source = tf.data.Dataset.from_tensor_slices((ragged, [7.0, 8.0, 9.0]))
    (batch,) = bucket_by_length(source, batch_size=3, max_length=4).as_numpy_iterator()
    assert batch[0].tolist() == [[1, 2, 0, 0], [3, 0, 0, 0], [4, 5, 6, 0]]
    assert batch[1].tolist() == [7, 8, 9]


def pairs(lengths):
    return tf.data.Dataset.from_generator(
        lambda: (([1] * a, [2] * b) for a, b in lengths),
        output_signature=(tf.TensorSpec([None], tf.int32), tf.TensorSpec([None], tf.int32)),
    )


def test_input_and_target_of_other_lengths_share_the_longer_one():
    lengths = [(2, 7), (7, 2), (3, 3)]
    batches = list(bucket_by_length(pairs(lengths), batch_size=2, boundaries=[4, 8]))
    assert sorted(x.shape[1] for x, _ in batches) == [4, 8]
    for x, y in batches:
        assert x.shape == y.shape
        real = zip((x.numpy() > 0).sum(1), (y.numpy() > 0).sum(1))
        assert list(real) == (lengths[:2] if x.shape[1] == 8 else lengths[2:])


def test_length_of_ones_own_and_lengths():
    lengths = [(2, 5), (5, 2), (3, 3)]
    dataset = bucket_by_length(
        pairs(lengths),
        batch_size=4,
        boundaries=[6, 10],
        length=lambda x, y: tf.size(x) + tf.size(y),
        with_lengths=True,
    )
    (_, first), (_, second) = sorted(dataset.as_numpy_iterator(), key=lambda batch: len(batch[1]))
    assert first.tolist() == [6] and second.tolist() == [7, 7]
    assert first.dtype == "int32"


def test_lengths_make_a_mask():
    x = [[5], [1, 0, 3], [0, 0]]
    dataset = bucket_by_length(ids_of(x), batch_size=3, boundaries=[4], with_lengths=True, noise=3)
    (batch, lengths), *rest = dataset
    assert not rest
    mask = tf.sequence_mask(lengths, tf.shape(batch)[1]).numpy()
    assert [row[real].tolist() for row, real in zip(batch.numpy(), mask)] == x


def test_noise_mixes_lengths_and_changes_from_pass_to_pass():
    source = ids_of([[1] * (1 + i % 40) for i in range(400)])
    boundaries = list(range(1, 61))
    make = lambda **more: bucket_by_length(source, batch_size=1, boundaries=boundaries, **more)
    ratios = lambda batches: [b.shape[1] / (b > 0).sum() for b in batches.as_numpy_iterator()]
    assert set(ratios(make())) == {1.0}
    noisy = make(noise=0.5, seed=3)
    first, second = ratios(noisy), ratios(noisy)
    assert first != second
    assert min(first) == 1.0 and 1.4 < max(first) <= 1.5
    assert 1.2 < np.mean(first) < 1.3
    assert ratios(make(noise=0.5, seed=3)) == first, "a seed gives the same run"


def test_shuffle_is_anew_in_each_pass_and_repeats_with_the_seed():
    source = ids_of([[i] for i in range(1, 51)])
    make = lambda: bucket_by_length(source, batch_size=5, max_length=1, shuffle=50, seed=4)
    ids = lambda dataset: np.concatenate([b[:, 0] for b in dataset.as_numpy_iterator()]).tolist()
    one, two = make(), make()
    first, second = ids(one), ids(one)
    assert first != list(range(1, 51)) and first != second
    assert sorted(first) == sorted(second) == list(range(1, 51))
    assert ids(two) == first


def test_fit_takes_the_batches():
    elements = sequences(np.random.default_rng(5).integers(1, 30, 40))
    dataset = dataset_of(elements).map(lambda x, ids, number: (ids, tf.cast(number, tf.float32)))
    dataset = bucket_by_length(dataset, tokens_per_batch=120, max_length=30, shuffle=40, seed=1)
    model = keras.Sequential(
        [keras.layers.Embedding(9, 4, mask_zero=True), keras.layers.GRU(3), keras.layers.Dense(1)]
    )
    model.compile("adam", "mse")
    history = model.fit(dataset, epochs=2, verbose=0).history["loss"]
    assert history[1] < history[0]


@pytest.mark.quick
def test_too_long_an_element():
    dataset = bucket_by_length(ids_of([[1] * 3, [1] * 7]), batch_size=1, max_length=5)
    message = r"(?s)longer than the last bucket.*Give a larger max_length.*\[7\] \[5\]"
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        list(dataset)


@pytest.mark.quick
def test_too_short_a_length():
    dataset = bucket_by_length(
        pairs([(2, 3)]), batch_size=1, max_length=5, length=lambda x, y: tf.size(x)
    )
    message = r"longer than its `length`.*\[3\] \[2\]"
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        list(dataset)


@pytest.mark.quick
@pytest.mark.parametrize(
    "options, message",
    [
        ({"max_length": 5}, "batch_size=None and tokens_per_batch=None, expected one of the two"),
        ({"max_length": 5, "batch_size": 2, "tokens_per_batch": 9}, "expected one of the two"),
        ({"batch_size": 2}, "max_length=None and boundaries=None, expected one of the two"),
        ({"batch_size": 2, "max_length": 5, "boundaries": [5]}, "expected one of the two"),
        ({"batch_size": 2, "boundaries": [5, 3]}, r"boundaries is \[5, 3\], expected ascending"),
        ({"batch_size": 2, "boundaries": [3, 3]}, "expected ascending"),
        ({"batch_size": 2, "boundaries": []}, "expected ascending"),
        ({"batch_size": 0, "max_length": 5}, "batch_size is 0, expected a positive integer"),
        ({"tokens_per_batch": 4, "max_length": 5}, "tokens_per_batch is 4, expected at least.* 5"),
        ({"batch_size": 2, "max_length": 5, "noise": -0.1}, "noise is -0.1, expected a number"),
        (
            {"batch_size": 2, "max_length": 5, "padding_values": (0, 1)},
            r"padding_values is \(0, 1\), expected one value",
        ),
    ],
)
def test_arguments_that_do_not_go_together(options, message):
    with pytest.raises(ValueError, match=message):
        bucket_by_length(ids_of([[1]]), **options)


@pytest.mark.quick
@pytest.mark.parametrize("options", [{"batch_size": 2.5}, {"batch_size": True}])
def test_a_size_that_is_no_integer(options):
    with pytest.raises(TypeError, match="batch_size is .*, expected a positive integer"):
        bucket_by_length(ids_of([[1]]), max_length=5, **options)


@pytest.mark.quick
def test_elements_without_a_time_axis():
    with pytest.raises(ValueError, match="expected a first axis of unknown size"):
        bucket_by_length(tf.data.Dataset.range(3), batch_size=2, max_length=5)
    unknown = tf.data.Dataset.from_generator(
        lambda: [[[1, 2]]], output_signature=tf.TensorSpec([None, None], tf.int32)
    )
    with pytest.raises(ValueError, match="only the first axis may have an unknown size.*ensure_sh"):
        bucket_by_length(unknown, batch_size=2, max_length=5)

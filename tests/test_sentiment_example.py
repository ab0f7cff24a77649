"""examples/sentiment.py in its short form, its parts, and the sentences that it reads."""

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import keras
import matplotlib.image
import numpy as np
import pytest
import sentiment
import tensorflow as tf
import tensorflow_datasets as tfds
from parts import sentiment_report

import keras_rnnx
from keras_rnnx.datasets import movie_sentiment

ROOT = Path(__file__).parents[1]


def add(archive, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def write_archive(data_dir, tables):
    """An archive in the form of the real one, where the builder looks for it."""
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as archive:
        for source, name in movie_sentiment.FILES.items():
            lines = [f"{k}\t{score}\t{text}\r\n" for k, (score, text) in enumerate(tables[source])]
            add(archive, f"hutto_ICWSM_2014/{name}", "".join(lines).encode())
    folder = data_dir / "downloads" / "manual"
    folder.mkdir(parents=True)
    with tarfile.open(folder / movie_sentiment.ARCHIVE, "w:gz") as archive:
        name = f"vaderSentiment-3.3.2/{movie_sentiment.INNER}"
        add(archive, name, inner.getvalue())


# Made up, in the form of the real sentences.
MOVIES = [(score, f"film number {k} &amp; more") for k, score in enumerate(20 * [-2, 0.5, 0.51])]
TABLES = {
    "movies": MOVIES,
    "products": [(1.5, " a é good phone ")],
    "editorials": [(-0.25, "the council met")],
    "tweets": [(-0.75, "late again &lt;3")],
}


@pytest.fixture
def data_dir(tmp_path):
    write_archive(tmp_path, TABLES)
    return tmp_path


# -- the sentences -------------------------------------------------------------------------


def test_builder(data_dir):
    builder = tfds.builder("movie_sentiment", data_dir=data_dir)
    builder.download_and_prepare()
    assert builder.info.features["label"].names == ["negative", "positive"]
    found = {}
    for split in ("train", "validation", "test", "other"):
        for row in tfds.as_numpy(builder.as_dataset(split=split)):
            values = split, row["label"], row["score"], row["source"].decode()
            found[row["text"].decode()] = values
    split_of = movie_sentiment.split_of
    label = {-2: 0, 0.5: -1, 0.51: 1}
    expected = {
        text.replace("&amp;", "&"): (split_of(text), label[score], np.float32(score), "movies")
        for score, text in ((score, text.replace("&amp;", "&")) for score, text in MOVIES)
    }
    expected["a é good phone"] = "other", 1, 1.5, "products"
    expected["the council met"] = "other", -1, -0.25, "editorials"
    expected["late again <3"] = "other", 0, -0.75, "tweets"
    assert found == expected


def test_split_of_sentences():
    split_of = movie_sentiment.split_of
    parts = [split_of(f"sentence {k}") for k in range(2000)]
    shares = {part: parts.count(part) / 2000 for part in set(parts)}
    assert shares == pytest.approx({"train": 0.8, "validation": 0.1, "test": 0.1}, abs=0.03)
    for k in range(50):
        assert split_of(f"...a Sentence, {k}!") == split_of(f"A sentence {k}")


def test_archive_that_is_missing(tmp_path):
    folder = tmp_path / "downloads" / "manual"
    folder.mkdir(parents=True)
    (folder / "another.tar.gz").touch()
    builder = tfds.builder("movie_sentiment", data_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"pip download .* vaderSentiment==3\.3\.2"):
        builder.download_and_prepare()


# -- the example ---------------------------------------------------------------------------


def options(**more):
    made = {"dataset": "movie_sentiment", "quick": False, "seconds": None, "epochs": 2}
    return SimpleNamespace(**made | {"layers": "keras_rnnx", "rnn": keras_rnnx} | more)


def test_texts_to_learn_from_and_to_read(data_dir):
    sets, to_read = sentiment.load(options(data_dir=data_dir))
    parts = {"train": [], "validation": [], "test": []}
    for score, text in MOVIES:
        text = text.replace("&amp;", "&")
        parts[movie_sentiment.split_of(text)].append((score, text.encode()))
    for split, part in parts.items():
        expected = {text: float(score > 0) for score, text in part if score != 0.5}
        if split == "train":  # how sure people were, of those too that are neither
            expected = {text: 1 / (1 + np.exp(-score)) for score, text in part}
        texts, labels = sets[split]
        assert dict(zip(texts, labels)) == pytest.approx(expected) and len(texts) == len(expected)
    others = {"a é good phone", "the council met", "late again <3"}
    assert set(to_read) == {text for _, text in parts["train"]} | {text.encode() for text in others}


def test_imdb_reviews(tmp_path):
    with tfds.testing.mock_data(num_examples=40):
        sets, to_read = sentiment.load(options(dataset="imdb_reviews", data_dir=tmp_path))
    assert set(sets) == {"train", "validation", "test"}
    for texts, labels in sets.values():
        assert len(texts) == len(labels) > 0 and set(labels) <= {0, 1}
        assert all(isinstance(text, bytes) for text in texts)
    assert len(to_read) == 80  # mocked: whole splits, whatever part of them was asked for


def test_packed():
    ids = np.array([[5, 6, 7, 0], [8, 0, 0, 0], [9, 1, 2, 3], [4, 0, 0, 0]])
    np.testing.assert_array_equal(sentiment.packed(ids), [[5, 6, 7, 8], [9, 1, 2, 3]])


def test_loss_of_the_language_model(monkeypatch):
    def full_softmax(kernel, bias, target, h, samples, words):
        assert target.shape == (len(h), 1) and (samples, words) == (500, 6)
        logits = tf.matmul(h, kernel, transpose_b=True) + bias
        return tf.nn.sparse_softmax_cross_entropy_with_logits(target[:, 0], logits)

    monkeypatch.setattr(sentiment, "WORDS", 6)
    monkeypatch.setattr(tf.nn, "sampled_softmax_loss", full_softmax)
    random = np.random.default_rng(1)
    h, x = random.normal(size=(3, 5, 4)).astype("float32"), random.integers(1, 6, (3, 5))
    layer = sentiment.NextWord()
    layer.build(h.shape, x.shape)
    layer.set_weights([random.normal(size=(6, 4)), random.normal(size=6)])
    kernel, bias = layer.get_weights()
    layer(h, x)
    (found,) = layer.losses
    costs = []
    for row, words in zip(h, x):
        for state, word in zip(row, words[1:]):
            p = np.exp(kernel @ state + bias)
            costs.append(-np.log(p[word] / p.sum()))
    np.testing.assert_allclose(found, np.mean(costs), rtol=1e-5)


def test_the_net_is_that_of_stock_keras(monkeypatch):
    monkeypatch.setattr(sentiment, "WORDS", 20)
    random = np.random.default_rng(1)
    x = random.integers(1, 20, (3, 7))
    x[0, 4:] = 0
    _, ours = sentiment.build(options(), 7, 0.3)
    weights = [random.normal(size=w.shape) / 3 for w in ours.get_weights()]
    _, stock = sentiment.build(options(layers="keras", rnn=keras.layers), 7, 0.3)
    ours.set_weights(weights)
    stock.set_weights(weights)
    np.testing.assert_allclose(ours(x), stock(x), atol=1e-6)
    for model in (ours, stock):
        assert np.abs(model(x, training=True) - model(x)).max() > 1e-3, "it drops in training"


def test_regression_looks_at_pairs_of_words():
    """Each word is as frequent in praise as in a pan: only its neighbour tells."""
    praise, pan = ["not bad", "very good"], ["not good", "very bad"]
    texts = [text.encode() for text in 400 * (praise + pan)]
    pair = texts, np.array(400 * [1, 1, 0, 0])
    classify = sentiment_report.regression({"train": pair})
    odds = sentiment_report.log_odds(classify, praise + pan)
    assert (odds > 0).tolist() == [True, True, False, False]


def test_a_sentence_is_right_on_the_side_of_its_label():
    labels, p = np.array([0.0, 1.0, 0.3, 0.9]), np.array([[0.4], [0.4], [0.1], [0.6]])
    model = keras.Sequential([keras.Input((1,)), keras.layers.Identity()])
    model.compile(loss="mse", metrics=[sentiment.accuracy])
    assert model.evaluate(p, labels, verbose=0)[1] == 0.75


def test_weight_of_words():
    value = {"a": 0.0, "fine": 2.0, "film": 0.25, "badly": -1.5, "made": 0.5}

    def predict(texts, **_):
        odds = [sum(value[word] for word in text.decode().split()) for text in texts.numpy()]
        return tf.sigmoid(tf.constant(odds))[:, None].numpy()

    odds, moved = sentiment_report.weigh(SimpleNamespace(predict=predict), "a fine film badly made")
    np.testing.assert_allclose(odds, 1.25, rtol=1e-5)
    np.testing.assert_allclose(moved, list(value.values()), atol=1e-5)


def made_up_sentences(number, random):
    """Words without a meaning, and about two that praise or two that pan."""
    sentences = []
    for _ in range(number):
        praises = random.random() < 0.5
        words = [f"word{k}" for k in random.integers(0, 300, random.integers(6, 14))]
        for k in random.choice(len(words), 2, replace=False):
            words[k] = f"{'good' if praises else 'bad'}{random.integers(0, 20)}"
        sentences.append((2 if praises else -2, " ".join(words)))
    return sentences


@pytest.mark.slow
def test_short_form(tmp_path):
    """On an archive that is made up: the real one is not installed with the tests."""
    random = np.random.default_rng(1)
    sizes = {"movies": 3000, "products": 200, "editorials": 200, "tweets": 200}
    tables = {source: made_up_sentences(number, random) for source, number in sizes.items()}
    write_archive(tmp_path / "data", tables)
    command = [sys.executable, ROOT / "examples" / "sentiment.py", "--quick", "--out", tmp_path]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    metrics, baselines = result["metrics"], result["baselines"]
    assert metrics.keys() == {
        "accuracy",
        "accuracy, with logistic regression",
        *(f"accuracy, {name}" for name in sentiment.VARIANTS),
    }
    majority, regression = baselines.values()
    assert 0.4 < majority < 0.65 and regression > 0.9
    assert metrics["accuracy"] > 0.85, "two words of every sentence tell"
    names = {"data", "export", "model.keras", "result.json", "sentiment.png"}
    assert {path.name for path in tmp_path.iterdir()} == names, "nothing unfinished is left"
    height, width, _ = matplotlib.image.imread(tmp_path / "sentiment.png").shape
    assert width > height > 400

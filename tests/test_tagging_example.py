"""examples/tagging_crf.py in its short form, its parts, and the sentences that it reads."""

import csv
import gzip
import importlib.metadata
import itertools
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import keras
import matplotlib.image
import numpy as np
import pytest
import tagging_crf
from parts import tagging_data
from parts import tagging_report
import tensorflow as tf
import tensorflow_datasets as tfds

import keras_rnnx
import keras_rnnx.datasets  # registers `hebrew_entities`
from keras_rnnx import serving
from keras_rnnx.datasets import hebrew_entities
from keras_rnnx.heads import allowed_transitions

ROOT = Path(__file__).parents[1]
NAMES = list(hebrew_entities.TAGS)


@pytest.fixture(scope="module")
def treebank():
    """All that is used of the real treebank: `{split: {sentence: [(word, tag), ...]}}`."""
    parts = {}
    with gzip.open(hebrew_entities.treebank_path(), "rt", encoding="utf-8") as file:
        for split, sentence, word, tag in hebrew_entities.rows(file):
            parts.setdefault(split, {}).setdefault(sentence, []).append((word, tag))
    return parts


# -- the sentences -------------------------------------------------------------------------


def test_all_sentences(treebank):
    """The sizes that the corpus has after its authors have left out what occurs twice."""
    sizes = {split: len(part) for split, part in treebank.items()}
    assert sizes == {"train": 4937, "validation": 500, "test": 706}
    kinds = Counter(
        (split, tag[2:])
        for split, part in treebank.items()
        for sentence in part.values()
        for _, tag in sentence
        if tag[0] in "BS"
    )
    # From `zcat spdf_fixed.csv.gz | grep -cE ",train,.*,[BS]-PER(,[^,]*){3}$"`, and so on.
    assert kinds["train", "PER"] == 2128 and kinds["train", "ORG"] == 2043
    assert kinds["validation", "PER"] == 193 and kinds["validation", "GPE"] == 121
    of_split = lambda wanted: sum(n for (split, _), n in kinds.items() if split == wanted)
    assert {split: of_split(split) for split in sizes} == {
        "train": 6282,
        "validation": 499,
        "test": 932,
    }


def test_real_tags_keep_to_the_scheme(treebank):
    may = allowed_transitions(NAMES, "BIOES")
    edge = len(NAMES)
    for part in treebank.values():
        for sentence in part.values():
            ids = [edge, *(NAMES.index(tag) for _, tag in sentence), edge]
            assert all(may[before, after] for before, after in itertools.pairwise(ids))


def test_words_stay_apart_and_the_test_is_not_in_train(treebank):
    texts = {
        split: {" ".join(word for word, _ in sentence) for sentence in part.values()}
        for split, part in treebank.items()
    }
    words = {word for part in treebank.values() for s in part.values() for word, _ in s}
    assert all(word.split() == [word] for word in words)
    assert not texts["test"] & texts["train"]
    assert not texts["validation"] & texts["train"]


COLUMNS = ("form", "sent_id", "set", "duplicate_sent_id", "biose_layer0")
# Made up: small sentences in the treebank's form.
MADE_UP = {
    "1": ("train", "", "ה O", "בית O", "של O", "דנה S-PER"),
    "2": ("dev", "", "ל O", "תל B-GPE", "אביב E-GPE", '" O', ", O"),
    "3": ("train", "[4]", "כן O"),
    "4": ("test", "[3]", "כן O"),
    "5": ("test", "", "בית B-ORG", "ה I-ORG", "ספר E-ORG"),
}


@pytest.fixture
def made_up(monkeypatch, tmp_path):
    path = tmp_path / "spdf_fixed.csv.gz"
    with gzip.open(path, "wt", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for number, (split, duplicate, *tagged) in MADE_UP.items():
            for word, tag in map(str.split, tagged):
                table.writerow((word, number, split, duplicate, tag))
    monkeypatch.setattr(hebrew_entities, "treebank_path", lambda: path)


def test_builder(made_up, tmp_path):
    builder = tfds.builder("hebrew_entities", data_dir=tmp_path / "data")
    builder.download_and_prepare()
    names = builder.info.features["tags"].feature.names
    assert len(names) == 37 and names[0] == "O"
    found = {}
    for split in ("train", "validation", "test"):
        for row in tfds.as_numpy(builder.as_dataset(split=split)):
            tagged = (
                f"{word.decode()} {names[tag]}" for word, tag in zip(row["words"], row["tags"])
            )
            found[row["sentence"].decode()] = (split, *tagged)
    here = {"train": "train", "dev": "validation", "test": "test"}
    expected = {n: (here[split], *rest) for n, (split, _, *rest) in MADE_UP.items()}
    del expected["4"]  # a sentence of the test that is in train
    assert found == expected


def test_package_that_is_not_installed(monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", absent)
    with pytest.raises(ModuleNotFoundError, match=re.escape("pip install 'keras_rnnx[examples]'")):
        hebrew_entities.treebank_path()


def test_package_without_its_file(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "files", lambda name: [])
    with pytest.raises(FileNotFoundError, match="0 files named spdf_fixed.csv.gz, expected 1"):
        hebrew_entities.treebank_path()


# -- the example ---------------------------------------------------------------------------


def vectorizers():
    words = keras.layers.TextVectorization(standardize=None, vocabulary=["ab", "c", "abc"])
    return {"words": words, "letters": tagging_data.Letters("abc")}


def test_letters():
    width = tagging_data.LETTERS
    found = tagging_data.Letters("abc")(tf.constant(["ab c", "cabcabcabcabcab x a"])).numpy()
    assert found.shape == (2, 3, width)
    np.testing.assert_array_equal(found[0, 0], [2, 3, *[0] * (width - 2)])
    np.testing.assert_array_equal(found[0, 1], [4, *[0] * (width - 1)])
    np.testing.assert_array_equal(found[0, 2], [0] * width)
    np.testing.assert_array_equal(found[1, 0], ([4, 2, 3] * width)[:width])  # cut
    assert found[1, 1, 0] == 1  # an unknown letter


def test_batches_hide_rare_words_only():
    sentences, tags = ["ab c abc", "ab"] * 500, [[3, 0, 5], [7]] * 500
    parts = vectorizers()
    shown = list(tagging_data.batches(parts, sentences, tags))
    assert [x["words"].shape for x, _ in shown] == 12 * [(80, 12)] + [(40, 12)]
    x, y = shown[0]
    np.testing.assert_array_equal(x["words"][:2, :4], [[2, 3, 4, 0], [2, 0, 0, 0]])
    np.testing.assert_array_equal(x["letters"][0, 2, :4], [2, 3, 4, 0])
    np.testing.assert_array_equal(y[:2, :4], [[3, 0, 5, -1], [7, -1, -1, -1]])

    hidden, steps = tagging_data.batches(parts, sentences, tags, rare=4)
    hidden = list(hidden.take(steps))
    assert [x["words"].shape for x, _ in hidden] == 12 * [(80, 12)]
    words = np.concatenate([x["words"] for x, _ in hidden])
    tags = np.concatenate([y for _, y in hidden])
    np.testing.assert_array_equal(words[tags == 3], 2)
    np.testing.assert_array_equal(words[tags == 0], 3)
    np.testing.assert_array_equal(words[tags == 7], 2)
    np.testing.assert_array_equal(words[tags == -1], 0)
    assert set(words[tags == 5]) == {1, 4}
    assert 0.35 < np.mean(words[tags == 5] == 1) < 0.65  # over six deviations of 480 draws


def test_decoding_by_rules_is_the_best_allowed_sequence():
    names = ["O", "B-X", "I-X", "E-X", "S-X"]
    given = keras.Input((None, 5))
    tagger = tagging_crf.by_rules(keras.Model(given, keras.layers.Identity()(given)), names)
    scores = np.random.default_rng(1).normal(size=(4, 5)).astype("float32")
    may = allowed_transitions(names, "BIOES")
    legal = [
        tags
        for tags in itertools.product(range(5), repeat=4)
        if all(may[a, b] for a, b in itertools.pairwise((5, *tags, 5)))
    ]
    best = max(legal, key=lambda tags: sum(scores[t, tag] for t, tag in enumerate(tags)))
    assert tuple(scores.argmax(axis=1)) not in legal, "each tag alone breaks the scheme"
    np.testing.assert_array_equal(tagger(scores[None]), [best])


def test_entities():
    words = "in New York Ann met Bob A B".split()
    tags = "O B-GPE E-GPE S-PER O S-PER B-ORG E-ORG".split()
    expected = ["New York (GPE)", "Ann (PER)", "Bob (PER)", "A B (ORG)"]
    assert tagging_report.entities(words, tags) == expected
    assert tagging_report.entities(["in"], ["O"]) == []


def test_heads():
    parts = vectorizers()
    models = {head: tagging_crf.build(keras_rnnx, head, NAMES, parts) for head in tagging_crf.HEADS}
    crfs = [models[head].get_layer("crf") for head in tagging_crf.HEADS[1:]]
    assert [crf.constrain_training for crf in crfs] == [False, True]
    assert models["no CRF"].output_shape == (None, None, 37)


@pytest.mark.slow
def test_text_in_and_names_out(tmp_path):
    parts = vectorizers()
    model = tagging_crf.build(keras_rnnx, "CRF", NAMES, parts)
    tagger = tagging_crf.from_text(model, NAMES, parts)
    text = tf.constant(["ab c abc ab", "c x"])
    tags = tagger(text).numpy()
    ids = model({name: layer(text) for name, layer in parts.items()}).numpy()
    assert ids.shape == (2, 4) and (ids[1, 2:] == -1).all()
    expected = [[NAMES[tag] if tag >= 0 else "" for tag in row] for row in ids]
    np.testing.assert_array_equal(tags.astype(str), expected)

    tagger.save(tmp_path / "tagger.keras")
    loaded = keras.saving.load_model(tmp_path / "tagger.keras")
    np.testing.assert_array_equal(loaded(text), tags)
    version = serving.export(tagger, tmp_path / "export", example=text.numpy(), verbose=False)
    graph = tf.saved_model.load(str(version)).signatures["serving_default"]
    np.testing.assert_array_equal(graph(text=text)["tags"], tags)


def test_usual_tags():
    names = ["O", "B-X", "I-X", "E-X", "S-X"]
    train = [b"a b a c", b"a b"], [[4, 0, 0, 1], [4, 0]]  # a: S-X twice and O once
    test = [b"a x b", b"c a"], [[4, 4, 0], [0, 4]]
    # Found: a, a, and c as an entity that never ends: two of three are right, two of three found.
    found = tagging_report.by_memory({"train": train, "test": test}, names)
    assert found == pytest.approx(200 / 3)


CONLL = ["O", *(f"{prefix}-{kind}" for kind in ("PER", "ORG", "LOC", "MISC") for prefix in "BI")]


def conll2003(data_dir):
    """What the example reads of that data set."""
    return tagging_data.load(SimpleNamespace(dataset="conll2003", data_dir=data_dir, quick=False))


def test_conll2003(monkeypatch, tmp_path):
    """Made-up files, named and written like the real ones, which end with an empty line."""
    texts = {
        "train": "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nand CC O O\nUN NNP B-NP B-ORG\n\n",
        "valid": "Ann NNP B-NP B-PER\nLee NNP I-NP I-PER\n\nno DT O O\n\n",
        "test": "a DT O O\n" * 124 + "\n",  # as long as the longest there is
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.txt").write_text(text)
    download = lambda self, url: tmp_path
    monkeypatch.setattr(tfds.download.DownloadManager, "download_and_extract", download)
    sets, names = conll2003(tmp_path / "data")
    assert names == CONLL
    found = {
        split: {text.decode(): [names[tag] for tag in row] for text, row in zip(*part)}
        for split, part in sets.items()
    }
    assert found == {
        "train": {"EU and UN": ["B-ORG", "O", "B-ORG"]},
        "validation": {"Ann Lee": ["B-PER", "I-PER"], "no": ["O"]},
        "test": {" ".join("a" * 124): ["O"] * 124},
    }
    ((x, y),) = tagging_data.batches(vectorizers(), *sets["test"])
    assert x["words"].shape == y.shape == (1, 124)


def test_scheme_is_that_of_the_data_set():
    may = tagging_data.may_follow
    np.testing.assert_array_equal(may(NAMES), allowed_transitions(NAMES, "BIOES"))
    np.testing.assert_array_equal(may(CONLL), allowed_transitions(CONLL, "BIO"))


def test_mocked_conll2003_trains(tmp_path):
    with tfds.testing.mock_data(num_examples=20):
        sets, names = conll2003(tmp_path)
    assert set(sets) == {"train", "validation", "test"}
    for sentences, tags in sets.values():
        assert len(sentences) == len(tags) == 20
        assert all(isinstance(text, bytes) for text in sentences)
        assert set(np.concatenate(tags)) <= set(range(len(CONLL)))
    words = sorted({word for text in sets["train"][0] for word in text.decode().split()})
    parts = {
        "words": keras.layers.TextVectorization(standardize=None, vocabulary=words),
        "letters": tagging_data.Letters("abcdefghij"),
    }
    x, y = next(iter(tagging_data.batches(parts, *sets["train"], rare=len(words))[0]))
    model = tagging_crf.build(keras_rnnx, "CRF", names, parts, {"jit_compile": False})
    model.run_eagerly = True  # one step, for which tracing would take longer
    before = model.get_weights()
    assert 0 < model.train_on_batch(x, y, return_dict=True)["loss"] < np.inf
    assert all(np.any(a != b) for a, b in zip(before, model.get_weights()))


@pytest.mark.slow
def test_short_form(tmp_path):
    command = [sys.executable, ROOT / "examples" / "tagging_crf.py", "--quick", "--out", tmp_path]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    f1 = result["metrics"]
    heads = ["no CRF", "no CRF, decoded by the rules", "CRF", "CRF, constrained training"]
    assert list(f1) == ["F1", *(f"F1, {head}" for head in heads)]
    assert min(f1.values()) > 8, "it learns"
    assert f1["F1, no CRF, decoded by the rules"] > f1["F1, no CRF"]
    assert 0 < result["baselines"]["each word's usual tag: F1"] < 60
    names = {"crf_transitions.png", "data", "export", "model.keras", "result.json"}
    assert {path.name for path in tmp_path.iterdir()} == names, "nothing unfinished is left"
    height, width, _ = matplotlib.image.imread(tmp_path / "crf_transitions.png").shape
    assert width > height > 400

"""examples/translate.py in its short form, from beginning to end, and a Translator by itself."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import matplotlib.image
import numpy as np
from parts import pronunciations
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
import translate
from parts import translations

import keras_rnnx as rnnx
from keras_rnnx.attention import BahdanauAttention
from keras_rnnx.seq2seq import BannedTokens
from keras_rnnx.seq2seq import Decoder
from keras_rnnx.seq2seq import Encoder
from keras_rnnx.seq2seq import Seq2Seq
from keras_rnnx.seq2seq import SequenceLoss
from keras_rnnx.seq2seq import Translator

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_short_form(tmp_path):
    command = [sys.executable, ROOT / "examples" / "translate.py", "--quick", "--out", tmp_path]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads((tmp_path / "result.json").read_text())["metrics"]
    assert set(found) == {
        f"{unit} error{how}" for unit in ("phoneme", "word") for how in ("", ", beam of 4")
    }
    assert max(found["phoneme error"], found["phoneme error, beam of 4"]) < 50, "most are right"
    validation = [
        float(x) for x in re.findall(r"^validation: phoneme error (\S+) %", run.stdout, re.M)
    ]
    assert len(validation) == 3 and validation[-1] < validation[0], "it learns"
    names = {"alignments.png", "data", "export", "model.keras", "result.json"}
    assert names <= {path.name for path in tmp_path.iterdir()}
    height, width, _ = matplotlib.image.imread(tmp_path / "alignments.png").shape
    assert width > height > 300
    translator = keras.saving.load_model(tmp_path / "model.keras")
    assert translator.model.count_params() < 2_000_000
    assert translator.decode(["hello", "o'clock"], beam_width=2).texts.shape == (2, 2)


def sentences(data_dir):
    """What the example reads of talks with translations."""
    dataset = "ted_hrlr_translate/pt_to_en"
    return translations.load(SimpleNamespace(dataset=dataset, data_dir=data_dir, quick=False))


def test_ted_talks(monkeypatch, tmp_path):
    """Made-up files, where and as the real ones lie in what is downloaded."""
    long = " ".join("a" * 36)  # fits, with its end, into no batch
    texts = {
        "train": {"Obrigado .": "Thank you .", "obrigado !": "thanks", long: "a", "...": "."},
        "dev": {"é um guarda-chuva": "it 's an umbrella", "b": long},
        "test": {long: "They did n't ."},
    }
    folder = tmp_path / "datasets" / "pt_to_en"
    folder.mkdir(parents=True)
    for part, pairs in texts.items():
        (folder / f"pt.{part}").write_text("\n".join(pairs), encoding="utf-8")
        (folder / f"en.{part}").write_text("\n".join(pairs.values()), encoding="utf-8")
    download = lambda self, url: tmp_path
    monkeypatch.setattr(tfds.download.DownloadManager, "download_and_extract", download)
    found = sentences(tmp_path / "data")
    assert {one: sorted(several) for one, several in found.pop("train").items()} == {
        "obrigado": ["thank you", "thanks"]
    }
    assert found == {
        "validation": {"é um guarda-chuva": ["it 's an umbrella"], "b": [long]},
        "test": {long: ["they did n't"]},
    }


def test_vocabulary_is_bounded(monkeypatch):
    monkeypatch.setattr(translations, "VOCABULARY", 2)
    assert translations.frequent(["a b c", "b c", "b"]) == ["b", "c"]


def test_mocked_ted_talks_train(monkeypatch, tmp_path):
    with tfds.testing.mock_data(num_examples=30):
        found = sentences(tmp_path)
    assert set(found) == {"train", "validation", "test"}
    for part in found.values():
        assert len(part) == 30 and all(len(several) == 1 for several in part.values())
        texts = [*part, *(one for several in part.values() for one in several)]
        assert set("".join(texts)) == set(" abcdefghij")
    said = [one for several in found["train"].values() for one in several]
    source, target = translations.frequent(found["train"]), translations.frequent(said)
    translator = translate.build(target, words=source)
    assert translator.source.get_vocabulary() == ["", "[UNK]", *source]
    assert translator.target.get_vocabulary() == ["", "[UNK]", *target]
    ids, ends = translator.pairs(list(found["train"]), said)
    assert np.all(ids != 1) and np.all(ends != 1), "no word is unknown"

    monkeypatch.setattr(pronunciations, "BATCH", 4)
    rows, steps = pronunciations.batches(translator, found["train"])
    assert steps > 0
    with rnnx.portable():
        model = translator.model
        model(ids[:1])  # makes the weights
        model.compile("adam", SequenceLoss())
        model.run_eagerly = True  # one step, for which tracing would take longer
        before = model.get_weights()
        assert 0 < model.train_on_batch(*next(iter(rows))) < np.inf
    assert all(np.any(a != b) for a, b in zip(before, model.get_weights()))

    five = " ".join(target[:5])
    errors = lambda said: translations.quality(translator, {"x": [target[9], five]}, [said])
    assert errors(five) == {"token error": 0, "BLEU": pytest.approx(100)}
    assert errors(" ".join(target[:4]))["token error"] == pytest.approx(20)


def small():
    keras.utils.set_random_seed(3)
    letters = keras.layers.TextVectorization(split="character", vocabulary=list("abc"))
    words = keras.layers.TextVectorization(standardize=None)
    words.adapt(["x y zz x", "y"])  # adapted, not given: kept in the file beside the configuration
    n = words.vocabulary_size()
    rnn = rnnx.GRU(8, return_sequences=True, return_state=True)
    cell = rnnx.AttentionCell(rnnx.GRUCell(8), BahdanauAttention(5))
    model = Seq2Seq(
        Encoder(rnn, letters.vocabulary_size(), 4),
        Decoder(cell, n + 2, 4),
        start=n + 1,
        end=n,
        decoding={"max_length": 5, "constraint": BannedTokens((1, n + 1))},
    )
    return Translator(model, letters, words)


def test_strings_are_those_of_the_ids():
    translator = small()
    texts, found = translator.decode(["abc", "b"], beam_width=3)
    vocabulary = translator.target.get_vocabulary()
    for k, i in np.ndindex(*texts.shape):
        ids = found.ids[k, i, : found.lengths[k, i]].numpy()
        assert texts[k, i].numpy().decode() == " ".join(vocabulary[token] for token in ids)
    np.testing.assert_array_equal(translator(tf.constant(["abc", "b"])), texts[:, 0])
    source, targets = translator.pairs(["ab", "c"], ["y x zz", ""])
    end = translator.model.end
    expected = [[*(vocabulary.index(word) for word in "y x zz".split()), end], [end, 0, 0, 0]]
    np.testing.assert_array_equal(targets, expected)


def test_file_and_export_keep_the_vocabularies(tmp_path):
    translator = small()
    asked = tf.constant(["abc", "b", "cab"])
    texts, found = translator.decode(asked, beam_width=3, length_penalty=0.5)
    translator.save(tmp_path / "translator.keras")
    loaded = keras.saving.load_model(tmp_path / "translator.keras")
    again = loaded.decode(asked, beam_width=3, length_penalty=0.5)
    np.testing.assert_array_equal(again.texts, texts)
    np.testing.assert_array_equal(again.decoded.scores, found.scores)

    translator.export(tmp_path / "export", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "export")).signatures
    numbers = {"max_length": tf.fill([3], 5), "length_penalty": tf.fill([3], 0.5)}
    for width in (1, 3):
        one = served["decode"](text=asked, beam_width=tf.fill([3], width), **numbers)
        wanted, decoded = translator.decode(asked, beam_width=width, length_penalty=0.5)
        np.testing.assert_array_equal(one["texts"], wanted)
        np.testing.assert_allclose(one["scores"], decoded.scores, rtol=0, atol=1e-5)
        np.testing.assert_allclose(one["alignments"], decoded.alignments, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(served["serving_default"](text=asked)["text"], translator(asked))


@pytest.mark.quick
def test_tokens_must_follow_the_vocabulary():
    letters = keras.layers.TextVectorization(split="character", vocabulary=list("abc"))
    rnn = rnnx.GRU(8, return_sequences=True, return_state=True)
    model = Seq2Seq(Encoder(rnn, 5, 4), Decoder(rnnx.GRUCell(8), 9, 4), start=1, end=2)
    with pytest.raises(ValueError, match="end=2, start=1 and a decoder of 9 tokens, expected 5, 6"):
        Translator(model, letters, letters)

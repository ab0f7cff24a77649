"""Bach's four-part chorales, note by note: 364 pieces of the corpus that comes with music21."""

import importlib.metadata
import re
import xml.etree.ElementTree
import zipfile
from fractions import Fraction

import numpy as np
import tensorflow_datasets as tfds

from keras_rnnx.datasets import cmudict

VOICES = 4  # soprano, alto, tenor, bass
SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}


class Chorales(tfds.core.GeneratorBasedBuilder):
    """Four-part chorales by J. S. Bach, read from the installed package `music21`.

    The pieces of its folder `corpus/bach` with exactly four parts: soprano, alto, tenor, bass. The
    grid is one step per eighth note: a step has the notes that sound at its beginning. So a
    sixteenth on the second half of an eighth is not seen, a held note looks like a repeated one,
    and `pitches[::2]` is the grid of quarter notes. Repeats are not played.

    The split is drawn by the BWV number, so the chorales of one cantata or passion, where a melody
    often returns, are on one side. About 80 % of the numbers are `train`, 10 % `validation` and
    10 % `test`.

    Features:
        name: the BWV number and the movement ("bwv101.7").
        pitches: `[T, 4]`, MIDI numbers (60 is middle C) of soprano, alto, tenor, bass; 0 is a rest.

    Parts of that corpus may not be used commercially, says its licence, so no copy of it comes with
    keras_rnnx: it is read where pip has put it.

    Reference: music21, https://www.music21.org/music21docs/about/referenceCorpus.html

    Example, in a folder of your choice:

        import keras_rnnx.datasets, tensorflow_datasets as tfds
        train = tfds.load("chorales", split="train", data_dir="data")
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description="Four-part chorales by J. S. Bach, the pitches at each eighth note.",
            features=tfds.features.FeaturesDict(
                {
                    "name": tfds.features.Text(),
                    "pitches": tfds.features.Tensor(shape=(None, VOICES), dtype=np.int32),
                }
            ),
            homepage="https://www.music21.org/music21docs/about/referenceCorpus.html",
        )

    def _split_generators(self, dl_manager):
        paths = {"train": [], "validation": [], "test": []}
        for path in score_paths():
            paths[split_of(path.stem)].append(path)
        return {split: self._generate_examples(chosen) for split, chosen in paths.items()}

    def _generate_examples(self, paths):
        for path in paths:
            parts = read_parts(path)
            if len(parts) == VOICES:
                yield path.stem, {"name": path.stem, "pitches": grid(parts)}


def score_paths():
    """Where the scores lie inside the installed package `music21`, sorted by name."""
    # Found through the package's metadata and never imported: that takes seconds, and reading the
    # scores with it a minute.
    try:
        files = importlib.metadata.files("music21")
    except importlib.metadata.PackageNotFoundError as error:
        raise ModuleNotFoundError(
            "The data set `chorales` is read from the package `music21`, which is not installed. "
            "Install it with the extra `examples`: pip install 'keras_rnnx[examples]'",
            name="music21",
        ) from error
    found = [
        file.locate()
        for file in files or ()
        if file.parts[-3:-1] == ("corpus", "bach") and re.fullmatch(r"bwv\d+.*\.mxl", file.name)
    ]
    if not found:
        raise FileNotFoundError(
            f"The installed package `music21` {importlib.metadata.version('music21')} lists no "
            "files corpus/bach/bwv*.mxl. Install the version that was tested: "
            "pip install 'keras_rnnx[examples]'"
        )
    return sorted(found, key=lambda path: path.name)


def read_parts(path):
    """The parts of a compressed MusicXML score: elements of measures of notes."""
    with zipfile.ZipFile(path) as archive:
        container = xml.etree.ElementTree.fromstring(archive.read("META-INF/container.xml"))
        # {*}: with the namespace that the standard asks for, or without, as in many files.
        score = container.find(".//{*}rootfile").get("full-path")
        return xml.etree.ElementTree.fromstring(archive.read(score)).findall("part")


def grid(parts):
    """Pitches `[T, parts]`, one step per eighth note; 0 where a part rests."""
    melodies = [list(notes(part)) for part in parts]
    length = max((end for melody in melodies for _, end, _ in melody), default=0)
    pitches = np.zeros((first_step(length), len(parts)), np.int32)
    for voice, melody in enumerate(melodies):
        for start, end, pitch in melody:
            pitches[first_step(start) : first_step(end), voice] = pitch
    return pitches


def first_step(time):
    """The first step that begins at `time` or later; `time` is in quarter notes."""
    return -int(-2 * time // 1)  # rounded up


def notes(part):
    """`(start, end, pitch)` of each note and rest of a part, times in quarter notes."""
    time, divisions = Fraction(0), None
    for element in part.iterfind("measure/*"):
        divisions = element.findtext("divisions") or divisions
        duration = element.findtext("duration")
        if duration is None:  # no note, or a grace note
            continue
        if element.find("chord") is not None:
            raise ValueError("A part of the score has chords, expected one note at a time.")
        length = Fraction(duration) / Fraction(divisions)
        if element.tag == "backup":
            time -= length
            continue
        if element.tag == "note":
            yield time, time + length, midi(element.find("pitch"))
        time += length


def midi(pitch):
    """The number of a pitch, 60 for C4; 0 for the pitch None of a rest."""
    if pitch is None:
        return 0
    octave, alter = int(pitch.findtext("octave")), int(pitch.findtext("alter", "0"))
    return 12 * (octave + 1) + SEMITONES[pitch.findtext("step")] + alter


def split_of(name):
    """`train`, `validation` or `test`, from the BWV number of a name like "bwv101.7"."""
    return cmudict.split_of(re.match(r"bwv\d+", name).group())

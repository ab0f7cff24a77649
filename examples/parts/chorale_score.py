"""A composition of examples/music.py as a MIDI file and as a picture: no net is needed for them."""

import itertools

import matplotlib.pyplot as plt
import music21
import numpy as np
from parts.chorale_data import LOWEST

BEGINNING = 16  # chords of a real chorale that the composition begins with


def tones(line):
    """`(note, start, length)` of what one voice does, in steps: a note that stays is held."""
    start = 0
    for note, steps in itertools.groupby(line):
        length = len(list(steps))
        yield int(note), start, length
        start += length


def write_midi(path, notes):
    """The composition as a MIDI file, a part for each voice."""
    score = music21.stream.Score()
    for line in notes.T:
        part = music21.stream.Part()
        for note, _, length in tones(line):
            kind = music21.note.Note(note + LOWEST - 1) if note else music21.note.Rest()
            kind.quarterLength = length
            part.append(kind)
        score.insert(0, part)
    score.write("midi", path)


def draw(notes):
    """The composition as a piano roll."""
    figure, axis = plt.subplots(figsize=(11, 4), layout="constrained")
    for voice, line in zip(("soprano", "alto", "tenor", "bass"), notes.T):
        bars = [(start, length, note + LOWEST - 1) for note, start, length in tones(line) if note]
        starts, lengths, pitches = zip(*bars)
        axis.barh(pitches, np.array(lengths) - 0.1, left=starts, height=0.8, label=voice)
    axis.axvline(BEGINNING, color="gray", linestyle="--")
    axis.set(xlabel="quarter notes (left of the line: by Bach)", ylabel="MIDI number of the key")
    axis.legend(ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1))
    return figure

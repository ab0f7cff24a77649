"""Bach's chorales as numbers: what examples/music.py and examples/regularizers.py share."""

import numpy as np
import tensorflow_datasets as tfds

import keras_rnnx.datasets  # noqa: F401  (registers `chorales` for TFDS)

KEYS, LOWEST = 88, 21  # of a piano; MIDI number of the first
NOTES = KEYS + 1  # what a voice can do: 0 is a rest, n the n-th key
PADDING = -1


def pieces_of(data_dir, quick):
    """`{split: [pitches [T, 4], ...]}`, a step per quarter note: MIDI numbers, 0 is a rest."""
    builder = tfds.builder("chorales", data_dir=data_dir)
    builder.download_and_prepare()
    sets = {}
    for split in ("train", "validation", "test"):
        found = [row["pitches"][::2] for row in tfds.as_numpy(builder.as_dataset(split=split))]
        sets[split] = [piece[:24] for piece in found[:32]] if quick else found
    return sets


def load(data_dir, quick):
    """`{split: notes [N, T, 4]}`, PADDING after the end of a piece."""
    sets = {}
    for split, pieces in pieces_of(data_dir, quick).items():
        notes = np.full((len(pieces), max(map(len, pieces)), 4), PADDING, "int32")
        for row, piece in zip(notes, pieces):
            row[: len(piece)] = np.where(piece > 0, piece - LOWEST + 1, 0)
        sets[split] = notes
    return sets


def keys_of(notes):
    """Which keys sound, `[..., 88]`, of notes `[..., 4]`; PADDING stays what it is."""
    sound = (notes[..., None] == np.arange(1, NOTES)).any(axis=-2)
    return np.where(notes[..., :1] == PADDING, PADDING, sound).astype("float32")


def examples(notes):
    """Inputs and targets of each step: what sounds, and what sounds next."""
    following = notes[:, 1:]
    chords = np.where(following[..., :1] == PADDING, PADDING, keys_of(notes)[:, :-1])
    x = {"chords": chords.astype("float32"), "following": np.maximum(following, 0)}
    return x, {"keys": keys_of(following), "voices": following}


def piano_rolls(pieces):
    """Inputs and targets `[N, T, 88]` of pitches `[T, 4]`: the keys at each step, and at the next.

    1 where a key sounds, 0 where not, PADDING after the end of a piece.
    """
    rolls = np.full((len(pieces), max(map(len, pieces)), KEYS), PADDING, "float32")
    for roll, pitches in zip(rolls, pieces):
        step, voice = np.nonzero(pitches)  # 0 is a rest
        roll[: len(pitches)] = 0
        roll[step, pitches[step, voice] - LOWEST] = 1
    x, y = rolls[:, :-1].copy(), rolls[:, 1:]
    x[y == PADDING] = PADDING  # the last step of a piece has no next one
    return x, y


def load_rolls(data_dir, quick):
    """`{split: (x, y)}`, as `piano_rolls` gives them."""
    return {split: piano_rolls(pieces) for split, pieces in pieces_of(data_dir, quick).items()}

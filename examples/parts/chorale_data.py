"""Bach's chorales as numbers: what examples/music.py and examples/regularizers.py share."""

import numpy as np
import tensorflow_datasets as tfds

import keras_rnnx.datasets  # noqa: F401  (registers `chorales` for TFDS)

KEYS, LOWEST = 88, 21  # of a piano; MIDI number of the first
NOTES = KEYS + 1  # what a voice can do: 0 is a rest, n the n-th key
PADDING = -1


def notes_of(pieces):
    """Notes `[N, T, 4]` of pitches `[T, 4]`: MIDI numbers, 0 is a rest. PADDING after the end."""
    notes = np.full((len(pieces), max(map(len, pieces)), 4), PADDING, "int32")
    for row, piece in zip(notes, pieces):
        row[: len(piece)] = np.where(piece > 0, piece - LOWEST + 1, 0)
    return notes


def load(data_dir, quick):
    """`{split: notes [N, T, 4]}`, a step per quarter note, as `notes_of` gives them."""
    builder = tfds.builder("chorales", data_dir=data_dir)
    builder.download_and_prepare()
    sets = {}
    for split in ("train", "validation", "test"):
        found = [row["pitches"][::2] for row in tfds.as_numpy(builder.as_dataset(split=split))]
        sets[split] = notes_of([piece[:24] for piece in found[:32]] if quick else found)
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

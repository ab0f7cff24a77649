"""The music example: chords, likelihoods, what it composes and writes; its short form."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

from parts import chorale_score
import keras
import matplotlib.image
import music
import music21
import numpy as np
import pytest
from parts.chorale_data import KEYS
from parts.chorale_data import LOWEST
from parts.chorale_data import NOTES
from parts.chorale_data import PADDING
from parts.chorale_data import examples
from parts.chorale_data import keys_of

import keras_rnnx

ROOT = Path(__file__).parents[1]
C4, E4, G4, C5 = (pitch - LOWEST + 1 for pitch in (60, 64, 67, 72))


@pytest.fixture
def notes():
    """Two pieces of voices that move, the second shorter."""
    rng = np.random.default_rng(0)
    notes = rng.integers(20, 60, size=(2, 7, 4)).astype("int32")
    notes[0, 3, 2] = 0  # a rest
    notes[0, 4] = 33  # four voices on one key
    notes[1, 5:] = PADDING
    return notes


def test_steps_are_what_sounds_and_what_sounds_next(notes):
    x, y = examples(notes)
    for n, length in enumerate((7, 5)):
        for t in range(6):
            now, following = x["chords"][n, t], y["keys"][n, t]
            if t + 1 < length:
                keys = {int(k) - 1 for k in notes[n, t] if k > 0}
                assert set(np.flatnonzero(now)) == keys
                keys = {int(k) - 1 for k in notes[n, t + 1] if k > 0}
                assert set(np.flatnonzero(following)) == keys
                np.testing.assert_array_equal(x["following"][n, t], notes[n, t + 1])
            else:
                assert (now == PADDING).all() and (y["voices"][n, t] == PADDING).all()


def test_nats(notes):
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(2, 6, 4, NOTES)).astype("float32")
    y = np.maximum(notes[:, 1:], 0)
    p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    expected = [
        [-sum(math.log(p[n, t, v, y[n, t, v]]) for v in range(4)) for t in range(6)]
        for n in range(2)
    ]
    np.testing.assert_allclose(music.voice_nats(y, logits), expected, rtol=1e-5)

    logits, keys = logits[..., 0, :KEYS], keys_of(y)
    p = 1 / (1 + np.exp(-logits.astype("float64")))
    expected = -np.log(np.where(keys == 1, p, 1 - p)).sum(axis=-1)
    np.testing.assert_allclose(music.key_nats(keys, logits), expected, rtol=1e-5)


def test_a_voice_knows_the_voices_above_it_only(notes):
    layer = music.Voices(units=5)
    h = np.random.default_rng(2).normal(size=(2, 7, 3)).astype("float32")
    notes = np.maximum(notes, 0)
    before = layer(h, notes).numpy()
    for voice in range(4):
        other = notes.copy()
        other[..., voice] = 7
        changed = np.abs(layer(h, other) - before).max(axis=(0, 1, 3)) > 1e-7
        np.testing.assert_array_equal(changed, np.arange(4) > voice)


def test_padding_costs_nothing(notes):
    model, _ = music.build(keras_rnnx, 6, np.full(KEYS, 0.1, "float32"))
    nats = {"keys": music.key_nats, "voices": music.voice_nats}
    model.compile("adam", nats, weighted_metrics={name: [each] for name, each in nats.items()})
    x, y = examples(notes)
    found = model.evaluate(x, y, verbose=0, return_dict=True)
    real = y["voices"][..., 0] != PADDING
    output = model(x)
    for name, each in nats.items():
        expected = each(y[name], output[name]).numpy()[real].mean()
        assert found[f"{name}_{name[:-1]}_nats"] == pytest.approx(expected, rel=1e-5)


def test_counting(notes):
    """By a plain loop over all chords."""
    found = music.count(notes, notes[:, :4])
    nats = 0
    steps = [(n, t) for n, length in ((0, 7), (1, 5)) for t in range(length - 1)]
    test = [(n, t) for n, t in steps if t < 3]
    for n, t in test:
        for v in range(4):
            now, after = notes[n, t, v], notes[n, t + 1, v]
            followers = [notes[m, s + 1, v] for m, s in steps if notes[m, s, v] == now]
            chance = (followers.count(after) + 0.02) / (len(followers) + 0.02 * NOTES)
            nats -= math.log(chance)
    assert found["each voice after itself: voices"] == pytest.approx(nats / len(test))
    nats = 0
    for n, t in test:
        for key in range(1, NOTES):
            was = key in notes[n, t]
            after = [key in notes[m, s + 1] for m, s in steps if (key in notes[m, s]) == was]
            chance = (sum(after) + 0.1) / (len(after) + 1)
            nats -= math.log(chance if key in notes[n, t + 1] else 1 - chance)
    assert found["each key after itself: keys"] == pytest.approx(nats / len(test))


def test_composition_goes_on_as_the_net_expects():
    """At a temperature near zero: always the likeliest note, given the voices above it."""
    model, reader = music.build(keras_rnnx, 6, np.full(KEYS, 0.1, "float32"))
    voices = model.get_layer("voices")
    beginning = np.random.default_rng(3).integers(20, 60, size=(4, 4))
    rng = np.random.default_rng(4)
    notes = music.compose(reader, voices, beginning, 9, rng, temperature=1e-6)
    np.testing.assert_array_equal(notes[:4], beginning)
    x = {"chords": keys_of(notes[None, :-1]), "following": notes[None, 1:].astype("int32")}
    likeliest = model(x)["voices"].numpy().argmax(axis=-1)[0]
    np.testing.assert_array_equal(notes[4:], likeliest[3:])


def test_midi_file(tmp_path):
    """music21 wrote it; here its notes are read back, with their times."""
    notes = np.array([[C5, G4, E4, 0], [C5, G4, C4, C4], [C5, E4, C4, C4]])
    chorale_score.write_midi(tmp_path / "x.mid", notes)
    found = set()
    for part in music21.converter.parse(tmp_path / "x.mid").parts:
        for note in part.recurse().notes:
            start = note.getOffsetInHierarchy(part)
            found.add((note.pitch.midi, float(start), float(note.quarterLength)))
    assert found == {(72, 0, 3), (67, 0, 2), (64, 2, 1), (64, 0, 1), (60, 1, 2)}


@pytest.mark.slow
def test_short_form(tmp_path):
    command = [sys.executable, ROOT / "examples" / "music.py", "--quick", "--out", tmp_path]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["metrics"]["keys"] < 12 and result["metrics"]["voices"] < 4 * np.log(40)
    height, width, _ = matplotlib.image.imread(tmp_path / "chorale.png").shape
    assert width > height > 300
    assert (tmp_path / "chorale.mid").read_bytes()[:4] == b"MThd"
    assert keras.saving.load_model(tmp_path / "model.keras").input_shape == (None, None, KEYS)

"""The syllables of gcin-voice: what the builder reads. The speech example: its layers, its run.

The recordings are those of a Debian package, which may not be installed, so the tests listen to
syllables of their own: made of sine waves, with the package's names and at its rate.
"""

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
import pytest
import soundfile
import speech_ctc
from parts import speech_data
from parts import speech_features
import tensorflow as tf
import tensorflow_datasets as tfds

import keras_rnnx
import keras_rnnx.datasets  # registers `gcin_voice`
from keras_rnnx.datasets import gcin_voice

ROOT = Path(__file__).parents[1]
SYLLABLES = [first + last for first in "ㄅㄆㄇㄉㄊㄋㄌㄍㄎㄏ" for last in "ㄚㄞㄠㄢㄤ"]
SYLLABLES += "ㄚㄞㄠㄢㄤ"


def made_up(symbols, pitch, rng):
    """A sound for each symbol: overtones of a pitch, loudest near a place of its own."""
    time = np.arange(int(0.1 * gcin_voice.RECORDED)) / gcin_voice.RECORDED
    parts = []
    for symbol in symbols:
        overtones = pitch * np.arange(1, 12)
        loudness = np.exp(-(((overtones - 300 - 70 * (ord(symbol) % 37)) / 500) ** 2))
        parts.append(loudness @ np.sin(2 * np.pi * overtones[:, None] * time) / 12)
    sound = np.concatenate(parts)
    return sound + 1e-3 * rng.normal(size=len(sound))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two tones of 55 made-up syllables of two made-up speakers."""
    root, rng = tmp_path_factory.mktemp("voices") / "ogg", np.random.default_rng(0)
    for syllable in SYLLABLES:
        for tone in ("", "4"):
            (root / (syllable + tone)).mkdir(parents=True)
            for speaker, pitch in {"3": 130, "5": 350}.items():
                sound = made_up(syllable + (tone or "1"), pitch, rng)
                path = root / (syllable + tone) / f"{speaker}.ogg"
                soundfile.write(path, sound, gcin_voice.RECORDED)
    return root


def test_transcript():
    names = {"ㄊㄢ": "ㄊ ㄢ 1", "ㄊㄢ3": "ㄊ ㄢ 3", "ㄌㄜ1": "ㄌ ㄜ 5", "ㄓㄨㄤ4": "ㄓ ㄨ ㄤ 4"}
    assert {name: gcin_voice.transcript(name) for name in names} == names


def test_split_is_that_of_the_syllable_without_its_tone():
    # From `printf SYLLABLE | sha256sum`: the first 16 digits as a number, modulo 10.
    expected = {"ㄆㄛ": "test", "ㄇㄚ": "validation", "ㄊㄢ": "train"}  # 0, 1, 9
    for syllable, split in expected.items():
        for tone in ("", "1", "2", "3", "4"):
            assert gcin_voice.split_of(syllable + tone) == split


@pytest.mark.parametrize("hertz, kept", [(500, 1), (5000, 1), (8000, 0), (14_200, 0)])
def test_third_keeps_what_its_rate_can_hold(hertz, kept):
    n = 4410
    wave = lambda rate, count: np.sin(2 * np.pi * hertz * np.arange(count) / rate)
    found = gcin_voice.third(wave(gcin_voice.RECORDED, n))
    assert len(found) == n // 3
    expected = kept * wave(gcin_voice.RATE, n // 3)
    np.testing.assert_allclose(found[50:-50], expected[50:-50], atol=5e-3)


def test_builder(folder, tmp_path):
    sets = tfds.load("gcin_voice", data_dir=tmp_path, builder_kwargs={"folder": folder})
    assert set(sets) == {"train", "validation", "test"}
    found = {}
    for split, rows in sets.items():
        for row in tfds.as_numpy(rows):
            assert row["audio"].dtype == np.int16
            assert 1000 < np.abs(row["audio"].astype(int)).max() < 2**15 - 1
            *sounds, tone = row["transcript"].decode().split()
            assert len(row["audio"]) == (len(sounds) + 1) * gcin_voice.RATE // 10
            found.setdefault("".join(sounds), []).append((int(row["speaker"]), tone, split))
    assert sorted(found) == sorted(SYLLABLES)
    for rows in found.values():
        assert {row[:2] for row in rows} == {(s, tone) for s in (3, 5) for tone in "14"}
        assert len(rows) == 4 and len({split for _, _, split in rows}) == 1


def test_recordings_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="Run `apt install gcin-voice`"):
        gcin_voice.recordings(tmp_path)


def test_recordings_of_another_kind(tmp_path):
    soundfile.write(tmp_path / "3.ogg", np.zeros(8000), 16_000)
    with pytest.raises(
        ValueError, match="1 axes at 16000 samples per second, expected one channel"
    ):
        gcin_voice.read(tmp_path / "3.ogg")


def test_soundfile_that_is_not_installed(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(ModuleNotFoundError, match=re.escape("pip install 'keras_rnnx[examples]'")):
        gcin_voice.read(tmp_path / "3.ogg")


def test_the_package():
    if not Path(gcin_voice.FOLDER).is_dir():
        pytest.skip("the Debian package gcin-voice is not installed")
    paths = gcin_voice.recordings(gcin_voice.FOLDER)
    assert [sum(path.stem == speaker for path in paths) for speaker in "35"] == [1200, 1158]
    symbols = {s for path in paths for s in gcin_voice.transcript(path.parent.name).split()}
    assert len(symbols) == 42, "37 sounds and five tones"


def frames_of(sound, window, hop):
    """`[T, window]` of a sound, windows around the middle of each frame, zeros beyond the ends."""
    count = -(-len(sound) // hop)
    sound = np.pad(sound, [(window - hop) // 2, 2 * window])
    frames = np.stack([sound[t * hop : t * hop + window] for t in range(count)])
    return frames * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window))


def mel_of(sound, rate, bands=40):
    """The mel bands of a sound, relative to its loudness, in float64."""
    power = np.abs(np.fft.rfft(frames_of(sound, 368, 147), 512)) ** 2
    mel = lambda hertz: 1127 * np.log(1 + hertz / 700)
    edges = np.linspace(mel(80), mel(7000), bands + 2)
    bins = mel(np.arange(1, 257) * rate / 512)[:, None]
    rise = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    energy = power[:, 1:] @ np.maximum(0, np.minimum(rise, fall))
    return np.log(energy / energy.mean() + 3e-3) / 3


def test_bands():
    rng = np.random.default_rng(1)
    clips = [0.1 * rng.normal(size=n) for n in (1500, 2205, 147)]
    hearing = speech_features.Hearing()
    found = hearing(speech_data.padded(clips))
    assert found.shape == (3, 15, 42)
    frames = [11, 15, 1]
    np.testing.assert_array_equal(found._keras_mask, np.arange(15) < np.array(frames)[:, None])
    for row, clip, count in zip(found.numpy(), clips, frames):
        expected = mel_of(clip, speech_features.RATE)
        np.testing.assert_allclose(row[:count, :40], expected, rtol=0, atol=1e-3)
        assert not row[count:].any(), "padding is 0"
    for one, row in zip(clips, found.numpy()):  # and takes no part
        alone = hearing(speech_data.padded([one]))[0]
        np.testing.assert_allclose(alone, row[: len(alone)], rtol=0, atol=1e-3)


@pytest.mark.parametrize("start, end", [(110, 180), (380, 250), (200, 200)])
def test_pitch(start, end):
    n = 6000
    hertz = np.linspace(start, end, n)
    phase = 2 * np.pi * np.cumsum(hertz) / speech_features.RATE
    sound = sum(np.sin(k * phase) for k in (1, 2, 3)) / 4
    pitch, sure = speech_features.Hearing()(speech_data.padded([sound]))[0, 2:-2, 40:].numpy().T
    assert sure.min() > 0.9
    middles = hertz[speech_features.HOP // 2 :: speech_features.HOP][2:-2]
    expected = 3 * np.log2(middles / middles[0])  # thirds of an octave
    np.testing.assert_allclose(pitch - pitch[0], expected, atol=0.3)
    assert abs(pitch.mean()) < 0.2, "relative to the clip"


def test_noise_has_no_pitch():
    noise = np.random.default_rng(6).normal(size=6000)
    assert speech_features.Hearing()(speech_data.padded([noise]))[0, :, 41].numpy().mean() < 0.2


def test_hats_interpolate():
    rng = np.random.default_rng(2)
    values, places = rng.normal(size=7), rng.uniform(-1, 8, size=(3, 5))
    matrix = speech_features.hats(tf.constant(places), 7)
    assert matrix.shape == (3, 7, 5)
    expected = np.interp(places, np.arange(7), values)
    np.testing.assert_allclose(np.einsum("m,bmp->bp", values, matrix), expected, atol=1e-12)


def test_another_voice_is_heard_in_training_only():
    x = np.random.default_rng(3).normal(size=(3, 7, 22)).astype("float32")
    none = dict.fromkeys(("stretch", "shift", "tilt", "noise", "melody"), 0.0)
    np.testing.assert_array_equal(speech_features.OtherVoice()(x), x)
    np.testing.assert_allclose(speech_features.OtherVoice(**none)(x, training=True), x, atol=1e-6)

    moved = speech_features.OtherVoice(**none | {"shift": 3.0})(x, training=True).numpy()
    np.testing.assert_array_equal(moved[..., 20:], x[..., 20:])
    # Every frame of a clip is moved alike, by up to three bands.
    for row, one in zip(moved[..., :20], x[..., :20]):
        places = np.linspace(-3, 3, 1201)[:, None] + np.arange(20)
        rows = np.array([np.interp(places.ravel(), np.arange(20), frame) for frame in one])
        distance = np.abs(rows.reshape(7, 1201, 20) - row[:, None]).max(axis=(0, 2))
        assert distance.min() < 0.02 < distance[600], "600: not moved"

    livelier = speech_features.OtherVoice(**none | {"melody": 0.5})(x, training=True).numpy()
    np.testing.assert_allclose(livelier[..., [*range(20), 21]], x[..., [*range(20), 21]], atol=1e-6)
    factors = (livelier / x)[..., 20]
    np.testing.assert_allclose(factors, np.tile(factors[:, :1], 7), rtol=1e-4)
    assert len(set(factors[:, 0].round(3))) == 3 and np.abs(factors - 1).max() <= 0.5


@pytest.mark.parametrize("steps", [7, 8])
def test_window(steps):
    x = np.random.default_rng(4).normal(size=(3, steps, 4)).astype("float32")
    layer = speech_features.Window(5)
    found = layer(x).numpy()
    padded = np.pad(x, [(0, 0), (2, 2), (0, 0)])
    assert found.shape == (3, 4, 20)
    for t in range(4):
        np.testing.assert_array_equal(found[:, t], padded[:, 2 * t : 2 * t + 5].reshape(3, 20))
    mask = np.arange(steps) < np.array([[7], [4], [1]])
    np.testing.assert_array_equal(layer.compute_mask(x, mask).sum(axis=1), [4, 2, 1])


@pytest.mark.parametrize("kind", ["GRU", "window"])
def test_padding_changes_no_logits(kind):
    rng = np.random.default_rng(5)
    clips = [0.1 * rng.normal(size=n) for n in (3000, 5000)]
    model = speech_ctc.build(kind, keras_rnnx, 43)
    together, alone = model(speech_data.padded(clips)), model(speech_data.padded(clips[:1]))
    steps = alone.shape[1]
    np.testing.assert_array_equal(together._keras_mask.numpy().sum(axis=1), [11, 18])
    np.testing.assert_allclose(together[0, :steps], alone[0], rtol=0, atol=1e-3)


def options(**more):
    made = {"dataset": "gcin_voice", "train_on": 5, "quick": False}
    return SimpleNamespace(**made | more)


def test_syllables_to_learn_from_and_to_hear(folder, tmp_path):
    """As many as `test_builder` finds, each speaker's own, with the ids of their symbols."""
    splits = {s: sum(gcin_voice.split_of(one) == s for one in SYLLABLES) for s in ("train", "test")}
    for one in (3, 5):
        given = options(folder=folder, data_dir=tmp_path, train_on=one)
        sets, names = speech_data.load(given)
        assert names == speech_data.LABELS
        sizes = {part: len(clips) for part, (clips, _) in sets.items()}
        assert sizes == {
            "train": 2 * splits["train"],
            "label error": 2 * splits["test"],
            "label error, another speaker": 2 * (len(SYLLABLES) - splits["train"]),
        }
        pitch = {3: 130, 5: 350}
        for part, (clips, labels) in sets.items():
            assert labels.shape == (len(clips), 3) and labels.dtype == np.int32
            speaker = 8 - one if "another" in part else one
            for clip, ids in zip(clips, labels):
                symbols = speech_ctc.text(ids, names).split()
                assert len(clip) == len(symbols) * speech_features.RATE // 10
                period = round(speech_features.RATE / pitch[speaker])
                assert np.corrcoef(clip[:-period], clip[period:])[0, 1] > 0.5


def test_mocked_librispeech(tmp_path):
    with tfds.testing.mock_data(num_examples=5):
        sets, names = speech_data.load(options(dataset="librispeech", data_dir=tmp_path))
    assert list(sets) == ["train", "character error"]
    assert names[0] == "blank" and set(names[1:]) == set("_abcdefghij")
    for clips, labels in sets.values():
        assert len(clips) == len(labels) == 5 and labels.dtype == np.int32
        assert all(clip.dtype == np.float32 and np.abs(clip).max() < 1 for clip in clips)
        assert 10 <= labels.shape[1] < 20 and -1 <= labels.min() < labels.max() < len(names)
        assert (labels >= 0).any(axis=0).all(), "as long as the longest text"


def sine(seconds, rate):
    return np.sin(2 * np.pi * 500 * np.arange(seconds * rate) / rate)


def spoken(self, split, **kwargs):
    """In place of what TFDS reads: three sentences of one tone, one of them too long."""
    assert split in sys.modules[type(self).__module__]._DL_URLS, "a split of the builder"
    texts = {"IT'S": 1, "SO IT IS": 2, "OH": 11} if "train" in split else {"IS IT": 1}
    rows = [
        {"text": text, "speech": (2**14 * sine(seconds, 16_000)).astype("int16")}
        | {"id": "", "speaker_id": 1, "chapter_id": 1}
        for text, seconds in texts.items()
    ]
    info = self.info.features.get_tensor_info()
    specs = {name: tf.TensorSpec(one.shape, one.tf_dtype) for name, one in info.items()}
    return tf.data.Dataset.from_generator(lambda: rows, output_signature=specs)


def test_sentences_of_librispeech(tmp_path):
    with tfds.testing.mock_data(as_dataset_fn=spoken):
        sets, names = speech_data.load(options(dataset="librispeech", data_dir=tmp_path))
    assert names == ["blank", "'", "_", "i", "o", "s", "t"]
    texts = {
        part: [speech_ctc.text(ids, names) for ids in rows] for part, (_, rows) in sets.items()
    }
    expected = {"train": ["i t ' s", "s o _ i t _ i s"], "character error": ["i s _ i t"]}
    assert texts == expected
    (one, two), labels = sets["train"]
    assert labels.shape == (2, 8)
    for clip, seconds in ((one, 1), (two, 2)):
        np.testing.assert_allclose(clip, sine(seconds, speech_features.RATE) / 2, atol=0.01)

    rows, _ = speech_data.batches(*sets["train"], size=2)
    x, y = next(iter(rows))
    with keras_rnnx.portable():
        model = speech_ctc.build("GRU", keras_rnnx, len(names))
        model.compile("adam", speech_ctc.CTCLoss(infinite="zero"))
        model.run_eagerly = True  # one step, for which tracing would take longer
        before = model.get_weights()
        assert 0 < model.train_on_batch(x, y) < np.inf
    assert all(np.any(a != b) for a, b in zip(before, model.get_weights()))


def test_other_speeds():
    """Also at those at which the last step, rounded, is the last sample: it has no next one."""
    clip = np.random.default_rng(1).normal(size=5057).astype("float32")
    for steps in range(4100, 6300, 9):
        speed = np.float32(5056 / steps)
        found = speech_data.at_speed(tf.constant(clip), speed)
        assert steps - len(found) in (0, 1)
        places = speed * np.arange(len(found))
        np.testing.assert_allclose(found, np.interp(places, np.arange(5057), clip), atol=0.01)


@pytest.mark.slow
def test_short_form(folder, tmp_path):
    command = [sys.executable, ROOT / "examples" / "speech_ctc.py", "--quick"]
    command += ["--folder", folder, "--out", tmp_path]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    names = ["label error", "label error, another speaker"]
    wanted = [name + rest for rest in (", no recurrence", "") for name in names]
    assert sorted(result["metrics"]) == sorted(wanted)
    assert sorted(result["baselines"]) == [f"the best constant: {name}" for name in names]
    for rate in [*result["metrics"].values(), *result["baselines"].values()]:
        assert 0 <= rate <= 200
    names = {"alignment.png", "data", "export", "labels.json", "model.keras", "result.json"}
    assert {path.name for path in tmp_path.iterdir()} == names, "nothing unfinished is left"
    height, width, _ = matplotlib.image.imread(tmp_path / "alignment.png").shape
    assert width > height > 300
    labels = json.loads((tmp_path / "labels.json").read_text(encoding="utf-8"))
    assert (len(labels), labels[0], labels[-1]) == (43, "blank", "5")
    assert keras.saving.load_model(tmp_path / "model.keras").count_params() > 100_000

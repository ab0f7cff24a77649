"""Recorded Mandarin syllables of two speakers, from the Debian package `gcin-voice`."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from keras_rnnx.annotations import PathLike
from keras_rnnx.datasets import cmudict

FOLDER = "/usr/share/gcin-voice/ogg"  # where apt puts the recordings
RECORDED = 44_100  # samples per second
RATE = RECORDED // 3


class GcinVoice(tfds.core.GeneratorBasedBuilder):
    """Single Mandarin syllables, read from the installed Debian package `gcin-voice`.

    1,200 syllables of speaker 3, a low voice, and 1,158 of them of speaker 5, a high one: each
    recording is one syllable, 0.4 and 0.3 seconds long on average. The transcript is the Zhuyin
    spelling (bopomofo), one to three symbols for the sounds and the tone: "ㄊ ㄢ 3". The tones are
    1 high, 2 rising, 3 low, 4 falling, 5 neutral.

    The split is drawn by the syllable without its tone, so all tones of both speakers are on one
    side. About 80 % of these are `train`, 10 % `validation` and 10 % `test`. For a split by the
    speaker, filter by `speaker`.

    Args:
        folder: where the recordings lie, a folder for each syllable. `apt install gcin-voice` puts
            them where the default is; unpacked with `apt download gcin-voice` and `dpkg-deb -x`,
            they may lie anywhere.
        **kwargs: of `tfds.core.GeneratorBasedBuilder`.

    Features:
        audio: `[N]` int16, at 14,700 samples per second.
        transcript: Zhuyin symbols and the tone with a space between ("ㄊ ㄢ 3").
        speaker: 3 or 5, as the files are named.

    Speaker 3 is under the GPL-3 or LGPL-3, speaker 5 under CC-BY-3.0; no copy of either comes with
    keras_rnnx.

    Reference: https://packages.debian.org/gcin-voice

    Example, in a folder of your choice:

        import keras_rnnx.datasets, tensorflow_datasets as tfds
        train = tfds.load("gcin_voice", split="train", data_dir="data")
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, folder: PathLike = FOLDER, **kwargs: Any) -> None:
        self.folder = Path(folder)
        super().__init__(**kwargs)

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description="Recorded Mandarin syllables of two speakers, with their Zhuyin spelling.",
            features=tfds.features.FeaturesDict(
                {
                    "audio": tfds.features.Tensor(shape=(None,), dtype=np.int16),
                    "transcript": tfds.features.Text(),
                    "speaker": tfds.features.Scalar(np.int32),
                }
            ),
            supervised_keys=("audio", "transcript"),
            homepage="https://packages.debian.org/gcin-voice",
        )

    def _split_generators(self, dl_manager):
        paths = {"train": [], "validation": [], "test": []}
        for path in recordings(self.folder):
            paths[split_of(path.parent.name)].append(path)
        return {split: self._generate_examples(chosen) for split, chosen in paths.items()}

    def _generate_examples(self, paths):
        for path in paths:
            syllable, speaker = path.parent.name, path.stem
            yield (
                f"{syllable}/{speaker}",
                {
                    "audio": read(path),
                    "transcript": transcript(syllable),
                    "speaker": int(speaker),
                },
            )


def recordings(folder):
    """The files `SYLLABLE/SPEAKER.ogg` of a folder, sorted by name."""
    found = sorted(Path(folder).glob("*/[0-9]*.ogg"))
    if not found:
        raise FileNotFoundError(
            f"The data set `gcin_voice` is read from the Debian package `gcin-voice`, and {folder} "
            "has no SYLLABLE/SPEAKER.ogg. Run `apt install gcin-voice`; or, without its rights, "
            "`apt download gcin-voice` and `dpkg-deb -x gcin-voice*.deb DIR`, and give "
            "folder=DIR/usr/share/gcin-voice/ogg."
        )
    return found


def read(path):
    """The samples of a recording, `[N]` int16, at `RATE`."""
    try:
        import soundfile  # here: prepared files do not need it
    except ModuleNotFoundError as error:
        if error.name != "soundfile":
            raise
        raise ModuleNotFoundError(
            "Reading ogg files needs the package `soundfile`, which is not installed. Install it "
            "with the extra `examples`: pip install 'keras_rnnx[examples]'",
            name="soundfile",
        ) from error
    samples, rate = soundfile.read(path, dtype="float64")
    if rate != RECORDED or samples.ndim != 1:
        raise ValueError(
            f"{path} has {samples.ndim} axes at {rate} samples per second, expected one channel "
            f"at {RECORDED}."
        )
    samples = third(samples)
    return np.round(32767 * np.clip(samples, -1, 1)).astype(np.int16)


def third(samples):
    """Every third sample, after a low-pass filter: what lies above 6.5 kHz would fold back."""
    time = np.arange(-64, 65)
    cutoff = 2 * 6500 / RECORDED
    kernel = cutoff * np.sinc(cutoff * time) * np.hamming(len(time))
    return np.convolve(samples, kernel, mode="same")[::3]


def transcript(syllable):
    """The name of a folder, "ㄊㄢ3", as symbols with a space between, the tone last."""
    # The package writes no digit for the first tone and 1 for the neutral one.
    sounds, tone = re.fullmatch(r"(\D+)(\d?)", syllable).groups()
    return " ".join([*sounds, {"": "1", "1": "5"}.get(tone, tone)])


def split_of(syllable):
    """`train`, `validation` or `test`, from a syllable without its tone."""
    return cmudict.split_of(syllable.rstrip("0123456789"))

"""Hear Mandarin syllables: CTC on real speech, from the waveform, tested on another speaker.

From a recorded syllable the model tells its sounds and its tone: t an 3. The recordings, 2,358 of
two speakers, come with the Debian package gcin-voice; nothing is downloaded. The model is trained
on one speaker and tested on new syllables of that one, and on the other: a high and a low voice.
That is hard, so in training the voice is changed in the graph: its speed, spectrum and melody.

    apt install gcin-voice                      # or, without its rights:
    apt download gcin-voice && dpkg-deb -x gcin-voice*.deb voices

    python examples/speech_ctc.py               # add --folder voices/usr/share/gcin-voice/ogg
    python examples/speech_ctc.py --quick       # few epochs: to see that all works
    python examples/speech_ctc.py --epochs 60   # longer
    python examples/speech_ctc.py --train-on 3  # the other way round
    python examples/speech_ctc.py --dataset librispeech  # English, which TFDS downloads: 57 GiB
"""

import json

import common  # first: it sets the environment
import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from keras_rnnx.datasets import gcin_voice
from keras_rnnx.heads import CTCDecoder
from keras_rnnx.heads import CTCLoss
from keras_rnnx.heads import forced_align
from keras_rnnx.seq2seq import ErrorRate

RATE = gcin_voice.RATE  # samples per second
HOP = RATE // 100  # of frames, 10 ms
PADDING = -2.0  # behind a clip; samples are between -1 and 1
SPEEDS = (0.8, 1.25)
LONGEST = 10  # seconds of a sentence; LibriSpeech's others are left out
ZHUYIN = "ㄅㄆㄇㄈㄉㄊㄋㄌㄍㄎㄏㄐㄑㄒㄓㄔㄕㄖㄗㄘㄙㄧㄨㄩㄚㄛㄜㄝㄞㄟㄠㄡㄢㄣㄤㄥㄦ"
PINYIN = "b p m f d t n l g k h j q x zh ch sh r z c s i u ü a o e ê ai ei ao ou an en ang eng er"
LATIN = dict(zip(ZHUYIN, PINYIN.split(), strict=True))
LABELS = ["blank", *LATIN.values(), *"12345"]  # of the syllables


@keras.saving.register_keras_serializable(package="speech_ctc")
class Hearing(keras.layers.Layer):
    """Log-mel bands and pitch of waveforms [B, N], every 10 ms: [B, T, bands + 2], with a mask.

    The bands are relative to the loudness of the clip, the pitch, in thirds of an octave, to the
    mean of the clip: what differs from voice to voice. The last feature says how sure the pitch is.
    Samples equal to `mask_value` are padding.
    """

    def __init__(self, bands=40, mask_value=PADDING, **kwargs):
        super().__init__(autocast=False, **kwargs)  # a spectrum wants float32
        self.bands, self.mask_value = bands, mask_value
        self.supports_masking = True

    def call(self, waveform):
        real = tf.cast(self.compute_mask(waveform), tf.float32)[..., None]
        samples = tf.where(waveform == self.mask_value, 0.0, waveform)
        mean = lambda a, weight=real: tf.math.divide_no_nan(
            tf.reduce_sum(a * weight, axis=1, keepdims=True),
            tf.reduce_sum(weight, axis=1, keepdims=True),
        )
        power = self.power(samples, 368, 512, real)
        mel = power @ tf.signal.linear_to_mel_weight_matrix(self.bands, 257, RATE, 80.0, 7000.0)
        loudness = tf.reduce_mean(mean(mel), axis=2, keepdims=True) + 1e-9
        mel = tf.math.log(mel / loudness + 3e-3) / 3

        # A periodic sound is like itself one period later: the peak of the autocorrelation, which
        # is the transform of the power. Without what is below 70 Hz, rumble, or above 1.4 kHz.
        power = tf.pad(self.power(samples, 588, 1024, real)[..., 5:100], [[0, 0], [0, 0], [5, 413]])
        alike = tf.signal.irfft(tf.cast(power, tf.complex64))
        quiet = 1e-2 * tf.reduce_max(alike[..., :1], axis=1, keepdims=True) + 1e-9
        octaves = tf.range(0, 3, 1 / 32)  # above 60 Hz
        alike = alike @ hats(RATE / 60 * 2**-octaves, 1024) / (alike[..., :1] + quiet)
        best = tf.argmax(alike + 0.1 * octaves, axis=2)  # two periods later it is, too
        sure = tf.gather(alike, best, axis=2, batch_dims=2)[..., None]
        sure = tf.clip_by_value(4 * sure - 1.6, 0, 1) * real
        pitch = tf.gather(octaves, best)[..., None]
        pitch = 3 * (pitch - mean(pitch, sure)) * sure
        return tf.cast(tf.concat([mel, pitch, sure], axis=2) * real, self.compute_dtype)

    def power(self, samples, window, size, real):
        """`[B, T, size // 2 + 1]`, of windows around the middle of each frame."""
        samples = tf.pad(samples, [[0, 0], [(window - HOP) // 2, 0]])
        found = tf.abs(tf.signal.stft(samples, window, HOP, size, pad_end=True)) ** 2
        return found[:, : tf.shape(real)[1]]

    def compute_mask(self, waveform, mask=None):
        return keras.ops.not_equal(waveform, self.mask_value)[:, ::HOP]

    def get_config(self):
        return super().get_config() | {"bands": self.bands, "mask_value": self.mask_value}


@keras.saving.register_keras_serializable(package="speech_ctc")
class OtherVoice(keras.layers.Layer):
    """In training: each clip as if said by someone else, from the features of `Hearing`.

    The bands are stretched by up to `stretch` and moved by up to `shift` of them, tilted and
    disturbed; the melody is made flatter or livelier.
    """

    def __init__(self, stretch=0.15, shift=2.0, tilt=0.3, noise=0.15, melody=0.5, **kwargs):
        super().__init__(**kwargs)
        self.options = {
            "stretch": stretch, "shift": shift, "tilt": tilt, "noise": noise, "melody": melody,
        }  # fmt: skip
        self.seed_generator = keras.random.SeedGenerator()
        self.supports_masking = True

    def call(self, x, training=False):
        if not training:
            return x
        bands, seed = x.shape[2] - 2, self.seed_generator
        draw = {
            name: keras.random.uniform((tf.shape(x)[0], 1, 1), -most, most, x.dtype, seed=seed)
            for name, most in self.options.items()
        }
        band = tf.range(bands, dtype=x.dtype)
        places = (1 + draw["stretch"]) * band + draw["shift"]
        mel = x[..., :bands] @ hats(places[:, 0], bands)
        mel += draw["tilt"] * (2 * band / bands - 1)
        mel += draw["noise"] * keras.random.normal(tf.shape(mel), dtype=x.dtype, seed=seed)
        return tf.concat([mel, x[..., -2:-1] * (1 + draw["melody"]), x[..., -1:]], axis=2)

    def get_config(self):
        return super().get_config() | self.options


@keras.saving.register_keras_serializable(package="speech_ctc")
class Window(keras.layers.Layer):
    """Every other frame, with those around it: [B, T, M] -> [B, (T + 1) // 2, width * M]."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width, self.supports_masking = width, True

    def call(self, x):
        around, steps = self.width // 2, tf.shape(x)[1]
        padded = tf.pad(x, [[0, 0], [around, around], [0, 0]])
        return tf.concat([padded[:, k : k + steps : 2] for k in range(self.width)], axis=2)

    def compute_mask(self, x, mask=None):
        return None if mask is None else mask[:, ::2]

    def get_config(self):
        return super().get_config() | {"width": self.width}


def hats(places, size):
    """The matrix [..., size, P] that interpolates `size` values at places [..., P]."""
    places = tf.clip_by_value(places, 0, size - 1)
    return tf.nn.relu(
        1 - tf.abs(places[..., None, :] - tf.range(size, dtype=places.dtype)[:, None])
    )


def syllables(options):
    """`{part: [(waveform, symbols), ...]}` of gcin-voice: what trains, and what is tested."""
    builder = tfds.builder("gcin_voice", data_dir=options.data_dir, folder=options.folder)
    builder.download_and_prepare()
    one, other = options.train_on, 8 - options.train_on
    same, another = "label error", "label error, another speaker"
    used = {(one, "train"): "train", (one, "test"): same}
    used |= {(other, "validation"): another, (other, "test"): another}
    parts = {"train": [], same: [], another: []}
    for split in ("train", "validation", "test"):
        for row in tfds.as_numpy(builder.as_dataset(split=split)):
            symbols = row["transcript"].decode().split()
            waveform = row["audio"].astype("float32") / 2**15
            if part := used.get((int(row["speaker"]), split)):
                parts[part].append((waveform, [LATIN.get(symbol, symbol) for symbol in symbols]))
    return parts


def sentences(options):
    """The same of LibriSpeech, letter by letter. All speakers of its test are new."""
    builder = tfds.builder("librispeech", data_dir=options.data_dir)
    builder.download_and_prepare()
    rate, used = builder.info.features["speech"].sample_rate, "[:10%]" if options.quick else ""
    short = lambda row: tf.size(row["speech"]) <= LONGEST * rate

    def rows(split):
        for row in tfds.as_numpy(builder.as_dataset(split=split + used).filter(short)):
            samples = row["speech"].astype("float32") / 2**15
            places = np.arange(0, len(samples), rate / RATE)  # to the rate of the syllables
            waveform = np.interp(places, np.arange(len(samples)), samples).astype("float32")
            yield waveform, row["text"].decode().lower().replace(" ", "_")

    return {"train": list(rows("train_clean100")), "character error": list(rows("test_clean"))}


DATASETS = {"gcin_voice": syllables, "librispeech": sentences}


def load(options):
    """`{part: (clips, labels)}`: waveforms, and ids [N, L] with -1 for padding; the ids' names."""
    parts = DATASETS[options.dataset](options)
    several = [symbols for rows in parts.values() for _, symbols in rows]
    most, sets, names = max(map(len, several)), {}, LABELS
    if options.dataset == "librispeech":
        names = ["blank", *sorted(set().union(*several))]
    for part, rows in parts.items():
        ids = [[names.index(symbol) for symbol in symbols] for _, symbols in rows]
        ids = keras.utils.pad_sequences(ids, most, padding="post", value=-1)
        sets[part] = [waveform for waveform, _ in rows], ids
    return sets, names


def padded(clips):
    """Waveforms [N, samples] as the model takes them."""
    x = np.full((len(clips), max(map(len, clips))), PADDING, "float32")
    for row, clip in zip(x, clips):
        row[: len(clip)] = clip
    return x


def batches(clips, labels, size=32):
    """Batches in another order and at another speed each epoch."""

    def another_room(clip, ids):
        speed = tf.exp(tf.random.uniform([], *np.log(SPEEDS)))
        places = tf.range(0.0, tf.cast(tf.shape(clip)[0] - 1, tf.float32), speed)
        first = tf.cast(places, tf.int32)
        rest = places - tf.floor(places)
        clip = tf.gather(clip, first) * (1 - rest) + tf.gather(clip, first + 1) * rest
        noise = tf.random.normal(tf.shape(clip)) * tf.math.reduce_std(clip)
        return clip + tf.exp(tf.random.uniform([], *np.log((0.003, 0.1)))) * noise, ids

    ragged = tf.RaggedTensor.from_row_lengths(np.concatenate(clips), [len(clip) for clip in clips])
    rows = tf.data.Dataset.from_tensor_slices((ragged, labels)).shuffle(len(clips), seed=1)
    rows = rows.map(another_room, num_parallel_calls=2)
    longest = int(max(map(len, clips)) / SPEEDS[0])  # for all: each length is compiled anew
    shapes = [longest], [labels.shape[1]]
    rows = rows.padded_batch(size, shapes, (PADDING, -1), drop_remainder=True)
    return rows.repeat().prefetch(2), len(clips) // size


def build(kind, rnn, labels):
    """From waveforms to logits, through two GRUs that go both ways, or nothing recurrent."""
    waveform = keras.Input((None,), name="waveform")
    x = OtherVoice()(Hearing()(waveform))
    x = Window(3 if kind == "GRU" else 11)(x)
    for _ in range(2):
        if kind == "GRU":
            x = rnn.Bidirectional(rnn.GRU(96, return_sequences=True))(x)
        else:
            x = keras.layers.Dense(350, "relu")(x)
        x = keras.layers.Dropout(0.3)(x)
    return keras.Model(waveform, keras.layers.Dense(labels)(x))


def recognizer_of(model):
    return keras.Model(model.inputs, CTCDecoder(beam_width=8)(model.outputs[0]))


def error_rate(labels, ids):
    """Label error rate in per cent."""
    rate = ErrorRate(end=-1, padding=-1)
    rate.update_state(labels, ids)
    return 100 * float(rate.result())


def train(model, data, epochs, budget):
    rows, steps = batches(*data)
    # Said fast, a clip may have fewer frames than labels need: those are left out.
    model.compile(keras.optimizers.Adam(clipnorm=1.0), CTCLoss(infinite="zero"))
    model.fit(
        rows,
        steps_per_epoch=steps,
        epochs=epochs,
        shuffle=False,  # done above
        callbacks=[budget, common.Cosine(budget, 3e-3, steps * epochs)],
        verbose=common.VERBOSE,
    )


def best_constant(train_labels, labels):
    """Label error rate of the one answer that is best for the training syllables."""
    answers = np.unique(train_labels[train_labels[:, 2] < 0], axis=0)  # longer ones are worse
    rates = [error_rate(train_labels, np.tile(one, (len(train_labels), 1))) for one in answers]
    return error_rate(labels, np.tile(answers[np.argmin(rates)], (len(labels), 1)))


def draw(model, clips, labels, names):
    """Where in time the labels are: bands and pitch, and the probability of each label."""
    x = padded(clips)
    logits, heard = model(x), Hearing()(x).numpy()
    chances, places = tf.nn.softmax(logits).numpy(), forced_align(labels, logits).places.numpy()
    figure, axes = plt.subplots(
        2, len(clips), figsize=(4 * len(clips), 5), sharex="col", layout="constrained"
    )
    for k, (above, below) in enumerate(axes.T):
        frames = -(-len(clips[k]) // HOP)
        bands, pitch, sure = np.split(heard[k, :frames], [-2, -1], axis=1)
        extent = (0, 10 * frames, 0, bands.shape[1])
        above.imshow(bands.T, origin="lower", aspect="auto", extent=extent, cmap="Greys")
        melody = np.where(sure > 0.5, 20 + 5 * pitch, np.nan)
        above.plot(10 * np.arange(frames) + 5, melody, color="black", label="pitch")
        time = 10 * np.arange(0, frames, 2)
        chance = chances[k, : len(time)]
        below.plot(time, chance[:, 0], color="gray", linestyle=":", label="blank")
        for place, label in enumerate(labels[k][labels[k] >= 0]):
            below.plot(time, chance[:, label], color=f"C{place}", label=names[label])
            for axis in (above, below):
                axis.axvline(time[np.argmax(places[k] == place)], color=f"C{place}")
        above.set_title(text(labels[k], names))
        below.set_xlabel("ms")
        below.legend(loc="center right")
    axes[0, 0].set_ylabel("mel band")
    axes[0, 0].legend(loc="upper right")
    axes[1, 0].set_ylabel("probability")
    return figure


def text(ids, names):
    return " ".join(names[label] for label in ids if label > 0)


def main():
    parser = common.parser(__doc__, "speech_ctc")
    parser.add_argument(
        "--dataset",
        choices=DATASETS,
        default="gcin_voice",
        help="TFDS downloads the other, for which it needs pydub and ffmpeg",
    )
    parser.add_argument("--epochs", type=int, help="default: 20")
    parser.add_argument("--train-on", type=int, choices=(3, 5), default=5, help="the speaker")
    parser.add_argument("--folder", default=gcin_voice.FOLDER, help="where the recordings are")
    options = common.start(parser)
    epochs = options.epochs or (4 if options.quick else 20)
    unseen, names = load(options)
    given, known = unseen.pop("train"), next(iter(unseen.values()))
    what, whose = f"syllables of speaker {options.train_on}", "both"
    short = options.dataset == "gcin_voice"
    if not short:
        what, whose = f"sentences of up to {LONGEST} seconds", "other"
    sizes = " ".join(str(len(clips)) for clips, _ in unseen.values())
    print(f"{len(given[0]):,} {what}, tested on {sizes} new ones, of {whose} speakers")

    metrics, nets = {}, {"GRU": ""}
    if options.layers == "keras_rnnx":
        nets = {"window": ", no recurrence", "GRU": ""}  # the last one is kept
    for kind, label in nets.items():
        keras.utils.set_random_seed(options.seed)
        model, budget = build(kind, options.rnn, len(names)), common.Budget(options.seconds)
        train(model, given, epochs, budget)
        recognizer = recognizer_of(model)
        for name, (clips, labels) in unseen.items():
            found = recognizer.predict(padded(clips), batch_size=128, verbose=0)
            metrics[name + label] = error_rate(labels, found["ids"])
    constant = {
        f"the best constant: {name}": best_constant(given[1], labels)
        for name, (_, labels) in unseen.items()
        if short
    }

    if options.layers == "keras_rnnx":
        clips, labels = known[0][:100], known[1][:100]
        x = padded(clips)
        ids = recognizer.predict(x, batch_size=100, verbose=0)["ids"]
        found, truth = ([text(row, names) for row in rows] for rows in (ids, labels))
        print("\nSome of these, and the truth:")
        for pair in list(zip(found, truth))[:8]:
            print(("  {:<16}{}" if short else "  {}\n    {}").format(*pair))
        rank = lambda k: (found[k] != truth[k], -len(truth[k].split()))
        shown = sorted(range(len(x)), key=rank)[:3]
        if short:  # the labels of a sentence have no room in a picture
            figure = draw(model, [clips[k] for k in shown], labels[shown], names)
            common.save(options, figure, "alignment.png")
        lengths = np.array([len(clip) for clip in clips], "int32")
        common.export(options, recognizer, x, tolerance=1e-3, lengths=lengths)
        text_of_labels = json.dumps(names)
        common.write(options.out / "labels.json", lambda path: path.write_text(text_of_labels))
    common.report(options, model, budget, metrics, constant)


if __name__ == "__main__":
    main()

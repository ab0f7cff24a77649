"""Recordings with their labels: the data of examples/speech_ctc.py."""

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from parts.speech_features import PADDING
from parts.speech_features import RATE

SPEEDS = (0.8, 1.25)
LONGEST = 10  # seconds of a sentence; LibriSpeech's others are left out
ZHUYIN = "ㄅㄆㄇㄈㄉㄊㄋㄌㄍㄎㄏㄐㄑㄒㄓㄔㄕㄖㄗㄘㄙㄧㄨㄩㄚㄛㄜㄝㄞㄟㄠㄡㄢㄣㄤㄥㄦ"
PINYIN = "b p m f d t n l g k h j q x zh ch sh r z c s i u ü a o e ê ai ei ao ou an en ang eng er"
LATIN = dict(zip(ZHUYIN, PINYIN.split(), strict=True))
LABELS = ["blank", *LATIN.values(), *"12345"]  # of the syllables


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


def at_speed(clip, speed):
    """A clip read so many times as fast, between its samples in proportion."""
    # So many, and not `tf.range` up to the end, whose last step came to be the end, rounded.
    count = tf.cast(tf.cast(tf.shape(clip)[0] - 1, tf.float32) / speed, tf.int32)
    places = speed * tf.cast(tf.range(count), tf.float32)
    first = tf.cast(places, tf.int32)
    rest = places - tf.floor(places)
    return tf.gather(clip, first) * (1 - rest) + tf.gather(clip, first + 1) * rest


def batches(clips, labels, size=32):
    """Batches in another order and at another speed each epoch."""

    def another_room(clip, ids):
        clip = at_speed(clip, tf.exp(tf.random.uniform([], *np.log(SPEEDS))))
        noise = tf.random.normal(tf.shape(clip)) * tf.math.reduce_std(clip)
        return clip + tf.exp(tf.random.uniform([], *np.log((0.003, 0.1)))) * noise, ids

    ragged = tf.RaggedTensor.from_row_lengths(np.concatenate(clips), [len(clip) for clip in clips])
    rows = tf.data.Dataset.from_tensor_slices((ragged, labels)).shuffle(len(clips), seed=1)
    rows = rows.map(another_room, num_parallel_calls=2)
    longest = int(max(map(len, clips)) / SPEEDS[0])  # for all: each length is compiled anew
    shapes = [longest], [labels.shape[1]]
    rows = rows.padded_batch(size, shapes, (PADDING, -1), drop_remainder=True)
    return rows.repeat().prefetch(2), len(clips) // size

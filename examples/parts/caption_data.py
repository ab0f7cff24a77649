"""The data of examples/captioning.py: pictures with captions, and captions as ids of words."""

import itertools
import re

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

import keras_rnnx.datasets  # noqa: F401  (registers `emoji_captions` for TFDS)

SIZE, GRID = 48, 6  # pixels of a side; places of a side that the decoder looks at
LENGTH = 12  # words of a caption at most, its end included
UNKNOWN = 1  # 0 is padding; after the words come the end and the start


def load(options):
    """`{split: (pictures [N, SIZE, SIZE, 3], the captions of each)}`."""
    font = {"font": options.font} if options.font else {}
    builder = tfds.builder(options.dataset, data_dir=options.data_dir, **font)
    builder.download_and_prepare()

    def resized(row):
        image = tf.image.resize(row["image"], (SIZE, SIZE), antialias=True)
        texts = [row["caption"]] if "caption" in row else row["captions"]["text"]
        return tf.cast(tf.round(image), tf.uint8), texts

    clean = lambda text: re.sub(r"[.,!?()\"]", "", text.decode().lower())
    sets, part = {}, "[:50%]" if options.quick else ""
    validation = "val" if options.dataset == "coco_captions" else "validation"
    for split, its_name in {"train": "train", "validation": validation, "test": "test"}.items():
        rows = builder.as_dataset(split=its_name + part).map(resized, tf.data.AUTOTUNE)
        images, texts = zip(*tfds.as_numpy(rows))
        sets[split] = np.stack(images), [[clean(text) for text in several] for several in texts]
    return sets


def encode(captions, words):
    """Ids `[N, LENGTH]` of captions, the first of each picture, with the end behind them."""
    number = {word: k for k, word in enumerate(words)}
    rows = [[number.get(word, UNKNOWN) for word in one.split()] for one, *_ in captions]
    rows = [row[: LENGTH - 1] + [len(words)] for row in rows]
    return keras.utils.pad_sequences(rows, LENGTH, padding="post")


def decode(ids, words):
    real = lambda row: itertools.takewhile(lambda k: k < len(words), row)  # up to the end
    return [" ".join(words[k] for k in real(row)) for row in ids]

"""The texts of examples/sentiment.py, and how sure people were that they praise."""

import numpy as np
import tensorflow_datasets as tfds

import keras_rnnx.datasets  # noqa: F401  (registers `movie_sentiment` for TFDS)


def load(options):
    """`{split: (texts, labels)}`, and texts to read beforehand: of the training, and others.

    A label of the training is how likely praise is; of the other splits it is 0 or 1.
    """
    builder = tfds.builder(options.dataset, data_dir=options.data_dir)
    builder.download_and_prepare()
    parts = {"train": "train", "validation": "validation", "test": "test", "more": "other"}
    if options.dataset == "imdb_reviews":
        parts |= {"train": "train[:90%]", "validation": "train[90%:]", "more": "unsupervised"}
    rows = {name: tfds.as_numpy(builder.as_dataset(split=part)) for name, part in parts.items()}
    rows = {name: list(part)[: 3000 if options.quick else None] for name, part in rows.items()}
    to_read = [row["text"] for row in rows["train"] + rows.pop("more")]
    for split, part in rows.items():
        if split == "train" and "score" in part[0]:  # -4 to 4, as log-odds
            labels = [1 / (1 + np.exp(-row["score"])) for row in part]
        else:
            part = [row for row in part if row["label"] >= 0]  # the others are neither
            labels = [row["label"] for row in part]
        rows[split] = [row["text"] for row in part], np.array(labels, "float32")
    return rows, to_read

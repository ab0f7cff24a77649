"""What examples/captioning.py reports: measures, captions without a net, and a picture.

All of it comes after the training.
"""

import itertools
import textwrap
from collections import Counter

import common  # first: it sets the environment
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from parts.caption_data import GRID
from parts.caption_data import SIZE
from parts.caption_data import decode

from keras_rnnx import seq2seq


def word_f1(found, captions):
    """F1 of the words in a caption, whatever their order; against the closest true one."""
    counts = [(Counter(found.split()), Counter(true.split())) for true in captions]
    return max(2 * (a & b).total() / (a.total() + b.total()) for a, b in counts)


def quality(found, captions, name="{}"):
    f1 = np.mean([word_f1(one, several) for one, several in zip(found, captions)])
    bleu = seq2seq.corpus_bleu(found, captions)
    return {name.format("word F1"): f1, name.format("BLEU"): bleu}


def nearest(images, captions, others):
    """For each of the others the caption of the picture that differs least, pixel by pixel."""
    known, others = (a.reshape(len(a), -1).astype("float32") for a in (images, others))
    distance = np.sum(known**2, axis=1) - 2 * others @ known.T
    return [captions[k][0] for k in distance.argmin(axis=1)]


def always(captions):
    """Of the first 1,000 captions the one that is best for all of them."""
    some = captions[:1000]
    return max((one for one, *_ in some), key=lambda one: sum(word_f1(one, few) for few in some))


def bigram_nats(train, test, prior=50):
    """Nats per word of ids, with counted bigrams and a Dirichlet prior of the counted words."""
    pairs = lambda rows: [pair for ids in rows for pair in itertools.pairwise([-1, *ids[ids > 0]])]
    both = Counter(pairs(train))
    first, second = (Counter(pair[k] for pair in both.elements()) for k in (0, 1))
    alone = lambda b: (second[b] + 1) / (second.total() + train.max() + 1)
    p = [(both[a, b] + prior * alone(b)) / (first[a] + prior) for a, b in pairs(test)]
    return -np.mean(np.log(p))


def draw(options, model, images, captions, words):
    """Pictures, their true captions, and where the decoder looked for each word that it said."""
    found = model.decode(images)
    texts = [text.split() for text in decode(found.ids[:, 0].numpy(), words)]
    shape = len(images), 1 + max(map(len, texts))
    size = 1.5 * shape[1], 1.8 * shape[0]
    figure, axes = plt.subplots(*shape, figsize=size, layout="constrained", squeeze=False)
    for row, image, said, (true, *_), weights in zip(
        axes, images, texts, captions, found.alignments[:, 0].numpy()
    ):
        looked = weights[: len(said)].reshape(-1, GRID, GRID, 1)
        light = tf.image.resize(looked / looked.max(axis=(1, 2), keepdims=True), (SIZE, SIZE))
        shown = [image, *(image * (0.2 + 0.8 * light)).numpy().astype("uint8")]
        for axis, title, picture in zip(row, [textwrap.fill(true, 20), *said], shown):
            axis.imshow(picture)
            axis.set_title(title, fontsize=9, style="italic" if axis is row[0] else None)
        for axis in row:
            axis.axis("off")
    common.save(options, figure, "captions.png")

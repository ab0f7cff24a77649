"""Words and pronunciations: what examples/translate.py and examples/hybrid.py share.

Words of CMUdict as batches of ids, the errors of a translator, a picture of where it looks, and
a baseline that only counts.
"""

import math
import re
from collections import Counter
from collections import defaultdict

import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

import keras_rnnx
import keras_rnnx.datasets  # registers `cmudict` for TFDS
from keras_rnnx.seq2seq import ErrorRate

LETTERS = "abcdefghijklmnopqrstuvwxyz'"
BATCH = 96
BUCKETS = (6, 8, 10, 13, 36)  # lengths that a batch is padded to; each is compiled once


def load(data_dir, quick):
    """`{split: {word: [pronunciation without stress, ...]}}` of the words of plain letters."""
    builder = tfds.builder("cmudict", data_dir=data_dir)
    builder.download_and_prepare()
    words = {}
    for split in ("train", "validation", "test"):
        used = "[:8%]" if quick else ""
        found = words[split] = {}
        for row in tfds.as_numpy(builder.as_dataset(split=split + used)):
            word = row["word"].decode()
            if set(word) <= set(LETTERS):
                phones = re.sub(r"\d", "", row["pronunciation"].decode())
                known = found.setdefault(word, [])
                if phones not in known:  # some differ in their stress only
                    known.append(phones)
    return words


def batches(translator, words):
    """Batches of pairs of ids of about one length, in another order each epoch; their number."""
    pairs = [(word, phones) for word, several in words.items() for phones in several]
    sources, targets = translator.pairs(*zip(*pairs))
    rows = tf.data.Dataset.from_tensor_slices((sources, targets))
    real = lambda ids: ids[: tf.math.count_nonzero(ids, dtype=tf.int32)]
    rows = rows.map(lambda source, target: (real(source), real(target)))
    rows = keras_rnnx.bucket_by_length(
        rows,
        BATCH,
        boundaries=BUCKETS,
        noise=0.3,
        shuffle=len(pairs),
        seed=1,
        drop_remainder=True,  # every further batch size is compiled anew
    )
    rows = rows.cache()
    count = sum(1 for _ in rows)
    return rows.shuffle(count, seed=1).repeat().prefetch(4), count


def references_of(translator, words):
    """Ids of all pronunciations of each word, `[N, R, T]`."""
    most = max(map(len, words.values()))
    flat = [
        several[k] if k < len(several) else "" for several in words.values() for k in range(most)
    ]
    _, targets = translator.pairs(list(words), flat)
    targets = tf.where((tf.constant(flat) == "")[:, None], 0, targets)
    return tf.reshape(targets, [len(words), most, -1])


def pronounce(translator, words, **how):
    """What the translator says for each word; `how` to decode."""
    parts = [words[k : k + 256] for k in range(0, len(words), 256)]
    found = [translator.decode(part, **how).texts[:, 0].numpy() for part in parts]
    return [phones.decode() for phones in np.concatenate(found)]


def draw(path, translator, words):
    """Which letters the decoder looked at for each phoneme."""
    texts, found = translator.decode(words)
    figure, axes = plt.subplots(1, len(words), figsize=(4 * len(words), 4.4), layout="constrained")
    for k, (axis, word) in enumerate(zip(axes, words)):
        phones = texts[k, 0].numpy().decode().split() + ["end"]
        shown = found.alignments[k, 0, : len(phones), : len(word)].numpy()
        picture = axis.imshow(shown, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axis.set_xticks(range(len(word)), list(word))
        axis.set_yticks(range(len(phones)), phones)
        axis.set_title(word)
    axes[0].set_ylabel("phoneme")
    figure.supxlabel("letter")
    figure.colorbar(picture, ax=axes, label="alignment")
    figure.savefig(path, dpi=120, format="png")
    plt.close(figure)


def align(word, phones, often):
    """The likeliest way to give each letter none, one or two of the phonemes, in their order."""
    paths = {0: (0.0, ())}  # by how many phonemes are given: cost, and what each letter has
    for letter in word:
        longer = {}
        for first, (cost, chunks) in paths.items():
            for chunk in {phones[first : first + size] for size in range(3)}:
                path = cost - math.log(often[letter, chunk] + 0.1), (*chunks, chunk)
                given = first + len(chunk)
                longer[given] = min(path, longer.get(given, path))
        paths = longer
    return paths.get(len(phones), (0.0, ()))[1]


def sights(word, place):
    """A letter with two neighbours on each side, with one, and alone."""
    return [f"  {word}  "[place + 2 - size : place + 3 + size] for size in (2, 1, 0)]


def count(words):
    """A baseline that only counts: what is said for a letter in sight of its neighbours."""
    pairs = [(word, tuple(several[0].split())) for word, several in words.items()]
    aligned = [(word, tuple(zip(phones))) for word, phones in pairs if len(word) == len(phones)]
    for part in (pairs[:5000], pairs[:5000], pairs):  # counts, with which to align, to count, ...
        often = Counter(each for word, chunks in aligned for each in zip(word, chunks))
        aligned = [(word, align(word, phones, often)) for word, phones in part]
    seen = defaultdict(Counter)
    for word, chunks in aligned:
        for place, chunk in enumerate(chunks):
            for sight in sights(word, place):
                seen[sight][chunk] += 1
    return seen


def say(seen, word):
    """For each letter what was counted most, in the widest sight that was seen."""
    found = [[seen[s] for s in sights(word, place) if s in seen] for place in range(len(word))]
    return " ".join(phone for first, *_ in found for phone in first.most_common(1)[0][0])


def errors_of(translator, words, said):
    """Phoneme and word errors in per cent, against the closest pronunciation of each word."""
    references = references_of(translator, words)
    _, found = translator.pairs(list(words), said)
    rate = ErrorRate(translator.model.end)
    rate.update_state(references, found)
    right = np.mean([one in several for one, several in zip(said, words.values())])
    return {"phoneme error": 100 * float(rate.result()), "word error": 100 * (1 - right)}


def counted(translator, words):
    """The errors of counting, as baselines of `common.report`."""
    seen = count(words["train"])
    said = [say(seen, word) for word in words["test"]]
    errors = errors_of(translator, words["test"], said)
    return {f"counting letters with neighbours: {name}": x for name, x in errors.items()}

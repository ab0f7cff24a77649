"""What examples/tagging_crf.py reports: F1 without a net, entities in words, and a picture.

All of it comes after the training.
"""

from collections import Counter
from collections import defaultdict

import keras
import matplotlib.pyplot as plt
import numpy as np
from parts.tagging_data import may_follow

from keras_rnnx.heads import EntityF1


def by_memory(sets, names):
    """F1 without a net: each word has the tag that it had most often in training, or O."""
    counts = defaultdict(Counter)
    for sentence, tags in zip(*sets["train"]):
        for word, tag in zip(sentence.split(), tags):
            counts[word][tag] += 1
    usual = {word: count.most_common(1)[0][0] for word, count in counts.items()}
    sentences, tags = sets["test"]
    found = [[usual.get(word, 0) for word in sentence.split()] for sentence in sentences]
    metric = EntityF1(names)
    metric.update_state(
        *(keras.utils.pad_sequences(x, padding="post", value=-1) for x in (tags, found))
    )
    return 100 * float(metric.result())


def entities(words, tags):
    """`"word word (TYPE)"` of each entity. No tag breaks the scheme, so that nothing is checked."""
    found = []
    for word, tag in zip(words, tags):
        if tag[0] in "BS":
            found.append([f"({tag[2:]})"])
        if tag != "O":
            found[-1].insert(-1, word)
    return [" ".join(entity) for entity in found]


def draw(scores, crf, names):
    """F1 of all taggers, and what the CRF has learned about some tags that follow each other."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    bars = left.barh(list(scores), list(scores.values()), color="#9dc3e6")
    left.bar_label(bars, fmt="%.1f", padding=3)
    left.set(xlabel="F1 of the entities of the test, %", xlim=(0, 1.15 * max(scores.values())))
    left.invert_yaxis()
    shown = [k for k, name in enumerate(names) if name == "O" or name[2:] in ("ORG", "PER")]
    learned = crf.transitions.numpy()[np.ix_(shown, shown)]
    largest = np.abs(learned).max()
    picture = right.imshow(learned, cmap="RdBu", vmin=-largest, vmax=largest)
    against = ~may_follow(names)[np.ix_(shown, shown)]
    right.plot(*np.nonzero(against)[::-1], "x", color="gray", markersize=4, label="not allowed")
    right.set_xticks(range(len(shown)), [names[k] for k in shown], rotation=90)
    right.set_yticks(range(len(shown)), [names[k] for k in shown])
    right.set(xlabel="tag after it", ylabel="tag", title="transition scores (x: not allowed)")
    figure.colorbar(picture, ax=right)
    return figure

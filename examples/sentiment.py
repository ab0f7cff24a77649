"""Does a sentence praise a film or pan it? What dropout brings, and reading beforehand.

The same LSTM (many-to-one) is trained three times: without a regularizer; with variational dropout
and dropout of whole words; and with these after it has learned, as a language model, which word
comes next in the sentences and in others. They learn how sure people were of each sentence, not
only what most of them said. Beside them, logistic regression on words and pairs of words, which
learns from the same, and both together. The sentences are in the source archive of the package
`vaderSentiment`:

    pip download --no-deps --no-binary :all: vaderSentiment==3.3.2 \
        -d sentiment_output/data/downloads/manual
    python examples/sentiment.py            # all sentences, several minutes
    python examples/sentiment.py --quick    # a part of them: to see that all works
    python examples/sentiment.py --dataset imdb_reviews    # whole reviews, which TFDS downloads
"""

import common  # first: it sets the environment
import keras
import numpy as np
import tensorflow as tf
from parts.sentiment_data import load
from parts.sentiment_report import draw
from parts.sentiment_report import log_odds
from parts.sentiment_report import regression

import keras_rnnx

WORDS = 12_000  # of the vocabulary, at most
BATCH = 64
VARIANTS = {"no regularizer": 0.0, "dropout": 0.3, "language model, dropout": 0.3}  # their rates


@keras.saving.register_keras_serializable(package="sentiment")
def accuracy(label, p):
    """Whether labels `[B]` and answers `[B, 1]` are on the same side of one half."""
    return keras.ops.equal(label > 0.5, p[:, 0] > 0.5)


def build(options, length, rate):
    """The LSTM, from ids of words to a state at each, and the classifier on top of it."""
    drop, noise = {}, {"dropout": rate, "recurrent_dropout": rate}
    if options.layers == "keras_rnnx":
        drop["dropout"] = rate  # stock Keras does not drop whole words
        # To compile the loop takes longer than so few steps without.
        noise["jit_compile"] = False if options.quick else "auto"
    x = keras.Input((length,), dtype="int32", name="words")
    h = options.rnn.Embedding(WORDS, 64, mask_zero=True, **drop)(x)
    h = options.rnn.LSTM(96, return_sequences=True, **noise)(h)
    pooled = [keras_rnnx.MaxOverTime()(h), keras_rnnx.MeanOverTime()(h)]
    y = keras.layers.Dropout(rate)(keras.layers.Concatenate()(pooled))
    model = keras.Model(x, keras.layers.Dense(1, "sigmoid")(y))
    model.compile(keras.optimizers.Adam(clipnorm=1.0), "binary_crossentropy", metrics=[accuracy])
    return keras.Model(x, h), model


class NextWord(keras.layers.Layer):
    """The loss of a language model: from the states `[B, T, U]`, which word `[B, T]` comes next?"""

    def build(self, h_shape, x_shape):
        self.kernel = self.add_weight((WORDS, h_shape[-1]))
        self.bias = self.add_weight((WORDS,), "zeros")
        self.supports_masking = True

    def call(self, h, x):
        h, target = tf.reshape(h[:, :-1], (-1, h.shape[-1])), tf.reshape(x[:, 1:], (-1, 1))
        # Beside 500 words instead of all. They are drawn by their rank, which the ids are.
        loss = tf.nn.sampled_softmax_loss(self.kernel, self.bias, target, h, 500, WORDS)
        self.add_loss(tf.reduce_mean(loss))
        return h


def packed(ids):
    """All texts one after another, in rows of the same length: no time goes into padding."""
    words, length = ids[ids != 0], ids.shape[1]
    return words[: len(words) // length * length].reshape(-1, length)


def train(options, model, data, share, validation=None):
    """Trains. With validation data the best epoch is kept. Returns its accuracy and the seconds."""
    budget = common.Budget(options.seconds and share * options.seconds)
    # Batches of one size: every other one would be compiled anew.
    rows = tf.data.Dataset.from_tensor_slices(data).shuffle(len(data[0]))
    rows = rows.batch(BATCH, drop_remainder=True)
    best = {"mode": "max", "patience": options.epochs, "restore_best_weights": True}
    callbacks = [budget, common.Cosine(budget, 4e-3, options.epochs * len(rows))]
    callbacks += [keras.callbacks.EarlyStopping("val_accuracy", **best)] if validation else []
    how = {"validation_data": validation, "callbacks": callbacks, "verbose": common.VERBOSE}
    fitted = model.fit(rows, epochs=options.epochs, shuffle=False, **how)
    return max(fitted.history.get("val_accuracy", [0.0])), budget.seconds


def compare(options, data, words):
    """The models, their accuracies on validation data, and all seconds, as a budget."""
    models, kept, total = {}, {}, common.Budget()
    for name, rate in VARIANTS.items():
        print(f"\n{name}", flush=True)
        keras.utils.set_random_seed(options.seed)
        encoder, models[name] = build(options, words.shape[1], rate)
        if name.startswith("language model"):
            reader = keras.Model(encoder.input, NextWord()(encoder.output, encoder.input))
            reader.compile(keras.optimizers.Adam(clipnorm=1.0))
            total.seconds += train(options, reader, (words,), 0.31)[1]
        rows = data["train"], 0.23, data["validation"]  # about its share of the time
        kept[name], seconds = train(options, models[name], *rows)
        total.seconds += seconds
    return models, kept, total


def main():
    parser = common.parser(__doc__, "sentiment")
    parser.add_argument("--dataset", default="movie_sentiment", help="or imdb_reviews, downloaded")
    options = common.start(parser)
    options.epochs = 2 if options.quick else 6
    sets, to_read = load(options)
    # Of the few texts that are longer the end is cut.
    length = min(200, int(np.percentile([len(text.split()) for text in sets["train"][0]], 95)))
    vectorize = keras.layers.TextVectorization(WORDS, output_sequence_length=length)
    vectorize.adapt(tf.constant(to_read), batch_size=1024)
    ids = lambda texts: vectorize(tf.constant(texts)).numpy().astype("int32")
    data = {split: (ids(texts), labels) for split, (texts, labels) in sets.items()}
    print(", ".join(f"{len(labels):,} {split}" for split, (_, labels) in data.items()), "texts")

    models, kept, total = compare(options, data, packed(ids(to_read)))
    found = {name: model.evaluate(*data["test"], verbose=0)[1] for name, model in models.items()}
    best = max(kept, key=kept.get)
    text = keras.Input((), dtype="string", name="text")
    classifier = keras.Model(text, models[best](vectorize(text)))
    texts, labels = sets["test"]
    if options.layers == "keras_rnnx":
        pairs = [(text.decode(), label) for text, label in zip(texts, labels)]
        short = [(text, label) for text, label in pairs if 6 <= len(text.split()) <= 15]
        draw(options, classifier, short[:15])
        common.export(options, classifier, np.array(texts[:200], object))
    counted = log_odds(regression(sets), texts)
    both = counted + log_odds(classifier, texts)  # half and half: the sign is what counts
    metrics = {"accuracy": found[best]} | {f"accuracy, {name}": found[name] for name in VARIANTS}
    metrics["accuracy, with logistic regression"] = np.mean((both > 0) == labels)
    majority = np.mean(labels == (np.mean(sets["train"][1] > 0.5) > 0.5))
    baselines = {"majority class: accuracy": majority}
    baselines["logistic regression of 1-2-grams: accuracy"] = np.mean((counted > 0) == labels)
    common.report(options, classifier, total, metrics, baselines)


if __name__ == "__main__":
    main()

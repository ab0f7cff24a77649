"""Beside the nets of examples/sentiment.py: logistic regression, and what each word adds."""

import common
import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf


def regression(sets):
    """Logistic regression on words and pairs of words, weighted by TF-IDF: texts to praise."""
    ngrams = keras.layers.TextVectorization(50_000, ngrams=2, output_mode="tf_idf")
    ngrams.adapt(tf.constant(sets["train"][0]), batch_size=1024)
    unit, answer = keras.layers.UnitNormalization(), keras.layers.Dense(1, "sigmoid")
    model = keras.Sequential([keras.Input((), dtype="string"), ngrams, unit, answer])
    model.compile(keras.optimizers.Adam(2e-2), "binary_crossentropy")
    rows = tf.data.Dataset.from_tensor_slices(sets["train"]).shuffle(len(sets["train"][0]))
    # Stopped early, which is its regularizer: 4 epochs, chosen on validation data beforehand.
    model.fit(rows.batch(64), epochs=4, verbose=0, shuffle=False)
    return model


def log_odds(classify, texts):
    """Of praise, for each text."""
    p = classify.predict(tf.constant(texts), batch_size=256, verbose=0)[:, 0].astype("float64")
    p = np.clip(p, 1e-7, 1 - 1e-7)  # float32 ends before one does
    return np.log(p / (1 - p))


def weigh(classify, text):
    """Log-odds of praise, and by how much each word moves them: what they lose without it."""
    words = text.split()
    without = [" ".join(words[:k] + words[k + 1 :]) for k in range(len(words))]
    odds = log_odds(classify, [text, *without])
    return odds[0], odds[0] - odds[1:]


def draw(options, classify, examples):
    """Texts, each word coloured by how far it moved the answer."""
    figure, axis = plt.subplots(figsize=(11, 5), layout="constrained")
    for row, (text, label) in enumerate(examples):
        odds, moved = weigh(classify, text)
        x, beginning = 0, f"{'praise' if label else 'pan':<6} {odds:+5.1f} "
        for word, change in zip([beginning, *text.split()], [0.0, *moved]):
            box = {"facecolor": plt.get_cmap("RdBu")(0.5 + change / 6), "edgecolor": "none"}
            axis.text(x, -row, word, family="monospace", bbox=box | {"pad": 1.5})
            x += len(word) + 1
    title = "true answer, log-odds of praise, and what each word adds to them (blue) or takes (red)"
    axis.set(xlim=(0, 125), ylim=(-len(examples), 1), title=title)
    axis.set_axis_off()
    common.save(options, figure, "sentiment.png")

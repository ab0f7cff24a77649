"""Say what a picture shows: the names of emoji, with attention over the map of a CNN.

One-to-many: from one picture a sequence of words, "woman rowing boat medium skin tone". A CNN makes
a map of 36 places; for each word the decoder looks at some of them (Xu et al., "Show, Attend and
Tell", ICML 2015). No emoji of the test was seen in training, nor a variant of it. The emoji are
drawn with a font of Debian and named by the package `emoji`:

    apt install fonts-noto-color-emoji       # or tell --font where the file is
    python examples/captioning.py            # all emoji, two minutes of training
    python examples/captioning.py --quick    # some of them: to see that all works
    python examples/captioning.py --dataset coco_captions  # photographs, which TFDS downloads
"""

from collections import Counter

import common  # first: it sets the environment
import keras
import numpy as np
import tensorflow as tf
from parts.caption_data import GRID
from parts.caption_data import LENGTH
from parts.caption_data import SIZE
from parts.caption_data import UNKNOWN
from parts.caption_data import decode
from parts.caption_data import encode
from parts.caption_data import load
from parts.caption_report import always
from parts.caption_report import bigram_nats
from parts.caption_report import draw
from parts.caption_report import nearest
from parts.caption_report import quality

import keras_rnnx
from keras_rnnx import seq2seq
from keras_rnnx.attention import BahdanauAttention

UNITS, SMALL, DROPOUT, BATCH, EPOCHS, RATE = 192, 96, 0.4, 64, 9, 2e-3
BEAM = 8


def cnn():
    """From a picture to its map: `[B, GRID * GRID, 128]`."""
    image = keras.Input((SIZE, SIZE, 3), dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.layers.RandomTranslation(0.1, 0.1, fill_mode="nearest")(x)
    x = keras.layers.RandomZoom(0.2, fill_mode="nearest")(x)
    x = keras.layers.RandomRotation(0.05, fill_mode="nearest")(x)
    for filters, strides in ((32, 2), (64, 2), (128, 2), (128, 1)):
        x = keras.layers.Conv2D(filters, 3, strides, padding="same", use_bias=False)(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(x))
    x = keras.layers.Reshape((GRID * GRID, x.shape[-1]))(x)
    return keras.Model(image, keras.layers.Dropout(DROPOUT)(x), name="cnn")


@keras.saving.register_keras_serializable(package="captioning")
class Captioner(seq2seq.Seq2Seq):
    """A `Seq2Seq` from pictures; they have no length that an export would have to ask for."""

    inputs = [keras.KerasTensor((None, SIZE, SIZE, 3), "uint8", name="image")]

    def endpoints(self):
        specs = [tf.TensorSpec(one.shape, one.dtype, one.name) for one in self.inputs]
        return {"serving_default": (lambda image: self.predict_step((image,)), specs)}


def build(size):
    """The model for so many words: `fit` and `predict` take pictures, the decoding is inside."""
    cell = keras_rnnx.AttentionCell(
        keras_rnnx.GRUCell(UNITS), BahdanauAttention(SMALL), attention_size=UNITS
    )
    never = seq2seq.BannedTokens((UNKNOWN, size + 1))
    return Captioner(
        cnn(),
        seq2seq.Decoder(cell, size + 2, SMALL, dropout=DROPOUT),
        seq2seq.Bridge("mean"),  # the decoder starts from the mean of the map
        start=size + 1,
        end=size,
        # No length penalty: its usual 1.0 made captions longer than the true ones.
        decoding={"beam_width": BEAM, "max_length": LENGTH, "constraint": never},
    )


def build_stock(size):
    """The same net of layers of Keras: pictures and captions to what comes next in these."""
    image = keras.Input((SIZE, SIZE, 3), dtype="uint8")
    caption = keras.Input((LENGTH,), dtype="int32")
    said = keras.ops.pad(caption[:, :-1], ((0, 0), (1, 0)), constant_values=size + 1)
    memory = cnn()(image)
    start = keras.layers.Dense(UNITS, "tanh")(keras.layers.GlobalAveragePooling1D()(memory))
    x = keras.layers.Dropout(DROPOUT)(keras.layers.Embedding(size + 2, SMALL)(said))
    h = keras.layers.GRU(UNITS, return_sequences=True)(x, initial_state=start)
    query, key = (keras.layers.Dense(SMALL, use_bias=False)(a) for a in (h, memory))
    context = keras.layers.AdditiveAttention()([query, memory, key])
    x = keras.layers.Concatenate()([h, context])
    x = keras.layers.Dense(UNITS, "tanh", use_bias=False)(x)
    say = keras.layers.Dense(size + 2, name="output")
    return keras.Model([image, caption], say(keras.layers.Dropout(DROPOUT)(x)))


def describe(model, images, words, **how):
    """The captions that a model finds for pictures."""
    if isinstance(model, Captioner):
        return decode(model.decode(images, **how).ids[:, 0].numpy(), words)
    ids = np.zeros((len(images), LENGTH), "int32")
    for t in range(LENGTH):  # stock Keras has no decoding: the whole net anew for each word
        logits = model.predict([images, ids], batch_size=256, verbose=0)[:, t]
        logits[:, [0, UNKNOWN, len(words) + 1]] = -np.inf
        ids[:, t] = logits.argmax(axis=-1)
    return decode(ids, words)


def calibrate(model, layer, rows):
    """Divides the logits, those of `layer`, by what suits held-out captions best.

    A net that has seen few words is too sure of what it says; the likeliest word stays the same.
    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
    """
    weights = layer.get_weights()

    def perplexity(temperature):
        layer.set_weights([w / temperature for w in weights])
        return model.evaluate(rows, verbose=0, return_dict=True)["perplexity"]

    perplexity(min(np.arange(0.8, 2.4, 0.2), key=perplexity))


def main():
    parser = common.parser(__doc__, "captioning")
    parser.add_argument("--dataset", default="emoji_captions", help="or coco_captions")
    parser.add_argument("--font", help="NotoColorEmoji.ttf, where apt has not put it")
    options = common.start(parser)
    print(f"Preparing {options.dataset} ...", flush=True)
    sets = load(options)
    (images, captions), ours = sets["test"], options.layers == "keras_rnnx"
    counts = Counter(word for several in sets["train"][1] for word in several[0].split())
    words = [word for word, count in counts.most_common(10_000) if count > 1]
    words = ["", "[unknown]", *words]
    ids = {split: encode(several, words) for split, (_, several) in sets.items()}
    data = {}
    for split, (pictures, _) in sets.items():
        rows = tf.data.Dataset.from_tensor_slices((pictures, ids[split]))
        rows = rows.shuffle(len(pictures), seed=options.seed) if split == "train" else rows
        rows = rows if ours else rows.map(lambda picture, one: ((picture, one), one))
        data[split] = rows.batch(BATCH, drop_remainder=split == "train").prefetch(2)

    model = (build if ours else build_stock)(len(words))
    model.compile(
        keras.optimizers.Adam(clipnorm=1.0),
        seq2seq.SequenceLoss(label_smoothing=0.1),
        metrics=[seq2seq.Perplexity()],
    )
    epochs = 6 if options.quick else EPOCHS
    budget = common.Budget(options.seconds)
    rate = common.Cosine(budget, RATE, epochs * len(data["train"]))
    model.fit(
        data["train"],
        validation_data=data["validation"],
        epochs=epochs,
        callbacks=[budget, rate],
        shuffle=False,  # the data set does
        verbose=common.VERBOSE,
    )

    output = model.decoder.output_layer if ours else model.get_layer("output")
    calibrate(model, output, data["validation"])
    found = describe(model, images, words, **({"method": "greedy"} if ours else {}))
    metrics = quality(found, captions)
    perplexity = model.evaluate(data["test"], verbose=0, return_dict=True)["perplexity"]
    metrics["nats per word"] = np.log(perplexity)
    if ours:
        metrics |= quality(describe(model, images, words), captions, f"{{}}, beam of {BEAM}")
    similar = nearest(*sets["train"], images)
    baselines = quality(similar, captions, "most similar picture: {}")
    same = [always(sets["train"][1])] * len(images)
    baselines |= quality(same, captions, "always the same caption: {}")
    baselines["bigrams, no picture: nats per word"] = bigram_nats(ids["train"], ids["test"])
    if ours:
        long = [k for k, (true, *_) in enumerate(captions) if len(true.split()) > 2]
        some = long[:: max(1, len(long) // 6)][:6]
        draw(options, model, images[some], [captions[k] for k in some], words)
        (options.out / "words.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
        common.export(options, model, images[:32])
    common.report(options, model, budget, metrics, baselines)


if __name__ == "__main__":
    main()

"""Pronounce words with a Transformer that reads and a recurrent net that speaks.

The encoder of examples/translate.py gives way to a Transformer's, which reads all letters at once;
the decoder is still a GRU with attention: one phoneme after the other at a small cost that stays
the same, where a Transformer's would grow with every step. Of such hybrids: Chen et al., "The Best
of Both Worlds", ACL 2018. Words, vocabularies and decoder are those of translate.py.

    python examples/hybrid.py                        # all words, three epochs, some ten minutes
    python examples/hybrid.py --encoder recurrent    # translate.py's own encoder, for comparison
    python examples/hybrid.py --quick                # few words, two epochs: to see that all works
"""

import common  # first: it sets the environment
import keras
from parts import pronunciations
import translate

from keras_rnnx import seq2seq

WIDTH, HEADS, BLOCKS, DROPOUT = 128, 4, 2, 0.1  # of the Transformer
LONGEST = pronunciations.BUCKETS[-1]


@keras.saving.register_keras_serializable(package="hybrid")
class RealConv1D(keras.layers.Conv1D):
    """A convolution over real steps; that of Keras takes padding for them, and loses the mask."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.supports_masking = True

    def call(self, x, mask=None):
        x = x if mask is None else x * keras.ops.cast(mask, x.dtype)[..., None]
        return super().call(x)


def transformer(letters):
    """Ids of letters `[B, S]` to a memory `[B, S, WIDTH]`: blocks of attention, pre-norm."""
    layers = keras.layers
    source = keras.Input((None,), dtype="int32")
    real = keras.ops.cast(keras.ops.not_equal(source, 0), "int32")
    place = keras.ops.minimum(keras.ops.cumsum(real, axis=1), LONGEST) * real  # padding: 0
    embed = lambda size: layers.Embedding(size, WIDTH, mask_zero=True)
    x = layers.add([embed(letters)(source), embed(LONGEST + 1)(place)])
    # To attention all letters are equally near; a convolution tells each its neighbours.
    x = layers.add([x, RealConv1D(WIDTH, 5, padding="same", activation="relu")(x)])
    for _ in range(BLOCKS):
        y = layers.LayerNormalization()(x)
        y = layers.MultiHeadAttention(HEADS, WIDTH // HEADS, dropout=DROPOUT)(y, y)
        x = layers.add([x, layers.Dropout(DROPOUT)(y)])
        y = layers.Dense(2 * WIDTH, activation="relu")(layers.LayerNormalization()(x))
        x = layers.add([x, layers.Dropout(DROPOUT)(layers.Dense(WIDTH)(y))])
    return keras.Model(source, layers.LayerNormalization()(x), name="transformer")


def build(options, words):
    """A `Translator`: translate.py's, with another encoder."""
    phones = {p for several in words.values() for one in several for p in one.split()}
    letters = len(pronunciations.LETTERS) + 2  # padding and what is unknown
    encoder = transformer(letters) if options.encoder == "transformer" else None
    return translate.build(sorted(phones), common.LAYERS[options.layers], encoder)


def train(translator, words, epochs, budget):
    """Keeps the weights that were best for validation words."""
    model = translator.model
    data, steps = pronunciations.batches(translator, words["train"])
    held_out = [(word, several[0]) for word, several in words["validation"].items()][:2000]
    source, target = translator.pairs(*zip(*held_out))
    model(source[:1])  # makes the weights
    model.compile(keras.optimizers.Adam(clipnorm=1.0), seq2seq.SequenceLoss())
    best = keras.callbacks.EarlyStopping("val_loss", patience=epochs, restore_best_weights=True)
    model.fit(
        data,
        steps_per_epoch=steps,
        epochs=epochs,
        validation_data=(source, target),
        validation_batch_size=250,
        callbacks=[best, budget, common.Cosine(budget, 2e-3, steps * epochs)],
        shuffle=False,  # the data set does
        verbose=common.VERBOSE,
    )


def main():
    parser = common.parser(__doc__, "hybrid")
    parser.add_argument("--encoder", choices=("transformer", "recurrent"), default="transformer")
    options = common.start(parser)
    words = pronunciations.load(options.data_dir, options.quick)
    print(", ".join(f"{len(part):,} {split}" for split, part in words.items()), "words")
    translator, budget = build(options, words["train"]), common.Budget(options.seconds)
    train(translator, words, 2 if options.quick else 3, budget)

    test = list(words["test"])
    said = pronunciations.pronounce(translator, test, method="greedy")
    metrics = pronunciations.errors_of(translator, words["test"], said)
    if options.layers == "keras_rnnx":
        longest = sorted(test, key=len)[-23:-20]
        picture = options.out / "hybrid.png"
        common.write(picture, lambda path: pronunciations.draw(path, translator, longest))
        translate.export(options, translator, test[:6])
    baselines = pronunciations.counted(translator, words)
    common.report(options, translator.model, budget, metrics, baselines)


if __name__ == "__main__":
    main()

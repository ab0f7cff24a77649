"""The data of examples/tagging_crf.py: sentences with tags, as ids of words and of letters."""

import keras
import tensorflow as tf
import tensorflow_datasets as tfds

import keras_rnnx
import keras_rnnx.datasets  # registers `hebrew_entities` for TFDS
from keras_rnnx.heads import allowed_transitions

# How each data set calls its words, their tags, and the split for validation.
DATASETS = {
    "hebrew_entities": ("words", "tags", "validation"),
    "conll2003": ("tokens", "ner", "dev"),
}
LETTERS = 10  # of a word; the rest of a longer one is cut
BUCKETS = (12, 24, 48, 120)  # lengths that a batch is padded to; each is compiled once
TOKENS = 960  # of each batch, so that the letters of all batches have one shape


@keras.saving.register_keras_serializable(package="tagging_crf")
class Letters(keras.layers.Layer):
    """The ids of the letters of each word, `[B, T, LETTERS]`, of sentences `[B]`; 0 is padding."""

    def __init__(self, alphabet, **kwargs):
        super().__init__(**kwargs)
        self.alphabet = alphabet
        self.ids = keras.layers.StringLookup(vocabulary=list(alphabet), mask_token="")

    def build(self, text_shape):
        self.ids.build((*text_shape, None, LETTERS))

    def call(self, text):
        letters = tf.strings.unicode_split(tf.strings.split(text), "UTF-8")
        return self.ids(letters.to_tensor("", shape=[None, None, LETTERS]))

    def compute_output_spec(self, text):
        return keras.KerasTensor((text.shape[0], None, LETTERS), "int64")

    def get_config(self):
        return {**super().get_config(), "alphabet": self.alphabet}


def load(options):
    """`{split: (sentences, tags)}`, words with a space between, and the names of the tags."""
    words, tags, validation = DATASETS[options.dataset]
    builder = tfds.builder(options.dataset, data_dir=options.data_dir)
    builder.download_and_prepare()
    sets = {}
    for split, its_name in {"train": "train", "validation": validation, "test": "test"}.items():
        used = "[:30%]" if options.quick and split == "train" else ""
        rows = tfds.as_numpy(builder.as_dataset(split=its_name + used))
        found = [row for row in rows if len(row[words])]  # conll2003 has empty sentences
        sets[split] = [b" ".join(row[words]) for row in found], [row[tags] for row in found]
    return sets, builder.info.features[tags].feature.names


def may_follow(names):
    """Which tag may follow which. Of the schemes only BIOES names the end of an entity."""
    scheme = "BIOES" if any(name.startswith("E-") for name in names) else "BIO"
    return allowed_transitions(names, scheme)


def batches(vectorizers, sentences, tags, rare=None):
    """Batches of ids of about one length. In training, given the first id of a word that occurs
    once, every second of these is unknown: else nothing would be learned about unknown words.
    There the batches have no end, and their number in an epoch comes with them."""
    x = {name: layer(tf.constant(sentences)) for name, layer in vectorizers.items()}
    y = keras.utils.pad_sequences(tags, x["words"].shape[1], padding="post", value=-1)

    def unpad(x, y):
        count = tf.math.count_nonzero(x["words"], dtype=tf.int32)
        return {name: ids[:count] for name, ids in x.items()}, y[:count]

    def forget(x, y):
        words = x["words"]
        drawn = (words >= rare) & (tf.random.uniform(tf.shape(words)) < 0.5)
        return {**x, "words": tf.where(drawn, tf.ones_like(words), words)}, y

    rows = keras_rnnx.bucket_by_length(
        tf.data.Dataset.from_tensor_slices((x, y)).map(unpad),
        tokens_per_batch=TOKENS,
        boundaries=(*BUCKETS[:-1], max(BUCKETS[-1], y.shape[1])),  # a test may have a longer one
        shuffle=len(tags) if rare else 0,
        drop_remainder=rare is not None,  # every further batch size is compiled anew
        padding_values=({"words": 0, "letters": 0}, -1),
    )
    if not rare:
        return rows.prefetch(4)
    # In another order other sentences are left over, so their number differs a little.
    return rows.map(forget).repeat().prefetch(4), sum(1 for _ in rows)

"""Sentences and their translations: what examples/translate.py reads in place of words.

Any set of translations of TFDS, and the errors of a translator in it.
"""

import re
from collections import Counter

from parts import pronunciations
import tensorflow_datasets as tfds

from keras_rnnx.seq2seq import corpus_bleu

VOCABULARY = 10_000  # words of a language, at most


def load(options):
    """`{split: {sentence: [its translation, ...]}}`, in lower case and without punctuation."""
    builder = tfds.builder(options.dataset, data_dir=options.data_dir)
    builder.download_and_prepare()
    clean = lambda text: " ".join(re.sub(r"[^\w\s'-]", " ", text.decode().lower()).split())
    sentences = {}
    for split in ("train", "validation", "test"):
        found, used = sentences.setdefault(split, {}), "[:8%]" if options.quick else ""
        for pair in tfds.as_numpy(builder.as_dataset(split=split + used, as_supervised=True)):
            source, target = map(clean, pair)
            most = max(len(text.split()) for text in (source, target))
            # To train, a pair has to fit into a batch, the end of the target too.
            if source and target and (split != "train" or most < pronunciations.BUCKETS[-1]):
                found.setdefault(source, []).append(target)
    return sentences


def frequent(texts):
    counts = Counter(word for text in texts for word in text.split())
    return [word for word, _ in counts.most_common(VOCABULARY)]


def quality(translator, sentences, said):
    """Token error in per cent, against the closest translation, and BLEU."""
    error = pronunciations.errors_of(translator, sentences, said)["phoneme error"]
    return {"token error": error, "BLEU": corpus_bleu(said, sentences.values())}

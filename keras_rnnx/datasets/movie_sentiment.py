"""Sentences of film reviews with the sentiment that people found in them: VADER's ground truth."""

import html
import io
import re
import tarfile

import numpy as np
import tensorflow_datasets as tfds

from keras_rnnx.datasets import cmudict

ARCHIVE = "vaderSentiment-3.3.2.tar.gz"
INNER = "additional_resources/hutto_ICWSM_2014.tar.gz"  # an archive in the archive
FILES = {  # source here: name of the file there
    "movies": "movieReviewSnippets_GroundTruth.txt",
    "products": "amazonReviewSnippets_GroundTruth.txt",
    "editorials": "nytEditorialSnippets_GroundTruth.txt",
    "tweets": "tweets_GroundTruth.txt",
}


class MovieSentiment(tfds.core.GeneratorBasedBuilder):
    """Scored sentences of film reviews, read from the source archive of `vaderSentiment` 3.3.2.

    10,605 sentences of reviews from rottentomatoes.com (after Pang and Lee 2004), each with the
    mean of the scores that about 15 people gave it, from -4, extremely negative, to 4, extremely
    positive. Those above 0.5 are labelled as positive and those below -0.5 as negative, which
    leaves 562 without a label.

    The split is drawn by the words of the sentence: about 80 % are `train`, 10 % `validation` and
    10 % `test`. A fourth part, `other`, has 13,098 scored sentences of other kinds: reviews of
    products, editorials of the New York Times and tweets.

    Features:
        text: the sentence, with `&` for the archive's `&amp;`.
        label: "negative" or "positive"; -1 where there is none, as TFDS has it elsewhere.
        score: the mean score.
        source: "movies"; in `other` "products", "editorials" or "tweets".

    The package is under the MIT licence; it says nothing of the sentences, so no copy of them comes
    with keras_rnnx.

    Reference: Hutto and Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of
    Social Media Text", ICWSM 2014.

    Example, in a folder of your choice, where the archive is in `data/downloads/manual`:

        import keras_rnnx.datasets, tensorflow_datasets as tfds
        train = tfds.load("movie_sentiment", split="train", data_dir="data")
    """

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "The data set `movie_sentiment` is read from the source archive of the package "
        "`vaderSentiment`; what pip installs lacks it. Put it there: pip download --no-deps "
        "--no-binary :all: vaderSentiment==3.3.2 -d DATA_DIR/downloads/manual"
    )

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description="Sentences of film reviews with the mean score that people gave them.",
            features=tfds.features.FeaturesDict(
                {
                    "text": tfds.features.Text(),
                    "label": tfds.features.ClassLabel(names=["negative", "positive"]),
                    "score": tfds.features.Scalar(np.float32),
                    "source": tfds.features.Text(),
                }
            ),
            supervised_keys=("text", "label"),
            homepage="https://github.com/cjhutto/vaderSentiment",
        )

    def _split_generators(self, dl_manager):
        path = dl_manager.manual_dir / ARCHIVE
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing. {self.MANUAL_DOWNLOAD_INSTRUCTIONS}")
        parts = {"train": [], "validation": [], "test": [], "other": []}
        for sentence in sentences(path):
            movies = sentence["source"] == "movies"
            parts[split_of(sentence["text"]) if movies else "other"].append(sentence)
        return {split: self._generate_examples(part) for split, part in parts.items()}

    def _generate_examples(self, part):
        yield from enumerate(part)


def sentences(path):
    """All sentences of the archive, as examples."""
    folder = ARCHIVE.removesuffix(".tar.gz")
    with tarfile.open(path) as archive:
        inner = archive.extractfile(f"{folder}/{INNER}").read()
    with tarfile.open(fileobj=io.BytesIO(inner)) as archive:
        for source, name in FILES.items():
            table = archive.extractfile(f"hutto_ICWSM_2014/{name}").read().decode("utf-8")
            for line in table.strip().split("\n"):
                _, score, text = line.split("\t")
                score = float(score)
                yield {
                    "text": html.unescape(text).strip(),
                    "label": int(score > 0) if abs(score) > 0.5 else -1,
                    "score": score,
                    "source": source,
                }


def split_of(text):
    """`train`, `validation` or `test`: one for sentences that differ in case or marks only."""
    return cmudict.split_of(" ".join(re.findall(r"\w+", text.lower())))

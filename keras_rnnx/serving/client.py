"""A client of a served model: whole requests, streams that keep their state, decoding."""

import time
from collections.abc import Mapping
from typing import Self

import numpy as np

from keras_rnnx.annotations import Array
from keras_rnnx.serving.transport import Grpc
from keras_rnnx.serving.transport import Rest
from keras_rnnx.serving.transport import Unavailable

STEP, START = "step", "initial_state"


class Client:
    """Asks a model that `keras_rnnx.serving.export` wrote and TensorFlow Serving serves.

    A request that the server could not take (it was away, busy or too slow) is sent again; since
    no signature changes anything on the server, steps of a stream may be, too.

    Args:
        address: `"http://host:8501"` speaks REST, `"host:8500"` gRPC.
        model: the model's name on the server.
        version: an integer, or None for the newest.
        timeout: seconds that one try may take.
        retries: how often a request is sent again, after 0.1, 0.2, 0.4, ... seconds.

    Raises:
        ConnectionError: where the server could not be asked, after all tries.
        ValueError: for a request that the server refuses, in its words.

    Example:

    >>> from keras_rnnx.serving import Client
    >>> with Client("localhost:8500", "tagger", retries=0, timeout=0.1) as client:
    ...     try:
    ...         client.predict({"x": [[1.0]]})
    ...     except ConnectionError as error:
    ...         print("nobody is there")
    nobody is there
    """

    def __init__(
        self,
        address: str,
        model: str,
        version: int | None = None,
        timeout: float = 30.0,
        retries: int = 3,
    ) -> None:
        rest = address.startswith(("http://", "https://"))
        self.transport = (Rest if rest else Grpc)(address, model, version)
        self.timeout, self.retries = timeout, retries

    def predict(
        self, inputs: Mapping[str, Array], signature: str = "serving_default"
    ) -> dict[str, np.ndarray]:
        """`{output: array}` for inputs `{input: array}`, all with the batch first.

        `signature` is one of those that a version answers.
        """
        inputs = {name: _array(value) for name, value in inputs.items()}
        for k in range(self.retries):
            try:
                return self.transport.predict(inputs, signature, self.timeout)
            except Unavailable:
                time.sleep(0.1 * 2**k)
        return self.transport.predict(inputs, signature, self.timeout)

    def stream(self, rows: int = 1) -> "Stream":
        """A `Stream` of as many sequences as `rows` side by side, at their beginning.

        `stream.feed(inputs)` answers a chunk and keeps the states, which are in `stream.states`.
        """
        return Stream(self, rows)

    def decode(
        self,
        sources: Array | dict[str, Array],
        beam_width: int | Array = 4,
        max_length: int | Array = 50,
        length_penalty: float | Array = 0.0,
        **more: Array,
    ) -> dict[str, np.ndarray]:
        """The best targets of sources: `{output: array}` of the signature decode.

        Args:
            sources: strings for a Translator, else arrays by name as in `predict`.
            beam_width, max_length, length_penalty: a number for all rows, or one for each.
            **more: further inputs by name.
        """
        if not isinstance(sources, dict):
            sources = {"text": sources}
        rows = len(_array(next(iter(sources.values()))))
        numbers = {
            "beam_width": np.broadcast_to(np.int32(beam_width), [rows]),
            "max_length": np.broadcast_to(np.int32(max_length), [rows]),
            "length_penalty": np.broadcast_to(np.float32(length_penalty), [rows]),
        }
        return self.predict({**sources, **numbers, **more}, "decode")

    def close(self) -> None:
        """Close the connection."""
        self.transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Stream:
    """Sequences fed chunk by chunk to a model on a server; the states are kept here.

    states: `{name: array}`, to be kept elsewhere and put back, so that a stream outlives its
    client. After an error they are those of before, and the chunk may be sent again.
    """

    def __init__(self, client: Client, rows: int) -> None:
        self.client, self.rows = client, rows
        self.states = client.predict({"rows": np.zeros([rows], np.int32)}, START)

    def feed(
        self, chunk: Array | dict[str, Array], lengths: Array | None = None
    ) -> dict[str, np.ndarray]:
        """`{output: array}` for a chunk `[B, T, ...]`, or a dict of them by the inputs' names.

        lengths: how many steps of each row are real; None for all. A model with several sequences
            gets them in the dict, as `NAME_lengths`.
        """
        chunk = chunk if isinstance(chunk, dict) else {"inputs": chunk}
        chunk = {name: _array(value) for name, value in chunk.items()}
        if not any(name.endswith("lengths") for name in chunk):
            rows, steps = next(iter(chunk.values())).shape[:2]
            lengths = np.full([rows], steps) if lengths is None else lengths
            chunk["lengths"] = np.asarray(lengths, np.int32)
        found = self.client.predict({**chunk, **self.states}, STEP)
        self.states = {name: found.pop(name) for name in self.states}
        return found


def _array(value):
    """An array of a dtype that models take: Python's numbers are of 64 bits."""
    array = np.asarray(value)
    if isinstance(value, np.ndarray) or array.dtype.kind not in "fiU":
        return array.astype(object) if array.dtype.kind in "US" else array
    return array.astype({"f": np.float32, "i": np.int32, "U": object}[array.dtype.kind])

"""A model over endless streams: each client has a state of its own, fed chunk by chunk."""

import collections
import threading
import time
from collections.abc import Hashable
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_rnnx.annotations import Array
from keras_rnnx.annotations import Tensor
from keras_rnnx.layers import Stream
from keras_rnnx.layers import causal
from keras_rnnx.layers import everything

# Layers that need steps which a stream has not seen yet, or has seen before this chunk.
NOT_STEPWISE = (
    "Attention AdditiveAttention MultiHeadAttention GroupedQueryAttention Conv1D SeparableConv1D "
    "DepthwiseConv1D Conv1DTranspose Flatten Reshape Permute GlobalAveragePooling1D "
    "GlobalMaxPooling1D AveragePooling1D MaxPooling1D AdaptiveAveragePooling1D "
    "AdaptiveMaxPooling1D UpSampling1D ZeroPadding1D Cropping1D MeanOverTime MaxOverTime "
    "LastOverTime AttentionOverTime"
).split()


class StreamingSession:
    """Feeds a causal model chunk by chunk and keeps a state for each client.

    Chunks of any size, one after the other, give what the whole sequence would give (but for
    masked steps that begin a chunk: their outputs are zeros and not those of before). The model is
    not changed and holds no state: its recurrent layers take theirs from the session. It may be a
    layer, a Sequential, functional or subclassed model whose recurrent layers are those of this
    package and go forward; other layers have to treat every step by itself (Dense, Embedding,
    normalisation, activations).

    Safe under threads: chunks of one client run one after the other, those of different clients
    side by side.

    Args:
        model: the model or layer.
        max_clients: how many states to keep; the one that was idle longest is dropped for a new
            client. None keeps all.
        idle_seconds: states that were idle for so long are dropped. None keeps all.

    Raises:
        ValueError: for a model that needs steps which a stream has not seen yet.

    Example:

    >>> import keras, keras_rnnx, numpy as np
    >>> model = keras.Sequential([
    ...     keras.Input((None, 3)),
    ...     keras_rnnx.LSTM(4, return_sequences=True),
    ...     keras.layers.Dense(2),
    ... ])
    >>> x = np.random.default_rng(0).normal(size=(7, 3)).astype("float32")
    >>> session = keras_rnnx.StreamingSession(model)
    >>> parts = [session.feed("ann", x[:2]), session.feed("bob", x), session.feed("ann", x[2:])]
    >>> np.allclose(np.concatenate([parts[0], parts[2]]), parts[1], atol=1e-6)
    True
    >>> session.clients
    ['bob', 'ann']
    """

    def __init__(
        self,
        model: keras.layers.Layer,
        max_clients: int | None = None,
        idle_seconds: float | None = None,
    ) -> None:
        check_stepwise(model)
        self.model = model
        self.max_clients = max_clients
        self.idle_seconds = idle_seconds
        # The client that was idle longest comes first.
        self._kept: collections.OrderedDict[Hashable, _Client] = collections.OrderedDict()
        self._lock = threading.Lock()
        self._trace_lock = threading.Lock()
        self._functions: dict[tuple[str, bool], Any] = {}

    @property
    def clients(self) -> list[Hashable]:
        """The clients that have a state, the one that was idle longest first."""
        with self._lock:
            return list(self._kept)

    def feed(self, client: Hashable, chunk: Tensor) -> Array:
        """The model's output for a chunk, `[T, ...]` without a batch axis, of one client.

        A client that has no state begins a sequence. A model that returns the last output only
        gives that of the chunk's last step.

        Raises:
            ValueError: for a chunk without its time axis, or with a batch axis; for states that
                were restored and are of another model.
        """
        self._check_ranks(chunk)
        one = self._client(client)
        with one.lock:
            x = keras.tree.map_structure(lambda a: tf.convert_to_tensor(a)[None], chunk)
            output, one.states = self._run(x, one.states)
            return keras.tree.map_structure(lambda a: a[0].numpy(), output)

    def states(self, client: Hashable) -> list[np.ndarray] | None:
        """The states of a client as a list of arrays, to be kept elsewhere; None before a chunk."""
        with self._lock:
            one = self._kept.get(client)
        if one is None or one.states is None:
            return None
        with one.lock:
            return [s[0].numpy() for s in one.states]

    def restore(self, client: Hashable, states: Sequence[Array]) -> None:
        """Give a client the states that `states` returned, which the next `feed` checks."""
        one = self._client(client)
        with one.lock:
            one.states = [tf.convert_to_tensor(s)[None] for s in states]

    def close(self, client: Hashable) -> None:
        """Forget a client: its next chunk begins a sequence."""
        with self._lock:
            self._kept.pop(client, None)

    def _check_ranks(self, chunk):
        inputs = getattr(self.model, "inputs", None)  # of a class of its own they are not known
        shapes = [tuple(np.shape(a)) for a in keras.tree.flatten(chunk)]
        if inputs and list(map(len, shapes)) != [len(i.shape) - 1 for i in inputs]:
            shapes = list(dict.fromkeys(shapes))  # a list of numbers has many
            wanted = [("time", *i.shape[2:]) for i in inputs]
            raise ValueError(
                f"feed got a chunk of shape {shapes}, expected {wanted}: an array of one client's "
                "steps, without a batch axis. A single step is a chunk too, `x[None]`."
            )

    def _check_states(self, states):
        shapes, wanted = [tuple(s.shape[1:]) for s in states], self._state_shapes
        fits = lambda shape, other: tf.TensorShape(shape).is_compatible_with(other)
        if len(shapes) != len(wanted) or not all(map(fits, shapes, wanted)):
            raise ValueError(
                f"The client has states of the shapes {shapes}, expected {wanted}. Restore what "
                "`states` returned for this very model."
            )

    def _client(self, client):
        now = time.monotonic()
        with self._lock:
            one = self._kept.pop(client, None) or _Client()
            if self.idle_seconds is not None and now - one.used > self.idle_seconds:
                one = _Client()
            one.used = now
            self._kept[client] = one
            if self.idle_seconds is not None:
                for name, other in list(self._kept.items()):
                    if now - other.used <= self.idle_seconds:
                        break
                    del self._kept[name]
            while self.max_clients is not None and len(self._kept) > self.max_clients:
                self._kept.popitem(last=False)
        return one

    def _run(self, x, states):
        """Output and flat states, through a graph that any size of batch and chunk shares."""
        specs = keras.tree.map_structure(
            lambda a: tf.TensorSpec([None, None, *a.shape[2:]], a.dtype), x
        )
        with self._trace_lock:  # two threads would trace at the same time, and one in vain
            first = self._function(specs, None)  # which also tells how states are nested
            if states is not None:
                self._check_states(states)
            function = first if states is None else self._function(specs, states)
        return function(x, states or [])

    def _function(self, specs, states):
        key = repr(specs), states is None
        if key not in self._functions:
            self._functions[key] = self._traced(specs, states)
        return self._functions[key]

    def _traced(self, specs, states):
        nested = []

        def call(x, flat):
            if flat:
                flat = keras.tree.pack_sequence_as(self._structure, flat)
            stream = Stream(flat or None)
            with stream.opened():
                output = self.model(x, training=False)
            nested.append(stream.last)
            flat = keras.tree.flatten(stream.last)
            self._state_shapes = [tuple(s.shape[1:]) for s in flat]
            return output, flat

        flat = [tf.TensorSpec([None, *s.shape[1:]], s.dtype) for s in states or []]
        function = tf.function(call, input_signature=[specs, flat], autograph=False)
        function.get_concrete_function()
        self._structure = keras.tree.map_structure(lambda _: 0, nested[-1])
        if not nested[-1]:
            raise ValueError(
                f"{self.model.name} has no recurrent layer of keras_rnnx, and so no state to carry "
                "from chunk to chunk. Call the model itself."
            )
        return function


class _Client:
    def __init__(self):
        self.lock = threading.Lock()
        self.states = None
        self.used = time.monotonic()


def check_stepwise(model):
    """Refuse a model with a layer that does not go step by step."""
    for layer in everything(model):
        kind = type(layer)
        stock = kind.__module__.startswith("keras.")
        if stock and isinstance(layer, (keras.layers.RNN, keras.layers.Bidirectional)):
            raise ValueError(
                f"{layer.name} is keras.layers.{kind.__name__}, which keeps its state to itself. "
                f"Use keras_rnnx.{kind.__name__} in its place, with the same weights."
            )
        if stock and isinstance(layer, keras.layers.TimeDistributed):
            raise ValueError(
                f"{layer.name} is keras.layers.TimeDistributed, which computes only the first step "
                "of a chunk whose size the graph does not know. Use keras_rnnx.TimeDistributed."
            )
        if kind.__name__ in NOT_STEPWISE:
            raise ValueError(
                f"{layer.name} ({kind.__name__}) needs other steps than the one at hand, and a "
                "stream brings them one by one. Leave it out of the model that streams, or feed "
                "it with whole sequences."
            )
        if kind.__name__ == "Bidirectional":
            layer.step()
        causal(layer)

"""Gates, states, outputs and alignments of every step, by name."""

import collections.abc
import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Literal
from typing import TypeAlias

import keras
import numpy as np
import tensorflow as tf

from keras_rnnx import engine
from keras_rnnx import training
from keras_rnnx.annotations import Tensor
from keras_rnnx.inspection import quietly
from keras_rnnx.inspection.shown import Call
from keras_rnnx.inspection.shown import shown
from keras_rnnx.layers import AttentionOverTime

Kind: TypeAlias = Literal["gate", "state", "output", "alignments", "weights"]
AXES: dict[Kind, tuple[str, ...]] = {
    "gate": ("batch", "time", "units"),
    "state": ("batch", "time", "units"),
    "output": ("batch", "time", "units"),
    "alignments": ("batch", "time", "memory"),
    "weights": ("batch", "time"),
}


@dataclasses.dataclass(frozen=True, repr=False)
class Record(collections.abc.Mapping[str, np.ndarray]):
    """What `record` has found: NumPy arrays by name, `record["lstm/f"]`.

    Attributes:
        arrays: `{name: array}`, the same as the record itself.
        kinds: `{name: kind}`: "gate", "state", "output", "alignments" or "weights".
        masks: `{layer: [B, T] booleans}`, True where a step is real.

    Example:

    >>> import keras, keras_rnnx, numpy as np
    >>> from keras_rnnx.inspection import record
    >>> layer = keras_rnnx.GRU(4, name="gru")
    >>> model = keras.Sequential([keras.Input((None, 3)), layer])
    >>> record(model, np.ones((2, 5, 3), "float32"))
    gru/z       gate    (batch=2, time=5, units=4)
    gru/r       gate    (batch=2, time=5, units=4)
    gru/n       gate    (batch=2, time=5, units=4)
    gru/h       state   (batch=2, time=5, units=4)
    gru/output  output  (batch=2, time=5, units=4)
    """

    arrays: dict[str, np.ndarray]
    kinds: dict[str, Kind]
    masks: dict[str, np.ndarray]

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.arrays:
            raise KeyError(f"{name!r} was not recorded; what was: {', '.join(self.arrays)}.")
        return self.arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)

    def axes(self, name: str) -> tuple[str, ...]:
        """What the axes of an array are: `("batch", "time", "units")`."""
        return AXES[self.kinds[name]][: self[name].ndim]

    def of(self, layer: str, kind: Kind) -> dict[str, np.ndarray]:
        """`{short name: array}` of one layer and kind: `record.of("lstm", "gate")["f"]`."""
        names = {name.rpartition("/")[2]: name for name in self if name.rpartition("/")[0] == layer}
        if not names:
            layers = dict.fromkeys(name.rpartition("/")[0] for name in self)
            raise ValueError(
                f"{layer!r} was not recorded, expected one of {', '.join(map(repr, layers))}."
            )
        return {short: self[name] for short, name in names.items() if self.kinds[name] == kind}

    def __repr__(self):
        wide = [max(map(len, column)) for column in (self, self.kinds.values())]
        lines = []
        for name, array in self.items():
            axes = ", ".join(f"{a}={n}" for a, n in zip(self.axes(name), array.shape))
            lines.append(f"{name:{wide[0]}}  {self.kinds[name]:{wide[1]}}  ({axes})")
        return "\n".join(lines)


def record(model: keras.Model, x: Tensor) -> Record:
    """What the recurrent layers of a model compute at every step of `x`, as at inference.

    For each recurrent layer of this package, under its name after those around it, as in
    `GradientMonitor` (`"bidirectional/forward_lstm/f"`; of a list of cells the first one's is
    `"rnn/0/f"`):

    * the gates, by their letters in the cell's equations: i, f, g, o of an LSTM, z, r, n of a GRU,
      a and b of a linear recurrence; of a cell of your own what its step passes to `product.show`;
    * the states after each step: `h`, `c`, further ones as `state_2` and so on;
    * `output`, and of an `AttentionCell` its `alignments` (`alignments_1`, ... of several);
    * of `AttentionOverTime` its `weights`.

    The layers run once as loops of stock operations, whatever the plan; values are the same to
    rounding. Layers that go backwards are turned round: step t is that of the input. Stateful
    layers begin with zeros, and the model is left as it was. Of a layer that is called more than
    once the last call counts; what a loop or function of the model's own calls is not seen.
    Recurrent layers of `keras.layers` are not looked into, and of a Keras cell in `keras_rnnx.RNN`
    the output is all that is seen.

    Args:
        model: a Keras model.
        x: one batch of its input, as `model(x)` takes it. Of a `Seq2Seq`
            `Pair(source, model.teacher_inputs(targets))`; `from keras_rnnx.seq2seq.model import
            Pair`.

    Returns:
        A `Record` of float32 arrays (float64 of such a layer): `[B, T, U]`, `[B, T, S]` over the
        positions of a memory, and `[B, T]`.

    Masks: in masked steps gates and alignments are NaN, states stay as they were, and outputs are
    what the layer gives there.

    Raises:
        ValueError: if there is nothing to look into.
        TypeError: for something else than a model and one batch.

    Example:

    >>> import keras, keras_rnnx, numpy as np
    >>> from keras_rnnx.inspection import record
    >>> model = keras.Sequential([keras.Input((None, 3)), keras_rnnx.LSTM(4, name="lstm")])
    >>> found = record(model, np.ones((2, 5, 3), "float32"))
    >>> list(found)
    ['lstm/i', 'lstm/f', 'lstm/g', 'lstm/o', 'lstm/h', 'lstm/c', 'lstm/output']
    >>> found["lstm/f"].shape, found.axes("lstm/f")
    ((2, 5, 4), ('batch', 'time', 'units'))
    """
    x = quietly.tensors(model, x, "record")
    layers = quietly.recurrent_layers(model, "record")
    pooling = [
        (name, layer)
        for name, layer in training.inside.layers(model)
        if isinstance(layer, AttentionOverTime)
    ]
    calls: dict[str, Call] = {}
    weights: dict[str, Tensor] = {}

    def run():
        calls.clear()
        weights.clear()
        with contextlib.ExitStack() as stack:
            for name, layer in layers:
                stack.enter_context(shown(layer, name, calls))
            for name, layer in pooling:
                stack.enter_context(_weighed(layer, name, weights))
            model(x, training=False)
        seen = {n: c.tensors for n, c in calls.items() if quietly.here(c.tensors["output"])}
        return seen, {n: w for n, w in weights.items() if quietly.here(w)}

    with quietly.undisturbed(model), engine.portable():
        seen, weights = tf.function(run).get_concrete_function()()
    arrays, kinds, masks = {}, {}, {}
    for name, found in seen.items():
        found = tf.nest.map_structure(_array, found)
        for full, kind, values in calls[name].arrays(found):
            arrays[full], kinds[full] = values, kind
        for prefix in calls[name].prefixes:
            masks[prefix] = calls[name].mask(found)
    for name, values in weights.items():
        arrays[f"{name}/weights"], kinds[f"{name}/weights"] = _array(values), "weights"
    if not arrays:
        raise ValueError(
            f"record got {model.name!r}, which calls none of its recurrent layers, or does so in a "
            "loop or function of its own, where they are not seen."
        )
    return Record(arrays, kinds, masks)


def _array(tensor):
    if tensor is None:
        return None
    half = tensor.dtype in (tf.float16, tf.bfloat16)
    return np.asarray(tf.cast(tensor, tf.float32) if half else tensor)


@contextlib.contextmanager
def _weighed(layer, name, weights):
    """In here the weights of an `AttentionOverTime` are noted."""
    call, wanted = layer.call, layer.return_weights

    def looked(*arguments, **options):
        with quietly.instead(layer, return_weights=True):
            pooled, weights[name] = call(*arguments, **options)
        return (pooled, weights[name]) if wanted else pooled

    with quietly.instead(layer, call=looked):
        yield

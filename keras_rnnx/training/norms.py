"""Norms of gradients and states of the layers of a model, in one pass over given data."""

import contextlib
import dataclasses
import functools

import keras
import numpy as np
import tensorflow as tf

from keras_rnnx.layers import RNN
from keras_rnnx.training import inside


@dataclasses.dataclass
class LayerNorms:
    """What was measured of one layer; None where it has no such thing.

    gradient: of the loss with respect to its trainable weights, all together.
    weights_finite: whether all its weights are finite.
    called: place in the order of calls.
    steps: `[T]`, of the gradient with respect to its input at each step.
    real: `[T]`, steps that are not masked in every row.
    carried: `[T]`, steps from which a gradient through time is not stopped on purpose.
    incoming: of the gradient that comes from the layers above: with respect to its output, at
        each step if it returns all, and to each state it returns.
    state: of its last states.
    backwards: whether the layer goes from the last step to the first.
    """

    name: str
    gradient: float | None = None
    weights_finite: bool = True
    called: int | None = None
    steps: np.ndarray | None = None
    real: np.ndarray | None = None
    carried: np.ndarray | None = None
    incoming: np.ndarray | None = None
    state: float | None = None
    backwards: bool = False


class Norms:
    """Measures a model on `x` and `y`, in a graph that is traced once."""

    def __init__(self, model, x, y):
        self.model = model
        self.x, self.y = x, y
        # Inner layers come first: their variables are not counted again for those around them.
        self.layers, owned = [], set()
        for name, layer in [*inside.layers(model), (model.name, model)]:
            own = [v for v in layer.variables if id(v) not in owned]
            owned.update(id(v) for v in own)
            if own or is_ours(layer):
                self.layers.append((name, layer, own))
        self.graph = None

    def measure(self):
        """A `LayerNorms` for each layer that has variables."""
        if self.graph is None:
            self.graph = tf.function(self._norms).get_concrete_function()
        results = []
        for (name, layer, _), found in zip(self.layers, self.graph()):
            norms = LayerNorms(name, weights_finite=bool(found["finite"]))
            if "gradient" in found:
                norms.gradient = float(found["gradient"])
            if "steps" in found and found["real"].numpy().any():
                norms.called = int(found["called"])
                norms.steps = found["steps"].numpy()
                norms.real = found["real"].numpy()
                norms.incoming = found["incoming"].numpy()
                norms.state = float(found["state"])
                norms.backwards = layer.go_backwards
                norms.carried = _carried(layer, len(norms.steps))
            results.append(norms)
        return results

    def _norms(self):
        calls = {}
        with tf.GradientTape() as tape:
            with contextlib.ExitStack() as stack:
                for _, layer, _ in self.layers:
                    if is_ours(layer):
                        stack.enter_context(_watched(layer, tape, calls))
                y_pred = self.model(self.x, training=False)
            loss = self.model.compute_loss(x=self.x, y=self.y, y_pred=y_pred, training=False)
        weights = [[v for v in own if v.trainable] for _, _, own in self.layers]
        # A layer within a loop of the caller's has tensors that cannot be had out here.
        here = tf.compat.v1.get_default_graph()
        calls = {k: c for k, c in calls.items() if getattr(c["input"], "graph", here) is here}
        inputs = {key: call["input"] for key, call in calls.items()}
        outputs = {key: call["outputs"] for key, call in calls.items()}
        sources = [[_tensor(v) for v in own] for own in weights], inputs, outputs
        by_weight, by_input, by_output = tape.gradient(loss, sources)
        found = []
        for (_, layer, own), gradients in zip(self.layers, by_weight):
            floats = [v for v in own if tf.as_dtype(v.dtype).is_floating]
            finite = [tf.reduce_all(tf.math.is_finite(tf.convert_to_tensor(v))) for v in floats]
            norms = {"finite": tf.reduce_all(tf.stack([True, *finite]))}
            gradients = [g for g in gradients if g is not None]
            if gradients:
                norms["gradient"] = _norm(gradients)
            call, gradient = calls.get(id(layer)), by_input.get(id(layer))
            if call is not None and gradient is not None:
                norms["steps"] = _step_norms(gradient)
                norms["real"] = tf.ones_like(norms["steps"], tf.bool)
                output, *states = by_output[id(layer)]
                incoming = [_norm([g])[None] for g in states if g is not None]
                if output is not None:
                    sequence = layer.return_sequences
                    incoming.append(_step_norms(output) if sequence else _norm([output])[None])
                norms["incoming"] = tf.concat(incoming, axis=0)
                if call["mask"] is not None:
                    norms["real"] = tf.reduce_any(call["mask"], axis=0)
                norms["called"] = call["called"]
                rows = tf.cast(tf.shape(gradient)[0], tf.float64)
                norms["state"] = _norm(call["states"]) / tf.sqrt(rows)
            found.append(norms)
        return found


def is_ours(layer):
    """Whether a layer is a recurrent one of this package."""
    return isinstance(layer, RNN)


def _tensor(variable):
    """What the tape knows of a Keras variable."""
    return variable.value if isinstance(variable, keras.Variable) else variable


def _norm(tensors):
    # In double precision, where squares of what a float32 holds do not overflow.
    tensors = [tf.cast(tf.convert_to_tensor(t), tf.float64) for t in tensors]
    return tf.linalg.global_norm(tensors)


def _mask(sequences, mask, lengths):
    """The steps that a layer takes, `[B, T]`, of what it was given; None for all."""
    masks = [] if mask is None else [tf.cast(keras.tree.flatten(mask)[0], tf.bool)]
    if lengths is not None:
        masks.append(tf.sequence_mask(lengths, tf.shape(sequences)[1]))
    return functools.reduce(tf.logical_and, masks) if masks else None


def _step_norms(gradient):
    square = tf.square(tf.cast(gradient, tf.float64))
    return tf.sqrt(tf.reduce_sum(square, [a for a in range(gradient.shape.rank) if a != 1]))


def _carried(layer, steps):
    """The steps of the last segment of a truncated backward pass; all in another."""
    place = np.arange(steps)[::-1] if layer.go_backwards else np.arange(steps)
    truncate = getattr(layer.backward, "truncate", None)
    return place >= (steps - 1) // truncate * truncate if truncate else place >= 0


@contextlib.contextmanager
def _watched(layer, tape, calls):
    """While in here, calls of a layer are noted: input (watched), mask and last states."""
    call = layer.call

    def watched(sequences, *arguments, mask=None, sequence_length=None, **options):
        options = {**options, "mask": mask, "sequence_length": sequence_length}
        if not tf.is_tensor(sequences):
            return call(sequences, *arguments, **options)  # ragged, or nested for a cell of Keras
        # A tensor of its own, for other layers may take the same input.
        sequences = tf.identity(sequences)
        tape.watch(sequences)
        wanted, layer.return_state = layer.return_state, True
        try:
            output, *states = call(sequences, *arguments, **options)
        finally:
            layer.return_state = wanted
        # Of their own as well: what others do with these tensors counts, not what the layer does.
        outputs = [tf.identity(t) for t in keras.tree.flatten([output, states if wanted else []])]
        calls[id(layer)] = {
            "input": sequences,
            "mask": _mask(sequences, mask, sequence_length),
            "states": keras.tree.flatten(states),
            "outputs": outputs,
            "called": len(calls),
        }
        if not wanted:
            return outputs[0]
        return outputs[0], *keras.tree.pack_sequence_as(states, outputs[1:])

    layer.call = watched
    try:
        yield
    finally:
        del layer.call

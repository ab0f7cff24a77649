"""One step: run, replayed for its gradients, and traced for its shapes.

Everything here is flat (tuples of tensors) on the outside; the user's step sees trees.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from keras_rnnx.engine.data import Structure
from keras_rnnx.engine.products import Prepared
from keras_rnnx.engine.products import Products
from keras_rnnx.engine.trace import trace


@dataclasses.dataclass(frozen=True)
class Step:
    """A step function and the trees that it takes."""

    step: Callable
    names: tuple  # of the weights
    xs: Structure
    states: Structure
    constants: Structure

    def take(self, x, weights, states, constants, recorded=None, turned=None, split=None):
        """`(output, flat new states, products)` of one step."""
        x, states = list(x), list(states)
        constants = self.constants.pack(constants)
        weights = Prepared(zip(self.names, weights, strict=True))
        products = Products(weights, constants, states, x, recorded, turned, split)
        result = self.step(weights, products, self.xs.pack(x), self.states.pack(states), constants)
        if not isinstance(result, (list, tuple)) or len(result) != 2:
            raise TypeError(
                f"The step returned {type(result).__name__}, expected (output, new states): end it "
                "with, for example, `return h, (h,)`."
            )
        output, new = result
        new = tf.nest.flatten(new)
        if len(new) != len(states) or not all(map(_alike, new, states)):
            raise ValueError(
                f"The step returned states {[_describe(n) for n in new]}, expected the like of "
                f"those it got: {[_describe(s) for s in states]}."
            )
        # A loop's carry keeps its static shape; the step may know less of it than the start.
        new = [
            n if tf.executing_eagerly() else tf.ensure_shape(n, s.shape)
            for n, s in zip(new, states)
        ]
        return output, new, products

    def replay(self, x, before, recorded, weights, constants, d_output, d_new, turned=None):
        """Gradients of one step, its products being given; and notes on which there are."""
        floating = lambda tensors: [i for i, a in enumerate(tensors) if a.dtype.is_floating]
        xi, wi, ci = floating(x), floating(weights), floating(constants)
        with tf.GradientTape() as tape:
            sources = {
                "x": [x[i] for i in xi],
                "states": list(before),
                "products": list(recorded),
                "weights": [weights[i] for i in wi],
                "constants": [constants[i] for i in ci],
            }
            tape.watch(sources)
            output, new, products = self.take(x, weights, before, constants, recorded, turned)
        d = tape.gradient([*tf.nest.flatten(output), *new], sources, [*d_output, *d_new])
        d = tf.nest.map_structure(lambda g: g if g is None else tf.convert_to_tensor(g), d)
        xi = [i for i, g in zip(xi, d["x"]) if g is not None]
        d["x"] = [g for g in d["x"] if g is not None]
        for key in ("states", "products"):
            d[key] = [tf.zeros_like(s) if g is None else g for g, s in zip(d[key], sources[key])]
        notes = Notes(
            dx=(*xi, *(call.plus for call in products.calls)),
            weights=tuple(i for i, g in zip(wi, d["weights"]) if g is not None),
            constants=tuple(i for i, g in zip(ci, d["constants"]) if g is not None),
            calls=tuple(products.calls),
        )
        d["weights"] = [g for g in d["weights"] if g is not None]
        d["constants"] = [g for g in d["constants"] if g is not None]
        # Inputs of products that are not just a state are made again here, to be kept.
        d["inputs"] = [h for h, call in zip(products.inputs, products.calls) if call.state is None]
        return d, notes

    def trace_step(self, data, strict=True):
        """A `Trace`: specs of outputs and products; structure of the output and product calls."""

        def step(x, weights, states, constants):
            output, _, products = self.take(x, weights, states, constants)
            return (tf.nest.flatten(output), products.values), (Structure(output), products.calls)

        x = [_drop_time(a) for a in data.xs]
        return trace(step, x, data.cast_weights(), data.states, data.constants, strict=strict)

    def trace_replay(self, data, saved):
        """A `Trace` of `replay`: specs of the gradients, and notes on them."""
        outputs, _ = self.trace_step(data).specs
        x, before, recorded = (
            [_drop_time(a) for a in arrays] for arrays in (data.xs, saved.states, saved.products)
        )
        weights = data.cast_weights()
        return trace(
            self.replay, x, before, recorded, weights, data.constants, outputs, data.states
        )


class Notes(NamedTuple):
    """Which gradients a replayed step has, by position, and its products."""

    dx: tuple  # of the inputs: first those by themselves, then, or None, those of each product
    weights: tuple
    constants: tuple
    calls: tuple


def _drop_time(a):
    return tf.TensorSpec(a.shape[1:], a.dtype)


def _alike(a, b):
    return a.dtype == b.dtype and a.shape.is_compatible_with(b.shape)


def _describe(tensor):
    return f"{tensor.dtype.name}{list(tensor.shape)}"

"""The loop over time and its backward pass, for any step.

The idea:
  1. Inside the loop a step multiplies by a matrix only through `product(name, h)`, so the saving
     loop records every product p = h R (and every state) while it runs forward.
  2. Backward, each step is replayed under a tape with the recorded products in place of the
     multiplications: the tape sees element-wise work only, and gives dp for every product.
  3. After the loop each matrix gets its gradient from ONE product over all T*B rows,
     dR = sum_t h_t^T dp_t.

Differentiating the loop automatically would instead add a full-size dR at every step.

Axes: T time (leading), B batch.  Everything here is time-major and flat (tuples of tensors).
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from keras_rnnx.cells import HALF
from keras_rnnx.engine import masking
from keras_rnnx.engine.arrays import Array
from keras_rnnx.engine.arrays import at
from keras_rnnx.engine.arrays import repeat
from keras_rnnx.engine.data import Saved
from keras_rnnx.engine.data import Structure
from keras_rnnx.engine.data import cut
from keras_rnnx.engine.data import spread
from keras_rnnx.engine.products import Products
from keras_rnnx.engine.products import bias_gradient
from keras_rnnx.engine.products import matrix_gradient
from keras_rnnx.engine.products import with_matrices_split
from keras_rnnx.engine.trace import trace


@dataclasses.dataclass(frozen=True)
class Recurrence:
    """A step with all that is fixed about its repetition; its methods are the loops.

    Equal recurrences share their compiled loops, so everything in here is compared by value.
    """

    step: Callable
    names: tuple  # of the weights
    xs: Structure
    states: Structure
    constants: Structure
    last_only: bool = False  # the output is that of the last step
    zero_masked: bool = False  # outputs of masked steps are zeros instead of repeated
    unroll: bool = False
    plain: bool = False  # run as stock ops, not compiled

    # -- forward ---------------------------------------------------------------------------

    def infer(self, data, outputs=None, differentiable=False):
        """Outputs and last states; nothing is kept. `outputs`: their specs, if known."""
        if outputs is None:
            (outputs, _), (structure, calls), _ = self._trace_step(data, not differentiable)
        else:
            outputs, structure, calls = tf.nest.flatten(outputs), Structure(outputs), ()
        loop = lambda split=None: self._forward(
            data, outputs, split=split, differentiable=differentiable
        )[:2]
        if not self.plain or self.unroll:
            outs, states = loop()
        else:
            weights = dict(zip(self.names, data.cast_weights(), strict=True))
            outs, states = with_matrices_split(loop, calls, weights, data.batch)
        return structure.pack(outs), states

    def save(self, data):
        """Outputs and last states, and what the backward pass needs."""
        (outputs, products), (structure, _), _ = self._trace_step(data)
        outs, states, saved = self._forward(data, outputs, products, keep=True)
        return structure.pack(outs), states, saved

    def _forward(self, data, outputs, products=(), keep=False, split=None, differentiable=False):
        """The loop itself: outputs, last states and what was kept."""
        arrays = lambda specs: [self._array(data, spec) for spec in specs]
        out_arrays = [] if self.last_only else arrays(outputs)
        kept_arrays = arrays(map(_like, data.states)) if keep else []
        value_arrays = arrays(products)
        every = (*out_arrays, *kept_arrays, *value_arrays)
        previous = self._zero_outputs(data, outputs) if self._repeats(data) else ()
        weights = data.cast_weights()

        first, last = self._range(data, differentiable)

        def read(k, carry):
            t = first + k
            return [at(a, t) for a in data.xs], data.mask_at(t)

        def body(k, now, carry):
            t = first + k
            (x, on), (states, previous, handles) = now, carry
            output, new, calls = self._step(x, weights, states, data.constants, split=split)
            output = tf.nest.flatten(output)
            for mask in on:
                held = map(tf.zeros_like, output) if self.zero_masked else previous
                output = [masking.select(mask, o, p) for o, p in zip(output, held, strict=True)]
                new = [masking.select(mask, n, s) for n, s in zip(new, states, strict=True)]
            values = (
                *(() if self.last_only else output),
                *((*states, *calls.values) if keep else ()),
            )
            handles = tuple(
                a.write(h, t, v) for a, h, v in zip(every, handles, values, strict=True)
            )
            return tuple(new), tuple(output) if previous else (), handles

        carry = (data.states, previous, tuple(a.start() for a in every))
        states, previous, handles = repeat(
            last - first, read, body, carry, self.unroll, differentiable
        )
        stacks = [a.stack(h) for a, h in zip(every, handles, strict=True)]
        outs, kept, values = cut(stacks, len(out_arrays), len(kept_arrays))
        if self.last_only:
            outs = previous
        elif previous and last is not data.steps:
            outs = [masking.select(_until(last, o), o, p) for o, p in zip(outs, previous)]
        return tuple(outs), states, Saved(kept, values)

    # -- backward --------------------------------------------------------------------------

    def back(self, data, saved, d_outs, d_states):
        """Gradients of xs, weights, states and constants (None where there is none)."""
        replay = self._trace_replay(data, saved)
        weights = data.cast_weights()
        # A matrix multiplies faster than its transpose read in place: turned once, not per step.
        turned = {
            call.name: tf.transpose(weights[self.names.index(call.name)])
            for call in replay.notes.calls
            if call.name in self.names and not call.transpose
        }
        dx_arrays = [self._array(data, spec) for spec in replay.specs["x"]]
        # A product is read in the step that writes its gradient: one piece of memory for both.
        pairs = zip(replay.specs["products"], saved.products, strict=True)
        dp_arrays = [self._array(data, spec, over) for spec, over in pairs]
        input_arrays = [self._array(data, spec) for spec in replay.specs["inputs"]]
        every = (*dx_arrays, *dp_arrays, *input_arrays)
        sums = tuple(tf.zeros(s.shape, _wide(s.dtype)) for s in replay.specs["weights"])
        constant_sums = [data.constants[i] for i in replay.notes.constants]
        sums += tuple(tf.zeros(tf.shape(c), _wide(c.dtype)) for c in constant_sums)
        # What flows back from a repeated output to the step that made it.
        d_previous = tuple(d_outs) if self.last_only else ()
        first, last = self._range(data)
        if not self.last_only and self._repeats(data):
            d_previous = tuple(tf.zeros_like(d[0]) for d in d_outs)
            if last is not data.steps:
                rest = [masking.select(_until(last, d), tf.zeros_like(d), d) for d in d_outs]
                d_previous = tuple(tf.reduce_sum(d, axis=0) for d in rest)

        def read(k, carry):
            t = last - 1 - k
            if not isinstance(t, int):
                t = tf.maximum(
                    t, 0
                )  # where there is no step to take, one is read ahead all the same
            _, held, _ = cut(carry[-1], len(dx_arrays), len(dp_arrays))
            return (
                [at(a, t) for a in data.xs],
                [at(a, t) for a in saved.states],
                [a.read(h, t) for a, h in zip(dp_arrays, held, strict=True)],
                [] if self.last_only else [at(d, t) for d in d_outs],
                data.mask_at(t),
            )

        def body(k, now, carry):
            x, before, recorded, d_output, on = now
            d_states, d_previous, sums, handles = carry
            t = last - 1 - k
            if self.last_only:
                d_output = list(d_previous)
            elif d_previous:
                d_output = [a + b for a, b in zip(d_output, d_previous, strict=True)]
            d_new, d_held, d_back = d_states, None, [tf.zeros_like(d) for d in d_output]
            for mask in on:
                if not self.zero_masked:
                    d_back = [masking.select(mask, tf.zeros_like(d), d) for d in d_output]
                d_held = [masking.select(mask, tf.zeros_like(d), d) for d in d_states]
                d_output, d_new = (
                    [masking.select(mask, d, tf.zeros_like(d)) for d in ds]
                    for ds in (d_output, d_states)
                )
            d, _ = self._replay(
                x, before, recorded, weights, data.constants, d_output, d_new, turned
            )
            d_states = d["states"]
            if d_held is not None:
                d_states = [a + b for a, b in zip(d_states, d_held, strict=True)]
            small = (*d["weights"], *d["constants"])
            sums = tuple(a + tf.cast(g, a.dtype) for a, g in zip(sums, small, strict=True))
            values = (*d["x"], *d["products"], *d["inputs"])
            handles = tuple(
                a.write(h, t, v) for a, h, v in zip(every, handles, values, strict=True)
            )
            d_back = tuple(d_back) if d_previous else ()
            return tuple(d_states), d_back, sums, handles

        carry = (tuple(d_states), d_previous, sums, tuple(a.start() for a in every))
        d_states, _, sums, handles = repeat(last - first, read, body, carry, self.unroll)
        stacks = [a.stack(h) for a, h in zip(every, handles, strict=True)]
        dx, dp, inputs = cut(stacks, len(dx_arrays), len(dp_arrays))
        d_weights, d_constants = self._after_loop(
            data, saved, replay.notes, sums, dp, inputs, None if last is data.steps else last
        )
        dx = spread([*dx, *dp], replay.notes.dx, data.xs)
        return dx, d_weights, d_states, d_constants

    def without_unread(self, data, saved):
        """`data` with products in place of the inputs that `back` does not read.

        Those are wide, and nothing else keeps them alive after the forward pass.
        """
        replay, xs = self._trace_replay(data, saved), list(data.xs)
        for call, product in zip(replay.notes.calls, saved.products, strict=True):
            if call.plus is not None and replay.unread[call.plus]:
                xs[call.plus] = product
        return data._replace(xs=tuple(xs))

    def save_and_back(self, data, d_outs, d_states):
        """The backward pass of a forward pass that kept nothing."""
        _, _, saved = self.save(data)
        return self.back(data, saved, d_outs, d_states)

    def _after_loop(self, data, saved, notes, sums, dp, inputs, last):
        """Gradients of weights and constants: the sums of the loop plus one product per matrix."""
        sums = list(sums)
        weights = dict(zip((self.names[i] for i in notes.weights), sums))
        constants = dict(zip(notes.constants, sums[len(notes.weights) :]))

        def add(gradients, key, gradient):
            gradients[key] = gradients[key] + gradient if key in gradients else gradient

        inputs = iter(inputs)
        packed = self.constants.pack(range(len(data.constants)))
        for call, d in zip(notes.calls, dp, strict=True):
            h = saved.states[call.state] if call.state is not None else next(inputs)
            if (
                call.name in self.names
                and data.weights[self.names.index(call.name)].shape.rank == 2
            ):
                like = data.weights[self.names.index(call.name)]
                add(weights, call.name, matrix_gradient(call, like, h, d, last))
            else:
                i = packed[call.name]
                add(constants, i, matrix_gradient(call, data.constants[i], h, d))
            if call.bias is not None:
                add(weights, call.bias, bias_gradient(d))
        d_weights = tuple(
            tf.cast(weights[n], w.dtype) if n in weights else None
            for n, w in zip(self.names, data.weights, strict=True)
        )
        d_constants = tuple(
            tf.cast(constants[i], c.dtype) if i in constants else None
            for i, c in enumerate(data.constants)
        )
        return d_weights, d_constants

    # -- one step --------------------------------------------------------------------------

    def _step(self, x, weights, states, constants, recorded=None, turned=None, split=None):
        """`(output, flat new states, products)` of one step."""
        x, states = list(x), list(states)
        constants = self.constants.pack(constants)
        weights = dict(zip(self.names, weights, strict=True))
        products = Products(weights, constants, states, x, recorded, turned, split)
        output, new = self.step(
            weights, products, self.xs.pack(x), self.states.pack(states), constants
        )
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

    def _replay(self, x, before, recorded, weights, constants, d_output, d_new, turned=None):
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
            output, new, products = self._step(x, weights, before, constants, recorded, turned)
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

    # -- shapes ----------------------------------------------------------------------------

    def _trace_step(self, data, strict=True):
        """Specs of the outputs and of the products, and the structure of the output."""

        def step(x, weights, states, constants):
            output, _, products = self._step(x, weights, states, constants)
            return (tf.nest.flatten(output), products.values), (Structure(output), products.calls)

        x = [_drop_time(a) for a in data.xs]
        weights = data.cast_weights()
        return trace(step, x, weights, data.states, data.constants, strict=strict)

    def _trace_replay(self, data, saved):
        (outputs, _), *_ = self._trace_step(data)
        x, before, recorded = (
            [_drop_time(a) for a in arrays] for arrays in (data.xs, saved.states, saved.products)
        )
        weights = data.cast_weights()
        return trace(
            self._replay, x, before, recorded, weights, data.constants, outputs, data.states
        )

    def _range(self, data, differentiable=False):
        """From which step to which the loop has to go: where any row has a real step.

        Loops that have to take a number of steps known beforehand go over all of them.
        """
        if data.mask is None or self.unroll or differentiable or tf.executing_eagerly():
            return 0, data.steps
        first, last = masking.extent(tf.reduce_any(data.mask, axis=1))
        return first, last

    def _repeats(self, data):
        """Whether the loop carries the last output along."""
        return self.last_only or (data.mask is not None and not self.zero_masked)

    def _zero_outputs(self, data, outputs):
        batch = data.batch
        return tuple(tf.zeros(_with_batch(s.shape, batch), s.dtype) for s in outputs)

    def _array(self, data, spec, over=None):
        return Array(spec, data.length, data.batch, self.unroll, over)


class Notes(NamedTuple):
    """Which gradients a replayed step has, by position, and its products."""

    dx: tuple  # of the inputs: first those by themselves, then, or None, those of each product
    weights: tuple
    constants: tuple
    calls: tuple


def _wide(dtype):
    """The dtype in which a sum over steps is kept."""
    return tf.float32 if dtype in HALF else dtype


def _like(state):
    return tf.TensorSpec(state.shape, state.dtype)


def _drop_time(a):
    return tf.TensorSpec(a.shape[1:], a.dtype)


def _until(last, a):
    """Which elements of `a [T, ...]` the loop came to."""
    return tf.range(tf.shape(a)[0]) < last


def _with_batch(shape, batch):
    return [batch if size is None else size for size in shape]


def _alike(a, b):
    return a.dtype == b.dtype and a.shape.is_compatible_with(b.shape)


def _describe(tensor):
    return f"{tensor.dtype.name}{list(tensor.shape)}"

"""The loop over time, forward, for any step; its backward pass is in `engine.loop_backward`.

The idea of both:
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
from typing import NamedTuple

import tensorflow as tf

from keras_rnnx.engine import masking
from keras_rnnx.engine.arrays import Array
from keras_rnnx.engine.arrays import at
from keras_rnnx.engine.arrays import repeat
from keras_rnnx.engine.loop_backward import back
from keras_rnnx.engine.data import Saved
from keras_rnnx.engine.data import Structure
from keras_rnnx.engine.data import cut
from keras_rnnx.engine.products import with_matrices_split
from keras_rnnx.engine.step import Step


class Forward(NamedTuple):
    """What a loop gives."""

    outs: tuple  # [T, B, ...] each, or [B, ...] of the last step
    states: tuple  # the last ones
    previous: tuple  # the last output, where the loop carries it along
    saved: Saved


@dataclasses.dataclass(frozen=True)
class Recurrence(Step):
    """A step with all that is fixed about its repetition; its methods are the loops.

    Equal recurrences share their compiled loops, so everything in here is compared by value.
    """

    last_only: bool = False  # the output is that of the last step
    zero_masked: bool = False  # outputs of masked steps are zeros instead of repeated
    unroll: bool = False
    plain: bool = False  # run as stock ops, not compiled
    truncate: int | None = None  # the states' gradient stops before every so many steps
    clip_norm: float | None = None  # of the states' gradient, for each row and step

    def infer(self, data, outputs=None, differentiable=False):
        """Outputs and last states; nothing is kept. `outputs`: their specs, if known."""
        if outputs is None:
            (outputs, _), (structure, calls), _ = self.trace_step(data, not differentiable)
        else:
            outputs, structure, calls = tf.nest.flatten(outputs), Structure(outputs), ()
        done = self.infer_flat(data, outputs, calls, differentiable)
        return structure.pack(done.outs), done.states

    def infer_flat(self, data, outputs, calls=(), differentiable=False):
        """The same as `Forward`, with what `trace_step` has found."""

        def loop(split=None):
            return self.forward(data, outputs, split=split, differentiable=differentiable)

        if not self.plain or self.unroll:
            return loop()
        weights = dict(zip(self.names, data.cast_weights(), strict=True))
        return with_matrices_split(loop, calls, weights, data.batch)

    def save(self, data):
        """Outputs and last states, and what the backward pass needs."""
        (outputs, products), (structure, _), _ = self.trace_step(data)
        done = self.forward(data, outputs, products, keep=True)
        return structure.pack(done.outs), done.states, done.saved

    def back(self, data, saved, d_outs, d_states):
        """Gradients of xs, weights, states and constants (None where there is none)."""
        return back(self, data, saved, d_outs, d_states)[:4]

    def save_and_back(self, data, d_outs, d_states):
        """The backward pass of a forward pass that kept nothing."""
        _, _, saved = self.save(data)
        return self.back(data, saved, d_outs, d_states)

    def without_unread(self, data, saved):
        """`data` with products in place of the inputs that `back` does not read.

        Those are wide, and nothing else keeps them alive after the forward pass.
        """
        replay, xs = self.trace_replay(data, saved), list(data.xs)
        for call, product in zip(replay.notes.calls, saved.products, strict=True):
            if call.plus is not None and replay.unread[call.plus]:
                xs[call.plus] = product
        return data._replace(xs=tuple(xs))

    # -- the loop itself -------------------------------------------------------------------

    def forward(self, data, outputs, products=(), keep=False, split=None, differentiable=False):
        """`Forward`; `keep` says whether anything is kept of states and products."""
        arrays = lambda specs: [self.array(data, spec) for spec in specs]
        out_arrays = [] if self.last_only else arrays(outputs)
        kept_arrays = arrays(map(_like, data.states)) if keep else []
        value_arrays = arrays(products)
        every = (*out_arrays, *kept_arrays, *value_arrays)
        before = self._previous(data, outputs)
        weights = data.cast_weights()

        first, last = self.range(data, differentiable)

        def read(k, carry):
            t = first + k
            return [at(a, t) for a in data.xs], data.mask_at(t)

        def body(k, now, carry):
            t = first + k
            (x, on), (states, previous, handles) = now, carry
            if differentiable and self.truncate:
                states = [tf.where(self.is_border(t), tf.stop_gradient(s), s) for s in states]
            output, new, calls = self.take(x, weights, states, data.constants, split=split)
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

        carry = (tuple(data.states), before, tuple(a.start() for a in every))
        states, previous, handles = repeat(
            last - first, read, body, carry, self.unroll, differentiable
        )
        stacks = [a.stack(h) for a, h in zip(every, handles, strict=True)]
        outs, kept, values = cut(stacks, len(out_arrays), len(kept_arrays))
        if self.last_only:
            outs = previous = self.of_last_step(data, previous)
        elif previous and last is not data.steps:
            outs = [masking.select(until(last, o), o, p) for o, p in zip(outs, previous)]
            if data.previous is not None:
                outs = [masking.select(~until(first, o), o, b) for o, b in zip(outs, before)]
        return Forward(tuple(outs), tuple(states), previous, Saved(kept, values))

    # -- what forward and backward pass agree on -------------------------------------------

    def range(self, data, differentiable=False):
        """From which step to which the loop has to go: where any row has a real step.

        Loops that have to take a number of steps known beforehand go over all of them, and so do
        those whose gradient is stopped or clipped at masked steps too: what happens to a row would
        else depend on the other ones.
        """
        all_steps = self.unroll or differentiable or tf.executing_eagerly()
        if data.mask is None or all_steps or self.truncate or self.clip_norm is not None:
            return 0, data.steps
        first, last = masking.extent(tf.reduce_any(data.mask, axis=1))
        return first, last

    def repeats(self, data):
        """Whether the loop carries the last output along."""
        return self.last_only or (data.mask is not None and not self.zero_masked)

    def of_last_step(self, data, tensors):
        """What belongs to the last output, zeros where that is zero: where the step is masked."""
        if data.mask is None or not self.zero_masked:
            return tensors
        on = at(data.mask, tf.maximum(data.steps - 1, 0))
        on = tf.logical_or(on, tf.equal(data.steps, 0))  # no step: the output stays what it was
        return tuple(masking.select(on, a, tf.zeros_like(a)) for a in tensors)

    def is_border(self, t):
        """Whether the gradient of the states stops before step t."""
        return tf.logical_and(t % self.truncate == 0, t > 0)

    def array(self, data, spec, over=None):
        return Array(spec, data.length, data.batch, self.unroll, over)

    def _previous(self, data, outputs):
        """The outputs before the first step, where the loop carries outputs along."""
        if not self.repeats(data):
            return ()
        if data.previous is not None:
            return tuple(data.previous)
        shapes = [[data.batch if n is None else n for n in s.shape] for s in outputs]
        return tuple(tf.zeros(n, s.dtype) for n, s in zip(shapes, outputs))


def until(last, a):
    """Which elements of `a [T, ...]` come before step `last`."""
    return tf.range(tf.shape(a)[0]) < last


def _like(state):
    return tf.TensorSpec(state.shape, state.dtype)

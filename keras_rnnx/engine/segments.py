"""The loop in segments: states are kept at the start of each, and all else is made again.

The loop over segments has the methods of the loop over steps (`engine.loop.Recurrence`) and calls
those for each segment. The input is projected within, and stays as the caller holds it: no copy of
it, in another order of axes or in parts, ever exists whole.

Axes: S segments, n steps of one, B batch, b rows of a part.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from keras_rnnx.engine.arrays import Array
from keras_rnnx.engine.arrays import at
from keras_rnnx.engine.arrays import repeat
from keras_rnnx.engine.data import Data
from keras_rnnx.engine.data import Structure
from keras_rnnx.engine.data import cut
from keras_rnnx.engine.loop import Recurrence
from keras_rnnx.engine.loop_backward import back
from keras_rnnx.engine.loop_backward import wide
from keras_rnnx.engine.masking import swap_time_and_batch
from keras_rnnx.engine.padding import bucket
from keras_rnnx.engine.trace import trace


class Checkpoints(NamedTuple):
    """What is kept, `[S, b, ...]` each: before each segment."""

    states: tuple
    previous: tuple  # the last output, where the loop carries it along


class Known(NamedTuple):
    """What tracing one step tells: specs, the structure of the output, product calls."""

    outputs: list
    products: list
    structure: Structure
    calls: tuple


@dataclasses.dataclass(frozen=True)
class Segments:
    """A recurrence, run segment by segment.

    project: `(weights, xs [n, b, ...]) -> xs of the step`, with weights of its own, which come
        after those of the step.

    Its `Data` holds the whole batch and from which row on to run: inputs `[B, S, n, ...]` and mask
    `[B, S, n]`, other xs (noise) `[S, n, B, ...]`, states and constants `[b, ...]`. Outputs are
    `[b, S*n, ...]`, their gradients `[B, S*n, ...]`.
    """

    inner: Recurrence
    project: Callable
    names: tuple  # of the weights of `project`
    xs: Structure  # of its inputs
    inputs: int  # how many of the xs, the first ones, are inputs

    # -- the methods of a loop -------------------------------------------------------------

    def infer(self, data):
        known = self._trace(data)
        outs, states, _ = self._forward(data, known)
        return known.structure.pack(outs), states

    def save(self, data):
        known = self._trace(data)
        outs, states, saved = self._forward(data, known, keep=True)
        return known.structure.pack(outs), states, saved

    def save_and_back(self, data, d_outs, d_states):
        _, _, saved = self.save(data)
        return self.back(data, saved, d_outs, d_states)

    def without_unread(self, data, saved):
        """The inputs are all read again."""
        return data

    def _forward(self, data, known, keep=False):
        inner = self.inner
        S, n, b = self._sizes(data)
        previous = self._zeros(data, known.outputs) if inner.repeats(data) else ()
        sheets = [] if inner.last_only else [Sheet(s, S, n, b, inner.plain) for s in known.outputs]
        starts = [Array(tf.TensorSpec(s.shape, s.dtype), S, b) for s in (*data.states, *previous)]
        starts = starts if keep else []

        def body(k, now, carry):
            states, previous, pages, handles = carry
            xs = self._project(data, self._read(data, k))
            segment = self._segment(data, k, xs, states, previous)
            done = inner.infer_flat(segment, known.outputs, known.calls)
            pages = tuple(s.write(p, k, o) for s, p, o in zip(sheets, pages, done.outs))
            values = (*states, *previous)
            handles = tuple(a.write(h, k, v) for a, h, v in zip(starts, handles, values))
            return done.states, done.previous, pages, handles

        pages = tuple(s.start() for s in sheets)
        carry = (tuple(data.states), previous, pages, tuple(a.start() for a in starts))
        states, previous, pages, handles = repeat(S, lambda k, carry: (), body, carry)
        kept = [a.stack(h) for a, h in zip(starts, handles)]
        outs = previous if inner.last_only else tuple(s.whole(p) for s, p in zip(sheets, pages))
        return outs, states, Checkpoints(*cut(kept, len(states) * keep))

    def back(self, data, saved, d_outs, d_states):
        inner, known = self.inner, self._trace(data)
        S, n, b = self._sizes(data)
        floats = [i for i, x in enumerate(data.xs) if x.dtype.is_floating]
        sheets = [Sheet(self._spec(data, i), S, n, b, inner.plain, i < self.inputs) for i in floats]
        sums = [tf.zeros(tf.shape(w), wide(w.dtype)) for w in (*data.weights, *data.constants)]
        if inner.last_only:
            d_previous, d_outs = tuple(d_outs), ()
        else:
            d_previous = self._zeros(data, known.outputs) if inner.repeats(data) else ()
            d_outs = [tf.reshape(d, [tf.shape(d)[0], S, n, *d.shape[2:]]) for d in d_outs]

        def body(k, now, carry):
            d_states, d_previous, sums, pages = carry
            j = S - 1 - k
            x = self._read(data, j)
            _, raw = self._split(data.weights)
            wanted = [x[i] for i in floats]
            with tf.GradientTape() as tape:
                tape.watch([wanted, raw])
                xs = self._project(data, x)
            states, previous = (tuple(at(a, j) for a in kept) for kept in saved)
            segment = self._segment(data, j, xs, states, previous)
            done = inner.forward(segment, known.outputs, known.products, keep=True)
            d_now = d_previous if inner.last_only else [self._rows(data, d, j) for d in d_outs]
            d_later = () if inner.last_only else d_previous
            dxs, d_weights, d_states, d_constants, d_previous = back(
                inner, segment, done.saved, d_now, d_states, d_later
            )
            pairs = [(x, d) for x, d in zip(xs, dxs, strict=True) if d is not None]
            dx, d_raw = tape.gradient([x for x, _ in pairs], [wanted, raw], [d for _, d in pairs])
            found = (*d_weights, *d_raw, *d_constants)
            sums = tuple(
                a if d is None else a + tf.cast(d, a.dtype)
                for a, d in zip(sums, found, strict=True)
            )
            dx = [tf.zeros_like(w) if d is None else d for w, d in zip(wanted, dx, strict=True)]
            pages = tuple(s.write(p, j, d) for s, p, d in zip(sheets, pages, dx, strict=True))
            return tuple(d_states), tuple(d_previous), sums, pages

        pages = tuple(s.start() for s in sheets)
        carry = (tuple(d_states), d_previous, tuple(sums), pages)
        d_states, _, sums, pages = repeat(S, lambda k, carry: (), body, carry)
        dx = dict(zip(floats, (s.tensor(p) for s, p in zip(sheets, pages)), strict=True))
        tensors = (*data.weights, *data.constants)
        sums = [tf.cast(a, t.dtype) if t.dtype.is_floating else None for a, t in zip(sums, tensors)]
        d_weights, d_constants = cut(sums, len(data.weights))
        return tuple(dx.get(i) for i in range(len(data.xs))), d_weights, d_states, d_constants

    # -- one segment -----------------------------------------------------------------------

    def _read(self, data, k):
        """The xs of segment k and of the rows of the part, `[n, b, ...]` each."""
        of_inputs = [self._rows(data, a, k) for a in data.xs[: self.inputs]]
        b = data.states[0].shape[0]
        others = [at(a, k) for a in data.xs[self.inputs :]]
        if data.row is not None:
            others = [_slice(a, 1, data.row, b) for a in others]
        return [*of_inputs, *others]

    def _rows(self, data, a, k):
        """`[B, S, n, ...] -> [n, b, ...]` of segment k."""
        a = tf.gather(a, k, axis=1)
        if data.row is not None:
            a = _slice(a, 0, data.row, data.states[0].shape[0])
        return swap_time_and_batch(a)

    def _project(self, data, x):
        _, raw = self._split(data.weights)
        xs = self.project(dict(zip(self.names, raw, strict=True)), self.xs.pack(x))
        return tuple(tf.nest.flatten(xs))

    def _segment(self, data, k, xs, states, previous):
        """`Data` of segment k for the inner loop."""
        S, n, _ = self._sizes(data)
        whole = all(isinstance(size, int) for size in (S, n, data.steps)) and data.steps == S * n
        steps = n if whole else tf.clip_by_value(data.steps - k * n, 0, n)
        weights, _ = self._split(data.weights)
        mask = None if data.mask is None else self._rows(data, data.mask, k)
        return Data(steps, xs, mask, weights, states, data.constants, previous or None)

    def _trace(self, data):
        """`Known`, from the shapes of a segment."""
        _, raw = self._split(data.weights)
        x = [self._spec(data, i) for i in range(len(data.xs))]
        n = data.xs[0].shape[2]
        x = self.xs.pack([tf.TensorSpec([n, *s.shape], s.dtype) for s in x])

        def project(x, raw):
            return self.project(dict(zip(self.names, raw, strict=True)), x), None

        xs = tuple(tf.nest.flatten(trace(project, x, list(raw)).specs))
        segment = self._segment(data, 0, xs, data.states, None)
        (outputs, products), (structure, calls), _ = self.inner.trace_step(segment)
        return Known(outputs, products, structure, tuple(calls))

    def _spec(self, data, i):
        """The spec of one step of xs i, `[b, ...]`."""
        return tf.TensorSpec([data.states[0].shape[0], *data.xs[i].shape[3:]], data.xs[i].dtype)

    def _split(self, weights):
        return cut(weights, len(self.inner.names))

    # -- sizes -----------------------------------------------------------------------------

    def _sizes(self, data):
        """S, n and b, numbers where they are known."""
        unknown = tf.shape(data.xs[0])
        S, n = (unknown[i] if data.xs[0].shape[i] is None else data.xs[0].shape[i] for i in (1, 2))
        b = data.states[0].shape[0]
        return S, n, tf.shape(data.states[0])[0] if b is None else b

    def _zeros(self, data, outputs):
        _, _, b = self._sizes(data)
        return tuple(tf.zeros([b, *s.shape[1:]], s.dtype) for s in outputs)


class Sheet:
    """A tensor `[b, S, n, ...]` (or `[S, n, b, ...]`) written segment by segment.

    A compiled loop writes each segment in its place. In a plain graph that would copy the whole
    every time, and a TensorList is turned into a tensor at the end: twice the memory.
    """

    def __init__(self, spec, S, n, b, plain, batch_major=True):
        self.batch_major = batch_major
        self.sizes = [b, S, n] if batch_major else [S, n, b]
        self.features = spec.shape[1:]
        self.dtype = spec.dtype
        element = tf.TensorSpec([None, *self.features], spec.dtype)
        shape = [b, n] if batch_major else [n, b]
        self.array = Array(element, S, shape=tf.stack([*shape, *self.features])) if plain else None

    def start(self):
        if self.array is not None:
            return self.array.start()
        return tf.zeros([*self.sizes, *self.features], self.dtype)

    def write(self, page, k, value):
        """`value [n, b, ...]` of segment k."""
        value = swap_time_and_batch(value) if self.batch_major else value
        if self.array is not None:
            return self.array.write(page, k, value)
        if not self.batch_major:
            return tf.tensor_scatter_nd_update(page, [[k]], value[None])
        rows = tf.range(self.sizes[0])
        places = tf.stack([rows, tf.fill(tf.shape(rows), k)], axis=1)
        return tf.tensor_scatter_nd_update(page, places, value)

    def tensor(self, page):
        """`[b, S, n, ...]`."""
        if self.array is None:
            return page
        stack = self.array.stack(page)
        return swap_time_and_batch(stack) if self.batch_major else stack

    def whole(self, page):
        """`[b, S*n, ...]`."""
        b, S, n = self.sizes
        known = isinstance(S, int) and isinstance(n, int)
        whole = tf.reshape(self.tensor(page), [b, S * n, *self.features])
        return tf.ensure_shape(whole, [None, S * n if known else None, *self.features])


def in_segments(data, n, inputs, compiled):
    """`data` of a whole sequence, whose inputs are `[B, T, ...]`, in segments of n steps, and
    whether it had to be padded for that: to whole segments, at least one, and an unknown length
    to a bucket, of which a loop is `compiled` once."""
    T = data.steps
    if isinstance(T, int):
        extra = n if T == 0 else -T % n
    else:
        longer = bucket(T) if compiled else tf.maximum(T, 1)
        extra = -(-longer // n) * n - T
    padded = not isinstance(extra, int) or extra > 0
    n_known = n if isinstance(n, int) else None

    def split(a, axis):
        if padded:
            a = tf.pad(a, [[0, extra if i == axis else 0] for i in range(a.shape.rank)])
        S = a.shape[axis] // n if n_known and a.shape[axis] is not None else -1
        shape = tf.shape(a)
        a_split = tf.reshape(a, tf.concat([shape[:axis], [S, n], shape[axis + 1 :]], axis=0))
        S = None if S == -1 else S
        return tf.ensure_shape(a_split, [*a.shape[:axis], S, n_known, *a.shape[axis + 1 :]])

    xs = [split(a, 1 if i < inputs else 0) for i, a in enumerate(data.xs)]
    mask = None if data.mask is None else split(data.mask, 1)
    return data._replace(xs=tuple(xs), mask=mask), padded


def _slice(a, axis, start, size):
    """`a[start : start + size]` along an axis: the size is fixed, the start may be a tensor."""
    begin, sizes = [0] * a.shape.rank, [-1] * a.shape.rank
    begin[axis], sizes[axis] = start, size
    return tf.slice(a, tf.stack(begin), sizes)


def by_rows(call, limits, last_only, inputs):
    """`call(method, data, ...)` of `Segments` on parts of the rows, put together.

    Every part reads its rows from the whole batch, which is so never copied.
    """
    ranges = [slice(start, stop) for start, stop in zip(limits[:-1], limits[1:])]

    def on_parts(method, data, *rest):
        *saved, d_outs, d_states = rest or (None, None)
        results = []
        for i, rows in enumerate(ranges):
            of_rows = lambda tensors, rows=rows: tuple(a[rows] for a in tensors)
            part = data._replace(
                states=of_rows(data.states),
                constants=of_rows(data.constants),
                row=tf.constant(rows.start),
            )
            more = [s[i] for s in saved]
            if rest:
                more += [of_rows(d_outs) if last_only else d_outs, of_rows(d_states)]
            results.append(call(method, part, *more))
        if not rest:
            outs, states, *saved = zip(*results, strict=True)
            return _joined(outs), _joined(states), *saved
        dx, d_weights, d_states, d_constants = zip(*results, strict=True)
        dx = [
            None if pieces[0] is None else tf.concat(pieces, 0 if i < inputs else 2)
            for i, pieces in enumerate(zip(*dx, strict=True))
        ]
        d_weights = [
            None if pieces[0] is None else tf.add_n(pieces)
            for pieces in zip(*d_weights, strict=True)
        ]
        return tuple(dx), tuple(d_weights), _joined(d_states), _joined(d_constants)

    return on_parts


def _joined(trees):
    join = lambda *pieces: None if pieces[0] is None else tf.concat(pieces, axis=0)
    flat = [join(*pieces) for pieces in zip(*map(tf.nest.flatten, trees), strict=True)]
    return tf.nest.pack_sequence_as(trees[0], flat)

"""The backward pass in time of `engine.loop`, whose idea it shares."""

import tensorflow as tf

from keras_rnnx.cells import HALF
from keras_rnnx.engine import masking
from keras_rnnx.engine.arrays import at
from keras_rnnx.engine.arrays import repeat
from keras_rnnx.engine.data import cut
from keras_rnnx.engine.data import spread
from keras_rnnx.engine.products import bias_gradient
from keras_rnnx.engine.products import matrix_gradient


def back(recurrence, data, saved, d_outs, d_states, d_last=()):
    """Gradients of xs, weights, states, constants (None where there is none) and of the output
    before the first step.

    d_outs: `[T, B, ...]` each, or `[B, ...]` of the last one; d_last: of the last output, where a
    later loop goes on with it.
    """
    replay = recurrence.trace_replay(data, saved)
    weights = data.cast_weights()
    # A matrix multiplies faster than its transpose read in place: turned once, not per step.
    turned = {
        call.name: tf.transpose(weights[recurrence.names.index(call.name)])
        for call in replay.notes.calls
        if call.name in recurrence.names and not call.transpose
    }
    dx_arrays = [recurrence.array(data, spec) for spec in replay.specs["x"]]
    # A product is read in the step that writes its gradient: one piece of memory for both.
    pairs = zip(replay.specs["products"], saved.products, strict=True)
    dp_arrays = [recurrence.array(data, spec, over) for spec, over in pairs]
    input_arrays = [recurrence.array(data, spec) for spec in replay.specs["inputs"]]
    every = (*dx_arrays, *dp_arrays, *input_arrays)
    sums = tuple(tf.zeros(s.shape, wide(s.dtype)) for s in replay.specs["weights"])
    constant_sums = [data.constants[i] for i in replay.notes.constants]
    sums += tuple(tf.zeros(tf.shape(c), wide(c.dtype)) for c in constant_sums)
    first, last = recurrence.range(data)
    # What flows back from a repeated output to the step that made it.
    d_previous, d_before = _repeated(recurrence, data, d_outs, d_last, first, last)

    def read(k, carry):
        t = last - 1 - k
        if not isinstance(t, int):
            t = tf.maximum(t, 0)  # where there is no step to take, one is read ahead all the same
        _, held, _ = cut(carry[-1], len(dx_arrays), len(dp_arrays))
        return (
            [at(a, t) for a in data.xs],
            [at(a, t) for a in saved.states],
            [a.read(h, t) for a, h in zip(dp_arrays, held, strict=True)],
            [] if recurrence.last_only else [at(d, t) for d in d_outs],
            data.mask_at(t),
        )

    def body(k, now, carry):
        x, before, recorded, d_output, on = now
        d_states, d_previous, sums, handles = carry
        t = last - 1 - k
        if recurrence.last_only:
            d_output = list(d_previous)
        elif d_previous:
            d_output = [a + b for a, b in zip(d_output, d_previous, strict=True)]
        d_new, d_held, d_back = d_states, None, [tf.zeros_like(d) for d in d_output]
        for mask in on:
            if not recurrence.zero_masked:
                d_back = [masking.select(mask, tf.zeros_like(d), d) for d in d_output]
            d_held = [masking.select(mask, tf.zeros_like(d), d) for d in d_states]
            real = lambda ds, mask=mask: [masking.select(mask, d, tf.zeros_like(d)) for d in ds]
            d_output, d_new = real(d_output), real(d_states)
        d, _ = recurrence.replay(
            x, before, recorded, weights, data.constants, d_output, d_new, turned
        )
        d_states = d["states"]
        if d_held is not None:
            d_states = [a + b for a, b in zip(d_states, d_held, strict=True)]
        if recurrence.clip_norm is not None:
            d_states = _clipped(d_states, recurrence.clip_norm)
        if recurrence.truncate is not None:
            border = recurrence.is_border(t)
            d_states = [tf.where(border, tf.zeros_like(d), d) for d in d_states]
        small = (*d["weights"], *d["constants"])
        sums = tuple(a + tf.cast(g, a.dtype) for a, g in zip(sums, small, strict=True))
        values = (*d["x"], *d["products"], *d["inputs"])
        handles = tuple(a.write(h, t, v) for a, h, v in zip(every, handles, values, strict=True))
        d_back = tuple(d_back) if d_previous else ()
        return tuple(d_states), d_back, sums, handles

    carry = (tuple(d_states), d_previous, sums, tuple(a.start() for a in every))
    d_states, d_previous, sums, handles = repeat(last - first, read, body, carry, recurrence.unroll)
    stacks = [a.stack(h) for a, h in zip(every, handles, strict=True)]
    dx, dp, inputs = cut(stacks, len(dx_arrays), len(dp_arrays))
    d_weights, d_constants = _after_loop(
        recurrence,
        data,
        saved,
        replay.notes,
        sums,
        dp,
        inputs,
        None if last is data.steps else last,
    )
    dx = spread([*dx, *dp], replay.notes.dx, data.xs)
    d_previous = tuple(a + b for a, b in zip(d_previous, d_before)) if d_before else d_previous
    return dx, d_weights, d_states, d_constants, d_previous


def _repeated(recurrence, data, d_outs, d_last, first, last):
    """Gradients that repeated outputs hand back: to the last step of the loop from the steps
    after it, and to the output before the first step from the steps before the loop's first."""
    if recurrence.last_only:
        return recurrence.of_last_step(data, tuple(d_outs)), ()
    if not recurrence.repeats(data):
        return (), ()
    beyond = tuple(d_last) or tuple(tf.zeros_like(d[0]) for d in d_outs)
    if last is data.steps:
        return beyond, ()
    t = tf.range(tf.shape(d_outs[0])[0])
    over = lambda steps, d: tf.reduce_sum(masking.select(steps, d, tf.zeros_like(d)), axis=0)
    after = tuple(a + over(t >= last, d) for a, d in zip(beyond, d_outs))
    return after, () if data.previous is None else tuple(over(t < first, d) for d in d_outs)


def _clipped(d_states, norm):
    """Gradients `[B, ...]` of all states, scaled so that no row's norm is above `norm`."""
    rows = [tf.reshape(tf.cast(d, wide(d.dtype)), [tf.shape(d)[0], -1]) for d in d_states]
    squares = tf.add_n([tf.reduce_sum(r * r, axis=1) for r in rows])
    # Division by the larger of both: no row is divided by zero, and a NaN stays one to be seen.
    factor = norm / tf.maximum(tf.sqrt(squares), tf.cast(norm, squares.dtype))
    by_row = lambda d: tf.reshape(tf.cast(factor, d.dtype), [-1] + (d.shape.rank - 1) * [1])
    return [d * by_row(d) for d in d_states]


def _after_loop(recurrence, data, saved, notes, sums, dp, inputs, last):
    """Gradients of weights and constants: the sums of the loop plus one product per matrix."""
    sums, names = list(sums), recurrence.names
    weights = dict(zip((names[i] for i in notes.weights), sums))
    constants = dict(zip(notes.constants, sums[len(notes.weights) :]))

    def add(gradients, key, gradient):
        gradients[key] = gradients[key] + gradient if key in gradients else gradient

    inputs = iter(inputs)
    packed = recurrence.constants.pack(range(len(data.constants)))
    for call, d in zip(notes.calls, dp, strict=True):
        h = saved.states[call.state] if call.state is not None else next(inputs)
        if call.name in names and data.weights[names.index(call.name)].shape.rank == 2:
            like = data.weights[names.index(call.name)]
            add(weights, call.name, matrix_gradient(call, like, h, d, last))
        else:
            i = packed[call.name]
            add(constants, i, matrix_gradient(call, data.constants[i], h, d))
        if call.bias is not None:
            add(weights, call.bias, bias_gradient(d))
    d_weights = tuple(
        tf.cast(weights[n], w.dtype) if n in weights else None
        for n, w in zip(names, data.weights, strict=True)
    )
    d_constants = tuple(
        tf.cast(constants[i], c.dtype) if i in constants else None
        for i, c in enumerate(data.constants)
    )
    return d_weights, d_constants


def wide(dtype):
    """The dtype in which a sum over steps is kept."""
    return tf.float32 if dtype in HALF else dtype

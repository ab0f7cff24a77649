"""Cells over a sequence: those of this package on the engine, any other in an ordinary loop."""

import inspect

import keras
import tensorflow as tf

from keras_rnnx import engine
from keras_rnnx.cells import GRUSpec
from keras_rnnx.cells import LinearSpec
from keras_rnnx.cells import LSTMSpec
from keras_rnnx.cells import Resets
from keras_rnnx.layers.cell import Cell
from keras_rnnx.layers.shapes import cell_states
from keras_rnnx.layers.shapes import map_sizes
from keras_rnnx.layers.shapes import output_size
from keras_rnnx.regularization import dropped_input
from keras_rnnx.regularization import dropped_weights

KINDS = {LSTMSpec: "lstm", GRUSpec: "gru"}  # specs that cuDNN computes, by its names


def run_cells(cells, plans, x, states, *, mask, reset, constants, training, options):
    """Cells one above the other over a sequence.

    Args:
        x: tree of `[B, T, ...]`.
        states: list of the states of each cell.
        mask: `[B, T]` booleans or None.
        reset: `[B, T]` booleans, True where the states are zeros again before the step, or None.
        constants: dict of `[B, ...]` that every step gets.
        options: `last_only`, `zero_masked` and `unroll`.

    Returns:
        The outputs of the last cell, `[B, T, U]` or `[B, U]`, and the list of last states.
    """
    # With checkpoints the engine takes the axes as they come, which spares copies.
    checkpointed = plans[0].backward.checkpointed
    turn = (lambda a: a) if checkpointed else engine.swap_time_and_batch
    x, mask = keras.tree.map_structure(turn, x), None if mask is None else turn(mask)
    steps, after = None, None
    if reset is not None:
        reset = engine.swap_time_and_batch(reset)
        if mask is not None:
            real = engine.swap_time_and_batch(mask) if checkpointed else mask
            reset, after = engine.resets_of_real_steps(reset, real)
    if not checkpointed:
        compiled = any(plan.backend == "compiled" for plan in plans)
        beside = [] if reset is None else [reset]
        (x, beside), mask, steps = engine.pad_time((x, beside), mask, compiled)
        reset = beside[0] if beside else None
    last = []
    for cell, plan, state in zip(cells, plans, states, strict=True):
        run = _Run(
            cell,
            plan,
            training,
            mask,
            reset,
            constants,
            {**options, "steps": steps, "last_only": options["last_only"] and cell is cells[-1]},
        )
        x, state = run(x, state)
        last.append(state)
    if after is not None:
        fresh = lambda s: tf.where(tf.reshape(after, [-1] + (s.shape.rank - 1) * [1]), 0 * s, s)
        last = keras.tree.map_structure(fresh, last)
    if not options["last_only"]:
        x = keras.tree.map_structure(turn if steps is None else lambda a: turn(a[:steps]), x)
    return x, last


def with_masks(constants, masks):
    """The constants of a call, with the Keras mask of a memory as "memory_mask"."""
    attached = masks.get("memory") if isinstance(masks, dict) else None
    if attached is None or all(mask is None for mask in keras.tree.flatten(attached)):
        return constants
    listed = lambda one: list(one) if isinstance(one, (list, tuple)) else [one]
    attached, given = listed(attached), constants.get("memory_mask")
    given = len(attached) * [None] if given is None else listed(given)
    both = [
        mine if other is None else other if mine is None else mine & tf.cast(other, tf.bool)
        for mine, other in zip(attached, given, strict=True)
    ]
    return {**constants, "memory_mask": both}


class _Run:
    """One cell over `x [T, B, D]`, or `[B, T, D]` with checkpoints: outputs and last states."""

    def __init__(self, cell, plan, training, mask, reset, constants, options):
        self.cell, self.plan, self.training = cell, plan, training
        self.mask, self.reset, self.constants, self.options = mask, reset, constants, options

    def __call__(self, x, states):
        nested = isinstance(states, (list, tuple))
        dtype = getattr(self.cell, "compute_dtype", keras.tree.flatten(x)[0].dtype)
        states = keras.tree.map_structure(
            lambda s: tf.cast(s, dtype), list(states) if nested else [states]
        )
        x = keras.tree.map_structure(lambda a: engine.zero_padding(a, self.mask), x)
        if isinstance(self.cell, Cell):
            cast = lambda a: tf.cast(a, dtype) if a is not None and a.dtype.is_floating else a
            self.constants = self.cell.take_constants(self.constants, states[0].shape[0])
            self.constants = keras.tree.map_structure(cast, self.constants)
            x = keras.tree.map_structure(lambda a: tf.cast(a, dtype), x)
            output, last = self.own(x, tuple(states))
        else:
            output, last = self.foreign(x, states)
        return output, list(last) if nested else last[0]

    def own(self, x, states):
        """A cell of this package: noise, projection, engine."""
        cell, plan, mask = self.cell, self.plan, self.mask
        if cell.recurrence() is not cell:
            return self._in_two(x, states)
        spec, weights, seed = (
            cell.regularized(self.training),
            cell.tensors(),
            cell.seed_generator.next,
        )
        time_axis = 1 if plan.backward.checkpointed else 0
        sizes = tf.shape(keras.tree.flatten(x)[0])
        steps, batch = sizes[time_axis], sizes[1 - time_axis]
        if cell.acts("dropout", self.training):
            mode, gates = cell.dropout_mode, cell.spec.gates
            x = dropped_input(x, seed, cell.dropout, mode, gates, time_axis)
        if cell.acts("weight_dropout", self.training):
            roles = {name: w.role for name, w in cell.spec.weights(cell.input_dim).items()}
            recurrent = [name for name, role in roles.items() if role == "recurrent"]
            weights = dropped_weights(weights, seed, cell.weight_dropout, recurrent)
        drawn, constants = spec.noise(seed, steps, batch)
        names = (*spec.constant_names, *cell.optional_constants)
        given = {name: self.constants[name] for name in names if name in self.constants}
        compiled = plan.backend == "compiled"
        more, found, states = spec.enter(weights, given, states, seed, steps, compiled)
        drawn, constants = (*drawn, *more), {**constants, **found}
        if self.reset is not None:
            spec, drawn = Resets(spec), (*drawn, self.reset)
        options = dict(self.options)
        if plan.backend == "cudnn":
            del options["unroll"]
            kind, saves = KINDS[type(spec)], plan.saves
            (output,), (last,) = engine.cudnn.run_masked(
                kind, x, [weights], [states], training=saves, mask=mask, **options
            )
            return output, last
        if plan.backend == "any_device":
            return self._on_any_device(spec, weights, x, states, options)
        prepared = spec.prepare(weights)
        options.update(plan=plan, project=spec.project, input_weights=weights)
        if plan.backward.checkpointed:
            del options["unroll"], options["steps"]
            output, last = engine.run_in_segments(
                spec.step, x, drawn, prepared, states, constants, mask=mask, **options
            )
            return spec.leave(given, output, last)
        for beside in drawn:
            x = (x, beside)

        def run(x, mask, by_sample):
            states, constants = by_sample
            return engine.run(spec.step, x, prepared, states, constants, mask=mask, **options)

        def in_order():
            last_only = options["last_only"]
            found = engine.in_parts(run, plan.parts, x, mask, (states, constants), last_only)
            return spec.leave(given, *found)

        if not isinstance(spec, LinearSpec):
            return in_order()
        return self._linear(spec, weights, x, states, in_order)

    def _on_any_device(self, spec, weights, x, states, options):
        """A plain LSTM or GRU in a graph for CPUs and GPUs; a single step is a step anywhere."""
        plan, options = self.plan._replace(backend="plain"), dict(options)
        unroll = options.pop("unroll")
        del options["steps"]  # those of compiled loops

        def loop(x, weights, states, mask):
            prepared = spec.prepare(weights)
            more = dict(plan=plan, project=spec.project, input_weights=weights, unroll=unroll)
            return engine.run(spec.step, x, prepared, states, mask=mask, **more, **options)

        if unroll:
            return loop(x, weights, states, self.mask)
        return engine.devices.run(
            KINDS[type(spec)], x, weights, states, loop, mask=self.mask, **options
        )

    def _in_two(self, x, states):
        """A cell whose recurrence is that of another one: that, and then the rest of all steps."""
        cell, mask, options = self.cell, self.mask, self.options
        given, checkpointed = self.constants, self.plan.backward.checkpointed
        inside = _Run(cell.recurrence(), self.plan, self.training, mask, self.reset, given, options)
        output, last = inside.own(x, states)
        turn = not options["last_only"] and checkpointed
        swap = engine.swap_time_and_batch if turn else lambda a: a
        output = keras.tree.map_structure(swap, cell.after(swap(output), given))
        if mask is not None:
            # Before the first real step there is no output yet, of which something was made.
            axis = 1 if checkpointed else 0
            shown = mask if options["zero_masked"] else engine.begun(mask, axis)
            if options["last_only"]:
                steps = tf.shape(mask)[axis] if options["steps"] is None else options["steps"]
                shown = tf.gather(shown, steps - 1, axis=axis)
            hide = lambda a: engine.select(shown, a, tf.zeros_like(a))
            output = keras.tree.map_structure(hide, output)
        return output, last

    def _linear(self, spec, weights, x, states, in_order):
        """A linear recurrence: in chunks side by side where that is faster than `in_order`."""
        first = keras.tree.flatten(x)[0]
        T, B, _ = (known or tf.shape(first)[k] for k, known in enumerate(first.shape))
        worth = engine.worth_chunks(T, B, spec.units, self.plan)
        if worth is False:
            return in_order()

        def in_chunks():
            options = {k: self.options[k] for k in ("steps", "last_only", "zero_masked")}
            options.update(plan=self.plan, mask=self.mask)
            a, b = spec.project(weights, x)
            output, last = engine.run_in_chunks(a, b, *states, engine.CHUNKS, **options)
            return output, (last,)

        return in_chunks() if worth is True else tf.cond(worth, in_chunks, in_order)

    def foreign(self, x, states):
        """Any other Keras cell: an ordinary loop."""
        cell, reset = self.cell, self.reset
        accepted = inspect.signature(cell.call).parameters
        keywords = {"training": self.training} if "training" in accepted else {}
        call = cell if callable(cell) else cell.call
        fresh = (
            cell_states(cell, tf.shape(keras.tree.flatten(x)[0])[1]) if reset is not None else None
        )

        def step(weights, product, x, states, constants):
            if reset is not None:
                x, now = x
                states = keras.tree.map_structure(
                    lambda f, s: engine.select(now, tf.cast(f, s.dtype), s), fresh, list(states)
                )
            more = {"constants": constants} if "constants" in accepted and constants else {}
            output, new = call(x, list(states), **keywords, **more)
            return output, new if isinstance(new, (list, tuple)) else [new]

        first = keras.tree.flatten(x)[0]
        dtype = getattr(cell, "compute_dtype", first.dtype)
        outputs = map_sizes(
            lambda size: tf.TensorSpec([first.shape[1], *size], dtype), output_size(cell)
        )
        draws = self.training and hasattr(cell, "get_dropout_mask")
        if draws:  # Keras' own cells cache their masks: drawn here, outside the loop, dropped after
            cell.get_dropout_mask(tf.zeros(tf.shape(x)[1:], x.dtype))
            cell.get_recurrent_dropout_mask(states[0])
        options = {**self.options, "plan": self.plan, "mask": self.mask, "outputs": outputs}
        x = x if reset is None else (x, reset)
        try:
            return engine.run(step, x, {}, states, self.constants, **options)
        finally:
            if draws:
                cell.reset_dropout_mask()
                cell.reset_recurrent_dropout_mask()


def no_cudnn(cell, training, **options):
    """Why cuDNN cannot compute this cell, or None. options: those of the layer that count."""
    if not isinstance(cell, Cell):
        return f"cuDNN computes LSTM and GRU, not {type(cell).__name__}."
    cell = cell.recurrence()
    spec = cell.regularized(training)
    if cell.acts("dropout", training) and cell.dropout_mode == "gates":
        return "The layer drops inputs gate by gate, and cuDNN has one input for all gates."
    kind = KINDS.get(type(spec), type(spec).__name__)
    if kind == "lstm" and spec != _plain(spec):
        kind = "an LSTM with a projection, peepholes, coupled gates or clipping"
    return engine.cudnn.obstacle(
        kind,
        activation=getattr(spec, "activation", None),
        recurrent_activation=getattr(spec, "recurrent_activation", None),
        reset_after=getattr(spec, "reset_after", True),
        dtype=cell.compute_dtype,
        **options,
    )


def _plain(spec):
    """The same LSTM without what cuDNN has not."""
    return LSTMSpec(
        units=spec.units,
        use_bias=spec.use_bias,
        activation=spec.activation,
        recurrent_activation=spec.recurrent_activation,
    )

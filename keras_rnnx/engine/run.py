"""The front door of the engine.

    outputs, states = run(step, xs, weights, states, constants, mask=mask, plan=plan)

repeats `step(weights, product, x_t, states, constants) -> (output, states)` over the leading axis
of `xs` and makes the result differentiable. What each plan costs:

    compiled        one XLA compile per shape; the fastest, forward and backward
    plain           stock ops, the same backward pass; what an exported graph holds
    differentiated  stock ops and TensorFlow's own gradient: any order of derivative, any step,
                    slow in training

`run_in_segments` is the same with checkpoints: little memory, one more forward pass.
"""

from typing import Any
from typing import NamedTuple

import tensorflow as tf

from keras_rnnx.engine import xla
from keras_rnnx.engine.data import Data
from keras_rnnx.engine.data import Structure
from keras_rnnx.engine.loop import Recurrence
from keras_rnnx.engine.padding import until_last
from keras_rnnx.engine.parts import row_limits
from keras_rnnx.engine.segments import Segments
from keras_rnnx.engine.segments import by_rows
from keras_rnnx.engine.segments import in_segments
from keras_rnnx.engine.trace import refuse_enclosed
from keras_rnnx.engine.trace import trace


def run(
    step,
    xs,
    weights,
    states,
    constants=(),
    *,
    plan,
    steps=None,
    mask=None,
    last_only=False,
    zero_masked=False,
    unroll=False,
    outputs=None,
    project=None,
    input_weights=None,
):
    """Repeat `step` over time.

    Args:
        step: pure function `(weights, product, x_t, states, constants) -> (output, states)`.
            It multiplies by matrices through `product(name, h)` only (see `engine.products`).
            Output and states are any trees of tensors, independent of each other. A function is
            compiled once per object, a method of a frozen dataclass once per value.
        xs: tree of `[T, B, ...]`, the inputs by step.
        weights: `{name: tensor}`, in whatever dtype; computed with in the dtype of the states.
        states: tree of `[B, ...]`, before the first step.
        constants: tree of tensors that every step gets.
        plan: a `Plan`.
        steps: how many of the T steps to run, an int or a scalar; None for all. The outputs of the
            rest are zeros (see `pad_time`).
        mask: `[T, B]` bool or None. In steps that are off the states stay and the output is the
            previous one (zeros before the first step that is on), or zeros if `zero_masked`.
        last_only: return the output of the last step, `[B, ...]`, instead of all, `[T, B, ...]`.
        unroll: repeat in the graph instead of looping (needs a static T, plain plans only).
        outputs: list of `TensorSpec` of the outputs, for steps that cannot be traced by themselves.
        project: function `(input_weights, xs) -> xs` of all steps, which gives what the step gets,
            or None.
        input_weights: `{name: tensor}`, the weights of `project`.

    Returns:
        The outputs and the last states, trees as the step returns and gets them.

    Every differentiable input is an argument; a step that uses a tensor from outside is refused,
    since its gradient would be lost.
    """
    if project is not None:
        now = lambda xs: project(input_weights, xs)
        xs = now(xs) if mask is None or plan.parts == 1 else until_last(now, xs, mask)
    recurrence = _recurrence(
        step, xs, weights, states, constants, plan, last_only, zero_masked, unroll
    )
    flat_xs = tuple(tf.nest.flatten(xs))
    if steps is None:
        steps = _size(flat_xs[0], 0)
    data = _data(steps, flat_xs, mask, weights, states, constants)
    if plan.backend == "differentiated":
        outs, last = recurrence.infer(data, outputs, differentiable=True)
    else:
        refuse_enclosed(step)
        outs, last = _run_fast(_Call(recurrence, plan), data, plan)
    return outs, recurrence.states.pack(last)


def run_in_segments(
    step,
    xs,
    noise,
    weights,
    states,
    constants,
    *,
    plan,
    project,
    input_weights,
    mask=None,
    last_only=False,
    zero_masked=False,
):
    """Repeat `step` over time, keeping checkpoints (`plan.backward`).

    The arguments are those of `run`, but for the layout, which is the caller's own: inputs and
    outputs, which are large, are not copied into another.

    Args:
        xs: tree of inputs, `[B, T, ...]`.
        noise: tuple of trees of `[T, B, ...]`, drawn for each step; `project` gets `xs` paired
            with each of them in turn, `((xs, noise[0]), noise[1])`.
        mask: `[B, T]` bool or None.

    Returns:
        The outputs, `[B, T, ...]` or `[B, ...]`, and the last states.
    """
    inputs = len(tf.nest.flatten(xs))
    for drawn in noise:
        xs = (xs, drawn)
    step_xs = trace(lambda w, xs: (project(w, xs), None), input_weights, xs).specs
    recurrence = _recurrence(
        step, step_xs, weights, states, constants, plan, last_only, zero_masked
    )
    refuse_enclosed(step)
    loop = Segments(recurrence, _by_value(project), tuple(input_weights), Structure(xs), inputs)

    flat_xs = tuple(tf.nest.flatten(xs))
    T = _size(flat_xs[0], 1)
    all_weights = {**weights, **{("input", name): w for name, w in input_weights.items()}}
    data = _data(T, flat_xs, mask, all_weights, states, constants)
    data, padded = in_segments(data, plan.backward.segment(T), inputs, plan.backend == "compiled")
    call, B = _Call(loop, plan), flat_xs[0].shape[0]
    if plan.parts > 1 and B is not None:
        call = by_rows(call, row_limits(B, plan.parts), last_only, inputs)
    outs, last = _run_fast(call, data, plan)
    if padded and not last_only:
        outs = tf.nest.map_structure(lambda a: a[:, :T], outs)
    return outs, recurrence.states.pack(last)


def _recurrence(step, xs, weights, states, constants, plan, last_only, zero_masked, unroll=False):
    return Recurrence(
        step=_by_value(step),
        names=tuple(weights),
        xs=Structure(xs),
        states=Structure(states),
        constants=Structure(constants),
        last_only=last_only,
        zero_masked=zero_masked,
        unroll=unroll and plan.backend != "compiled",
        plain=plan.backend == "plain" and not xla.is_enclosed(),
        truncate=plan.backward.truncate,
        clip_norm=plan.backward.clip_norm,
    )


def _data(steps, xs, mask, weights, states, constants):
    flat = lambda tree: tuple(tf.nest.flatten(tree))
    return Data(steps, xs, mask, tuple(weights.values()), flat(states), flat(constants))


def _size(a, axis):
    return tf.shape(a)[axis] if a.shape[axis] is None else a.shape[axis]


class _Method(NamedTuple):
    """A bound method that equals another one if their objects are equal, not only identical."""

    owner: Any
    function: Any

    def __call__(self, *arguments):
        return self.function(self.owner, *arguments)


def _by_value(step):
    owner = getattr(step, "__self__", None)
    return step if owner is None else _Method(owner, step.__func__)


class _Call(NamedTuple):
    """Calls a method of a loop, compiled if the plan says so."""

    loop: Any
    plan: Any

    def __call__(self, method, *arguments):
        compiled = self.plan.backend == "compiled"
        if compiled or tf.executing_eagerly():
            return xla.function(self.loop, method, compiled)(*arguments)
        return getattr(self.loop, method)(*arguments)


def _run_fast(call, data, plan):
    """The loop with its hand-written backward pass."""
    results = []  # the tree of the results, for packing

    @tf.custom_gradient
    def loop(*tensors):
        d = _with_tensors(data, tensors)
        if plan.saves:
            outs, last, saved = call("save", d)
            # TensorFlow may look for gradients of what the backward pass uses, for a second one.
            saved = tf.nest.map_structure(_detached, saved)
            if not tf.executing_eagerly() and isinstance(call, _Call):
                d = call.loop.without_unread(d, saved)
        else:
            (outs, last), saved = call("infer", d), None
        results.append((outs, last))

        def grad(*d_results):
            gradients = []

            def backward(*d_results):
                d_outs, d_last = d_results[: -len(last)], d_results[-len(last) :]
                if saved is None:
                    found = call("save_and_back", d, d_outs, d_last)
                else:
                    found = call("back", d, saved, d_outs, d_last)
                gradients.extend(g for part in found for g in part)
                return [g for g in gradients if g is not None]

            # First elements show what the gradients depend on, and need no memory.
            depends = [x[:1] for x in tensors[: len(data.xs)]]
            depends += tensors[len(data.xs) :]
            found = iter(_differentiable_once(backward, d_results, depends))
            return [None if g is None else next(found) for g in gradients]

        return [*tf.nest.flatten(outs), *last], grad

    flat = loop(*data.xs, *data.weights, *data.states, *data.constants)
    outs, last = tf.nest.pack_sequence_as(results[-1], flat)
    return outs, last


def _differentiable_once(backward, d_results, tensors):
    """`backward(*d_results)`, which also depends on `tensors`, refusing a gradient of its own."""

    @tf.custom_gradient
    def first_order(*arguments):
        return backward(*map(_detached, arguments[: len(d_results)])), _refuse_second_order

    return first_order(*d_results, *tensors)


def _refuse_second_order(*_):
    raise ValueError(
        "A second derivative was asked for, but the fast backward pass of this recurrent layer "
        'gives first derivatives only. Make the layer with backward="autodiff", which is slower '
        "and can be differentiated any number of times."
    )


def _detached(tensor):
    """Hidden from gradient tapes, which then trace no gradient of the compiled functions."""
    return tf.stop_gradient(tensor) if tensor.dtype.is_floating else tensor


def _with_tensors(data, tensors):
    tensors = iter(map(_detached, tensors))
    take = lambda old: tuple(next(tensors) for _ in old)
    return data._replace(
        xs=take(data.xs),
        weights=take(data.weights),
        states=take(data.states),
        constants=take(data.constants),
    )

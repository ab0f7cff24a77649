"""The front door of the engine.

    outputs, states = run(step, xs, weights, states, constants, mask=mask, plan=plan)

repeats `step(weights, product, x_t, states, constants) -> (output, states)` over the leading axis
of `xs` and makes the result differentiable. What each plan costs:

    compiled        one XLA compile per shape; the fastest, forward and backward
    plain           stock ops, the same backward pass; what an exported graph holds
    differentiated  stock ops and TensorFlow's own gradient: any order of derivative, any step,
                    slow in training
"""

from typing import Any
from typing import NamedTuple

import tensorflow as tf

from keras_rnnx.engine import xla
from keras_rnnx.engine.data import Data
from keras_rnnx.engine.data import Structure
from keras_rnnx.engine.loop import Recurrence
from keras_rnnx.engine.trace import refuse_enclosed


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

    Returns:
        The outputs and the last states, trees as the step returns and gets them.

    Every differentiable input is an argument; a step that uses a tensor from outside is refused,
    since its gradient would be lost.
    """
    flat = tf.nest.flatten
    recurrence = Recurrence(
        step=_by_value(step),
        names=tuple(weights),
        xs=Structure(xs),
        states=Structure(states),
        constants=Structure(constants),
        last_only=last_only,
        zero_masked=zero_masked,
        unroll=unroll and plan.backend != "compiled",
        plain=plan.backend == "plain" and not xla.is_enclosed(),
    )
    xs = tuple(flat(xs))
    if steps is None:
        steps = xs[0].shape[0] if xs[0].shape[0] is not None else tf.shape(xs[0])[0]
    data = Data(
        steps, xs, mask, tuple(weights.values()), tuple(flat(states)), tuple(flat(constants))
    )
    if plan.backend == "differentiated":
        outs, last = recurrence.infer(data, outputs, differentiable=True)
    else:
        refuse_enclosed(step)
        outs, last = _run_fast(recurrence, data, plan)
    return outs, recurrence.states.pack(last)


class _Method(NamedTuple):
    """A bound method that equals another one if their objects are equal, not only identical."""

    owner: Any
    name: str

    def __call__(self, *arguments):
        return getattr(self.owner, self.name)(*arguments)


def _by_value(step):
    owner = getattr(step, "__self__", None)
    return step if owner is None else _Method(owner, step.__name__)


def _run_fast(recurrence, data, plan):
    """The loop with its hand-written backward pass."""
    compiled = plan.backend == "compiled"

    def call(method, *arguments):
        if compiled or tf.executing_eagerly():
            return xla.function(recurrence, method, compiled)(*arguments)
        return getattr(recurrence, method)(*arguments)

    results = []  # the tree of the results, for packing

    @tf.custom_gradient
    def loop(*tensors):
        d = _with_tensors(data, tensors)
        if plan.saves:
            outs, last, saved = call("save", d)
            # TensorFlow may look for gradients of what the backward pass uses, for a second one.
            saved = tf.nest.map_structure(_detached, saved)
            if not tf.executing_eagerly():
                d = recurrence.without_unread(d, saved)
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

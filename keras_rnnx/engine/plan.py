"""Which way a loop runs, and why not the others: a pure function that returns its reasons."""

from typing import NamedTuple

from keras_rnnx.engine.backward import Backward
from keras_rnnx.engine.backward import Full
from keras_rnnx.engine.backward import read


# Linear recurrences in chunks (see `engine.scan`): measured on two cores.
CHUNKS = 64
WIDEST = 1024  # numbers in a step of the batch: more keep the cores busy by themselves
LEAST_STEPS = {"plain": 512, "compiled": 4096}  # a step of a compiled loop costs little


class Plan(NamedTuple):
    """How a layer runs its loop.

    backend: "cudnn" (one call for the whole sequence, on a GPU), "any_device" (that on a GPU and
        stock ops on a CPU, in an export), "compiled" (XLA, hand-written backward pass), "plain"
        (the same loop as stock TensorFlow ops) or "differentiated" (stock ops, differentiated by
        TensorFlow).
    saves: whether the forward pass keeps what the backward pass needs; otherwise the backward
        pass, if one comes, runs forward again.
    reasons: sentences, one for each choice that was made.
    parts: into how many parts, side by side, the batch is split (see `engine.parts`).
    backward: how far the backward pass goes and what it keeps (see `engine.backward`).
    """

    backend: str
    saves: bool
    reasons: tuple[str, ...]
    parts: int = 1
    backward: Backward = Full()


def choose(
    *,
    jit_compile,
    backward,
    training,
    eager,
    portable,
    xla_failure,
    foreign=None,
    batch_parts=1,
    one_program=False,
    no_cudnn="",
    any_device=False,
    linear=False,
):
    """The plan for one call.

    Args:
        jit_compile: the layer's option, "auto", True or False.
        backward: the layer's option: "full", "autodiff", or a `Backward`.
        training: whether a backward pass is expected.
        eager: whether the call runs eagerly.
        portable: whether `keras_rnnx.portable()` is on.
        xla_failure: why XLA does not work here, or None.
        foreign: name of a cell that is not one of ours, or None.
        batch_parts: the layer's option.
        one_program: whether the caller compiles the whole, or a GPU runs it: parts would wait
            for each other.
        no_cudnn: why cuDNN does not run the layer; None if it does, empty if that is not worth a
            word.
        any_device: whether an export asks for both devices and cuDNN can run the layer.
        linear: whether the recurrence is linear in its state.
    """
    way = read(backward)
    if foreign is not None:
        plan = Plan(
            "differentiated",
            False,
            (f"{foreign} is not a keras_rnnx cell: its loop is differentiated by TensorFlow.",),
        )
    elif any_device:
        plan = Plan(
            "any_device",
            False,
            ("Exported for both devices: cuDNN on a GPU, stock operations on a CPU.",),
        )
    elif no_cudnn is None:
        plan = Plan("cudnn", bool(training), ("cuDNN computes the whole sequence in one call.",))
    else:
        plan = _choose_loop(
            jit_compile, backward, training, eager, portable, xla_failure, batch_parts, one_program
        )
        if no_cudnn:
            plan = plan._replace(reasons=(no_cudnn, *plan.reasons))
    if linear and plan.backend in LEAST_STEPS and way == Full():
        chunks = (
            f"The state is linear: from {LEAST_STEPS[plan.backend]} steps on, where a step of the "
            f"batch has at most {WIDEST} numbers, {CHUNKS} chunks of the sequence run side by side."
        )
        plan = plan._replace(reasons=(*plan.reasons, chunks))
    reasons = (*plan.reasons, way.reason) if way.reason else plan.reasons
    return plan._replace(backward=way, reasons=reasons)


def _choose_loop(
    jit_compile, backward, training, eager, portable, xla_failure, batch_parts, one_program
):
    if backward == "autodiff":
        return Plan("differentiated", False, ('The layer has backward="autodiff".',))
    saves = bool(training) and not portable
    if saves:
        reasons = ("In training the forward pass keeps what the backward pass needs.",)
    else:
        reasons = ("Outside training nothing is kept; a backward pass runs forward again.",)
    if portable:
        return Plan("plain", saves, (*reasons, "keras_rnnx.portable() is on."))
    if jit_compile is False:
        return Plan("plain", saves, (*reasons, "The layer has jit_compile=False."))
    if xla_failure is not None:
        return Plan("plain", saves, (*reasons, xla_failure))
    if eager:
        return Plan("compiled", saves, (*reasons, "Called eagerly, the loop compiles itself."))
    if not training and jit_compile == "auto":
        stock = "Traced for inference: the graph may be exported, so it has stock ops only."
        return Plan("plain", saves, (*reasons, stock))
    traced = "Traced for training" if training else "The layer has jit_compile=True"
    reasons = (*reasons, f"{traced}: the loop compiles itself.")
    if batch_parts == 1 or one_program:
        return Plan("compiled", saves, reasons)
    split = f"The layer has batch_parts={batch_parts}: parts of a large batch run side by side."
    return Plan("compiled", saves, (*reasons, split), batch_parts)

"""Which way a loop runs, and why not the others: a pure function that returns its reasons."""

from typing import NamedTuple


class Plan(NamedTuple):
    """How a layer runs its loop.

    backend: "compiled" (XLA, hand-written backward pass), "plain" (the same loop as stock
        TensorFlow ops) or "differentiated" (stock ops, differentiated by TensorFlow).
    saves: whether the forward pass keeps what the backward pass needs; otherwise the backward
        pass, if one comes, runs forward again.
    reasons: sentences, one for each choice that was made.
    """

    backend: str
    saves: bool
    reasons: tuple


BACKWARD = ("full", "autodiff")


def choose(*, jit_compile, backward, training, eager, portable, xla_failure, foreign=None):
    """The plan for one call.

    Args:
        jit_compile: the layer's option, "auto" or False.
        backward: the layer's option, "full" or "autodiff".
        training: whether a backward pass is expected.
        eager: whether the call runs eagerly.
        portable: whether `keras_rnnx.portable()` is on.
        xla_failure: why XLA does not work here, or None.
        foreign: name of a cell that is not one of ours, or None.
    """
    if foreign is not None:
        return Plan(
            "differentiated",
            False,
            (f"{foreign} is not a keras_rnnx cell: its loop is differentiated by TensorFlow.",),
        )
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
    if training:
        return Plan("compiled", saves, (*reasons, "Traced for training, the loop compiles itself."))
    return Plan(
        "plain",
        saves,
        (*reasons, "Traced for inference: the graph may be exported, so it has stock ops only."),
    )

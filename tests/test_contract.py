"""The contract over the table of descriptors, the options, the masks, the modes and the dtypes."""

import collections
import itertools

import descriptors
import pytest
from contract import check
from helpers import MASK_KINDS, MODES
from pairwise import pairwise

OPTIONS = {
    "layer": [d.name for d in descriptors.ALL],
    "mask": list(MASK_KINDS),
    "mode": list(MODES),
    "dtype": ["float32", "float64"],
    "return_sequences": [False, True],
    "return_state": [False, True],
    "go_backwards": [False, True],
    "zero_output_for_mask": [False, True],
    "initial_state": [False, True],
    "unroll": [False, True],
    "training": [None, True],
    "jit_compile": ["auto", False],
    "backward": ["full", "autodiff", "checkpointed"],
}


def allowed(case):
    if case["unroll"] and case["mode"] == "unknown":
        return False  # refused: see test_errors.py
    return descriptors.BY_NAME[case["layer"]].allows(case)


def label(case):
    on = [k for k, v in case.items() if v is True]
    words = [case["layer"], case["mask"], case["mode"], case["dtype"], case["backward"]]
    return "-".join([*words, *on, *(["plain"] if not case["jit_compile"] else [])])


THINNED = list(pairwise(OPTIONS, allowed))


def test_thinned_product_holds_every_pair():
    """A thinned table that lost pairs would look green and test little."""
    for a, b in itertools.combinations(OPTIONS, 2):
        seen = {(case[a], case[b]) for case in THINNED}
        for pair in itertools.product(OPTIONS[a], OPTIONS[b]):
            if pair in seen:
                continue
            fixed = descriptors.BY_NAME
            unknown = {(a, pair[0]), (b, pair[1])} == {("mode", "unknown"), ("unroll", True)}
            refused = a == "layer" and not fixed[pair[0]].allows({b: pair[1]})
            assert unknown or refused, f"{a}, {b} = {pair} is in no case"


def in_turn(cases):
    """Cells that Keras does not have keep two of their cases in the first selection."""
    later, seen = descriptors.VARIANTS + descriptors.REGULARIZED, collections.Counter()
    names = {d.name for d in later}
    for case in cases:
        seen[case["layer"]] += 1
        slow = case["layer"] in names and seen[case["layer"]] > 2
        yield pytest.param(case, id=label(case), marks=pytest.mark.slow if slow else ())


@pytest.mark.parametrize("case", list(in_turn(THINNED)))
@pytest.mark.thin(24)
def test_layer_keeps_the_contract(case):
    check(descriptors.BY_NAME[case["layer"]], case)


@pytest.mark.quick
@pytest.mark.parametrize("name", ["simple", "lstm", "gru", "gru_before", "rnn_stack", "both_lstm"])
@pytest.mark.parametrize("mode", ["function", "xla"])
@pytest.mark.thin(4)
def test_default_layer_keeps_the_contract(name, mode):
    case = {k: v[0] for k, v in OPTIONS.items()}
    check(
        descriptors.BY_NAME[name],
        {**case, "mask": "holes", "mode": mode, "return_sequences": True, "return_state": True},
    )


@pytest.mark.slow
@pytest.mark.parametrize("dtype", OPTIONS["dtype"])
@pytest.mark.parametrize("mask", OPTIONS["mask"])
@pytest.mark.parametrize("name", OPTIONS["layer"])
def test_full_product(name, mask, dtype):
    """Every combination of what a call may ask for; the ways of computing it take turns."""
    free = (
        "return_sequences",
        "return_state",
        "go_backwards",
        "zero_output_for_mask",
        "initial_state",
    )
    turns = itertools.cycle(
        itertools.product(MODES, OPTIONS["backward"], OPTIONS["jit_compile"], [False, True])
    )
    for values in itertools.product([False, True], repeat=len(free)):
        case = dict(
            zip(free, values, strict=True), layer=name, mask=mask, dtype=dtype, training=None
        )
        case.update(zip(("mode", "backward", "jit_compile", "unroll"), next(turns), strict=True))
        case["unroll"] = case["unroll"] and case["mode"] != "unknown"
        if allowed(case):
            check(descriptors.BY_NAME[name], case)

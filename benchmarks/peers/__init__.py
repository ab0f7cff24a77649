"""Who takes part.

A peer is a class in one of these files, made once in a process of its own:

    peer = module.Peer(case, weights, **options)    builds the net, with weights in Keras' layout
    peer.load(x, dy, lengths)                       hands over the inputs
    peer.step()                                     what is timed: one call, values fetched
    peer.numbers()                                  what it computes, as `data.names` lists it
"""

import dataclasses
import importlib.util

from benchmarks.cases import UNFUSED


@dataclasses.dataclass(frozen=True)
class Entry:
    """Where a peer's class is, what it needs installed and what it is made with."""

    module: str
    packages: tuple
    options: dict = dataclasses.field(default_factory=dict)

    def lacks(self):
        """The packages that are not installed."""
        return [name for name in self.packages if importlib.util.find_spec(name) is None]


def _keras(module, package, jit, **layer):
    """layer: further arguments of the layer."""
    packages = ("tensorflow", "keras", *["keras_rnnx"] * (package == "keras_rnnx"))
    return Entry(module, packages, {"package": package, "jit": jit, **layer})


# A plain graph is what `fit` and `predict` run on a CPU; XLA is what they run on request.
PEERS = {
    "keras-graph": _keras("keras", "keras.layers", False),
    "keras-xla": _keras("keras", "keras.layers", True),
    "keras-rnn-cell": _keras("keras", "keras.layers", True),
    "keras-fit": _keras("fit", "keras.layers", False),
    "keras-fit-xla": _keras("fit", "keras.layers", True),
    "torch": Entry("torch", ("torch",)),
    "jax": Entry("jax", ("jax",)),
    "onnxruntime": Entry("onnxruntime", ("onnx", "onnxruntime")),
    "rnnx": _keras("keras", "keras_rnnx", False),
    "rnnx-graph-inference": _keras("keras", "keras_rnnx", False),
    "rnnx-compiled-inference": _keras("keras", "keras_rnnx", False, jit_compile=True),
    "rnnx-xla": _keras("keras", "keras_rnnx", True),
    "rnnx-one-part": _keras("keras", "keras_rnnx", False, batch_parts=1),
    "rnnx-checkpointed": _keras("keras", "keras_rnnx", False, checkpointed=True),
    "rnnx-checkpointed-one-part": _keras(
        "keras", "keras_rnnx", False, checkpointed=True, batch_parts=1
    ),
    "rnnx-fit": _keras("fit", "keras_rnnx", False),
    "rnnx-fit-xla": _keras("fit", "keras_rnnx", True),
    "floor-xla": Entry("floor", ("tensorflow",), {"library": "tensorflow"}),
    "floor-torch": Entry("floor", ("torch",), {"library": "torch"}),
    "floor-numpy": Entry("floor", ("numpy",), {"library": "numpy"}),
}
# The one of ours that a chart shows a peer against: called in the same way, or our fastest.
COUNTERPART = {
    "keras-graph": ("rnnx", "rnnx-graph-inference"),
    "keras-xla": ("rnnx-xla",),
    "keras-rnn-cell": ("rnnx-xla",),
    "torch": ("rnnx", "rnnx-compiled-inference"),
    "jax": ("rnnx", "rnnx-compiled-inference"),
    "onnxruntime": ("rnnx-compiled-inference",),
    "keras-fit": ("rnnx-fit",),
    "keras-fit-xla": ("rnnx-fit-xla",),
}
FLOORS = ("floor-xla", "floor-torch", "floor-numpy")


def is_ours(peer):
    return peer.startswith("rnnx")


def is_floor(peer):
    return peer in FLOORS


def peers_of(case):
    """The peers of a case; the first one's numbers are the reference."""
    if case.group == "fit":
        return ("keras-fit", "keras-fit-xla", "rnnx-fit", "rnnx-fit-xla")
    if case.group == "memory":
        return tuple(peer for peer in PEERS if peer == "rnnx" or "part" in peer or "check" in peer)
    floors = () if case.padded or case.group == "compile" else FLOORS
    if case.cell in UNFUSED:
        return ("keras-rnn-cell", "rnnx", "rnnx-xla", *floors)
    if not case.trains:
        peers = ("keras-graph", "keras-xla", "torch", "jax", "onnxruntime")
        ours = ("rnnx-graph-inference", "rnnx-compiled-inference", "rnnx-xla")
        return (*peers, *ours, *floors)
    # Training under XLA, Keras takes four times as long for twice as many steps: minutes a round.
    theirs = ("keras-graph",) if case.T > 4096 else ("keras-graph", "keras-xla")
    return (*theirs, "torch", "jax", "rnnx", "rnnx-xla", *floors)

"""A SavedModel read without running it: what its signatures reach, and what of that is at fault."""

import ctypes
import functools
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf
from tensorflow.core.framework import kernel_def_pb2
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import saved_model_pb2

HALVES = (types_pb2.DT_HALF, types_pb2.DT_BFLOAT16)


class Reached(NamedTuple):
    """What a signature reaches: names of operations, and of functions that must be compiled."""

    ops: set
    must_compile: set


def read(path):
    """The graph of the version at `path`, a `MetaGraphDef`."""
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((Path(path) / "saved_model.pb").read_bytes())
    return saved.meta_graphs[0]


def signatures(graph):
    """The signatures by name, without those that TensorFlow writes for itself."""
    return {key: one for key, one in graph.signature_def.items() if not key.startswith("__saved")}


def reachable(graph, signature):
    """What the outputs of a signature need: a `Reached`."""
    library = {f.signature.name: f for f in graph.graph_def.library.function}
    found, seen = Reached(set(), set()), set()

    def visit_function(name):
        if name in seen or name not in library:
            return
        seen.add(name)
        function = library[name]
        if function.attr["_XlaMustCompile"].b:
            found.must_compile.add(name)
        visit_nodes(function.node_def, [*function.ret.values(), *function.control_ret.values()])

    def visit_nodes(nodes, roots):
        by_name = {node.name: node for node in nodes}
        waiting, done = [_node(root) for root in roots], set()
        while waiting:
            name = waiting.pop()
            if name in done or name not in by_name:  # not a node: an argument of the function
                continue
            done.add(name)
            node = by_name[name]
            waiting.extend(map(_node, node.input))
            if node.attr["_XlaMustCompile"].b:
                found.must_compile.add(node.name)
            if node.op in library:
                visit_function(node.op)
            else:
                found.ops.add(node.op)
            for value in node.attr.values():
                functions = [value.func] if value.HasField("func") else value.list.func
                for function in functions:
                    visit_function(function.name)

    outputs = graph.signature_def[signature].outputs.values()
    visit_nodes(graph.graph_def.node, [output.name for output in outputs])
    return found


def _node(tensor):
    """The node of a tensor: "^node", "node:0" and "node:out:0" name one."""
    return tensor.lstrip("^").split(":")[0]


def faults(graph):
    """`[(signature, fault, sentence)]` of what a server would stumble over."""
    return [
        (key, fault, sentence)
        for key, signature in signatures(graph).items()
        for found in (_of_operations(reachable(graph, key)), _of_border(signature))
        for fault, sentence in found
    ]


def _of_operations(reached):
    """`(fault, sentence)` of what a signature reaches."""
    ops, must_compile = reached
    if must_compile:
        yield (
            "must compile",
            f"It must be compiled by XLA ({_some(must_compile)}), which TensorFlow Serving has "
            "switched off: every request would fail. Export with keras_rnnx.serving.export, or "
            "inside keras_rnnx.portable().",
        )
    unknown = {op for op in ops if not has_cpu_kernel(op)}
    if unknown:
        yield (
            "no CPU kernel",
            f"It needs operations that no stock server has on a CPU: {_some(unknown)}.",
        )
    drawn = {op for op in ops if any(word in op for word in DRAW)}
    if drawn:
        yield (
            "random",
            f"It draws random numbers ({_some(drawn)}), so that the same request has different "
            "answers: export the model with training=False.",
        )
    assigned = {op for op in ops if "Assign" in op or op.startswith("ResourceScatter")}
    if assigned:
        yield (
            "assignment",
            f"It assigns to variables ({_some(assigned)}): all clients share them, and they are "
            "lost with the version. Give states in and out, as the signature `step` does.",
        )


def _of_border(signature):
    """`(fault, sentence)` of what a signature takes and gives."""
    if not signature.outputs:
        yield "outputs", "It has no outputs: nothing can be asked of it."
    if not signature.inputs:
        yield (
            "no inputs",
            "It has no inputs, and REST cannot call it: give it one that carries the batch.",
        )
    for way, tensors in (("input", signature.inputs), ("output", signature.outputs)):
        for name, info in tensors.items():
            sizes = [d.size for d in info.tensor_shape.dim]
            if not info.tensor_shape.unknown_rank and (not sizes or sizes[0] != -1):
                yield (
                    "batch axis",
                    f"The {way} {name!r} has the shape {sizes}, expected the batch, of any size, "
                    "first: requests could not be put together.",
                )
            if info.dtype in HALVES:
                yield (
                    "dtype",
                    f"The {way} {name!r} is {types_pb2.DataType.Name(info.dtype)}, which REST "
                    "cannot send: cast to float32.",
                )


def _some(names):
    names = sorted(names)
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


# In the names of operations that draw random numbers.
DRAW = ("Random", "Multinomial", "TruncatedNormal", "RngSkip", "RngReadAndSkip")
# They call back into the Python that wrote them, and only there is a kernel.
OF_PYTHON = ("PyFunc", "PyFuncStateless", "EagerPyFunc")


@functools.cache
def has_cpu_kernel(op):
    """Whether a TensorFlow without Python can run an operation on a CPU."""
    if op in OF_PYTHON:
        return False
    kernels = kernel_def_pb2.KernelList.FromString(_registered(op))
    return any(kernel.device_type in ("CPU", "DEFAULT") for kernel in kernels.kernel)


class _Buffer(ctypes.Structure):
    """`TF_Buffer` of TensorFlow's C interface."""

    _fields_ = [("data", ctypes.c_void_p), ("length", ctypes.c_size_t), ("free", ctypes.c_void_p)]


def _registered(op):
    """The kernels of an operation, a serialised `KernelList`; empty for one that is unknown."""
    folder = Path(tf.sysconfig.get_lib())
    load = lambda name: ctypes.CDLL(str(next(folder.glob(f"{name}.so*"))))
    framework, library = load("libtensorflow_framework"), load("libtensorflow_cc")
    framework.TF_NewStatus.restype = ctypes.c_void_p
    framework.TF_DeleteStatus.argtypes = [ctypes.c_void_p]
    framework.TF_DeleteBuffer.argtypes = [ctypes.c_void_p]
    library.TF_GetRegisteredKernelsForOp.restype = ctypes.c_void_p
    library.TF_GetRegisteredKernelsForOp.argtypes = [ctypes.c_char_p, ctypes.c_void_p]
    status = framework.TF_NewStatus()
    buffer = library.TF_GetRegisteredKernelsForOp(op.encode(), status)
    framework.TF_DeleteStatus(status)
    if not buffer:
        return b""
    found = _Buffer.from_address(buffer)
    data = ctypes.string_at(found.data, found.length) if found.length else b""
    framework.TF_DeleteBuffer(buffer)
    return data

"""A static read of a SavedModel: what a signature reaches, without running anything."""

import pathlib

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2


def reachable(path, signature="serving_default"):
    """(names of ops, names of functions that must be compiled) that the signature reaches."""
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((pathlib.Path(path) / "saved_model.pb").read_bytes())
    graph = saved.meta_graphs[0].graph_def
    library = {f.signature.name: f for f in graph.library.function}
    outputs = saved.meta_graphs[0].signature_def[signature].outputs.values()
    ops, must_compile, seen = set(), set(), set()
    assert outputs, "a signature without outputs reaches nothing"

    def visit_function(name):
        if name in seen:
            return
        seen.add(name)
        function = library[name]
        if function.attr["_XlaMustCompile"].b:
            must_compile.add(name)
        roots = [*function.ret.values(), *function.control_ret.values()]
        visit_nodes(function.node_def, roots)

    def visit_nodes(nodes, roots):
        by_name = {node.name: node for node in nodes}
        waiting = [_node(root) for root in roots]
        done = set()
        while waiting:
            name = waiting.pop()
            if name in done or name not in by_name:  # not a node: an argument of the function
                continue
            done.add(name)
            node = by_name[name]
            waiting.extend(map(_node, node.input))
            if node.attr["_XlaMustCompile"].b:
                must_compile.add(node.name)
            if node.op in library:
                visit_function(node.op)
            else:
                ops.add(node.op)
            for value in node.attr.values():
                functions = [value.func] if value.HasField("func") else value.list.func
                for function in functions:
                    visit_function(function.name)

    visit_nodes(graph.node, [output.name for output in outputs])
    return ops, must_compile


def _node(tensor):
    """The node of a tensor: "^node", "node:0" and "node:out:0" name one."""
    return tensor.lstrip("^").split(":")[0]


def strangers(ops):
    """Ops that no stock server has: not TensorFlow's own, or without a kernel on a CPU."""
    no_kernel = ("Cudnn", "Xla", "PyFunc", "EagerPyFunc", "NumpyFunc")
    return {op for op in ops if not hasattr(tf.raw_ops, op) or op.startswith(no_kernel)}

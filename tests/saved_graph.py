"""What a signature of a SavedModel reaches. That the reading finds faults: test_serving_check."""

from keras_rnnx.serving import graph


def reachable(path, signature="serving_default"):
    """(names of ops, names of functions that must be compiled) that the signature reaches."""
    read = graph.read(path)
    assert read.signature_def[signature].outputs, "a signature without outputs reaches nothing"
    return graph.reachable(read, signature)


def strangers(ops):
    """Ops that no stock server has: unknown to TensorFlow, or without a kernel on a CPU."""
    return {op for op in ops if not graph.has_cpu_kernel(op)}

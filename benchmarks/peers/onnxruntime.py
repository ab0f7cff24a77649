"""ONNX Runtime, inference only: the operators `LSTM`, `GRU` and `RNN` of the ONNX standard."""

import numpy as np
import onnxruntime
from onnx import TensorProto
from onnx import helper
from onnx import numpy_helper

from benchmarks import data
from benchmarks.machine import cores

OPERATOR = {"LSTM": "LSTM", "GRU": "GRU", "SimpleRNN": "RNN"}
# Keras' gates in ONNX's order.
ORDER = {"LSTM": (0, 3, 1, 2), "GRU": (0, 1, 2), "SimpleRNN": (0,)}


class Peer:
    def __init__(self, case, weights):
        self.case = case
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = cores()
        model = self.model(data.split_weights(case, weights)).SerializeToString()
        self.session = onnxruntime.InferenceSession(
            model, options, onnxruntime.get_available_providers()
        )

    def model(self, layers):
        """x [B, T, D] -> y [B, T, U or 2U], around ONNX' own [T, B, D] -> [T, directions, B, U]."""
        case, constants = self.case, {"flat": np.array([0, 0, -1], np.int64)}
        nodes = [helper.make_node("Transpose", ["x"], ["y0"], perm=[1, 0, 2])]
        for k, cells in enumerate(layers):
            arrays = [
                np.stack(a) for a in zip(*(self.theirs(*cell) for cell in cells), strict=True)
            ]
            constants |= {f"{name}{k}": a for name, a in zip("WRb", arrays, strict=True)}
            nodes += [
                helper.make_node(
                    OPERATOR[case.cell],
                    [f"y{k}", f"W{k}", f"R{k}", f"b{k}", *["lengths"] * case.padded],
                    [f"ways{k}"],
                    hidden_size=case.U,
                    direction="bidirectional" if case.bidirectional else "forward",
                    **{"linear_before_reset": 1} if case.cell == "GRU" else {},
                ),
                helper.make_node("Transpose", [f"ways{k}"], [f"wide{k}"], perm=[0, 2, 1, 3]),
                helper.make_node("Reshape", [f"wide{k}", "flat"], [f"y{k + 1}"]),
            ]
        nodes.append(helper.make_node("Transpose", [f"y{len(layers)}"], ["y"], perm=[1, 0, 2]))
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", "T", case.D])]
        if case.padded:
            inputs.append(helper.make_tensor_value_info("lengths", TensorProto.INT32, ["B"]))
        output = helper.make_tensor_value_info(
            "y", TensorProto.FLOAT, ["B", "T", case.U * case.directions]
        )
        constants = [numpy_helper.from_array(a, name) for name, a in constants.items()]
        graph = helper.make_graph(nodes, "net", inputs, [output], constants)
        # An older file format than the newest: Runtime lags behind it.
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    def theirs(self, kernel, recurrent, bias):
        """Keras' arrays of one direction as ONNX's: [G U, D], [G U, U], [2 G U]."""
        if self.case.cell != "GRU":
            bias = np.stack([bias, np.zeros_like(bias)])
        return self.reorder(kernel).T, self.reorder(recurrent).T, self.reorder(bias).reshape(-1)

    def reorder(self, a):
        gates = np.split(a, self.case.gates, axis=-1)
        return np.concatenate([gates[k] for k in ORDER[self.case.cell]], axis=-1)

    def load(self, x, dy, lengths):
        self.inputs = {"x": x} | ({} if lengths is None else {"lengths": lengths.astype(np.int32)})

    def step(self):
        return self.session.run(None, self.inputs)

    def numbers(self):
        return self.step()

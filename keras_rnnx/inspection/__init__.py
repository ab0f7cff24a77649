"""Inspection: what happens inside a model, as arrays and as pictures."""

from keras_rnnx.inspection.gradients import gradient_flow
from keras_rnnx.inspection.memory import Memory
from keras_rnnx.inspection.memory import memory_length
from keras_rnnx.inspection.plots import plot_alignments
from keras_rnnx.inspection.plots import plot_gates
from keras_rnnx.inspection.plots import plot_gradient_flow
from keras_rnnx.inspection.plots import plot_memory
from keras_rnnx.inspection.plots import plot_states
from keras_rnnx.inspection.recording import Record
from keras_rnnx.inspection.recording import record
from keras_rnnx.inspection.summary import LayerSummary
from keras_rnnx.inspection.summary import summary

__all__ = [
    "LayerSummary",
    "Memory",
    "Record",
    "gradient_flow",
    "memory_length",
    "plot_alignments",
    "plot_gates",
    "plot_gradient_flow",
    "plot_memory",
    "plot_states",
    "record",
    "summary",
]

"""Training: long streams with the state carried from batch to batch, and a look at gradients."""

from keras_rnnx.training.gradient_monitor import GradientMonitor
from keras_rnnx.training.truncated_bptt import TruncatedBPTT

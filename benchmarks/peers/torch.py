"""`torch.nn.LSTM`, `GRU` and `RNN`: the fused layers (oneDNN on a CPU, cuDNN on a GPU)."""

import numpy as np
import torch

from benchmarks import data
from benchmarks.machine import cores

# Keras' gates in torch's order, and back: each of these orders undoes itself.
ORDER = {"LSTM": (0, 1, 2, 3), "GRU": (1, 0, 2), "SimpleRNN": (0,)}
CLASS = {"LSTM": torch.nn.LSTM, "GRU": torch.nn.GRU, "SimpleRNN": torch.nn.RNN}


class Peer:
    def __init__(self, case, weights):
        torch.set_num_threads(cores())
        torch.backends.cudnn.allow_tf32 = False  # float32 means float32 on every peer
        self.case = case
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.net = CLASS[case.cell](
            case.D, case.U, case.layers, batch_first=True, bidirectional=case.bidirectional
        ).to(self.device)
        self.parameters = list(self.net.parameters())  # per layer and direction: W, R, b_x, b_h
        given = [
            a
            for layer in data.split_weights(case, weights)
            for cell in layer
            for a in self.ours(*cell)
        ]
        with torch.no_grad():
            for parameter, array in zip(self.parameters, given, strict=True):
                parameter.copy_(torch.from_numpy(np.ascontiguousarray(array)))

    def ours(self, kernel, recurrent, bias):
        """Keras' arrays as torch's."""
        if self.case.cell != "GRU":  # one bias here, two there
            bias = np.stack([bias, np.zeros_like(bias)])
        bias_x, bias_h = self.reorder(bias)
        return self.reorder(kernel).T, self.reorder(recurrent).T, bias_x, bias_h

    def theirs(self, kernel, recurrent, bias_x, bias_h):
        """torch's arrays as Keras'."""
        bias = np.stack([bias_x, bias_h]) if self.case.cell == "GRU" else bias_x
        return self.reorder(kernel.T), self.reorder(recurrent.T), self.reorder(bias)

    def reorder(self, a):
        gates = np.split(a, self.case.gates, axis=-1)
        return np.concatenate([gates[k] for k in ORDER[self.case.cell]], axis=-1)

    def load(self, x, dy, lengths):
        self.x = torch.from_numpy(x).to(self.device).requires_grad_(self.case.trains)
        self.dy = torch.from_numpy(dy).to(self.device)
        self.lengths = None if lengths is None else torch.from_numpy(lengths)

    def forward(self):
        if self.lengths is None:
            return self.net(self.x)[0]
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            self.x, self.lengths, batch_first=True, enforce_sorted=False
        )
        return torch.nn.utils.rnn.pad_packed_sequence(
            self.net(packed)[0], batch_first=True, total_length=self.x.shape[1]
        )[0]

    def step(self):
        if not self.case.trains:
            with torch.inference_mode():
                return [self.forward().cpu().numpy()]
        y = self.forward()
        gradients = torch.autograd.grad(y, [self.x, *self.parameters], self.dy)
        return [t.cpu().numpy() for t in (y.detach(), *gradients)]

    def numbers(self):
        y, *gradients = self.step()
        if not gradients:
            return [y]
        dx, *d_weights = gradients
        cells = zip(*[iter(d_weights)] * 4, strict=True)
        return [y, dx, *[a for cell in cells for a in self.theirs(*cell)]]

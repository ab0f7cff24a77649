"""The floor: the bare matrix products that no net can avoid, one after another.

Forward: the input projection of all steps as one product, then T recurrent products in sequence.
Backward: T products with the transposed matrix in sequence, then one product each for the gradients
of both matrices and of the input. No gates and no saved steps: one sum chains each product to the
next, so that none can be left out and no value grows or dies away (denormal numbers are slow).

Axes: B batch, T time, D input features, U units, G gates.
"""

from typing import NamedTuple

import numpy as np

from benchmarks.machine import cores


class Matrices(NamedTuple):
    x: np.ndarray  # [T*B, D]
    h: np.ndarray  # [T*B, U]
    kernel: np.ndarray  # [D, G*U]
    recurrent: np.ndarray  # [U, G*U]
    transposed: np.ndarray  # [G*U, U]


class Peer:
    def __init__(self, case, weights, library):
        self.case = case
        self.products = {"tensorflow": with_xla, "torch": with_torch, "numpy": with_numpy}[library]

    def load(self, x, dy, lengths):
        """Only the shapes count."""
        case, (B, T, _) = self.case, x.shape
        sizes = [D for D in case.input_sizes() for _ in range(case.directions)]
        matrices = [draw(B * T, D, case.U, case.gates) for D in sizes]
        self.calls = [self.products(m, B, case.trains) for m in matrices]

    def step(self):
        for call in self.calls:
            call()

    def numbers(self):
        """None of the net's: a floor is not compared."""
        return []


def draw(rows, D, U, G):
    rng = np.random.default_rng(0)
    x, h, kernel, recurrent = (
        rng.standard_normal(shape, np.float32)
        for shape in ((rows, D), (rows, U), (D, G * U), (U, G * U))
    )
    recurrent *= np.float32(0.2 / U**0.5)
    return Matrices(x, h, kernel, recurrent, np.ascontiguousarray(recurrent.T))


def with_xla(matrices, B, trains):
    import tensorflow as tf

    tf.config.experimental.enable_tensor_float_32_execution(False)
    U, GU = matrices.recurrent.shape
    T = len(matrices.x) // B

    def repeat(body, start):
        return tf.while_loop(lambda t, _: t < T, lambda t, a: (t + 1, body(t, a)), (0, start))[1]

    @tf.function(jit_compile=True, autograph=False)
    def run(x, h, kernel, recurrent, transposed):
        xg = x @ kernel
        # Another gate's columns at each step: of a fixed choice the compiler may drop the others.
        last = repeat(lambda t, a: h[:B] + tf.slice(a @ recurrent, [0, t * U % GU], [B, U]), h[:B])
        if not trains:
            return xg, last
        first = repeat(lambda t, a: xg[:B] + tf.tile(a @ transposed, [1, GU // U]), xg[:B])
        at, bt = {"transpose_a": True}, {"transpose_b": True}
        return (
            last,
            first,
            tf.matmul(x, xg, **at),
            tf.matmul(h, xg, **at),
            tf.matmul(xg, kernel, **bt),
        )

    arguments = [tf.constant(a) for a in matrices]
    return lambda: run(*arguments)[0].numpy()


def with_torch(matrices, B, trains):
    import torch

    torch.set_num_threads(cores())
    run = one_by_one(torch, Matrices(*map(torch.from_numpy, matrices)), B, trains)
    return torch.inference_mode()(run)


def with_numpy(matrices, B, trains):
    return one_by_one(np, matrices, B, trains)


def one_by_one(library, matrices, B, trains):
    """The functions needed here have the same names in torch and numpy."""
    matmul, add = library.matmul, library.add
    x, h, kernel, recurrent, transposed = matrices
    U, GU = recurrent.shape
    T = len(x) // B
    xg = matmul(x, kernel)
    wide, narrow = library.empty_like(xg[:B]), library.empty_like(h[:B])
    gate, gates = wide[:, :U], wide.reshape(B, GU // U, U)

    def run():
        matmul(x, kernel, out=xg)
        narrow[:] = h[:B]
        for _ in range(T):
            matmul(narrow, recurrent, out=wide)
            add(gate, h[:B], out=narrow)
        if not trains:
            return
        wide[:] = xg[:B]
        base, across = xg[:B].reshape(gates.shape), narrow[:, None]
        for _ in range(T):
            matmul(wide, transposed, out=narrow)
            add(base, across, out=gates)
        matmul(x.T, xg), matmul(h.T, xg), matmul(xg, kernel.T)

    return run

"""The one way in which a step multiplies by a matrix: `product(name, h)`.

    product(name, h)                    h [B, K] @ weights[name] [K, N]             -> [B, N]
    product(name, h, transpose=True)    h [B, N] @ weights[name]^T                  -> [B, K]
    product(name, h, bias=name)         the same plus weights[name] [N]
    product(name, h, plus=x)            the same plus x [B, N], best the step's input as it came
    product(name, h, pieces=n)          the same as a list of n equal pieces of the last axis
    product.candidate(g)                g: where noise on a cell's candidate acts
    product.show(i=i, f=f)              nothing: where `keras_rnnx.inspection` looks at gates
    product(name, h) of a constant      h [B, K] by each sample's constants[name] [B, K, N]

Going through one function lets the engine record the products on the way forward and take each
matrix's gradient afterwards, from all steps at once. An input that is added here is recorded in
the sum: the backward pass then neither reads it nor writes its gradient a second time.
"""

from typing import NamedTuple

import tensorflow as tf

from keras_rnnx.cells import float32_rows
from keras_rnnx.engine import xla

LEAST_TO_SPLIT = 2**20  # multiplications in a product: fewer are done before a second one starts


class Call(NamedTuple):
    """One call of `product` in a step."""

    name: str
    transpose: bool
    bias: str | None
    state: int | None  # which state its input is, if it is one unchanged
    plus: int | None = None  # which input of the step was added, if it is one unchanged
    pieces: int | None = None  # into how many pieces the product is split


class Prepared(dict):
    """What `prepare` made of the weights, by name, for a step to look up."""

    def __missing__(self, name):
        raise ValueError(
            f"The step looks up weights[{name!r}], and `prepare` gave {', '.join(self) or 'none'}. "
            "Override `prepare` to return every weight that the step uses, and multiply by a "
            "recurrent matrix through `product` only, where noise finds it."
        )


class Products:
    """Hands `product` to a step and remembers the calls and their values.

    weights: `Prepared`; constants: those of the step, looked up by name if a dict.
    recorded: the values to return instead of multiplying (the replay of the backward pass).
    turned: matrices transposed beforehand, by name, for the gradients of replayed products.
    split: matrices split beforehand, by name, for products that are wanted in pieces.
    """

    def __init__(self, weights, constants, states, xs=(), recorded=None, turned=None, split=None):
        self.weights = weights
        self.split = split or {}
        self.turned = turned or {}
        self.constants = constants if isinstance(constants, dict) else {}
        self.states, self.xs = states, xs
        self.recorded = recorded
        self.calls, self.inputs, self.values = [], [], []

    def __call__(self, name, h, *, transpose=False, bias=None, plus=None, pieces=None):
        matrix = self.find(name, h)
        added = position(plus, self.xs)
        self.calls.append(Call(name, transpose, bias, position(h, self.states), added, pieces))
        if name in self.split:
            return self._in_pieces(name, h, bias, plus)
        self.inputs.append(h)
        if self.recorded is None:
            value = multiply(h, matrix, transpose)
            if bias is not None:
                value = tf.nn.bias_add(value, self.weights[bias])
            if added is not None:
                value += plus
        else:
            turned = None if transpose else self.turned.get(name)
            value = replayed(h, self.recorded[len(self.values)], matrix, transpose, turned)
        self.values.append(value)
        value = value if plus is None or added is not None else value + plus
        return value if pieces is None else tf.split(value, pieces, axis=-1)

    def candidate(self, g):
        """A candidate on its way into the state: a place for noise, which wraps this object."""
        return g

    def show(self, **values):
        """Values by name for whoever looks inside, `[B, ...]` each; a loop pays no heed."""

    def _in_pieces(self, name, h, bias, plus):
        matrices = self.split[name]
        split = lambda a: tf.split(a, len(matrices), axis=-1)
        values = [tf.matmul(h, matrix) for matrix in matrices]
        if bias is not None:
            values = [tf.nn.bias_add(v, b) for v, b in zip(values, self.split[bias], strict=True)]
        if plus is not None:
            values = [v + p for v, p in zip(values, split(plus), strict=True)]
        return values

    def find(self, name, h):
        """The matrix of this name, checked."""
        if name in self.weights and self.weights[name].shape.rank == 2 and h.shape.rank == 2:
            return self.weights[name]
        if name in self.constants and self.constants[name].shape.rank == 3 and h.shape.rank == 2:
            return self.constants[name]
        known = {k: tuple(v.shape) for k, v in (*self.weights.items(), *self.constants.items())}
        raise ValueError(
            f"product({name!r}, h) got h of shape {tuple(h.shape)}, which goes with no matrix of "
            f"that name. Known are {known}: what `prepare` returns, and constants. Expected "
            "h [B, K] and a weight [K, N] or, for one matrix per sample, a constant [B, K, N]."
        )


def position(tensor, tensors):
    """Where `tensor` itself (the same object) stands in `tensors`, or None."""
    if tensor is None:
        return None
    return next((i for i, other in enumerate(tensors) if other is tensor), None)


def with_matrices_split(run, calls, weights, batch):
    """`run({name: pieces})` where a product is wanted in pieces and large enough, else `run()`.

    The pieces of matrices and biases are made once. As stock ops a few narrow products run side by
    side, and no step splits their result; small ones cost more in calls than they gain. (XLA does
    better with a wide one.) A batch whose size is unknown yet decides when it comes.
    """
    wanted = [c for c in calls if c.pieces and c.name in weights and not c.transpose]
    if not wanted:
        return run()
    pieces = lambda: run(
        {
            name: tf.split(weights[name], call.pieces, axis=-1)
            for call in wanted
            for name in (call.name, call.bias)
            if name
        }
    )
    least = LEAST_TO_SPLIT // max(weights[c.name].shape.num_elements() for c in wanted)
    if isinstance(batch, int):
        return pieces() if batch >= least else run()
    return tf.cond(batch >= least, pieces, run) if xla.may_choose() else run()


def multiply(h, matrix, transpose):
    if matrix.shape.rank == 2:
        return tf.matmul(h, matrix, transpose_b=transpose)
    return tf.linalg.matvec(matrix, h, transpose_a=not transpose)


def replayed(h, value, matrix, transpose, turned=None):
    """`value`, recorded on the way forward, with the gradient that the product has."""

    @tf.custom_gradient
    def replay(h, value):
        def grad(d):
            if turned is not None:
                return tf.matmul(d, turned), d
            return multiply(d, matrix, not transpose), d

        return tf.identity(value), grad

    return replay(h, value)


def matrix_gradient(call, like, h, d, last=None):
    """Gradient of a product's matrix from all steps: `h [T, B, K]`, `d [T, B, N]`, one product.

    last: a scalar, the number of steps after which `d` is zero, or None. The product then goes over
    the quarters of the steps that are needed: XLA has no products of a size unknown beforehand.

    Half precision is summed in float32.
    """
    if call.transpose:
        h, d = d, h
    if like.shape.rank == 2:
        rows = lambda steps: tf.matmul(
            float32_rows(h[:steps]), float32_rows(d[:steps]), transpose_a=True
        )
        steps = d.shape[0]
        if last is None or steps is None or steps < 8:
            return rows(None)
        quarters = [-(-steps * k // 4) for k in (1, 2, 3, 4)]
        needed = tf.reduce_sum(tf.cast(last > tf.constant(quarters), tf.int32))
        return tf.switch_case(tf.minimum(needed, 3), [lambda s=s: rows(s) for s in quarters])
    wide = tf.float64 if h.dtype == tf.float64 else tf.float32
    return tf.einsum("tbk,tbn->bkn", tf.cast(h, wide), tf.cast(d, wide))


def bias_gradient(d):
    """Gradient of a product's bias from all steps: `d [T, B, N] -> [N]`."""
    return tf.reduce_sum(float32_rows(d), axis=0)

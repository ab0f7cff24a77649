"""JAX: `lax.scan` in one jitted function, the input projection hoisted out of it."""

import functools

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from benchmarks import data

jax.config.update("jax_default_matmul_precision", "highest")  # float32 means float32, on a GPU too


class Peer:
    def __init__(self, case, weights):
        self.case = case
        self.weights = jax.device_put(data.split_weights(case, weights))
        self.call = jax.jit(self.train if case.trains else self.infer)

    def load(self, x, dy, lengths):
        mask = None if lengths is None else data.mask(lengths, x.shape[1]).T[:, :, None]
        self.inputs = jax.device_put((x, dy, mask))

    def infer(self, weights, x, dy, mask):
        y = jnp.swapaxes(x, 0, 1)
        for layer in weights:
            ways = [run(self.case.cell, *cell, y, mask, way == 1) for way, cell in enumerate(layer)]
            y = jnp.concatenate(ways, axis=-1)
        return [jnp.swapaxes(y, 0, 1)]

    def train(self, weights, x, dy, mask):
        forward = functools.partial(self.infer, dy=dy, mask=mask)
        y, pull = jax.vjp(lambda weights, x: forward(weights, x)[0], weights, x)
        d_weights, dx = pull(dy)
        return [y, dx, *jax.tree.leaves(d_weights)]

    def step(self):
        return [np.asarray(a) for a in self.call(self.weights, *self.inputs)]

    def numbers(self):
        return self.step()


def run(cell, kernel, recurrent, bias, x, mask, backward):
    """x [T, B, D] -> outputs [T, B, U]"""
    B, U = x.shape[1], recurrent.shape[0]
    bias_x = bias[0] if cell == "GRU" else bias
    xg = x @ kernel + bias_x
    step = functools.partial(STEPS[cell], recurrent, bias)
    start = (jnp.zeros((B, U)),) * (2 if cell == "LSTM" else 1)

    def masked_step(states, inputs):
        xg, keep = inputs
        new = step(states, xg)
        if keep is not None:
            new = tuple(jnp.where(keep, n, s) for n, s in zip(new, states, strict=True))
        return new, new[0]

    return lax.scan(masked_step, start, (xg, mask), reverse=backward)[1]


def lstm(recurrent, bias, states, xg):
    h, c = states
    i, f, g, o = jnp.split(xg + h @ recurrent, 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def gru(recurrent, bias, states, xg):
    (h,) = states
    xz, xr, xn = jnp.split(xg, 3, axis=-1)
    hz, hr, hn = jnp.split(h @ recurrent + bias[1], 3, axis=-1)
    z, r = jax.nn.sigmoid(xz + hz), jax.nn.sigmoid(xr + hr)
    return (z * h + (1 - z) * jnp.tanh(xn + r * hn),)


def simple(recurrent, bias, states, xg):
    return (jnp.tanh(xg + states[0] @ recurrent),)


STEPS = {"LSTM": lstm, "GRU": gru, "SimpleRNN": simple}

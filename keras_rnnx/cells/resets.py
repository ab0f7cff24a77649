"""Rows of a batch that begin anew within a sequence."""

import dataclasses

import tensorflow as tf

from keras_rnnx.cells.base import Around


@dataclasses.dataclass(frozen=True)
class Resets(Around):
    """A spec whose states are zeros again before the steps that say so.

        s = where(reset, 0, s)      every state, then the step of the spec inside

    The step finds booleans `[B]` beside its input.
    """

    def project(self, weights, x):
        x, reset = x
        return self.spec.project(weights, x), reset

    def step(self, weights, product, x, states, constants):
        x, reset = x
        states = tuple(tf.where(reset[:, None], tf.zeros_like(s), s) for s in states)
        return self.spec.step(weights, product, x, states, constants)

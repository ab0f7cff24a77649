"""Noise against overfitting: drawn once per sequence, before the loop, and handed to the step.

Draws are stateless (random bits of the Philox generator, the same with and without XLA and whatever
the precision) and happen in training only: nothing random is left in an inference graph.

A regularizer of the recurrence is a spec around a cell's spec: the same weights and projection, a
step that does more, and `noise`, which draws what that step needs.
"""

import dataclasses

import tensorflow as tf

from keras_rnnx.cells import Around


def draw_kept(seed, shape, rate):
    """Booleans `shape`, each True with probability `1 - rate`.

    seed: `[2]` integers; replicas of a distribution strategy draw different numbers from it.
    """
    # Neither `stateless_fold_in` nor a uniform float: both give other numbers under XLA.
    first, second = tf.unstack(tf.cast(seed, tf.int32))
    replicas = tf.distribute.get_replica_context()
    replica = replicas.replica_id_in_sync_group if replicas is not None else 0
    spread = tf.cast(replica, tf.int32) * 0x3C6EF372  # far apart: neighbouring seeds are in use
    seed = tf.stack([tf.bitwise.bitwise_xor(first, spread), second])
    bits = tf.random.stateless_uniform(
        shape, seed, minval=None, maxval=None, dtype=tf.uint32, alg="philox"
    )
    return bits >= tf.constant(int(rate * 2**32), tf.uint32)


def drop(x, kept, rate):
    """`x` where `kept`, scaled so that its mean stays, and 0 elsewhere ("inverted dropout")."""
    return tf.where(kept, x / (1 - rate), tf.zeros_like(x))


@dataclasses.dataclass(frozen=True)
class RecurrentDropout(Around):
    """Dropout on what the cell multiplies by its recurrent matrices.

    One mask `[B, U]` for all steps and gates. Gal and Ghahramani, "A Theoretically Grounded
    Application of Dropout in Recurrent Neural Networks", NeurIPS 2016 (tied weights).

    The step finds the mask in `constants["recurrent_kept"]`, booleans: they need no gradient.
    """

    rate: float

    def noise(self, seed, steps, batch):
        drawn, constants = self.spec.noise(seed, steps, batch)
        kept = draw_kept(seed(), [batch, self.state_sizes[0]], self.rate)
        return drawn, {**constants, "recurrent_kept": kept}

    def step(self, weights, product, x, states, constants):
        def dropped(name, h, **options):
            if name in self.not_recurrent:
                return product(name, h, **options)
            return product(name, drop(h, constants["recurrent_kept"], self.rate), **options)

        return self.spec.step(weights, dropped, x, states, constants)


@dataclasses.dataclass(frozen=True)
class Zoneout(Around):
    """States that at random keep their old value.

        training     s = new where kept, else old      P(old) = rate, drawn for each unit and step
        inference    s = rate * old + (1 - rate) * new

    rates: one per state; the expectation at inference. Krueger et al., "Zoneout: Regularizing
    RNNs by Randomly Preserving Hidden Activations", ICLR 2017.

    The step finds the draws, `[B, U]` booleans for each state of a rate above 0, beside its input.
    """

    rates: tuple
    training: bool

    def noise(self, seed, steps, batch):
        drawn, constants = self.spec.noise(seed, steps, batch)
        if not self.training:
            return drawn, constants
        pairs = zip(self.state_sizes, self.rates, strict=True)
        kept = [draw_kept(seed(), [steps, batch, size], rate) for size, rate in pairs if rate]
        return (*drawn, tuple(kept)), constants

    def project(self, weights, x):
        if not self.training:
            return self.spec.project(weights, x)
        x, kept = x
        return self.spec.project(weights, x), kept

    def step(self, weights, product, x, states, constants):
        x, kept = x if self.training else (x, ())
        output, new = self.spec.step(weights, product, x, states, constants)
        kept = iter(kept)

        def zone(rate, old, new):
            if not rate:
                return new
            if self.training:
                return tf.where(next(kept), new, old)
            return rate * old + (1 - rate) * new

        zoned = tuple(map(zone, self.rates, states, new))
        return zoned[0] if output is new[0] else output, zoned

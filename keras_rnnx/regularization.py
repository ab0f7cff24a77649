"""Noise against overfitting: drawn once per sequence, before the loop, and handed to the step.

Draws are stateless (random bits of the Philox generator, the same with and without XLA and whatever
the precision) and happen in training only: nothing random is left in an inference graph.
"""

import dataclasses

import tensorflow as tf

from keras_rnnx.cells import CellSpec


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
class RecurrentDropout:
    """The step of `spec` with dropout on what it multiplies by its recurrent matrices.

    One mask `[B, U]` for all steps and gates. Gal and Ghahramani, "A Theoretically Grounded
    Application of Dropout in Recurrent Neural Networks", NeurIPS 2016 (tied weights).

    The step finds the mask in `constants["recurrent_kept"]`, booleans: they need no gradient.
    """

    spec: CellSpec
    rate: float

    def step(self, weights, product, x, states, constants):
        def dropped(name, h, **options):
            return product(name, drop(h, constants["recurrent_kept"], self.rate), **options)

        return self.spec.step(weights, dropped, x, states, constants)

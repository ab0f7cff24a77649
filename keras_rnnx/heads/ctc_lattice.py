"""The states that a CTC path goes through, and one step of a path, for sums and for the best one.

The labels of a row, with a blank before, between and after them, are its states:

    labels  c a a      states  _ c _ a _ a _

Each time step is in one state and emits its symbol. From a step to the next a path stays, goes on
by one state, or by two, over a blank between two different labels. Graves et al., "Connectionist
Temporal Classification", ICML 2006.

Axes: B batch, T time, C classes with the blank, L labels, S = 2 L + 1 states. Logarithms all over.
"""

from typing import Any
from typing import NamedTuple

import tensorflow as tf

from keras_rnnx import engine

# log 0, finite: a difference of two of these is a number, and so is its gradient.
NEVER = -1e30


class Lattice(NamedTuple):
    """The states of each row and what they emit, as the engine takes them.

    symbols: `[B, S]` ids. skips: `[B, S]`, 0 where a state may be reached over a blank, NEVER
    elsewhere. count: `[B]`, the labels of each row. emissions: `[T, B, S]`, the log-probabilities
    of the symbols. real: `[T, B]` booleans, or None.
    """

    symbols: Any
    skips: Any
    count: Any
    emissions: Any
    real: Any

    @classmethod
    def of(cls, labels, count, log_p, real, blank):
        """labels `[B, L]`, of which the first `count [B]` are real; `log_p [B, T, C]`."""
        blanks = tf.fill(tf.shape(labels), blank)
        symbols = tf.reshape(tf.stack([blanks, labels], axis=2), [-1, 2 * _size(labels, 1)])
        symbols = tf.pad(symbols, [[0, 0], [0, 1]], constant_values=blank)
        different = (symbols != blank) & (symbols != before(symbols, 2, blank))
        skips = tf.where(different, tf.cast(0, log_p.dtype), NEVER)
        emissions = tf.maximum(tf.gather(log_p, symbols, axis=2, batch_dims=1), NEVER)
        real = None if real is None else tf.transpose(real)
        return cls(symbols, skips, count, engine.swap_time_and_batch(emissions), real)

    def run(self, step, plan, **options):
        """`engine.run` of a step over all time steps; a path starts before the first state."""
        start = tf.one_hot(tf.zeros_like(self.count), _size(self.symbols, 1), 0.0, NEVER)
        start = tf.cast(start, self.skips.dtype)
        emissions, real, steps = engine.pad_time(
            self.emissions, self.real, plan.backend == "compiled"
        )
        options.update(plan=plan, steps=steps, mask=real)
        return engine.run(step, emissions, {}, (start,), (self.skips,), **options)

    def ends(self):
        """`[B, S]`: whether a path may end in a state, the last label or the blank after it."""
        states = tf.range(tf.shape(self.symbols)[1])
        last = 2 * self.count[:, None]
        return (states == last) | (states == last - 1)


def total_step(weights, product, emissions, states, constants):
    """The sum over all paths that have come to each state."""
    (alpha,), (skips,) = states, constants
    one, two = before(alpha, 1), before(alpha, 2) + skips
    most = tf.maximum(alpha, tf.maximum(one, two))
    total = tf.exp(alpha - most) + tf.exp(one - most) + tf.exp(two - most)
    alpha = most + tf.math.log(total) + emissions
    return alpha[:, 0], (alpha,)  # the output is not used; the engine wants one of known width


def best_step(weights, product, emissions, states, constants):
    """The best of these paths; the output says by how many states it went on, 0 to 2."""
    (alpha,), (skips,) = states, constants
    ways = tf.stack([alpha, before(alpha, 1), before(alpha, 2) + skips], axis=-1)
    best = tf.reduce_max(ways, axis=-1) + emissions
    return tf.argmax(ways, axis=-1, output_type=tf.int32), (best,)


def before(a, n, fill=NEVER):
    """Each state gets what the state n places before it had."""
    return tf.pad(a, [[0, 0], [n, 0]], constant_values=fill)[:, :-n]


def _size(a, axis):
    return tf.shape(a)[axis] if a.shape[axis] is None else a.shape[axis]

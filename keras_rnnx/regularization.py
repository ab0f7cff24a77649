"""Against overfitting: noise, drawn once per sequence, before the loop, and handed to the step; and
a penalty on what a layer puts out.

Draws are stateless (random bits of the Philox generator, the same with and without XLA and whatever
the precision) and happen in training only: nothing random is left in an inference graph.

A regularizer of the recurrence is a spec around a cell's spec: the same weights and projection, a
step that does more, and `noise`, which draws what that step needs.
"""

import dataclasses
import math

import keras
import tensorflow as tf

from keras_rnnx.annotations import Tensor
from keras_rnnx.cells import Around


def draw_kept(seed, shape, rate):
    """Booleans `shape`, each True with probability `1 - rate`.

    seed: `[2]` integers; replicas of a distribution strategy draw different numbers from it.
    """
    if rate >= 1:
        return tf.zeros(shape, tf.bool)
    bits = tf.random.stateless_uniform(
        shape, _of_replica(seed), minval=None, maxval=None, dtype=tf.uint32, alg="philox"
    )
    return bits >= tf.constant(int(rate * 2**32), tf.uint32)


def draw_normal(seed, shape, dtype):
    """Gaussian numbers of mean 0 and deviation 1, the same to rounding with and without XLA."""
    bits = tf.random.stateless_uniform(
        [*shape, 2], _of_replica(seed), minval=None, maxval=None, dtype=tf.uint32, alg="philox"
    )
    # Box and Muller 1958, from 23 bits each: a uniform float would be another one under XLA.
    bits = tf.cast(tf.bitwise.right_shift(bits, tf.constant(9, tf.uint32)), tf.int32)
    first, second = tf.unstack((tf.cast(bits, tf.float32) + 0.5) * 2.0**-23, axis=-1)
    normal = tf.sqrt(-2 * tf.math.log(first)) * tf.cos(2 * math.pi * second)
    return tf.cast(normal, dtype)


def _of_replica(seed):
    """A seed `[2]` from which each replica of a distribution strategy draws other numbers."""
    # Neither `stateless_fold_in` nor a uniform float: both give other numbers under XLA.
    first, second = tf.unstack(tf.cast(seed, tf.int32))
    replicas = tf.distribute.get_replica_context()
    replica = replicas.replica_id_in_sync_group if replicas is not None else 0
    spread = tf.cast(replica, tf.int32) * 0x3C6EF372  # far apart: neighbouring seeds are in use
    return tf.stack([tf.bitwise.bitwise_xor(first, spread), second])


def drop(x, kept, rate):
    """`x` where `kept`, scaled so that its mean stays, and 0 elsewhere ("inverted dropout")."""
    return tf.where(kept, x / (1 - rate), tf.zeros_like(x))


def dropped_input(x, seed, rate, mode, gates, time_axis):
    """The input of a cell with dropout: `x`, or in mode "gates" a tuple of it, one for each gate.

    modes:
        "variational"   one mask `[B, D]` for all steps and gates (Gal and Ghahramani 2016, tied)
        "gates"         one mask `[B, D]` for each gate (the same, untied)
        "step"          one mask `[B, D]` for each step (Zaremba et al., arXiv:1409.2329, 2014)
    """
    batch, steps = (tf.shape(x)[1 - time_axis], tf.shape(x)[time_axis])
    sizes = [steps if mode == "step" else 1, batch, x.shape[-1]]

    def dropped():
        kept = draw_kept(seed(), sizes, rate)  # laid out alike, wherever the time is
        return drop(x, kept if time_axis == 0 else tf.transpose(kept, [1, 0, 2]), rate)

    return tuple(dropped() for _ in range(gates)) if mode == "gates" else dropped()


def dropped_weights(weights, seed, rate, names):
    """`weights` with the matrices of these names dropped number by number, once for the batch.

    The raw weights stay as they are. Merity, Keskar and Socher, "Regularizing and Optimizing LSTM
    Language Models", ICLR 2018 (arXiv:1708.02182); DropConnect: Wan et al., ICML 2013.
    """
    kept = {name: draw_kept(seed(), weights[name].shape, rate) for name in names}
    return {**weights, **{name: drop(weights[name], kept[name], rate) for name in names}}


@dataclasses.dataclass(frozen=True)
class RecurrentDropout(Around):
    """Dropout within the recurrence; the states themselves are not dropped.

    modes:
        "variational"   what is multiplied by the recurrent matrices, with one mask `[B, U]` for all
                        steps and gates. Gal and Ghahramani, "A Theoretically Grounded Application
                        of Dropout in Recurrent Neural Networks", NeurIPS 2016 (tied weights)
        "gates"         the same with one mask for each gate (untied weights)
        "step"          the same with one mask for each step
        "candidate"     what is added to the state, with one mask for each step. Semeniuta, Severyn
                        and Barth, "Recurrent Dropout without Memory Loss", COLING 2016

    The step finds masks of the sequence in `constants["recurrent_kept"]`, and those of its own
    beside its input: booleans, which need no gradient.
    """

    rate: float
    mode: str = "variational"

    @property
    def per_step(self):
        return self.mode in ("step", "candidate")

    def noise(self, seed, steps, batch):
        drawn, constants = self.spec.noise(seed, steps, batch)
        size = self.units if self.mode == "candidate" else self.state_sizes[0]
        sets = sum(self.recurrent.values()) if self.mode == "gates" else 1
        sizes = [steps, batch, size] if self.per_step else [sets, batch, size]
        kept = draw_kept(seed(), sizes, self.rate)
        if self.per_step:
            return (*drawn, kept), constants
        return drawn, {**constants, "recurrent_kept": tuple(tf.unstack(kept, sets))}

    def project(self, weights, x):
        if not self.per_step:
            return self.spec.project(weights, x)
        x, kept = x
        return self.spec.project(weights, x), kept

    def prepare(self, weights):
        prepared = dict(self.spec.prepare(weights))
        if self.mode == "gates":  # a product for each gate
            for name, gates in self.recurrent.items():
                parts = tf.split(prepared.pop(name), gates, axis=-1)
                prepared.update({f"{name}/{k}": part for k, part in enumerate(parts)})
        return prepared

    def step(self, weights, product, x, states, constants):
        kept = constants.get("recurrent_kept")
        if self.per_step:
            x, kept = x
        return self.spec.step(
            weights, _Dropping(self, weights, product, kept), x, states, constants
        )


class _Dropping:
    """`product` of a step, with recurrent dropout."""

    def __init__(self, noise, weights, product, kept):
        self.noise, self.weights, self.product, self.kept = noise, weights, product, kept
        self.gate = 0  # of the next product, with masks for each

    def candidate(self, g):
        g = self.product.candidate(g)
        return drop(g, self.kept, self.noise.rate) if self.noise.mode == "candidate" else g

    def show(self, **values):
        self.product.show(**values)

    def __call__(self, name, h, **options):
        mode, rate = self.noise.mode, self.noise.rate
        if name not in self.noise.recurrent or mode == "candidate":
            return self.product(name, h, **options)
        if mode == "gates":
            return self._gate_by_gate(name, h, **options)
        kept = self.kept if mode == "step" else self.kept[0]
        return self.product(name, drop(h, kept, rate), **options)

    def _gate_by_gate(self, name, h, bias=None, plus=None, pieces=None):
        gates = self.noise.recurrent[name]
        kept = self.kept[self.gate : self.gate + gates]
        self.gate += gates
        dropped = [drop(h, mask, self.noise.rate) for mask in kept]
        values = [self.product(f"{name}/{k}", d) for k, d in enumerate(dropped)]
        value = tf.concat(values, axis=-1)
        if bias is not None:
            value = tf.nn.bias_add(value, self.weights[bias])
        value = value if plus is None else value + plus
        return value if pieces is None else tf.split(value, pieces, axis=-1)


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


@keras.saving.register_keras_serializable(package="keras_rnnx")
class ActivationPenalty(keras.regularizers.Regularizer):
    """Penalty on large outputs (AR) and on outputs that change much from step to step (TAR).

        activation * mean(h[t] ** 2) + temporal * mean((h[t + 1] - h[t]) ** 2)

    The means are over samples, steps and units: called, it gives the sum of those of each sample,
    which Keras divides by their number. Merity, McCann and Socher, "Revisiting Activation
    Regularization for Language RNNs", arXiv:1708.01009 (2017). Give it to a layer with
    `return_sequences` as `activity_regularizer`: what is no sequence (last outputs and states,
    `[B, U]`) has no penalty. Masked steps count with what they put out. Ragged outputs are refused.

    Args:
        activation: weight of the first part (2 in the paper).
        temporal: weight of the second part (1 in the paper).

    Example:

    >>> import numpy as np, keras_rnnx
    >>> penalty = keras_rnnx.ActivationPenalty(activation=2.0, temporal=1.0)
    >>> layer = keras_rnnx.LSTM(4, return_sequences=True, activity_regularizer=penalty)
    >>> _ = layer(np.ones((2, 5, 3), "float32"))
    >>> len(layer.losses)
    1
    """

    def __init__(self, activation: float = 0.0, temporal: float = 0.0) -> None:
        self.activation = activation
        self.temporal = temporal

    def __call__(self, x: Tensor) -> Tensor:
        if isinstance(x, tf.RaggedTensor):
            raise ValueError(
                "ActivationPenalty got a RaggedTensor, expected outputs [B, T, U]: leave "
                "return_ragged out, and make the outputs ragged behind the layer."
            )
        x = tf.convert_to_tensor(x)
        if x.dtype in (tf.float16, tf.bfloat16):
            x = tf.cast(x, tf.float32)
        if x.shape.rank != 3:
            return tf.zeros([], x.dtype)
        loss = self.activation * tf.reduce_mean(x * x)
        if self.temporal:
            change = tf.square(x[:, 1:] - x[:, :-1])
            count = tf.cast(tf.size(change), x.dtype)
            loss += self.temporal * tf.math.divide_no_nan(tf.reduce_sum(change), count)
        return loss * tf.cast(tf.shape(x)[0], x.dtype)

    def get_config(self):
        return {"activation": self.activation, "temporal": self.temporal}

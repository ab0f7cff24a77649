"""Scheduled sampling: a decoder that trains on what it said itself, now and then."""

import dataclasses
from typing import Any
from typing import Literal

import keras
import tensorflow as tf

from keras_rnnx.annotations import Tensor
from keras_rnnx.seq2seq import in_graph
from keras_rnnx.seq2seq.in_graph import Step


@keras.saving.register_keras_serializable(package="keras_rnnx")
class InverseSigmoidDecay(keras.optimizers.schedules.LearningRateSchedule):
    """`1 - k / (k + exp(step / k))`: from nearly 0 to 1, for the rate of scheduled sampling.

    Bengio et al., "Scheduled Sampling for Sequence Prediction with Recurrent Neural Networks",
    NeurIPS 2015 (arXiv:1506.03099), whose probability is that of the teacher, 1 minus this one.

    Args:
        k: above 1; the larger, the later. Half is reached at the step `k * log(k)`.

    Example:

    >>> from keras_rnnx.seq2seq import InverseSigmoidDecay
    >>> round(float(InverseSigmoidDecay(10.0)(23)), 2)
    0.5
    """

    def __init__(self, k: float) -> None:
        if k <= 1:
            raise ValueError(f"k is {k}, expected a number above 1.")
        self.k = k

    def __call__(self, step: int | Tensor) -> Tensor:
        # Divided by the exponential, which may then go to 0 and not to infinity.
        small = tf.exp(-tf.cast(step, tf.float32) / self.k)
        return 1.0 / (1.0 + self.k * small)

    def get_config(self):
        return {"k": self.k}


@keras.saving.register_keras_serializable(package="keras_rnnx")
@dataclasses.dataclass(frozen=True)
class ScheduledSampling:
    """Inputs of the decoder in training that are its own outputs, for `Seq2Seq`.

    With the probability `rate` an input is what the decoder gave at the step before instead of the
    target: for a decoder of ids a token drawn from its distribution, or the likeliest one; for a
    decoder of numbers its output. The decoder runs once step by step, as in inference, to find
    these inputs; then it is trained on them as on any others. Gradients do not go through what was
    fed. Bengio et al., NeurIPS 2015 (arXiv:1506.03099).

    Args:
        rate: a number from 0 to 1, or a `keras.optimizers.schedules.LearningRateSchedule` of
            the optimizer's iterations, such as `InverseSigmoidDecay`.
        choice: `"sample"` or `"argmax"`, for a decoder of ids.

    Raises:
        ValueError: for a rate outside 0 to 1, or another choice.

    Example:

    >>> from keras_rnnx.seq2seq import InverseSigmoidDecay, ScheduledSampling
    >>> float(ScheduledSampling(rate=0.25).at(1000))
    0.25
    """

    rate: float | keras.optimizers.schedules.LearningRateSchedule
    choice: Literal["sample", "argmax"] = "sample"

    def __post_init__(self):
        if self.choice not in ("sample", "argmax"):
            raise ValueError(f'choice is {self.choice!r}, expected "sample" or "argmax".')
        if not callable(self.rate) and not 0 <= self.rate <= 1:
            raise ValueError(f"rate is {self.rate}, expected 0 to 1, or a schedule.")

    def at(self, iteration: int | Tensor) -> Tensor:
        """The rate at this iteration of the optimizer."""
        return tf.cast(self.rate(iteration) if callable(self.rate) else self.rate, tf.float32)

    def mix(
        self,
        step: Step,
        state: Any,
        constants: Any,
        inputs: Tensor,
        rate: float | Tensor,
        seed: Tensor,
    ) -> Tensor:
        """The inputs `[B, T]` or `[B, T, features]`, some of them the decoder's own.

        step: the step function of a decoder, with its `state` and `constants` at the start. rate:
        how many inputs are replaced. seed: `[2]` integers.
        """
        B, T = tf.shape(inputs)[0], tf.shape(inputs)[1]
        by_step = tf.transpose(inputs, [1, 0, *range(2, inputs.shape.rank)])
        own = tf.random.stateless_uniform([T, B], seed) < rate
        seeds = in_graph.seeds_of(seed + tf.constant([1, 0]), T)
        ids = inputs.dtype.is_integer

        def body(loop, state):
            t, now, mixed = loop
            mixed = mixed.write(t, now)
            logits, new, *_ = step(now, state, constants)
            if ids:
                logits = tf.cast(logits, tf.float32)
                if self.choice == "sample":
                    logits += in_graph.gumbel(tf.shape(logits), seeds[t])
                given = tf.argmax(logits, axis=-1, output_type=inputs.dtype)
            else:
                given = tf.cast(logits, inputs.dtype)
            following = tf.minimum(t + 1, T - 1)
            teacher = by_step[following]
            chosen = own[following]
            if ids:  # padding stays padding
                chosen &= teacher != 0
            wide = tf.reshape(chosen, [-1] + (inputs.shape.rank - 2) * [1])
            now = tf.where(wide, given, teacher)
            return (t + 1, now, mixed), in_graph.as_shaped(new, state)

        mixed = tf.TensorArray(inputs.dtype, T, element_shape=[None, *inputs.shape[2:]])
        carry = ((tf.constant(0), by_step[0], mixed), state)
        (_, _, mixed), _ = tf.while_loop(
            lambda loop, state: loop[0] < T,
            body,
            carry,
            shape_invariants=in_graph.invariants(carry),
        )
        mixed = tf.transpose(mixed.stack(), [1, 0, *range(2, inputs.shape.rank)])
        return tf.stop_gradient(tf.ensure_shape(mixed, inputs.shape))

    def get_config(self):
        return {"rate": keras.saving.serialize_keras_object(self.rate), "choice": self.choice}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "rate": keras.saving.deserialize_keras_object(config["rate"])})

"""Ways of going back in time: what the backward pass keeps, and how far it goes.

A frozen option of a layer, `backward=...`, that saves and loads with it.
"""

import dataclasses
import math
import numbers
from typing import Literal

import keras
import tensorflow as tf

from keras_rnnx.annotations import Tensor


@dataclasses.dataclass(frozen=True)
class Backward:
    """Base: goes back over the whole sequence and keeps states and products of every step.

    clip_norm: the largest norm that the gradient of a sample's states may have as it goes from one
        step to the one before; a longer one is scaled down. None: as it is.
    """

    clip_norm: float | None = dataclasses.field(default=None, kw_only=True)

    checkpointed = False

    def __post_init__(self):
        norm = self.clip_norm
        if norm is not None and (not isinstance(norm, numbers.Real) or not norm > 0):
            raise ValueError(f"clip_norm is {norm!r}, expected a number above 0, or None.")

    @property
    def truncate(self) -> int | None:
        """Steps after which the states' gradient stops."""
        return None

    @property
    def reason(self) -> str:
        """A sentence for the plan, or empty."""
        return ""

    def get_config(self):
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@keras.saving.register_keras_serializable(package="keras_rnnx")
class Full(Backward):
    """Backpropagation through time over the whole sequence: exact, memory grows with its length.

    `backward="full"` is `Full()`.

    Args:
        clip_norm: the largest norm that the gradient of a sample's states (all states together)
            may have as it goes from one step to the one before; a longer one is scaled down to
            it (Graves, "Generating Sequences With Recurrent Neural Networks", 2013, clips there
            too, number by number). None leaves it. For the norm of all gradients together use an
            optimizer's `global_clipnorm`.

    Example:

    >>> import keras_rnnx
    >>> layer = keras_rnnx.LSTM(4, backward=keras_rnnx.Full(clip_norm=1.0))
    >>> layer.backward
    Full(clip_norm=1.0)
    """


@keras.saving.register_keras_serializable(package="keras_rnnx")
@dataclasses.dataclass(frozen=True)
class Truncated(Backward):
    """Truncated backpropagation through time within a sequence.

    The gradient of the states stops before every step whose number is a multiple of `steps`, as if
    the sequence came in chunks of so many, each starting from the last states of the one before.
    The forward pass is that of the whole sequence. Williams and Peng, "An Efficient Gradient-Based
    Algorithm for On-Line Training of Recurrent Network Trajectories", Neural Computation 2 (1990).

    Masked steps count. To train over sequences that do not fit into memory, or never end, see
    `keras_rnnx.TruncatedBPTT`.

    Args:
        steps: positive integer.
        clip_norm: see `keras_rnnx.Full`.

    Example:

    >>> import keras_rnnx
    >>> layer = keras_rnnx.LSTM(4, backward=keras_rnnx.Truncated(20))
    >>> layer.plan(training=True).reasons[-1]
    'The gradient of the states stops every 20 steps.'
    """

    steps: int

    def __post_init__(self):
        super().__post_init__()
        if not _positive(self.steps):
            raise ValueError(f"Truncated got steps={self.steps!r}, expected a positive integer.")

    @property
    def truncate(self) -> int:
        """Steps after which the states' gradient stops."""
        return self.steps

    @property
    def reason(self) -> str:
        """A sentence for the plan."""
        return f"The gradient of the states stops every {self.steps} steps."


@keras.saving.register_keras_serializable(package="keras_rnnx")
@dataclasses.dataclass(frozen=True)
class Checkpointed(Backward):
    """Full backpropagation through time in little memory: states are kept now and then.

    The forward pass keeps the states at the start of every segment; the backward pass runs forward
    through a segment again before it goes back over it. The input is projected segment by segment
    too, in inference as well. Gradients are those of `Full`, to rounding; time is that of one more
    forward pass. Chen et al., "Training Deep Nets with Sublinear Memory Cost", arXiv:1604.06174
    (2016); for recurrent nets Gruslys et al., NeurIPS 2016.

    Args:
        every: steps of a segment, a positive integer, or "sqrt": about the square root of the
            length, which needs the least memory.
        clip_norm: see `keras_rnnx.Full`.

    Example:

    >>> import keras_rnnx
    >>> layer = keras_rnnx.LSTM(4, backward=keras_rnnx.Checkpointed("sqrt"))
    >>> layer.plan(training=True).backward
    Checkpointed(clip_norm=None, every='sqrt')
    """

    every: int | Literal["sqrt"] = "sqrt"

    checkpointed = True

    def __post_init__(self):
        super().__post_init__()
        if self.every != "sqrt" and not _positive(self.every):
            raise ValueError(
                f'Checkpointed got every={self.every!r}, expected a positive integer or "sqrt".'
            )

    @property
    def reason(self) -> str:
        segment = "about the square root of all" if self.every == "sqrt" else str(self.every)
        return f"States are kept at the start of segments of {segment} steps, which run again."

    def segment(self, steps: int | Tensor) -> int | Tensor:
        """The steps of a segment, of `steps` in all, an int or a tensor."""
        if self.every != "sqrt":
            return self.every
        if isinstance(steps, int):
            root = math.isqrt(max(steps, 1))
            # A segment that divides the length spares padding.
            near = range(root, 2 * root + 1)
            return next((n for n in near if steps % n == 0), root)
        powers = tf.constant([4**k for k in range(1, 16)])
        return tf.bitwise.left_shift(1, tf.reduce_sum(tf.cast(steps > powers, tf.int32)))


def _positive(number):
    integer = isinstance(number, numbers.Integral) and not isinstance(number, bool)
    return integer and number > 0


def read(backward):
    """The option as an object; "autodiff" goes back like `Full`, by TensorFlow's own means."""
    if isinstance(backward, Backward):
        return backward
    if backward in ("full", "autodiff"):
        return Full()
    raise ValueError(
        f'backward is {backward!r}, expected one of "full", "autodiff", keras_rnnx.Full(), '
        "keras_rnnx.Truncated(steps) and keras_rnnx.Checkpointed()."
    )

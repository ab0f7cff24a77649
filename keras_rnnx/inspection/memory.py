"""How far back an input still changes the output."""

import contextlib
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_rnnx import engine
from keras_rnnx.annotations import Tensor
from keras_rnnx.inspection import quietly

DIRECTIONS = 64  # of the output: as many are taken exactly, more by this many random sums


class Memory(NamedTuple):
    """What `memory_length` has found.

    Attributes:
        length: the longest lag that counts, in steps.
        norms: `[T]`, the norm of the derivative at each lag 0, 1, ..., T - 1; NaN where no row is
            so long.

    Example:

    >>> import numpy as np
    >>> from keras_rnnx.inspection import Memory
    >>> Memory(length=1, norms=np.array([2.0, 0.5, 0.001])).length
    1
    """

    length: int
    norms: np.ndarray


def memory_length(model: keras.Model, x: Tensor, fraction: float = 0.01) -> Memory:
    """How far back an input still changes the output at the last step: the effective memory.

        n[k] = sqrt(mean over rows of |d output / d x[t - k]|^2)       t: a row's last real step
        length = the largest k with n[k] >= fraction * max(n)

    `|.|` is the Frobenius norm over all features and outputs, the mean goes over the rows that have
    such a step, and x is what the first recurrent layer of the model gets: of a model of ids the
    embeddings, which have a gradient where ids have none. The output is the model's: `[B, C]`, or
    `[B, T, C]` at the last real step; a softmax that is sure of itself has small derivatives. Of
    more than 64 outputs n is estimated, along 64 random directions.

    A length near the number of steps says that the memory may be longer: try longer sequences. It
    is what the output reacts to for these inputs, to first order, and not what a task needs. The
    model is called as at inference, stateful layers begin with zeros, and it is left as it was.

    Args:
        model: a Keras model.
        x: one batch of its input.
        fraction: of the largest norm, from which on a lag counts; above 0, at most 1.

    Returns:
        A `Memory`: `length` and `norms`, lag by lag.

    Masks: masked steps have no derivative but count as steps; rows without a real step are left
    out.

    Raises:
        ValueError: for another fraction, a model without a recurrent layer of this package, or a
            derivative that is zero or not finite.
        TypeError: for something else than a model and one batch.

    Example:

    >>> import keras, keras_rnnx, numpy as np
    >>> from keras_rnnx.inspection import memory_length
    >>> rnn = keras_rnnx.SimpleRNN(4, recurrent_initializer=keras.initializers.Identity(0.5))
    >>> model = keras.Sequential([keras.Input((None, 3)), rnn])
    >>> memory_length(model, np.zeros((2, 20, 3), "float32")).length  # 0.5 ** 7 < 0.01
    6
    """
    if not 0 < fraction <= 1:
        raise ValueError(
            f"memory_length got fraction={fraction!r}, expected above 0 and at most 1."
        )
    x = quietly.tensors(model, x, "memory_length")
    layers = quietly.recurrent_layers(model, "memory_length")
    known: dict[str, int] = {}

    def squares(direction):
        with tf.GradientTape() as tape, contextlib.ExitStack() as stack:
            first = {}
            for _, layer in layers:
                stack.enter_context(_watched(layer, tape, first))
            outputs = keras.tree.flatten(model(x, training=False))
            last = tf.concat([_last(output, first) for output in outputs], axis=-1)
            known["outputs"] = count = last.shape[-1]
            total = tf.reduce_sum(
                last * tf.cast(tf.gather(_directions(count), direction), last.dtype)
            )
        gradient = tape.gradient(total, first["x"]) if first else None
        if gradient is None:
            raise ValueError(
                f"memory_length got {model.name!r}, whose output has no derivative by the input of "
                "its first recurrent layer."
            )
        gradient = tf.cast(gradient, tf.float64)
        real = tf.ones(tf.shape(gradient)[:2], tf.bool) if first["mask"] is None else first["mask"]
        return tf.reduce_sum(gradient**2, range(2, gradient.shape.rank)), real

    with quietly.undisturbed(model), engine.portable():
        graph = tf.function(squares).get_concrete_function(tf.TensorSpec([], tf.int32))
        count = min(known["outputs"], DIRECTIONS)
        found = [graph(tf.constant(k)) for k in range(count)]
    total, real = sum(square.numpy() for square, _ in found), found[0][1].numpy()
    norms = _by_lag(total, real)
    finite = np.isfinite(total).all()
    if not finite or not np.any(total):
        what = "is zero at every step" if finite else "is not finite"
        raise ValueError(
            f"memory_length got {model.name!r}, and the derivative of its output {what}."
        )
    return Memory(int(np.flatnonzero(norms >= fraction * np.nanmax(norms))[-1]), norms)


@contextlib.contextmanager
def _watched(layer, tape, first):
    """While in here, the input of the first recurrent layer that is called is watched."""
    run = layer._run

    def watched(x, states, mask, *others, **options):
        if not first and tf.is_tensor(x) and quietly.here(x):
            x = tf.identity(x)  # a tensor of its own, for other layers may take the same input
            tape.watch(x)
            first.update(x=x, mask=mask)
        return run(x, states, mask, *others, **options)

    with quietly.instead(layer, _run=watched):
        yield


def _last(output, first):
    """`[B, C]` of the last real step of `[B, T, C]`, or as it is."""
    mask = getattr(output, "_keras_mask", None)
    if output.shape.rank < 3:
        return tf.reshape(
            output, [tf.shape(output)[0], output.shape[1] if output.shape.rank > 1 else 1]
        )
    if mask is None and first.get("mask") is not None and output.shape[1] == first["x"].shape[1]:
        mask = first["mask"]
    last = engine.last_real(output, mask)
    return tf.reshape(last, [tf.shape(last)[0], np.prod(last.shape[1:])])


def _directions(count):
    """Directions of an output of so many numbers, in which squares add up to that of the whole."""
    if count <= DIRECTIONS:
        return np.eye(count)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(DIRECTIONS, count))
    return signs / np.sqrt(DIRECTIONS)


def _by_lag(squares, real):
    """Root mean square over rows of `[B, T]`, by the lag from each row's last real step."""
    B, T = real.shape
    last = np.where(real.any(axis=1), T - 1 - real[:, ::-1].argmax(axis=1), -1)
    steps = last[:, None] - np.arange(T)
    exists = steps >= 0
    of_lag = np.where(exists, np.take_along_axis(squares, np.maximum(steps, 0), axis=1), 0)
    rows = exists.sum(axis=0)
    return np.where(rows > 0, np.sqrt(of_lag.sum(axis=0) / np.maximum(rows, 1)), np.nan)

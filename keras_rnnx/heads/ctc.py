"""Connectionist temporal classification: labels for sequences, without their places in time."""

from typing import Literal

import keras
import tensorflow as tf

from keras_rnnx import engine
from keras_rnnx.annotations import Tensor
from keras_rnnx.heads.ctc_inputs import blank_of
from keras_rnnx.heads.ctc_inputs import real_labels
from keras_rnnx.heads.ctc_inputs import real_steps
from keras_rnnx.heads.ctc_lattice import NEVER
from keras_rnnx.heads.ctc_lattice import Lattice
from keras_rnnx.heads.ctc_lattice import total_step
from keras_rnnx.replicas import mean_over_all


def ctc_loss(
    labels: Tensor,
    logits: Tensor,
    mask: Tensor | None = None,
    sequence_length: Tensor | None = None,
    label_length: Tensor | None = None,
    blank: int = 0,
) -> Tensor:
    """The loss of each sequence: -log of the probability of its labels, over all their paths.

        p(labels) = sum over the paths that spell them of prod_t softmax(logits[t])[path[t]]

    A path has one symbol for each step; repeated symbols and then blanks taken away, it spells
    labels. Graves et al., "Connectionist Temporal Classification: Labelling Unsegmented Sequence
    Data with Recurrent Neural Networks", ICML 2006, equations 3 and 6 to 8. The sum is a recurrence
    that the engine runs and differentiates like any cell: compiled by XLA where that works.

    Args:
        labels: `[B, L]` integers. The blank and negative ones are padding, wherever they stand.
        logits: `[B, T, C]`, or log-probabilities, which are their own logits.
        mask: `[B, T]` booleans, True where a step is real, in any pattern; None for the mask that
            Keras attached to the logits, if any.
        sequence_length: `[B]` integers, the steps of each row; with a mask both must hold.
        label_length: `[B]` integers, the labels of each row; None for all up to the padding.
        blank: id of the blank, an int; a negative one counts from the end.

    Returns:
        `[B]`, float32 (float64 of float64 logits), in nats. Infinity where no path spells the
        labels, as when there are more of them, and blanks between equal ones, than real steps; the
        gradient of such a row is 0.

    Masks: masked steps are left out; what they hold, NaN included, changes neither loss nor
    gradient, and their gradient is 0. A row without a real step costs 0, whatever its labels.

    Half precision is computed in float32. First derivatives only.

    Raises:
        ValueError: for shapes, types or a blank other than expected, or a label that is no class;
            in a graph the latter is an `InvalidArgumentError` when it runs.

    Example:

    >>> import numpy as np
    >>> from keras_rnnx.heads import ctc_loss
    >>> loss = ctc_loss(np.array([[1]]), np.zeros((1, 2, 2), "float32"))
    >>> round(float(loss[0]), 4)  # -log(3 / 4): "11", "_1" and "1_" of four paths
    0.2877
    """
    logits, real = real_steps("ctc_loss", logits, mask, sequence_length)
    blank = blank_of("ctc_loss", blank, logits.shape[2])
    labels, count = real_labels("ctc_loss", labels, logits, label_length, blank)
    return path_loss(labels, count, logits, real, blank)


def path_loss(labels, count, logits, real, blank):
    """`[B]` losses of labels `[B, L]`, of which the first `count [B]` are real."""
    plan = engine.choose(
        jit_compile="auto",
        backward="full",
        training=True,
        eager=tf.executing_eagerly(),
        portable=engine.is_portable(),
        xla_failure=engine.failure(engine.device_type()),
    )
    if plan.backend == "compiled" and labels.shape[1] is None:  # few lengths to compile for
        size = tf.shape(labels)[1]
        more = engine.bucket(size) - size
        labels = tf.pad(labels, [[0, 0], [0, more]], constant_values=blank)
    lattice = Lattice.of(labels, count, tf.nn.log_softmax(logits), real, blank)
    _, (alpha,) = lattice.run(total_step, plan, last_only=True)
    log_p = tf.reduce_logsumexp(tf.where(lattice.ends(), alpha, NEVER), axis=1)
    losses = tf.where(log_p < NEVER / 2, float("inf"), -log_p)
    return tf.where(has_steps(logits, real), losses, tf.zeros_like(losses))


def has_steps(logits, real):
    """`[B]`: whether a row has a real step."""
    return tf.reduce_any(tf.ones(tf.shape(logits)[:2], tf.bool) if real is None else real, axis=1)


@keras.saving.register_keras_serializable(package="keras_rnnx")
class CTCLoss(keras.losses.Loss):
    """`ctc_loss` for `model.compile`: takes the mask of the logits, and labels as they are.

    Args:
        blank: id of the blank, an int; a negative one counts from the end.
        average: `"sequences"`, the mean over the rows that have a real step; `"labels"`, the sum
            divided by the number of labels of those rows; `None`, the sum.
        infinite: what becomes of rows whose labels no path spells: `"raise"`, an error that names
            them; `"keep"`, an infinite loss; `"zero"`, a loss of 0. None of them moves a weight.
            XLA has no errors: under `jit_compile=True` the first is the second.
        name: of the loss.

    Call arguments:
        y_true: `[B, L]` integers, of which the blank and negative ones are padding.
        y_pred: `[B, T, C]` logits. The mask that Keras attached says which steps are real.
        sample_weight: `[B]`, which multiplies the loss, as in Keras, and not the count that it is
            divided by; or None.

    Returns:
        A scalar, float32 (float64 of float64 logits); 0 where no row has a real step.

    Masks: as those of `ctc_loss`. For lengths instead of masks, call `ctc_loss`.

    Raises:
        ValueError: for another average or infinite than those above, and as `ctc_loss`.
        tf.errors.InvalidArgumentError: for rows whose labels no path spells, if so asked.

    Example:

    >>> import numpy as np
    >>> from keras_rnnx.heads import CTCLoss
    >>> loss = CTCLoss()(np.array([[1, -1]]), np.zeros((1, 2, 2), "float32"))
    >>> round(float(loss), 4)
    0.2877
    """

    def __init__(
        self,
        blank: int = 0,
        average: Literal["sequences", "labels"] | None = "sequences",
        infinite: Literal["raise", "keep", "zero"] = "raise",
        name: str | None = "ctc_loss",
    ) -> None:
        super().__init__(name=name)
        if average not in ("sequences", "labels", None):
            raise ValueError(f'average is {average!r}, expected "sequences", "labels" or None.')
        if infinite not in ("raise", "keep", "zero"):
            raise ValueError(f'infinite is {infinite!r}, expected "raise", "keep" or "zero".')
        self.blank, self.average, self.infinite = blank, average, infinite

    def __call__(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> Tensor:
        # Not `call`: Keras would round the labels to the dtype of the loss first, and multiply
        # losses by a mask of steps after.
        logits, real = real_steps("CTCLoss", y_pred)
        blank = blank_of("CTCLoss", self.blank, logits.shape[2])
        labels, count = real_labels("CTCLoss", y_true, logits, None, blank)
        losses = path_loss(labels, count, logits, real, blank)
        if sample_weight is not None:  # a weight of 0 leaves out an infinite row too
            weight = _weight_of_rows(sample_weight, losses)
            losses = tf.math.multiply_no_nan(losses, weight)
        total = tf.reduce_sum(self.finite(losses))
        if self.average is None:
            return total
        counts = tf.cast(has_steps(logits, real), losses.dtype)
        if self.average == "labels":
            counts *= tf.cast(count, losses.dtype)
        return mean_over_all(total, tf.reduce_sum(counts))

    def finite(self, losses: Tensor) -> Tensor:
        """The losses `[B]`, with what was asked for in place of infinity."""
        if self.infinite == "keep":
            return losses
        infinite = tf.math.is_inf(losses)
        if self.infinite == "zero":
            return tf.where(infinite, tf.zeros_like(losses), losses)
        message = (
            "CTCLoss got rows whose labels no path spells: they have more labels, with a blank "
            "between equal ones, than real steps, or logits of -inf. Give longer sequences, or "
            'CTCLoss(infinite="zero"), which leaves such rows out. The rows of the batch:'
        )
        rows = tf.reshape(tf.where(infinite), [-1])
        check = tf.debugging.Assert(~tf.reduce_any(infinite), [message, rows])
        with tf.control_dependencies([] if check is None else [check]):
            return tf.identity(losses)

    def get_config(self):
        return {
            "blank": self.blank,
            "average": self.average,
            "infinite": self.infinite,
            "name": self.name,
        }


def _weight_of_rows(weight, losses):
    """`[B]` weights, from `[B]` or `[B, 1]`."""
    weight = tf.cast(weight, losses.dtype)
    rank, shape = weight.shape.rank, tuple(weight.shape)
    if rank not in (1, 2) or (rank == 2 and weight.shape[1] != 1):
        raise ValueError(f"CTCLoss got a sample_weight of shape {shape}, expected (batch,).")
    return tf.reshape(weight, [-1])

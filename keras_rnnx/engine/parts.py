"""A batch in parts that run side by side, each in a loop of its own.

Within a step the cores would have to wait for each other twice, at the product and at the gates. A
part waits for nobody: TensorFlow runs independent compiled calls of a graph on different cores.
With a mask there are more parts, each of rows of like length, since a loop ends with its longest.
"""

import tensorflow as tf

from keras_rnnx.engine.masking import extent

LEAST_ROWS = 8  # of a part: a product of fewer rows costs nearly as much


def in_parts(run, parts, by_step, mask, by_sample, last_only):
    """`run(by_step, mask, by_sample) -> (outputs, states)` on parts of the batch, put together.

    Args:
        parts: how many at most; with a mask twice as many.
        by_step: tree of `[T, B, ...]`.
        mask: `[T, B]` booleans or None.
        by_sample: tree of `[B, ...]`.
        last_only: whether the outputs are `[B, ...]` instead of `[T, B, ...]`.
    """
    batch = tf.nest.flatten(by_step)[0].shape[1]
    if parts == 1 or (batch is not None and batch < 2 * LEAST_ROWS):
        return run(by_step, mask, by_sample)
    if batch is None:
        batch = tf.shape(tf.nest.flatten(by_step)[0])[1]
    if mask is None:
        rows = Rows(row_limits(batch, parts))
    else:
        first, last = extent(mask)
        order = tf.argsort(last - first, direction="DESCENDING", stable=True)
        rows = Rows(row_limits(batch, 2 * parts), order)
    pieces = zip(
        rows.split(by_step, 1),
        rows.split(mask, 1) if mask is not None else rows.count * [None],
        rows.split(by_sample, 0),
        strict=True,
    )
    outputs, states = zip(*(run(*piece) for piece in pieces), strict=True)
    return rows.join(outputs, 0 if last_only else 1), rows.join(states, 0)


def row_limits(batch, parts):
    """Where each part begins, and the end: as many parts as there are rows for.

    A batch whose size is unknown yet has `parts` of them, of which the last may be empty.
    """
    if isinstance(batch, int):
        count = max(1, min(parts, batch // LEAST_ROWS))
        return [batch * k // count for k in range(count + 1)]
    count = tf.clip_by_value(batch // LEAST_ROWS, 1, parts)
    return [batch * tf.minimum(k, count) // count for k in range(parts + 1)]


class Rows:
    """Which rows go into which part: those between two limits, perhaps in another order first.

    Trees of tensors are split along their axis of rows and joined again, each the gradient of the
    other: TensorFlow would pad the gradient of every slice to the whole, and scatter that of every
    gathered row by itself.
    """

    def __init__(self, limits, order=None):
        self.ranges = list(map(slice, limits[:-1], limits[1:]))
        self.order = order
        self.back = None if order is None else tf.argsort(order)

    @property
    def count(self):
        return len(self.ranges)

    def split(self, tree, axis):
        """A tree for each part."""
        pieces = [self._split(a, axis) for a in tf.nest.flatten(tree)]
        return [
            tf.nest.pack_sequence_as(tree, [piece[k] for piece in pieces])
            for k in range(self.count)
        ]

    def join(self, trees, axis):
        """The tree of all rows, in their old order."""
        pieces = zip(*map(tf.nest.flatten, trees), strict=True)
        return tf.nest.pack_sequence_as(trees[0], [self._join(p, axis) for p in pieces])

    def _split(self, a, axis):
        if not a.dtype.is_floating:
            return self._cut(a, axis)

        @tf.custom_gradient
        def split(a):
            return self._cut(a, axis), lambda *d: self._join(d, axis)

        return split(a)

    def _join(self, pieces, axis):
        if not pieces[0].dtype.is_floating:
            return self._put_together(pieces, axis)

        @tf.custom_gradient
        def join(*pieces):
            return self._put_together(pieces, axis), lambda d: self._split(d, axis)

        return join(*pieces)

    def _cut(self, a, axis):
        if self.order is not None:
            return [tf.gather(a, self.order[rows], axis=axis) for rows in self.ranges]
        return [a[(slice(None),) * axis + (rows,)] for rows in self.ranges]

    def _put_together(self, pieces, axis):
        a = tf.concat(pieces, axis)
        return a if self.back is None else tf.gather(a, self.back, axis=axis)

"""Loops and the arrays that grow in them: the same code as a graph loop or as a Python loop.

In a graph an array is a TensorList held by its handle (`tf.TensorArray` would do, but only with a
static element shape, and then a sequence of zero steps with an unknown batch cannot be stacked).
In a Python loop, eager or unrolled, it is a plain list.
"""

import tensorflow as tf


def repeat(steps, read, body, carry, unroll=False, differentiable=False):
    """Repeat `carry = body(k, read(k, carry), carry)` for k = 0 .. steps - 1.

    The carry is a tree of tensors and of handles of arrays.

    `read` gives what step k takes from arrays. In a graph it is called one step ahead, with the
    carry that step k will get, and its result travels in a carry of its own: XLA on a CPU would
    otherwise compute a sigmoid together with the read, number by number instead of by vectors.
    In a plain graph the read then waits for nothing.

    `differentiable`: TensorFlow will differentiate the loop itself; XLA then needs the bound.
    """
    if unroll or tf.executing_eagerly() or (isinstance(steps, int) and steps == 0):
        for k in range(int(steps)):
            carry = body(k, read(k, carry), carry)
        return carry
    if differentiable:
        now, following = read, lambda k, carry: ()  # a carry would cost memory at every step
    else:
        now, following = None, lambda k, carry: read(_clipped(k, steps), carry)

    def iteration(k, ahead, carry):
        carry = body(k, now(k, carry) if now else ahead, carry)
        return k + 1, following(k + 1, carry), carry

    first = tf.constant(0)
    _, _, carry = tf.while_loop(
        lambda k, *_: k < steps,
        iteration,
        (first, following(first, carry), carry),
        maximum_iterations=steps if differentiable else None,
    )
    return carry


def at(a, t):
    """`a[t]`, of which a graph would make six operations instead of one."""
    return a[t] if isinstance(t, int) else tf.gather(a, t)


def _clipped(k, steps):
    """`k`, or the last step where it is beyond, or 0 where there is none."""
    k = tf.minimum(k, steps - 1)
    return k if isinstance(steps, int) else tf.maximum(k, 0)


class Array:
    """A `[steps, ...]` array written step by step; `None` dimensions of `spec` are the batch.

    What is carried through the loop is `start()`, `write(...)` of it, and so on; `stack` turns the
    last one into a tensor. Elements never written are zero.

    shape: of an element as numbers, where more than the batch is unknown.
    over: a tensor `[steps, ...]` to start from instead of zeros. `read` gives its elements, each of
    them before it is written: in a compiled loop both then live in the same memory.
    """

    def __init__(self, spec, steps, batch=None, unroll=False, over=None, shape=None):
        self.dtype = spec.dtype
        self.python = unroll or tf.executing_eagerly()
        self.steps = steps
        self.shape = element_shape(spec, batch) if shape is None else shape
        self.over = over

    def start(self):
        if self.python:
            return ()
        if self.over is not None:
            return tf.raw_ops.TensorListFromTensor(tensor=self.over, element_shape=self.shape)
        return tf.raw_ops.TensorListReserve(
            element_shape=self.shape, num_elements=self.steps, element_dtype=self.dtype
        )

    def read(self, handle, t):
        if self.python:
            return self.over[t]
        element = tf.raw_ops.TensorListGetItem(
            input_handle=handle, index=t, element_shape=self.shape, element_dtype=self.dtype
        )
        return tf.ensure_shape(element, self.over.shape[1:])

    def write(self, handle, t, value):
        if self.python:
            return (*handle, (t, value))  # backward passes write from the end
        return tf.raw_ops.TensorListSetItem(input_handle=handle, index=t, item=value)

    def stack(self, handle):
        if self.python:
            if handle:
                return tf.stack([value for _, value in sorted(handle, key=lambda item: item[0])])
            return tf.zeros(tf.concat([[0], self.shape], axis=0), self.dtype)
        return tf.raw_ops.TensorListStack(
            input_handle=handle,
            element_shape=self.shape,
            element_dtype=self.dtype,
            num_elements=self.steps if isinstance(self.steps, int) else -1,
        )


def element_shape(spec, batch):
    """The shape of `spec` as numbers, with `batch` in place of an unknown first axis."""
    shape = spec.shape.as_list()
    if shape and shape[0] is None:
        if all(size is not None for size in shape[1:]):
            return tf.stack([batch, *shape[1:]])
        shape[0] = None
    return tf.constant([-1 if size is None else size for size in shape], tf.int32)

"""Rows of mean 0 and variance 1, fast in a compiled loop."""

import tensorflow as tf


def standardized(a, epsilon=1e-5):
    """`(a - mean) / sqrt(variance + epsilon)` over the last axis of `a [B, N]`.

    Ba, Kiros and Hinton, "Layer Normalization", arXiv:1607.06450 (2016), without gain and shift.
    """
    if a.dtype == tf.float16:  # squares beyond its largest number, 65504
        return tf.cast(standardized(tf.cast(a, tf.float32), epsilon), a.dtype)
    # XLA adds up a row on a CPU number by number, a product with ones by vectors of numbers. The
    # gradient is written down so that it has its sums as such products too.
    mean = tf.ones([a.shape[-1], 1], a.dtype) / a.shape[-1]

    @tf.custom_gradient
    def standardize(a):
        centred = a - tf.matmul(a, mean)
        scale = tf.math.rsqrt(tf.matmul(centred * centred, mean) + epsilon)
        result = centred * scale

        def grad(d):
            return scale * (d - tf.matmul(d, mean) - result * tf.matmul(d * result, mean))

        return result, grad

    return standardize(a)

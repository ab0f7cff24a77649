"""Losses where a batch is shared out to several devices."""

import tensorflow as tf


def mean_over_all(total, count):
    """The part of this replica in the mean over the batch: `total` by the `count` of all replicas.

    A strategy of `tf.distribute` adds up the gradients of its replicas, so that the sum of these
    parts is what one device finds, however padding is spread. Keras reports it as such. 0 where
    nothing counts.

    Args:
        total, count: scalars of this replica.
    """
    replica = tf.distribute.get_replica_context()
    if replica is not None and replica.num_replicas_in_sync > 1:
        count = replica.all_reduce(tf.distribute.ReduceOp.SUM, count)
    return tf.math.divide_no_nan(total, count)

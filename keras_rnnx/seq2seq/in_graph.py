"""What the loops of decoding share: calling a step function, rows of hypotheses, one graph each.

Axes: as in `keras_rnnx.seq2seq.search`.
"""

import functools
import weakref

import tensorflow as tf

_functions = weakref.WeakKeyDictionary()  # of the owners of step functions


def call(search, step, fixed, inputs):
    """`search(step, fixed, inputs)`; called eagerly, as a graph that is kept as long as the step.

    fixed: hashable, part of the graph. inputs: tree of tensors.
    """
    if not tf.executing_eagerly():
        return search(step, fixed, inputs)
    owner, function = getattr(step, "__self__", step), getattr(step, "__func__", None)
    try:
        graphs = _functions.setdefault(owner, {})
    except TypeError:  # a callable that cannot be referred to weakly, such as a partial
        return tf.function(lambda inputs: search(step, fixed, inputs), autograph=False)(inputs)
    key = (search, function, fixed)
    if key not in graphs:
        # The graph must not keep its own key alive, so it refers to the step weakly.
        found = weakref.ref(step) if function is None else weakref.WeakMethod(step)
        # A partial is an object of its own: TensorFlow counts retraces by code, which all share.
        run = functools.partial(lambda inputs: search(found(), fixed, inputs))
        run.__name__ = search.__name__
        graphs[key] = tf.function(run, autograph=False, reduce_retracing=True)
    return graphs[key](inputs)


def one_step(step, ids, state, constants):
    """`(log-probabilities [N, V] float32, state, alignments: a list of [N, S])`."""
    logits, state, *alignments = step(ids, state, constants)
    alignments = alignments[0] if alignments else []
    alignments = list(alignments) if isinstance(alignments, (list, tuple)) else [alignments]
    logits = tf.convert_to_tensor(logits)
    if logits.shape.rank != 2 or logits.shape[-1] is None:
        raise ValueError(
            f"The step gave logits of shape {tuple(logits.shape)}, expected (rows, vocabulary) "
            "with a known size of the vocabulary."
        )
    return tf.nn.log_softmax(tf.cast(logits, tf.float32)), state, alignments


def check_count(name, value):
    """Refuse a number below 1; one in a tensor is checked when it comes, by `positive`."""
    if not tf.is_tensor(value) and (not isinstance(value, int) or value < 1):
        raise ValueError(f"{name} is {value!r}, expected an integer of 1 or more.")


def positive(name, value):
    """A number as a tensor, refused below 1 when the graph runs."""
    value = tf.cast(value, tf.int32)
    checked = tf.debugging.assert_positive(value, f"{name} is below 1, expected 1 or more.")
    with tf.control_dependencies([] if checked is None else [checked]):
        return tf.identity(value)


def check_tokens(vocabulary, start, end):
    """Refuse tokens that the vocabulary has not."""
    value = tf.get_static_value(start)
    if not 0 <= end < vocabulary:
        raise ValueError(
            f"end is {end}, and the vocabulary has {vocabulary} tokens: expected an id from 0 to "
            f"{vocabulary - 1}."
        )
    if value is not None and ((value < 0) | (value >= vocabulary)).any():
        raise ValueError(
            f"start is {value}, and the vocabulary has {vocabulary} tokens: expected ids from 0 to "
            f"{vocabulary - 1}."
        )


def batch_of(*trees):
    """The batch, from the first tensor that has one."""
    for tensor in tf.nest.flatten(trees):
        if tensor is not None and tensor.shape.rank:
            return tensor.shape[0] or tf.shape(tensor)[0]
    raise ValueError(
        "Decoding got neither a state nor constants nor [B] start ids, so no batch size: pass "
        "start=tf.fill([B], id)."
    )


def rows_repeated(a, times):
    """`[B, ...] -> [B * times, ...]`, each row so many times in a row."""
    if a is None:
        return None
    repeated = tf.repeat(a, times, axis=0)
    return tf.ensure_shape(repeated, [None, *a.shape[1:]])


def rows_taken(a, parents):
    """Rows of `a [N, ...]` by their places within each sample, `parents [B, K]`."""
    B, K = tf.shape(parents)[0], tf.shape(parents)[1]
    flat = tf.reshape(parents + tf.range(B)[:, None] * K, [-1])
    return tf.gather(a, flat)


def invariants(carry):
    """The shapes that a loop's carry keeps: every leading axis may be of any size."""

    def shape(a):
        if isinstance(a, tf.TensorArray):
            return tf.TensorShape(None)
        return tf.TensorShape([None] * min(a.shape.rank, 3) + a.shape[3:])

    def of_state(a):
        return tf.TensorShape([None, *a.shape[1:]])

    loop, state = carry
    return tf.nest.map_structure(shape, loop), tf.nest.map_structure(of_state, state)


def as_shaped(new, old):
    """A tree of tensors with the static shapes that the tree before had, but for the batch."""
    return tf.nest.map_structure(
        lambda n, o: tf.ensure_shape(tf.cast(n, o.dtype), [None, *o.shape[1:]]), new, old
    )

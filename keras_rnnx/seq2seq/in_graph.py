"""What the loops of decoding share: calling a step function, rows of hypotheses, one graph each.

Axes: as in `keras_rnnx.seq2seq.search`.
"""

import functools
import weakref
from collections.abc import Callable
from typing import Any
from typing import TypeAlias

import tensorflow as tf

from keras_rnnx.annotations import Tensor
from keras_rnnx.engine import is_enclosed

# `(ids, state, constants) -> (logits, state)`, perhaps with alignments as a third result.
Step: TypeAlias = Callable[[Tensor, Any, Any], tuple[Any, ...]]

# Of the owners of step functions.
_functions: weakref.WeakKeyDictionary[Any, dict[Any, Any]] = weakref.WeakKeyDictionary()


def call(search, step, fixed, inputs, jit_compile=False):
    """`search(step, fixed, inputs)`; called eagerly, as a graph that is kept as long as the step.

    fixed: hashable, part of the graph. inputs: tree of tensors. jit_compile: whether XLA compiles
    the graph, anew for every shape; numbers in `inputs` that give shapes are then Python's.
    """
    if not tf.executing_eagerly():
        return search(step, fixed, inputs)
    options = {"autograph": False, "jit_compile": jit_compile or None}
    owner, function = getattr(step, "__self__", step), getattr(step, "__func__", None)
    try:
        graphs = _functions.setdefault(owner, {})
    except TypeError:  # a callable that cannot be referred to weakly, such as a partial
        return tf.function(lambda inputs: search(step, fixed, inputs), **options)(inputs)
    # One graph for numbers and for `[B]` numbers would know neither.
    ranks = tuple(a.shape.rank for a in tf.nest.flatten(inputs) if tf.is_tensor(a))
    key = (search, function, fixed, jit_compile, ranks)
    if key not in graphs:
        # The graph must not keep its own key alive, so it refers to the step weakly.
        found = weakref.ref(step) if function is None else weakref.WeakMethod(step)
        # A partial is an object of its own: TensorFlow counts retraces by code, which all share.
        run = functools.partial(lambda inputs: search(found(), fixed, inputs))
        run.__name__ = search.__name__
        graphs[key] = tf.function(run, reduce_retracing=not jit_compile, **options)
    return graphs[key](inputs)


class Stores:
    """What steps give beside tokens, `[N, S]` each, kept for all steps: `[T, N, S]` each.

    What a loop carries is `start()`, `write(...)` of it, and so on; what is never written is 0.
    """

    def __init__(self, shown, rows, steps):
        """shown: what a step of any number of rows gave. rows: N."""
        self.dtypes = [a.dtype for a in shown]
        self.static = [tf.TensorShape([None, *a.shape[1:]]) for a in shown]
        sizes = [a.shape[1] or tf.shape(a)[1] for a in shown]
        self.shapes = [tf.stack([rows, size]) for size in sizes]
        self.steps = steps

    def start(self):
        return [
            tf.raw_ops.TensorListReserve(
                element_shape=shape, num_elements=self.steps, element_dtype=dtype
            )
            for shape, dtype in zip(self.shapes, self.dtypes)
        ]

    def write(self, handles, t, values):
        pairs = zip(handles, values, strict=True)
        return [tf.raw_ops.TensorListSetItem(input_handle=h, index=t, item=v) for h, v in pairs]

    def stack(self, handles):
        return [
            tf.ensure_shape(
                tf.raw_ops.TensorListStack(
                    input_handle=handle,
                    element_shape=shape,
                    element_dtype=dtype,
                    num_elements=self.steps if isinstance(self.steps, int) else -1,
                ),
                [None, *static],
            )
            for handle, shape, dtype, static in zip(handles, self.shapes, self.dtypes, self.static)
        ]


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
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not tf.is_tensor(value) and (not whole or value < 1):
        raise ValueError(f"{name} is {value!r}, expected an integer of 1 or more.")


def positive(name, value):
    """A number as a tensor, refused below 1 when the graph runs."""
    if not tf.is_tensor(value):
        return tf.constant(value)
    value = tf.cast(value, tf.int32)
    return required(value, value > 0, f"{name} is below 1, expected 1 or more.")


def required(value, condition, message):
    """`value`, refused when the graph runs where the condition is not met everywhere."""
    met = tf.debugging.Assert(tf.reduce_all(condition), [message, value])
    with tf.control_dependencies([] if met is None else [met]):
        return tf.identity(value)


def number(name, value, jit_compile, by_sample=False):
    """A number that gives a shape: a tensor, or with XLA, which wants to know it, an int.

    by_sample: whether it may be `[B]`, of each sample its own.
    """
    if not jit_compile:
        value = positive(name, value)
        if value.shape.rank not in ((0, 1) if by_sample else (0,)):
            raise ValueError(
                f"{name} has shape {tuple(value.shape)}, expected one number"
                f"{', or one for each sample.' if by_sample else ' for all samples.'}"
            )
        return value
    if tf.is_tensor(value):
        raise ValueError(f"{name} is a tensor, expected an int with jit_compile=True.")
    return value


def largest(number):
    """A number and None; of `[B]` numbers, one for each sample, the largest and all of them."""
    if not tf.is_tensor(number) or number.shape.rank == 0:
        return number, None
    return tf.reduce_max(number), number


def one_or_list(found):
    return None if not found else found[0] if len(found) == 1 else found


def shortened(decoded):
    """A `Decoded` of all steps, as long as its longest hypothesis with its end token; under XLA,
    which has no shape that depends on a result, as it is."""
    if is_enclosed():
        return decoded
    longest = tf.minimum(tf.reduce_max(decoded.lengths) + 1, tf.shape(decoded.ids)[-1])
    cut = lambda a: None if a is None else a[:, :, :longest]
    alignments = tf.nest.map_structure(cut, decoded.alignments)
    return decoded._replace(ids=cut(decoded.ids), alignments=alignments)


def check_tokens(vocabulary, start, end):
    """`start`; tokens that the vocabulary has not are refused, in a tensor when the graph runs."""
    last = f"and the vocabulary has {vocabulary} tokens: expected"
    if not 0 <= end < vocabulary:
        raise ValueError(f"end is {end}, {last} an id from 0 to {vocabulary - 1}.")
    value = tf.get_static_value(start)
    if value is not None and ((value < 0) | (value >= vocabulary)).any():
        raise ValueError(f"start is {value}, {last} ids from 0 to {vocabulary - 1}.")
    known = (start >= 0) & (start < vocabulary)
    return required(start, known, f"start is none of its ids, {last} ids from 0 on.")


def seeds_of(seed, steps):
    """`[steps, 2]` seeds from one: seeds that follow each other have no step in common."""
    return tf.random.stateless_uniform([steps, 2], seed, None, None, tf.int32)


def gumbel(shape, seed):
    """Noise that makes the largest of logits with it a draw of their softmax (Gumbel 1954)."""
    uniform = tf.random.stateless_uniform(shape, seed, minval=1e-20, maxval=1.0)
    return -tf.math.log(-tf.math.log(uniform))


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
        if isinstance(a, tf.TensorArray) or a.dtype == tf.variant:
            return tf.TensorShape(None if isinstance(a, tf.TensorArray) else [])
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

"""Decoding token after token: the most probable one, or drawn.

Axes: B batch, K samples for each, N = B * K rows of a step, V tokens, T longest length.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_rnnx.annotations import Tensor
from keras_rnnx.seq2seq import in_graph
from keras_rnnx.seq2seq.in_graph import Step
from keras_rnnx.seq2seq.rules import Rules
from keras_rnnx.seq2seq.rules import TokenRules
from keras_rnnx.seq2seq.rules import as_prefix
from keras_rnnx.seq2seq.search import Decoded


def greedy_search(
    step: Step,
    state: Any,
    constants: Any = (),
    *,
    start: int | Tensor,
    end: int,
    max_length: int | Tensor = 50,
    min_length: int = 0,
    no_repeat_ngram: int = 0,
    prefix: Tensor | None = None,
    constraint: TokenRules = None,
    jit_compile: bool = False,
) -> Decoded:
    """The most probable token, again and again, until the end token.

    Args:
        max_length: the longest length, the end token included; an int or a scalar tensor.
        step, state, constants, start, end, min_length, no_repeat_ngram, prefix, constraint,
        jit_compile: as those of `beam_search`.

    Returns:
        A `Decoded` with one hypothesis for each sample; its score is its log-probability.

    Raises:
        ValueError: for a longest length below 1, or a start or end outside the vocabulary.

    Example:

    >>> from keras_rnnx.seq2seq import greedy_search
    >>> import tensorflow as tf
    >>> bigrams = tf.math.log([[0.1, 0.6, 0.3], [0.3, 0.1, 0.6], [1.0, 1.0, 1.0]])
    >>> step = lambda ids, state, constants: (tf.gather(bigrams, ids), state)
    >>> greedy_search(step, tf.zeros([1, 1]), start=0, end=2).ids[0, 0].numpy().tolist()
    [1, 2]
    """
    rules = Rules.of(end, min_length, no_repeat_ngram, constraint)
    inputs = _inputs(state, constants, start, max_length, prefix, jit_compile)
    return in_graph.shortened(in_graph.call(_greedy, step, rules, inputs, jit_compile))


def sample(
    step: Step,
    state: Any,
    constants: Any = (),
    *,
    start: int | Tensor,
    end: int,
    num_samples: int | Tensor = 1,
    temperature: float | Tensor = 1.0,
    top_k: int | Tensor | None = None,
    top_p: float | Tensor | None = None,
    seed: int | Sequence[int] | Tensor | None = None,
    max_length: int | Tensor = 50,
    min_length: int = 0,
    no_repeat_ngram: int = 0,
    prefix: Tensor | None = None,
    constraint: TokenRules = None,
    jit_compile: bool = False,
) -> Decoded:
    """Sequences drawn token after token from what the model expects.

    Args:
        num_samples: K, how many for each sample of the batch.
        temperature: the logits are divided by it: below 1 likely tokens become likelier. Above 0.
        top_k: draw from the so many likeliest tokens only (Fan et al., arXiv:1805.04833), or None.
        top_p: draw from the fewest tokens whose probabilities sum to it only, with the temperature
            (Holtzman et al., "The Curious Case of Neural Text Degeneration", arXiv:1904.09751), or
            None. From 0 to 1; the likeliest token is always among them.
        seed: an int, or `[2]` integers: the same seed draws the same. None draws a new one from
            Keras' generator.
        max_length: the longest length, the end token included.
        step, state, constants, start, end, min_length, no_repeat_ngram, prefix, constraint,
        jit_compile: as those of `beam_search`.

    num_samples, temperature, top_k, top_p and max_length may be scalar tensors.

    Returns:
        A `Decoded` with K hypotheses for each sample, in the order in which they were drawn; a
        score is the log-probability by the model itself, without temperature, top_k and top_p.

    Raises:
        ValueError: for num_samples, max_length or top_k below 1, a temperature that is not above
            0, a top_p outside 0 to 1, or a start or end outside the vocabulary.

    Example:

    >>> from keras_rnnx.seq2seq import sample
    >>> import tensorflow as tf
    >>> bigrams = tf.math.log([[0.1, 0.6, 0.3], [0.3, 0.1, 0.6], [1.0, 1.0, 1.0]])
    >>> step = lambda ids, state, constants: (tf.gather(bigrams, ids), state)
    >>> found = sample(step, tf.zeros([1, 1]), start=0, end=2, num_samples=5, seed=3)
    >>> found.ids.shape[:2]
    TensorShape([1, 5])
    """
    in_graph.check_count("num_samples", num_samples)
    if not tf.is_tensor(temperature) and temperature <= 0:
        raise ValueError(f"temperature is {temperature}, expected a number above 0.")
    if top_k is not None:
        in_graph.check_count("top_k", top_k)
    if top_p is not None and not tf.is_tensor(top_p) and not 0 <= top_p <= 1:
        raise ValueError(f"top_p is {top_p}, expected a number from 0 to 1, or None.")
    rules = Rules.of(end, min_length, no_repeat_ngram, constraint)
    inputs = _inputs(state, constants, start, max_length, prefix, jit_compile)
    heat = tf.cast(temperature, tf.float32)
    inputs |= {
        "samples": in_graph.number("num_samples", num_samples, jit_compile),
        "temperature": in_graph.required(heat, heat > 0, "temperature is not above 0."),
        "top_k": None if top_k is None else in_graph.positive("top_k", top_k),
        "top_p": None if top_p is None else _share(top_p),
        "seed": as_seed(seed),
    }
    return in_graph.shortened(in_graph.call(_sample, step, rules, inputs, jit_compile))


def as_seed(seed):
    """`[2]` integers from an int, from two, or from Keras' generator."""
    if seed is None:
        return tf.cast(keras.random.randint((2,), 0, 2**31 - 1), tf.int32)
    seed = tf.cast(seed, tf.int32)
    return seed if seed.shape.rank == 1 else tf.stack([seed, 0])


def _share(top_p):
    top_p = tf.cast(top_p, tf.float32)
    return in_graph.required(top_p, (top_p >= 0) & (top_p <= 1), "top_p is outside 0 to 1.")


def _inputs(state, constants, start, max_length, prefix, jit_compile):
    in_graph.check_count("max_length", max_length)
    return {
        "state": state,
        "constants": constants,
        "start": tf.cast(start, tf.int32),
        "longest": in_graph.number("max_length", max_length, jit_compile),
        "prefix": as_prefix(prefix),
    }


def _greedy(step, rules, inputs):
    choose = lambda scores, t: tf.argmax(scores, axis=-1, output_type=tf.int32)
    return _generate(step, rules, {**inputs, "samples": 1}, choose)


def _sample(step, rules, inputs):
    seeds = in_graph.seeds_of(inputs["seed"], inputs["longest"])

    def choose(scores, t):
        # In the order of their scores, what is left out is the tail of each row.
        ordered, ids = tf.math.top_k(scores / inputs["temperature"], scores.shape[-1])
        left_out = tf.zeros_like(ordered, tf.bool)
        if inputs["top_k"] is not None:
            left_out |= tf.range(scores.shape[-1]) >= inputs["top_k"]
        if inputs["top_p"] is not None:
            before = tf.cumsum(tf.nn.softmax(ordered), axis=-1, exclusive=True)
            likeliest = tf.range(scores.shape[-1]) == 0
            left_out |= (before >= inputs["top_p"]) & ~likeliest
        ordered = tf.where(left_out, -math.inf, ordered)
        place = tf.argmax(ordered + in_graph.gumbel(tf.shape(ordered), seeds[t]), axis=-1)
        return tf.gather(ids, place, axis=-1, batch_dims=2)

    return _generate(step, rules, inputs, choose)


def _generate(step, rules, inputs, choose):
    """The fields of `Decoded`; choose: `(scores [B, K, V], t) -> ids [B, K]`."""
    K, T = inputs["samples"], inputs["longest"]
    state, constants = inputs["state"], inputs["constants"]
    B = in_graph.batch_of(state, constants, inputs["start"])
    start = tf.broadcast_to(inputs["start"], [B])
    shown, _, alignments = in_graph.one_step(step, start, state, constants)
    V = shown.shape[-1]
    start = in_graph.check_tokens(V, start, rules.end)
    keep = in_graph.Stores(alignments, B * K, T)
    repeated = lambda a: in_graph.rows_repeated(a, K)
    constants, state = tf.nest.map_structure(repeated, (constants, state))

    def body(loop, state):
        t, ids, last, total, length, done, stores = loop
        scores, new, found = in_graph.one_step(step, tf.reshape(last, [-1]), state, constants)
        stores = keep.write(stores, t, found)
        allowed = rules(tf.reshape(scores, [B, K, V]), ids, t, inputs["prefix"])
        stuck = tf.reduce_max(allowed, axis=-1) == -math.inf  # nothing is permitted
        token = tf.where(done | stuck, rules.end, choose(allowed, t))
        chosen = tf.gather(allowed, token, axis=2, batch_dims=2)
        total = tf.where(done, total, total + chosen)
        ids = tf.where(tf.range(T) == t, token[..., None], ids)
        length = tf.where(done | (token == rules.end), length, t + 1)
        done |= token == rules.end
        return (t + 1, ids, token, total, length, done, stores), in_graph.as_shaped(new, state)

    zeros = tf.zeros([B, K], tf.int32)
    loop = (
        tf.constant(0),
        tf.fill([B, K, T], rules.end),
        tf.broadcast_to(start[:, None], [B, K]),
        tf.zeros([B, K]),
        zeros,
        zeros > 0,
        keep.start(),
    )
    carry = (loop, state)
    (t, ids, _, total, length, _, stores), _ = tf.while_loop(
        lambda loop, state: (loop[0] < T) & ~tf.reduce_all(loop[5]),
        body,
        carry,
        shape_invariants=in_graph.invariants(carry),
    )
    exists = tf.math.is_finite(total)
    length = tf.where(exists, length, 0)
    ids = tf.where(exists[..., None], ids, rules.end)
    real = (exists[..., None] & (tf.range(T) <= length[..., None]))[..., None]
    found = []
    for rows in keep.stack(stores):  # [T, N, S]
        rows = tf.reshape(tf.transpose(rows, [1, 0, 2]), [B, K, T, tf.shape(rows)[-1]])
        found.append(tf.where(real, rows, tf.zeros_like(rows)))
    return Decoded(ids, length, total, in_graph.one_or_list(found))

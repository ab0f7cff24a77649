"""The ways of decoding by name, with their options as a dict."""

import inspect

import tensorflow as tf

from keras_rnnx.seq2seq import in_graph
from keras_rnnx.seq2seq.generate import as_seed
from keras_rnnx.seq2seq.generate import greedy_search
from keras_rnnx.seq2seq.generate import sample
from keras_rnnx.seq2seq.rules import BannedTokens
from keras_rnnx.seq2seq.rules import as_tuple
from keras_rnnx.seq2seq.search import beam_search

METHODS = {"beam": beam_search, "greedy": greedy_search, "sample": sample}
OF_MODEL = ("start", "end", "memory_mask")  # what the model knows by itself
FIXED = ("method", "min_length", "no_repeat_ngram", "constraint", "jit_compile")
SHAPES = ("beam_width", "max_length", "num_samples")  # XLA wants to know them

# What the signatures of an export take of each row beside the source.
NUMBERS = (
    tf.TensorSpec([None], tf.int32, name="beam_width"),
    tf.TensorSpec([None], tf.int32, name="max_length"),
    tf.TensorSpec([None], tf.float32, name="length_penalty"),
)


def with_numbers(decode, sources):
    """`decode(*sources, beam_width=, ...)` with the `NUMBERS` by place."""
    names = [spec.name for spec in NUMBERS]

    def call(*given):
        return decode(*given[:sources], **dict(zip(names, given[sources:], strict=True)))

    return call


def merged(defaults, options):
    """The options, and those defaults that their method knows."""
    method = options.get("method", defaults.get("method", "beam"))
    known = _known(method)
    return checked(
        {**{n: v for n, v in defaults.items() if n in known}, **options, "method": method}
    )


def _known(method):
    if method not in METHODS:
        raise ValueError(f"method is {method!r}, expected one of {', '.join(map(repr, METHODS))}.")
    parameters = inspect.signature(METHODS[method]).parameters.values()
    return {p.name for p in parameters if p.kind is p.KEYWORD_ONLY} - set(OF_MODEL)


def checked(options):
    """The options, refused where they are none of their method."""
    method = options.get("method", "beam")
    known = _known(method)
    unknown = sorted(set(options) - known - {"method"})
    if unknown:
        raise ValueError(
            f"Decoding got {', '.join(unknown)}, expected options of {METHODS[method].__name__}: "
            f"{', '.join(sorted(known))}."
        )
    for name in ("beam_width", "max_length", "num_samples", "top_k"):
        value = options.get(name)
        if value is not None:
            in_graph.check_count(name, value)
    return dict(options)


def split(options):
    """`(fixed, numbers)`: what makes another graph, hashable, and what a graph takes as tensors."""
    constant = (*FIXED, *(SHAPES if options.get("jit_compile") else ()))
    options = {**options, "constraint": as_tuple(options.get("constraint"))}
    fixed = tuple((name, options[name]) for name in constant if name in options)
    numbers = {n: v for n, v in options.items() if n not in constant and v is not None}
    if not tf.is_tensor(numbers.get("coverage_penalty")) and not numbers.get("coverage_penalty"):
        numbers.pop("coverage_penalty", None)  # the accumulated alignments are then not needed
    if options.get("method") == "sample":
        numbers["seed"] = as_seed(options.get("seed"))
    return fixed, {name: tf.convert_to_tensor(value) for name, value in numbers.items()}


def run(step, state, constants, fixed, numbers, tokens, memory_mask):
    """Decode in the way that the options say."""
    options = {**dict(fixed), **numbers, **tokens}
    # Padding is no token: a target that held it would end there.
    options["constraint"] = (BannedTokens((0,)), *as_tuple(options.get("constraint")))
    method = options.pop("method", "beam")
    if method == "beam" and "coverage_penalty" in options:
        options["memory_mask"] = memory_mask
    return METHODS[method](step, state, constants, **options)


def rollout(model, fixed, inputs):
    """The frames of a model whose decoder gives numbers, each made from the last."""
    encoded, state, constants = model.begin(inputs["source"])
    first = model._first_inputs(tf.shape(encoded.states[0][0])[0])
    T, step = inputs["steps"], model.decoder.steps()

    def body(loop, state):
        t, frame, frames = loop
        frame, new, *_ = step(frame, state, constants)
        return (t + 1, frame, frames.write(t, frame)), in_graph.as_shaped(new, state)

    frames = tf.TensorArray(first.dtype, T, element_shape=[None, model.decoder.features])
    carry = ((tf.constant(0), first, frames), state)
    (_, _, frames), _ = tf.while_loop(
        lambda loop, state: loop[0] < T, body, carry, shape_invariants=in_graph.invariants(carry)
    )
    return tf.transpose(frames.stack(), [1, 0, 2])

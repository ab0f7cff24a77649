"""What an exported model answers: whole sequences, the next steps of a stream, decoding."""

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_rnnx import engine
from keras_rnnx.layers import Stream
from keras_rnnx.serving.inputs import Inputs
from keras_rnnx.serving.inputs import at_border
from keras_rnnx.streaming import check_stepwise

NAMES = ("serving_default", "step", "initial_state", "decode")


class Signature(NamedTuple):
    """One signature: everything has the batch first.

    call: function of tensors in the order of the specs, which gives `{name: tensor}`.
    specs: list of `TensorSpec` with names, of what it takes.
    example: `{name: array}`, a request.
    """

    call: Callable
    specs: list
    example: dict


def make(model, names=None, example=None, preprocess=None):
    """`({name: Signature}, {name: why it was left out})`.

    names: those that are wanted, an error if they cannot be; None takes all that can be.
    """
    for name in names or ():
        if name not in NAMES:
            raise ValueError(f"signatures has {name!r}, expected some of {', '.join(NAMES)}.")
    wanted = NAMES if names is None else ("serving_default", *names)
    if hasattr(model, "endpoints"):
        made, why = _endpoints(model, example, preprocess)
    else:
        made, why = _of_steps(Inputs(model, example, preprocess))
    for name in names or ():
        if name not in made:
            raise ValueError(f"{model.name} cannot have the signature {name!r}: {why[name]}")
    return {name: made[name] for name in NAMES if name in made and name in wanted}, why


def _of_steps(inputs):
    """The signatures of a model over sequences."""

    def whole(*tensors):
        return inputs.call(*inputs.read(dict(zip(inputs.specs, tensors, strict=True))))

    made = {"serving_default": Signature(whole, list(inputs.specs.values()), inputs.example)}
    why = {"decode": "it is no model from sequences to sequences (`keras_rnnx.seq2seq`)."}
    try:
        streamed = _streamed(inputs)
    except ValueError as error:  # says what in the model does not go step by step
        why["step"] = why["initial_state"] = str(error)
    else:
        made |= streamed
    return made, why


def _streamed(inputs):
    """`step` and `initial_state`: a model in steps, with the states of its layers at the client."""
    check_stepwise(inputs.model)
    if not inputs.lengths_of:
        raise ValueError("it takes no sequence of unknown length, and so no chunk of one.")
    states = States(inputs)

    def step(*tensors):
        given = dict(zip([*inputs.specs, *states.names], tensors, strict=True))
        x, mask = inputs.read(given)
        stream = Stream(states.nested([given[name] for name in states.names]))
        with stream.opened():
            found = inputs.call(x, mask)
        return {**found, **states.named(stream.last)}

    def initial_state(rows):
        return states.named([layer.get_initial_state(tf.shape(rows)[0]) for layer in states.layers])

    carrier = tf.TensorSpec([None], tf.int32, name="rows")
    rows = len(next(iter(inputs.example.values())))
    start = {
        spec.name: np.zeros([rows, *spec.shape[1:]], spec.dtype.as_numpy_dtype)
        for spec in states.specs
    }
    return {
        "step": Signature(
            step, [*inputs.specs.values(), *states.specs], {**inputs.example, **start}
        ),
        "initial_state": Signature(initial_state, [carrier], {"rows": np.zeros([rows], "int32")}),
    }


class States:
    """The states of the recurrent layers of a model by name, found by tracing it once."""

    def __init__(self, inputs):
        stream = Stream()

        def call(*tensors):
            x, mask = inputs.read(dict(zip(inputs.specs, tensors, strict=True)))
            with stream.opened():
                inputs.call(x, mask)

        with engine.portable():
            tf.function(call, autograph=False).get_concrete_function(*inputs.specs.values())
        if not stream.last:
            raise ValueError("it has no recurrent layer of keras_rnnx, and so no state to carry.")
        self.layers = stream.layers
        self.structure = keras.tree.map_structure(lambda _: 0, stream.last)
        self.dtypes, self.names, self.specs, count = [], [], [], {}
        for layer, states in zip(stream.layers, stream.last, strict=True):
            count[layer.name] = count.get(layer.name, 0) + 1
            again = f"_{count[layer.name]}" if count[layer.name] > 1 else ""
            for k, state in enumerate(keras.tree.flatten(states)):
                name = f"{layer.name}{again}_state_{k}"
                dtype = tf.float32 if state.dtype.is_floating else state.dtype
                self.names.append(name)
                self.dtypes.append(state.dtype)
                self.specs.append(tf.TensorSpec([None, *state.shape[1:]], dtype, name=name))

    def nested(self, flat):
        flat = [tf.cast(a, dtype) for a, dtype in zip(flat, self.dtypes, strict=True)]
        return keras.tree.pack_sequence_as(self.structure, flat)

    def named(self, nested):
        flat = keras.tree.flatten(nested)
        return {name: at_border(a) for name, a in zip(self.names, flat, strict=True)}


def _endpoints(model, example, preprocess):
    """The signatures of a model that says itself what it answers."""
    if preprocess is not None:
        raise ValueError(
            f"{model.name} was given with `preprocess`, expected None: a Translator brings its "
            "own vocabularies. Make a `keras_rnnx.seq2seq.Translator` of the Seq2Seq."
        )
    made = {}
    for name, (function, specs) in model.endpoints().items():
        made[name] = Signature(_in_float(function), specs, _request(specs, example))
    whole = f"{model.name} answers whole sequences only: decoding is a loop of its own."
    return made, {"step": whole, "initial_state": whole, "decode": "its decoder gives numbers."}


def _in_float(function):
    return lambda *tensors: {name: at_border(a) for name, a in function(*tensors).items()}


def _request(specs, example):
    """A request: the example, and usual options of decoding."""
    usual = {"beam_width": 4, "max_length": 20, "length_penalty": 0.0}
    source = specs[0]
    if example is None and source.dtype == tf.string:
        example = np.array([b"a", b"b"], object)
    elif example is None:
        example = np.ones([2, *(5 if n is None else n for n in source.shape[1:])])
    request = {source.name: np.asarray(example, source.dtype.as_numpy_dtype)}
    rows = len(example)
    for spec in specs[1:]:
        value = np.shape(example)[1] if spec.name == "lengths" else usual[spec.name]
        request[spec.name] = np.full([rows], value, spec.dtype.as_numpy_dtype)
    return request

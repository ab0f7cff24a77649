"""What may enter a layer: each check says what came, what was expected and what to do."""

import inspect
import numbers

import keras
import tensorflow as tf

from keras_rnnx import engine
from keras_rnnx.layers.shapes import map_sizes


def positive(name, value):
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(
            f"Received an invalid value for argument `{name}`, expected a positive integer, got "
            f"{value!r} ({type(value).__name__}). Pass the number, for example {name}=64."
        )
    if value <= 0:
        raise ValueError(
            f"Received an invalid value for argument `{name}`, expected a positive integer, got "
            f"{value}."
        )


def rate(name, value):
    """A dropout rate, clipped to [0, 1] as Keras does."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} is {value!r}, expected a number from 0 to 1.")
    return min(1.0, max(0.0, value))


def limit(name, value):
    """A positive number to clip at, or None."""
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if value is not None and (not real or value <= 0):
        raise ValueError(f"{name} is {value!r}, expected a positive number, or None for no limit.")


def zoneout(cell, given, sizes):
    """The rates of zoneout, one for each state."""
    rates = tuple(given) if isinstance(given, (list, tuple)) else len(sizes) * (given,)
    numbers_from_0_to_1 = all(
        isinstance(r, numbers.Real) and not isinstance(r, bool) and 0 <= r <= 1 for r in rates
    )
    if not numbers_from_0_to_1 or len(rates) != len(sizes):
        raise ValueError(
            f"{type(cell).__name__} got zoneout={given!r}, expected a rate from 0 to 1, or a list "
            f"of {len(sizes)}, one for each state."
        )
    return rates


def spec(cell):
    """What a spec says of itself, where it is a user's own."""
    name = type(cell.spec).__name__
    for what in ("state_sizes", "recurrent"):
        if callable(getattr(cell.spec, what)):
            raise TypeError(f"{name}.{what} is a method, expected a property: write @property.")
    sizes = cell.spec.state_sizes
    if not isinstance(sizes, (list, tuple)):
        raise TypeError(
            f"{name}.state_sizes is {sizes!r}, expected a tuple with the size of each state, such "
            f"as ({sizes!r},)."
        )


def role(cell, weight, allowed):
    """The role of a weight."""
    if weight.role not in allowed:
        raise ValueError(
            f"{type(cell.spec).__name__} has a weight of role {weight.role!r}, expected one of "
            f"{', '.join(map(repr, allowed))}."
        )


def noise(cell):
    """Whether the cell has what its noise shall act on."""
    name, mode = type(cell).__name__, cell.recurrent_dropout_mode
    if cell.recurrent_dropout and mode == "candidate" and not cell.spec.has_candidate:
        raise ValueError(
            f'{name} got recurrent_dropout_mode="candidate", and has no candidate that is added '
            'to its state. Use "variational", "gates" or "step".'
        )
    if cell.recurrent_dropout and mode != "candidate" and not cell.spec.recurrent:
        raise ValueError(
            f"{name} got recurrent_dropout={cell.recurrent_dropout}, and multiplies its state by "
            "no matrix. Use dropout on the input, or zoneout."
        )
    if not 0 <= cell.weight_dropout <= 1:
        raise ValueError(
            f"{name} got weight_dropout={cell.weight_dropout}, expected a rate from 0 to 1."
        )
    if cell.weight_dropout and not cell.spec.recurrent:
        raise ValueError(
            f"{name} got weight_dropout={cell.weight_dropout}, and has no recurrent matrix to drop "
            "numbers of. Leave it out."
        )


def one_of(name, value, choices):
    if not any(value is choice or value == choice for choice in choices):
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(map(repr, choices))}.")


def backward(value, foreign):
    """The option of this name. foreign: the cells that are not of this package."""
    way = engine.read_backward(value)
    if foreign and (way.checkpointed or way.clip_norm is not None):
        raise ValueError(
            f"backward is {value}, and {type(foreign[0]).__name__} is not a keras_rnnx cell: "
            "TensorFlow differentiates its loop, which can neither keep checkpoints nor clip. Use "
            '"full" or keras_rnnx.Truncated(steps).'
        )


def known_features(layer, shape):
    if shape[-1] is None:
        raise ValueError(
            f"{layer.name} got input of shape {tuple(shape)}, whose last axis, the number of "
            "features, is unknown, but the weights depend on it. Give it in keras.Input, for "
            "example keras.Input((None, 16))."
        )


def sequences(layer, shape, least=3):
    """Rank and number of features of the input."""
    name = f"{type(layer).__name__} {layer.name!r}"
    rank = len(shape)
    if rank < least or (least == 3 and rank != 3):
        hint = {
            2: "For one step per sample add a time axis, x[:, None]; for one feature per step add "
            "a feature axis, x[..., None].",
            1: "Add a batch and a feature axis, x[None, :, None].",
        }.get(rank, "Merge the axes beyond the third into the features.")
        raise ValueError(
            f"{name} got input of shape {tuple(shape)}, expected (batch, time, features). {hint}"
        )
    known = getattr(layer, "input_dim", None)
    if known is not None and shape[-1] is not None and shape[-1] != known:
        raise ValueError(
            f"{name} got input of shape {tuple(shape)} with {shape[-1]} features, but was built "
            f"for {known}. Pass {known} features, or make a new layer."
        )


def step(layer, shape):
    """The input of one step."""
    known = getattr(layer, "input_dim", None)
    if len(shape) != 2 or None not in (known, shape[1]) and shape[1] != known:
        raise ValueError(
            f"{type(layer).__name__} {layer.name!r} got one step of shape {tuple(shape)}, expected "
            f"(batch, {known or 'features'}), without a time axis: pass x[:, t]."
        )


def mask(layer, mask_shape, input_shape):
    """A mask is (batch, time) of the input."""
    pairs = zip(mask_shape, input_shape[:2])
    if len(mask_shape) != 2 or any(None not in pair and pair[0] != pair[1] for pair in pairs):
        raise ValueError(
            f"{type(layer).__name__} {layer.name!r} got a mask of shape {tuple(mask_shape)} with "
            f"an input of shape {tuple(input_shape)}, expected (batch, time) of the input, "
            f"{tuple(input_shape[:2])}: one boolean per step, True where the step is real."
        )


def initial_state(layer, states, sizes, batch):
    """As many states as the cell has, each (batch, size)."""
    # As shapes, which are leaves of a tree: a size may be a tuple, and is none itself.
    shaped = map_sizes(lambda size: tf.TensorShape([batch, *size]), sizes)
    flat, expected = keras.tree.flatten(states), keras.tree.flatten(shaped)
    name = f"{type(layer).__name__} {layer.name!r}"
    if len(flat) != len(expected):
        raise ValueError(
            f"{name} got {len(flat)} initial state tensor(s), expected {len(expected)}, of sizes "
            f"{sizes}. Pass initial_state=[...] with one tensor for each state."
        )
    for state, wanted in zip(flat, expected):
        if not wanted.is_compatible_with(state.shape):
            raise ValueError(
                f"{name} got an initial state of shape {tuple(state.shape)}, expected "
                f"{tuple(wanted)}: the batch of the input and the size of the state."
            )


def unroll(layer, steps):
    if layer.unroll and steps is None:
        raise ValueError(
            f"{type(layer).__name__} {layer.name!r} has unroll=True and got an unknown number of "
            "time steps. Cannot unroll a RNN if the time dimension is undefined: give it in "
            "keras.Input, for example keras.Input((20, 16)), or set unroll=False."
        )


def stateful_batch(layer, expected, batch):
    if batch is not None and batch != expected:
        raise ValueError(
            f"{type(layer).__name__} {layer.name!r} is stateful for batches of {expected} and got "
            f"one of {batch}. If an RNN is stateful, the batch size of the input sequences must be "
            "the same as the batch size of the initial state: pass such batches, or make the layer "
            'with stateful="any_batch".'
        )


def goes_with(name, value, other, other_value, needed):
    if value and other_value is not needed:
        raise ValueError(
            f"{name} is {value!r} and {other} is {other_value!r}. {name}=True needs "
            f"{other}={needed!r}: set it, or leave {name} out."
        )


def reset_mask(layer, reset, shape):
    """Booleans of the rows or of the steps of an input of this shape."""
    reset = tf.convert_to_tensor(reset)
    rank = reset.shape.rank
    if rank not in (1, 2) or not reset.shape.is_compatible_with(shape[:rank]):
        raise ValueError(
            f"{layer.name} got a reset_mask of shape {tuple(reset.shape)} with an input of shape "
            f"{tuple(shape)}, expected (batch,), rows that begin anew, or (batch, time), steps "
            "before which they do."
        )
    return tf.cast(reset, tf.bool)


def constants(layer, given):
    """What the cells of a layer take beside inputs and states, as a dict."""
    foreign = layer.foreign_cells
    own = [cell for cell in layer.cells if cell not in foreign]
    names = sorted({name for cell in own for name in cell.spec.constant_names})
    optional = {name for cell in own for name in cell.optional_constants}
    if foreign and given is not None:
        takes = any("constants" in inspect.signature(c.call).parameters for c in foreign)
        if not takes:
            raise ValueError(
                f"{layer.name} got constants, and {type(foreign[0]).__name__}.call takes none. "
                "Add an argument `constants` to it, or leave them out."
            )
        return given
    found = sorted(given) if isinstance(given, dict) else ([] if given is None else ["?"])
    if sorted(set(found) - optional) != names:
        raise ValueError(
            f"{layer.name} got constants {given if not isinstance(given, dict) else found}, "
            f"expected a dict with {names or 'nothing in it'}: what the steps of its cells look up."
        )
    to_tensor = lambda a: a if a is None else tf.convert_to_tensor(a)
    return keras.tree.map_structure(to_tensor, given or {})


def causal(layer):
    if getattr(layer, "go_backwards", False):
        raise ValueError(
            f"{layer.name} has go_backwards=True, and its first step is the last of the sequence, "
            "which a stream has not seen yet. Use a layer that goes forward."
        )

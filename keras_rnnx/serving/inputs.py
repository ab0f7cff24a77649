"""The inputs of a model by name, as a server gets them: padded sequences with their lengths.

A server that puts requests together pads them to the longest one, TensorFlow Serving with the first
element of each request. So a sequence comes with its length, what lies behind it is wiped out, and
the model gets the mask.
"""

import re

import keras
import numpy as np
import tensorflow as tf

from keras_rnnx.layers import everything

ROWS, STEPS = 3, 6  # of an example that nobody gave


class Inputs:
    """What a model takes, flat and by name.

    names: of the inputs. specs: `{name: TensorSpec}` of what a request holds, lengths included.
    lengths_of: `{name of a sequence: name of its lengths}`, of those whose time is unknown.
    """

    def __init__(self, model, example=None, preprocess=None):
        self.model = model
        tree, tensors = _symbolic(model, example)
        self.tree, self.names = tree, _names(tree, tensors)
        self.tensors = dict(zip(self.names, tensors, strict=True))
        self.preprocess = self._by_name("preprocess", preprocess)
        for name, layer in self.preprocess.items():  # what it makes once, it makes outside a graph
            shape = [1, *(1 if n is None else n for n in self.tensors[name].shape[1:])]
            shape = [1] if isinstance(layer, keras.layers.TextVectorization) else shape
            strings = isinstance(layer, (keras.layers.TextVectorization, keras.layers.StringLookup))
            layer(tf.fill(shape, "") if strings else tf.zeros(shape))
        self.fill = _mask_value(model)
        self.specs, self.lengths_of = {}, {}
        for name, tensor in self.tensors.items():
            self.specs[name] = self._spec(name, tensor)
        several = sum(map(self._is_sequence, self.names)) > 1
        for name in filter(self._is_sequence, self.names):
            self.lengths_of[name] = f"{name}_lengths" if several else "lengths"
        for name in self.lengths_of.values():
            self.specs[name] = tf.TensorSpec([None], tf.int32, name=name)
        self.example = self._example(example)

    def _by_name(self, what, given):
        """`{name: value}` of one value for the only input, or of a dict."""
        if given is None:
            return {}
        if not isinstance(given, dict):
            if len(self.names) > 1:
                raise ValueError(
                    f"{what} is one {type(given).__name__}, and the model has the inputs "
                    f"{', '.join(self.names)}. Give a dict by these names."
                )
            given = {self.names[0]: given}
        unknown = sorted(set(given) - set(self.names))
        if unknown:
            raise ValueError(
                f"{what} names {', '.join(unknown)}, and the model has the inputs "
                f"{', '.join(self.names)}."
            )
        return given

    def _spec(self, name, tensor):
        layer = self.preprocess.get(name)
        if isinstance(layer, keras.layers.TextVectorization):  # from a text to its words
            return tf.TensorSpec([None], tf.string, name=name)
        if isinstance(layer, keras.layers.StringLookup):
            return tf.TensorSpec([None, *tensor.shape[1:]], tf.string, name=name)
        dtype = tf.as_dtype(keras.backend.standardize_dtype(tensor.dtype))
        # Of what a server and REST know; the model computes in what it likes.
        dtype = tf.float32 if dtype.is_floating else dtype
        return tf.TensorSpec([None, *tensor.shape[1:]], dtype, name=name)

    def _is_sequence(self, name):
        shape = self.specs[name].shape
        return shape.rank > 1 and shape[1] is None and None not in tuple(shape[2:])

    def _example(self, given):
        """`{name: array}` of the specs, lengths included: what was given, or numbers made up."""
        flat = None if given is None else self._leaves(given)
        made = {}
        rng = np.random.default_rng(0)
        for k, name in enumerate(self.names):
            spec = self.specs[name]
            if flat is not None:
                made[name] = np.asarray(flat[k], spec.dtype.as_numpy_dtype)
                continue
            shape = [ROWS, *(STEPS if n is None else n for n in spec.shape[1:])]
            if spec.dtype == tf.string:
                made[name] = np.full(shape, b"a b c", object)
            elif spec.dtype.is_floating:
                made[name] = rng.normal(size=shape).astype("float32")
            else:  # an id that every vocabulary has
                made[name] = np.ones(shape, spec.dtype.as_numpy_dtype)
        for name, lengths in self.lengths_of.items():
            rows, steps = made[name].shape[:2]
            some = steps if given is not None else np.maximum(steps - 2 * np.arange(rows), 1)
            made[lengths] = np.full([rows], some, "int32")
        return made

    def _leaves(self, given):
        """The arrays of an example, flat, each of the rank that the model takes."""
        # A list for one input is rows, such as strings, unless it holds an array for each.
        rows = isinstance(given, (list, tuple)) and len(self.names) == 1
        rows = rows and not any(getattr(one, "shape", ()) for one in given)
        flat = [np.asarray(given)] if rows else keras.tree.flatten(given)
        found = [np.shape(one) for one in flat]
        ranks = [self.specs[name].shape.rank for name in self.names]
        if list(map(len, found)) != ranks:
            wanted = {name: tuple(self.specs[name].shape) for name in self.names}
            raise ValueError(
                f"example holds arrays of shapes {found}, expected one for each of the inputs "
                f"{wanted}, nested as the model's inputs are; None is any number."
            )
        return flat

    def read(self, given):
        """`(x, mask)` for the model, both nested as it takes them, of named tensors."""
        values, masks = [], []
        for name, tensor in self.tensors.items():
            value, mask = given[name], None
            if name in self.preprocess:
                value = self.preprocess[name](value)
            lengths = given.get(self.lengths_of.get(name))  # without them all steps are real
            if lengths is not None:
                mask = tf.sequence_mask(lengths, tf.shape(value)[1])
                # In the shape of the value: as many lengths as rows, or an error.
                wide = tf.reshape(
                    mask, [*tf.unstack(tf.shape(value)[:2]), *[1] * (len(value.shape) - 2)]
                )
                fill = "" if value.dtype == tf.string else tf.cast(self.fill, value.dtype)
                value = tf.where(wide, value, fill)
            values.append(tf.cast(value, keras.backend.standardize_dtype(tensor.dtype)))
            masks.append(mask)
        return self.packed(values), self.packed(masks)

    def packed(self, flat):
        return keras.tree.pack_sequence_as(self.tree, flat)

    def call(self, x, mask):
        """What the model answers, `{name: tensor}`, in float32."""
        model = self.model
        if getattr(model, "inputs", None):
            # Called as a layer, a functional model would warn that its outputs have no mask.
            found = model.call(x, mask=mask, training=False)
        else:
            for value, one in zip(keras.tree.flatten(x), keras.tree.flatten(mask), strict=True):
                if one is not None:
                    value._keras_mask = one
            found = model(x, training=False)
        return {name: at_border(a) for name, a in self.named(found).items()}

    def named(self, outputs):
        """Outputs by their names: the keys of a dict, the names of a functional model's layers."""
        if isinstance(outputs, dict):
            return {_clean(name): a for name, a in outputs.items()}
        flat = keras.tree.flatten(outputs)
        names = getattr(self.model, "output_names", None) or []
        if len(set(names)) != len(flat):
            names = ["output"] if len(flat) == 1 else [f"output_{k}" for k in range(len(flat))]
        return {_clean(name): a for name, a in zip(names, flat)}


def at_border(a):
    """A tensor as clients get it: REST has no half precision."""
    return tf.cast(a, tf.float32) if a.dtype.is_floating else a


def _symbolic(model, example):
    """How the inputs are nested, and their shapes and dtypes, flat."""
    if getattr(model, "inputs", None):
        tree = model.input if not isinstance(model, keras.Sequential) else model.inputs[0]
        return keras.tree.map_structure(lambda _: 0, tree), keras.tree.flatten(tree)
    if example is None:
        raise ValueError(
            f"{model.name} is a model of a class of its own, whose inputs nobody has described. "
            "Pass an `example` of what it takes."
        )
    arrays = keras.tree.map_structure(np.asarray, example)

    def spec(a):
        # Sequences may be of any length.
        time = [None] if a.ndim > 1 else []
        return keras.KerasTensor((None, *time, *a.shape[2:]), str(a.dtype))

    return keras.tree.map_structure(lambda _: 0, arrays), [
        spec(a) for a in keras.tree.flatten(arrays)
    ]


def _names(tree, tensors):
    """Names of the inputs: those that the user gave, else ours."""
    if isinstance(tree, dict):
        return [_clean(name) for name in sorted(tree)]
    names = [_clean(getattr(t, "name", "") or "") for t in tensors]
    unnamed = any(not name or name.startswith("keras_tensor") for name in names)
    if unnamed or len(set(names)) < len(names):
        names = ["inputs"] if len(tensors) == 1 else [f"input_{k}" for k in range(len(tensors))]
    return names


def _clean(name):
    """A name as arguments may have it."""
    return re.sub(r"\W+", "_", name)


def _mask_value(model):
    """What padding holds for the model, where a layer looks for it by itself, `Masking` for one."""
    values = (getattr(layer, "mask_value", None) for layer in everything(model))
    return next((value for value in values if value is not None), 0)

"""TimeDistributed: a layer that knows no time, applied to every step."""

import functools
import inspect
from typing import Any
from typing import Literal

import keras
import tensorflow as tf

from keras_rnnx.annotations import Tensor
from keras_rnnx.layers import checks
from keras_rnnx.layers.walk import everything


@keras.saving.register_keras_serializable(package="keras_rnnx")
class TimeDistributed(keras.layers.Layer):
    """Applies a layer to every time step of `[B, T, ...]`, with the same weights.

    For what `keras.layers.TimeDistributed` is for: images in a video, sentences in a document. That
    calls the layer once per step; this one folds time into the batch where that changes nothing,
    and calls it once:

        y = unfold(layer(fold(x)))    fold: [B, T, ...] -> [B*T, ...]

    Args:
        layer: a Keras layer or model that takes `[B, ...]`.
        fold: True folds time into the batch, False calls the layer once per step, in order.
            `"auto"` folds unless something in the layer is known to mix the samples of a batch, or
            to carry something from one call to the next:

            * `keras.layers.BatchNormalization` in training, unless it is frozen (each step has
              its own batch statistics, as in Keras; `fold=True` takes those of all steps);
            * a layer with `stateful=True` (one state, which goes on from step to step);
            * in training, dropout with a `noise_shape` that fixes the batch axis.

            Anything else is taken to treat each sample on its own: give `fold=False` to a layer
            that does not. What a layer updates in each call (`SpectralNormalization`) it updates
            once where time is folded, and in Keras once per step.
        **kwargs: of `keras.layers.Layer`.

    Call arguments:
        inputs: `[B, T, ...]`, or a tuple, list or dict of such, with the same B and T.
        mask: `[B, T]` or `[B, T, ...]` booleans, True where a step is real; one for all inputs, or
            as many, nested as they are.
        training: passed on to the layer.

    Returns:
        What the layer returns, nested as there, with a time axis: `[B, T, ...]` for `[B, ...]`.

    Masks: the layer computes masked steps too. It gets the mask if its `call` takes one: a mask
    `[B, T, ...]` step by step as `[B, ...]`, which is what a recurrent layer inside wants. Of a
    mask `[B, T]` it gets `[B]` or, if its input is a sequence (`[B, S, F]`), `[B, S]`, so that a
    masked step is a sequence without a real step (Keras raises an error there). The mask goes on
    to the next layer: whole if the layer inside hands it on, else as `[B, T]`, where a step is real
    if anything in it is. With several inputs it is real if it is so in all that have a mask.

    Unknown T: `fold` costs nothing there. Steps one by one become a loop, in which the layer cannot
    add losses.

    A regularizer of the layer's activity is averaged over samples and steps where time is folded,
    and over samples and added up over steps where not (Keras drops it).

    Raises:
        ValueError: for inputs or a mask without `[B, T]`, or of different `[B, T]`.

    Example:

    >>> import numpy as np, keras, keras_rnnx
    >>> video = np.ones((2, 5, 8, 8, 3), "float32")
    >>> keras_rnnx.TimeDistributed(keras.layers.Conv2D(4, 3))(video).shape
    TensorShape([2, 5, 6, 6, 4])
    """

    def __init__(
        self, layer: keras.layers.Layer, fold: bool | Literal["auto"] = "auto", **kwargs: Any
    ) -> None:
        if not isinstance(layer, keras.layers.Layer):
            raise ValueError(
                f"TimeDistributed got {layer!r}, expected a Keras layer such as "
                "keras.layers.Dense(32). Please initialize `TimeDistributed` layer with a "
                "`keras.layers.Layer` instance."
            )
        checks.one_of("fold", fold, ("auto", True, False))
        kwargs.setdefault("autocast", False)  # the layer inside casts to its own dtype
        super().__init__(**kwargs)
        self.layer = layer
        self.fold = fold
        self.output_count = 1  # set by the call
        self.supports_masking = True

    def folds(self, training: bool | None = False) -> bool:
        """Whether a call folds time into the batch."""
        return not mixes_samples(self.layer, training) if self.fold == "auto" else self.fold

    # -- shapes ----------------------------------------------------------------------------

    def build(self, inputs_shape):
        # What has no `build` of its own is built by Keras in the call.
        if not self.layer.built and type(self.layer).build is not keras.layers.Layer.build:
            self.layer.build(self._step_shape(inputs_shape))
            self.layer.built = True
        self.built = True

    def _step_shape(self, inputs_shape):
        """The shape or shapes that the layer inside gets."""
        shapes = []
        keras.tree.map_shape_structure(shapes.append, inputs_shape)
        self._check_shapes(shapes)
        # A layer that sees B*T samples must not settle for B.
        batch = shapes[0][0] if not self.folds() else None
        return keras.tree.map_shape_structure(lambda s: (batch, *s[2:]), inputs_shape)

    def compute_output_shape(self, inputs_shape):
        first = []
        keras.tree.map_shape_structure(first.append, inputs_shape)
        shapes = self.layer.compute_output_shape(self._step_shape(inputs_shape))
        return keras.tree.map_shape_structure(lambda s: (*first[0][:2], *s[1:]), shapes)

    def compute_output_spec(self, *args, **kwargs):
        # By tracing: the dtype is that of the layer inside, which Keras would take for ours.
        return keras.Operation.compute_output_spec(self, *args, **kwargs)

    def _check_shapes(self, shapes):
        for shape in shapes:
            if len(shape) < 2:
                raise ValueError(
                    f"TimeDistributed {self.name!r} got input of shape {tuple(shape)}, expected "
                    "(batch, time, ...). Add a time axis, x[:, None]."
                )
            for size, other in zip(shape[:2], shapes[0][:2]):
                if None not in (size, other) and size != other:
                    raise ValueError(
                        f"TimeDistributed {self.name!r} got inputs of shapes "
                        f"{[tuple(s) for s in shapes]}, expected the same (batch, time) in all. "
                        "Repeat what has no time axis, or pass it to the layer in another way."
                    )

    # -- masks -----------------------------------------------------------------------------

    def _masks(self, inputs, mask):
        """A mask, or None, for each of the flat inputs."""
        inputs = keras.tree.flatten(inputs)
        masks = keras.tree.flatten(mask)
        masks = len(inputs) * masks if len(masks) == 1 else masks
        shapes = [tuple(x.shape) for x in inputs]
        wrong = len(masks) != len(inputs)
        for one, shape in zip(masks, shapes):
            if one is not None:
                sizes = zip(one.shape[:2], shape[:2])
                wrong |= len(one.shape) < 2 or any(None not in s and s[0] != s[1] for s in sizes)
        if wrong:
            raise ValueError(
                f"TimeDistributed {self.name!r} got a mask of shape "
                f"{[None if m is None else tuple(m.shape) for m in masks]} with input of shape "
                f"{shapes}, expected (batch, time, ...) of the input: one mask for all inputs or "
                "one for each."
            )
        return masks

    def compute_mask(self, inputs, mask=None):
        """The mask of each output, `[B, T]` or the whole one that came."""
        if mask is None or all(m is None for m in keras.tree.flatten(mask)):
            return None
        masks = self._masks(inputs, mask)
        given = [m for m in masks if m is not None]
        whole = [False]
        if len(masks) == 1 and len(given[0].shape) > 2 and self.layer.supports_masking:
            (x,) = keras.tree.flatten(inputs)
            step = keras.KerasTensor((None, *x.shape[2:]), x.dtype)
            probe = keras.KerasTensor((None, *given[0].shape[2:]), "bool")
            handed_on = self.layer.compute_mask(step, probe)
            handed_on = handed_on if isinstance(handed_on, (list, tuple)) else [handed_on]
            whole = [m is probe for m in handed_on]
        by_step = functools.reduce(keras.ops.logical_and, map(_any_in_step, given))
        if len(whole) == 1:  # what goes for one output goes for all
            whole = self.output_count * whole
        outputs = [given[0] if w else by_step for w in whole]
        return outputs if len(outputs) > 1 else outputs[0]

    def _step_outputs(self, inputs):
        """Shape and dtype of what the layer inside returns, nested as there."""
        steps = keras.tree.map_structure(
            lambda x: keras.KerasTensor((x.shape[0], *x.shape[2:]), x.dtype), inputs
        )
        return self.layer.compute_output_spec(steps)

    # -- call ------------------------------------------------------------------------------

    def call(self, inputs: Tensor, training: bool | None = None, mask: Tensor | None = None) -> Any:
        inputs = keras.tree.map_structure(tf.convert_to_tensor, inputs)
        flat = keras.tree.flatten(inputs)
        self._check_shapes([tuple(x.shape) for x in flat])
        masks = len(flat) * [None]
        if mask is not None and "mask" in inspect.signature(self.layer.call).parameters:
            masks = [_for_rows(m, x) for m, x in zip(self._masks(inputs, mask), flat, strict=True)]

        def run(flat, masks):
            x = keras.tree.pack_sequence_as(inputs, flat)
            if all(m is None for m in masks):
                return self.layer(x, training=training)
            mask = keras.tree.pack_sequence_as(inputs, masks)
            return self.layer(x, mask=mask, training=training)

        if self.folds(training):
            outputs = self._run_folded(run, flat, masks)
        elif flat[0].shape[1]:
            outputs = self._run_unrolled(run, flat, masks, flat[0].shape[1])
        else:
            outputs = self._run_loop(run, flat, masks, inputs)
        self.output_count = len(keras.tree.flatten(outputs))
        return outputs

    def _run_folded(self, run, flat, masks):
        first = flat[0]
        batch, steps = (_size(first, axis) for axis in (0, 1))

        def fold(x):
            if x is None:
                return None
            return tf.reshape(x, [batch * steps, *(_size(x, a) for a in range(2, x.shape.rank))])

        def unfold(y):
            self._check_output(y)
            y = tf.reshape(y, [batch, steps, *(_size(y, a) for a in range(1, y.shape.rank))])
            return tf.ensure_shape(y, [*first.shape[:2], *y.shape[2:]])

        outputs = run([fold(x) for x in flat], [fold(m) for m in masks])
        return keras.tree.map_structure(unfold, outputs)

    def _run_unrolled(self, run, flat, masks, steps):
        step = lambda x, t: None if x is None else x[:, t]
        outputs = [
            run([step(x, t) for x in flat], [step(m, t) for m in masks]) for t in range(steps)
        ]
        return keras.tree.map_structure(lambda *ys: tf.stack(ys, axis=1), *outputs)

    def _run_loop(self, run, flat, masks, inputs):
        spec = self._step_outputs(inputs)
        given = [m for m in masks if m is not None]
        by_time = [_swap(x) for x in (*flat, *given)]

        def step(now):
            xs, rest = list(now[: len(flat)]), iter(now[len(flat) :])
            losses = len(self.layer.losses)
            output = run(xs, [None if m is None else next(rest) for m in masks])
            if len(self.layer.losses) > losses:
                raise ValueError(
                    f"TimeDistributed {self.name!r} got an unknown number of steps for "
                    f"{self.layer.name!r}, which adds a loss in each: expected a known number. "
                    "Give it in keras.Input, for example keras.Input((20, 16)), or set fold=True."
                )
            return keras.tree.map_structure(tf.convert_to_tensor, output)

        signature = keras.tree.map_structure(
            lambda s: tf.TensorSpec((flat[0].shape[0], *s.shape[1:]), s.dtype), spec
        )
        # In order: a state or a moving average goes from one step to the next.
        outputs = tf.map_fn(
            step, tuple(by_time), fn_output_signature=signature, parallel_iterations=1
        )
        return keras.tree.map_structure(_swap, outputs)

    def _check_output(self, y):
        if y.shape.rank == 0:
            raise ValueError(
                f"TimeDistributed {self.name!r} got a scalar from {self.layer.name!r}, expected "
                "(batch, ...). Keep the axis of the batch in what it returns."
            )

    # -- configuration ---------------------------------------------------------------------

    def get_config(self):
        return {
            **super().get_config(),
            "layer": keras.saving.serialize_keras_object(self.layer),
            "fold": self.fold,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        if isinstance(config["layer"], dict):
            config["layer"] = keras.saving.deserialize_keras_object(
                config["layer"], custom_objects=custom_objects
            )
        return cls(**config)


def mixes_samples(layer, training):
    """Whether something in `layer` is known to mix samples, or to go on from call to call."""
    for part in everything(layer):
        noise_shape = getattr(part, "noise_shape", None)
        if getattr(part, "stateful", False):
            return True
        if training and noise_shape is not None and noise_shape[0] is not None:
            return True
        if training and isinstance(part, keras.layers.BatchNormalization) and part.trainable:
            return True
    return False


def _for_rows(mask, x):
    """A mask `[B, T]` with the time axis of the sequences in `x [B, T, S, F]`, if there is one."""
    if mask is None:
        return None
    mask = tf.cast(mask, tf.bool)
    if mask.shape.rank == 2 and x.shape.rank == 4:
        return tf.broadcast_to(mask[..., None], tf.shape(x)[:3])
    return mask


def _any_in_step(mask):
    """`[B, T]` of a mask `[B, T, ...]`."""
    inner = tuple(range(2, len(mask.shape)))
    mask = keras.ops.cast(mask, "bool")
    return keras.ops.any(mask, axis=inner) if inner else mask


def _size(x, axis):
    return tf.shape(x)[axis] if x.shape[axis] is None else x.shape[axis]


def _swap(x):
    """`[B, T, ...] <-> [T, B, ...]`."""
    return tf.transpose(x, [1, 0, *range(2, x.shape.rank)])

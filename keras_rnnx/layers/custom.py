"""A cell from a spec of the user's own."""

from typing import Any

import keras

from keras_rnnx.cells import CellSpec
from keras_rnnx.layers.cell import Cell


@keras.saving.register_keras_serializable(package="keras_rnnx")
class CustomCell(Cell):
    """One step of a spec of your own, with its weights.

    `keras_rnnx.RNN` repeats it on the engine, at the speed of the cells of this package;
    `keras_rnnx.testing.check_cell` tests it.

    Args:
        spec: a `keras_rnnx.CellSpec`: a frozen dataclass that is registered with
            `keras.saving.register_keras_serializable`, so that models with it can be saved.
        **kwargs: initializers, regularizers, constraints and noise: see `keras_rnnx.Cell`; and
            those of `keras.layers.Layer`.

    Raises:
        TypeError: if `spec` is no `CellSpec`, has a field that cannot be hashed, or says its sizes
            of states wrongly.

    Example:

    >>> import dataclasses, keras, keras_rnnx, numpy as np, tensorflow as tf
    >>> @keras.saving.register_keras_serializable(package="example")
    ... @dataclasses.dataclass(frozen=True)
    ... class Leaky(keras_rnnx.CellSpec):
    ...     rate: float = 0.1
    ...     def step(self, weights, product, x, states, constants):
    ...         (h,) = states
    ...         new = tf.tanh(product("recurrent_kernel", h, plus=x))
    ...         h = (1 - self.rate) * h + self.rate * new
    ...         return h, (h,)
    >>> layer = keras_rnnx.RNN(keras_rnnx.CustomCell(Leaky(4), zoneout=0.1))
    >>> layer(np.ones((2, 5, 3), "float32")).shape
    TensorShape([2, 4])
    """

    def __init__(self, spec: CellSpec, **kwargs: Any) -> None:
        if not isinstance(spec, CellSpec):
            raise TypeError(
                f"CustomCell got {spec!r}, expected a keras_rnnx.CellSpec: an object of a class "
                "that says its step. For any other Keras cell use keras_rnnx.RNN(cell)."
            )
        try:
            hash(spec)
        except TypeError as error:
            raise TypeError(
                f"CustomCell got {spec!r}, which cannot be hashed ({error}): equal specs share "
                "their compiled loops. Use @dataclasses.dataclass(frozen=True), and tuples in "
                "place of lists."
            ) from error
        super().__init__({"spec": spec}, **kwargs)

    @property
    def units(self) -> int:
        """Those of the spec."""
        return self.spec.units

    def make_spec(self) -> CellSpec:
        return self.spec

    def get_config(self):
        return {**super().get_config(), "spec": keras.saving.serialize_keras_object(self.spec)}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        if isinstance(config["spec"], dict):
            config["spec"] = keras.saving.deserialize_keras_object(config["spec"], custom_objects)
        return cls(**config)

"""What every cell is: a frozen description with a pure step.

Axes: B batch, T time, D input features, U units, G gates.
"""

import abc
import dataclasses
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any
from typing import ClassVar
from typing import Literal
from typing import NamedTuple
from typing import TypeAlias

import keras
import tensorflow as tf

from keras_rnnx.annotations import Tensor

Product: TypeAlias = Any  # `keras_rnnx.engine.Products`, or noise around it


class Weight(NamedTuple):
    """One weight of a cell: its shape and its role.

    The role ("kernel", "recurrent" or "bias") decides which of the layer's initializers,
    regularizers and constraints apply to it; a "gain" starts at 1 and has none of these.

    Attributes:
        shape: tuple of integers.
        role: `"kernel"`, `"recurrent"`, `"bias"` or `"gain"`.

    Example:

    >>> import keras_rnnx
    >>> keras_rnnx.Weight((3, 4), "kernel").role
    'kernel'
    """

    shape: tuple[int, ...]
    role: Literal["kernel", "recurrent", "bias", "gain"]


@keras.saving.register_keras_serializable(package="keras_rnnx")
@dataclasses.dataclass(frozen=True)
class CellSpec(abc.ABC):
    """A recurrent cell without its weights: equal settings make equal (and hashable) specs.

    A cell is split in parts, so that what does not depend on the state leaves the loop:

        drawn, constants = noise(seed, steps, batch)          draws of one sequence
        xg             = project(weights, x)                  all steps at once, one product
        prepared       = prepare(weights)                     once a sequence
        output, states = step(prepared, product, xg_t, states, constants)      T times

    What this class says suits a cell of one state with a kernel, a recurrent kernel and a bias of
    `gates` parts: such a cell writes down its `step` only.

    `step` is pure: same arguments, same results; no variables, no random draws, no captured
    tensors. It multiplies by a recurrent matrix only through `product(name, h)`, which lets the
    engine take the matrix's gradient out of the loop (see `keras_rnnx.engine`). What a step passes
    to `product.show(i=i, f=f)` is seen by `keras_rnnx.inspection.record`; otherwise it is free.

    Fields are compared and hashed: numbers, strings, functions, tuples. `keras_rnnx.CustomCell`
    gives a spec its weights. Register the class: whatever copies, saves or loads a cell makes it
    again from its configuration.

    Args:
        units: positive integer, the size of the state and of the output.
        use_bias: whether there is a bias.

    Example:

    >>> import dataclasses, keras, keras_rnnx, tensorflow as tf
    >>> @keras.saving.register_keras_serializable(package="example")
    ... @dataclasses.dataclass(frozen=True)
    ... class Plain(keras_rnnx.CellSpec):
    ...     def step(self, weights, product, x, states, constants):
    ...         h = tf.tanh(product("recurrent_kernel", states[0], plus=x))
    ...         return h, (h,)
    >>> list(Plain(units=4).weights(input_dim=3))
    ['kernel', 'recurrent_kernel', 'bias']
    """

    units: int
    use_bias: bool = True

    # Into how many parts, `units` wide each, the kernel's columns fall.
    gates: ClassVar[int] = 1
    # A letter for each of them; with fewer letters than gates they are numbered.
    gate_names: ClassVar[str] = "h"
    # What `step` looks up in `constants` beside draws, `[B, ...]` each.
    constant_names: ClassVar[tuple[str, ...]] = ()
    # Whether `step` passes its candidate through `product.candidate`.
    has_candidate: ClassVar[bool] = False

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """Size of each state, in order."""
        return (self.units,)

    @property
    def output_size(self) -> int:
        """Size of the output."""
        return self.state_sizes[0]

    @property
    def recurrent(self) -> dict[str, int]:
        """How many gates each matrix that multiplies a state is of, as `prepare` names them."""
        return {"recurrent_kernel": self.gates}

    def weights(self, input_dim: int) -> dict[str, Weight]:
        """The weights by name, in the order of Keras: `{name: Weight}`."""
        columns = self.gates * self.units
        weights = {
            "kernel": Weight((input_dim, columns), "kernel"),
            "recurrent_kernel": Weight((self.state_sizes[0], columns), "recurrent"),
        }
        if self.use_bias:
            weights["bias"] = Weight((columns,), "bias")
        return weights

    def input_bias(self, weights: dict[str, Tensor]) -> Tensor | None:
        """What is added to the input's product, or None."""
        return weights.get("bias")

    def project(self, weights: dict[str, Tensor], x: Tensor) -> Tensor:
        """`x [..., D] -> xg [..., G*U]`: the part of the step that no state enters.

        x: perhaps one input for each gate, see `affine`.
        """
        return affine(x, weights["kernel"], self.input_bias(weights))

    def prepare(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """The weights that `step` uses, as it uses them, `{name: tensor}`; by default the recurrent
        kernel only."""
        return {"recurrent_kernel": weights["recurrent_kernel"]}

    def noise(
        self, seed: Callable[[], Tensor], steps: Tensor, batch: Tensor
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """`(drawn, constants)`: what `step` needs of random draws for one sequence; here nothing.

        seed: function that gives a new `[2]` seed at each call. `drawn` is a tuple of trees of
        `[T, B, ...]`, drawn for each step: `x` is paired with one after the other, `(x, drawn[0])`
        and so on, and `project` passes them on to the step. `constants` is a dict.
        """
        return (), {}

    def enter(
        self,
        weights: dict[str, Tensor],
        given: dict[str, Any],
        states: tuple[Tensor, ...],
        seed: Callable[[], Tensor] | None,
        steps: Tensor | None,
        compiled: bool | None,
    ) -> tuple[tuple[Any, ...], dict[str, Any], tuple[Tensor, ...]]:
        """`(drawn, constants, states)` of one sequence, from what the call gave; here as it came.

        given: the constants of the call; `constants` is what the step gets of them. `drawn` is a
        tuple as that of `noise`. compiled: whether each new shape compiles the loop again.
        """
        return (), given, states

    def leave(
        self, given: dict[str, Any], output: Tensor, states: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """`(output, states)` of one sequence as the call gives them, from those of the loop.

        given: the constants of the call, as of `enter`.
        """
        return output, states

    @abc.abstractmethod
    def step(
        self,
        weights: dict[str, Tensor],
        product: Product,
        x: Tensor,
        states: tuple[Tensor, ...],
        constants: dict[str, Any],
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """One step: `(output, new states)` from the projected input and the states."""

    @property
    def affine_input(self) -> bool:
        """Whether `project` is `x @ kernel + bias`, so that the product of more inputs adds up."""
        return type(self).project is CellSpec.project

    def get_config(self):
        """The fields, as Keras saves objects."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {name: keras.saving.serialize_keras_object(v) for name, v in fields.items()}

    @classmethod
    def from_config(cls, config):
        read = keras.saving.deserialize_keras_object
        # JSON has lists only, and fields that are compared by value are tuples.
        tuples = lambda value: tuple(map(tuples, value)) if isinstance(value, list) else value
        return cls(**{name: tuples(read(value)) for name, value in config.items()})


@dataclasses.dataclass(frozen=True)
class Around:
    """Base of specs around a spec: does what the one inside does."""

    spec: "CellSpec | Around"

    @property
    def units(self):
        return self.spec.units

    @property
    def state_sizes(self):
        return self.spec.state_sizes

    @property
    def output_size(self):
        return self.spec.output_size

    @property
    def recurrent(self):
        return self.spec.recurrent

    @property
    def gate_names(self):
        return self.spec.gate_names

    @property
    def constant_names(self):
        return self.spec.constant_names

    def project(self, weights, x):
        return self.spec.project(weights, x)

    def prepare(self, weights):
        return self.spec.prepare(weights)

    def noise(self, seed, steps, batch):
        return self.spec.noise(seed, steps, batch)

    def enter(self, *arguments):
        return self.spec.enter(*arguments)

    def leave(self, *arguments):
        return self.spec.leave(*arguments)

    def step(self, weights, product, x, states, constants):
        return self.spec.step(weights, product, x, states, constants)


HALF = (tf.float16, tf.bfloat16)


def affine(x, kernel, bias=None):
    """`x @ kernel + bias` in the dtype of `x [..., D]`, whatever the dtype of the weights.

    x: also a list of inputs for as many equal parts of the kernel's columns.

    For a half-precision `x` the gradients of `kernel` and `bias` are summed over all rows in
    float32: a sum of thousands of rows loses its small terms in 8 or 11 bits.
    """
    if isinstance(x, (list, tuple)):
        kernels = tf.split(kernel, len(x), axis=-1)
        biases = len(x) * [None] if bias is None else tf.split(bias, len(x))
        return tf.concat([affine(*part) for part in zip(x, kernels, biases)], axis=-1)
    if x.dtype in HALF:
        return _affine_half(x, kernel, bias)
    multiply = tf.matmul if x.shape.rank == 2 else lambda x, kernel: tf.tensordot(x, kernel, axes=1)
    y = multiply(x, tf.cast(kernel, x.dtype))
    # `bias_add` and not `+`, whose gradient is a slower sum.
    return y if bias is None else tf.nn.bias_add(y, tf.cast(bias, x.dtype))


def _affine_half(x, kernel, bias):
    @tf.custom_gradient
    def multiply(x, kernel, *bias):
        y = tf.tensordot(x, tf.cast(kernel, x.dtype), axes=1)
        for b in bias:
            y += tf.cast(b, x.dtype)

        def grad(dy):
            dx = tf.tensordot(dy, tf.cast(kernel, dy.dtype), axes=[[-1], [1]])
            x_rows, dy_rows = float32_rows(x), float32_rows(dy)
            d_kernel = tf.matmul(x_rows, dy_rows, transpose_a=True)
            d_bias = [tf.cast(tf.reduce_sum(dy_rows, axis=0), b.dtype) for b in bias]
            return dx, tf.cast(d_kernel, kernel.dtype), *d_bias

        return y, grad

    return multiply(x, kernel, *(() if bias is None else (bias,)))


def float32_rows(a):
    """`[..., N] -> [rows, N]`, half precision widened to float32, so that sums keep their bits."""
    rows = tf.reshape(a, [-1, a.shape[-1] or tf.shape(a)[-1]])
    return tf.cast(rows, tf.float32) if a.dtype in HALF else rows

"""ESN: the echo state network's reservoir, as a cell with its weights, and the layer."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_rnnx.annotations import Activation
from keras_rnnx.annotations import Initializer
from keras_rnnx.cells import ESNSpec
from keras_rnnx.layers.cell import Cell
from keras_rnnx.layers.cell import arguments
from keras_rnnx.layers.named import NamedRNN


@keras.saving.register_keras_serializable(package="keras_rnnx")
class ESNCell(Cell):
    """One step of the reservoir of an echo state network, with its weights.

    For whole sequences use `keras_rnnx.ESN`, or `keras_rnnx.RNN` over this cell.

    Equations: `keras_rnnx.cells.ESNSpec`.

    Reference: Jaeger, "The 'echo state' approach to analysing and training recurrent neural
    networks", GMD Report 148 (2001); the leak as in Lukosevicius (2012) and TensorFlow Addons.

    Weights: kernel `[D, U]`, recurrent_kernel `[U, U]`, bias `[U]`; none is trained.

    Args:
        units: positive integer, the size of the state and of the output.
        activation: of the state; a name, a callable or None (linear).
        use_bias: whether there is a bias.
        connectivity: share of the recurrent numbers that are not zero.
        leaky: share of what is new in the state, 0 to 1.
        spectral_radius: largest absolute eigenvalue of the recurrent matrix, exactly.
        seed: of the connections, and of noise; `recurrent_initializer` draws the numbers.
        use_norm2: scale the matrix by its Frobenius norm instead, an upper bound of the radius.
        **kwargs: initializers, regularizers, constraints and noise: see `keras_rnnx.Cell`; and
            those of `keras.layers.Layer`.

    States: h. Call arguments and returns: `keras_rnnx.Cell`.

    Example:

    >>> import numpy as np, keras_rnnx
    >>> cell = keras_rnnx.ESNCell(4)
    >>> output, states = cell(np.ones((2, 3), "float32"), cell.get_initial_state(batch_size=2))
    >>> output.shape, len(states)
    (TensorShape([2, 4]), 1)
    """

    spec_class = ESNSpec

    def __init__(
        self,
        units: int,
        activation: Activation = "tanh",
        use_bias: bool = True,
        connectivity: float = 0.1,
        leaky: float = 1.0,
        spectral_radius: float = 0.9,
        use_norm2: bool = False,
        recurrent_initializer: Initializer = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(arguments(locals()), **kwargs)

    learns = False

    def initializer(self, name: str, role: str) -> Initializer:
        return self._reservoir if role == "recurrent" else super().initializer(name, role)

    def _reservoir(self, shape, dtype=None):
        """Sparse numbers, scaled. A draw whose connections close no loop has radius 0, whatever
        its numbers: it is drawn again."""
        seed = np.random.randint(2**31) if self.seed is None else self.seed
        draw = np.random.default_rng(seed)
        with tf.init_scope():
            numbers = np.array(self.recurrent_initializer(shape, "float32"), "float64")
        for _ in range(TRIES):
            matrix = numbers * (draw.random(shape) < self.connectivity)
            if self.use_norm2:
                size = np.linalg.norm(matrix)
            else:
                size = np.abs(np.linalg.eigvals(matrix)).max() if _has_a_loop(matrix != 0) else 0
            if size > 0:
                scaled = matrix * (self.spectral_radius / size)
                return keras.ops.convert_to_tensor(scaled, dtype=dtype)
        raise ValueError(
            f"{type(self).__name__} drew {TRIES} reservoirs of {self.units} units with "
            f"connectivity={self.connectivity}, and in none do connections close a loop: the "
            "spectral radius is 0 and cannot be scaled. Give more units or connectivity."
        )


TRIES = 100


def _has_a_loop(connected):
    """Whether the graph of these connections has a cycle: paths of any length remain."""
    paths = connected
    for _ in range(int(np.ceil(np.log2(len(connected)))) + 1):
        paths = paths @ paths  # of booleans: twice the length
    return paths.any()


@keras.saving.register_keras_serializable(package="keras_rnnx")
class ESN(NamedRNN):
    """The reservoir of an echo state network over a sequence.

    Equations, reference, weights and arguments: `keras_rnnx.ESNCell`; those of the layer, its
    call, masks and errors: `keras_rnnx.RNN`. States: h.

    Example:

    >>> import numpy as np, keras_rnnx
    >>> layer = keras_rnnx.ESN(4, return_sequences=True)
    >>> layer(np.ones((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 4])
    """

    cell_class = ESNCell
    cell_name = "esn_cell"

"""What Keras asks of a recurrent layer about shapes and states; how it runs is in `layers.rnn`."""

import inspect
from typing import Any

import keras
import tensorflow as tf

from keras_rnnx.annotations import States
from keras_rnnx.annotations import Tensor
from keras_rnnx.layers import checks
from keras_rnnx.layers.base import SequenceLayer
from keras_rnnx.layers.cell import Cell
from keras_rnnx.layers.kept import KeptStates
from keras_rnnx.layers.shapes import cell_states
from keras_rnnx.layers.shapes import first_shape
from keras_rnnx.layers.shapes import is_shape
from keras_rnnx.layers.shapes import map_shapes
from keras_rnnx.layers.shapes import map_sizes
from keras_rnnx.layers.shapes import output_size


class Recurrent(SequenceLayer):
    """Base of `RNN`, which sets the options that are read here."""

    # -- shapes ----------------------------------------------------------------------------

    @property
    def cells(self) -> list[Any]:
        """The cells from bottom to top; one for most layers."""
        return list(self.cell.cells) if self._is_stack else [self.cell]

    @property
    def _is_stack(self):
        return type(self.cell) is keras.layers.StackedRNNCells

    @property
    def foreign_cells(self) -> list[Any]:
        """Those of the cells that are not of this package."""
        return [cell for cell in self.cells if not isinstance(cell, Cell)]

    @property
    def state_size(self) -> list[Any]:
        """Sizes of the states: a list, of lists for a list of cells."""
        size = self.cell.state_size
        return list(size) if isinstance(size, (list, tuple)) else [size]

    @property
    def input_dim(self) -> int | None:
        """Number of features the layer was built for, None before."""
        return getattr(self.cells[0], "input_dim", None)

    @property
    def output_size(self) -> Any:
        """Size of an output, of lists where an output is one."""
        return output_size(self.cell)

    def compute_output_shape(self, sequences_shape, initial_state_shape=None):
        first = first_shape(sequences_shape)
        batch, steps = first[:2]
        ahead = (batch, steps) if self.return_sequences else (batch,)
        output = map_sizes(lambda size: (*ahead, *size), self.output_size)
        if not self.return_state:
            return output
        return output, *map_sizes(lambda size: (batch, *size), self.state_size)

    def compute_mask(self, sequences, mask=None):
        """The mask goes with the sequence of outputs; last outputs and states have none."""
        mask = keras.tree.flatten(mask)[0] if mask is not None else None
        if mask is not None and self.go_backwards:
            mask = keras.ops.flip(mask, axis=1)  # outputs come from the last step to the first
        output = mask if self.return_sequences else None
        if not self.return_state:
            return output
        return [output, *(None for _ in keras.tree.flatten(self.state_size))]

    def build(self, sequences_shape, initial_state_shape=None, constants_shape=None):
        self._check_sequences(sequences_shape)
        step_shape = map_shapes(lambda shape: (shape[0], *shape[2:]), sequences_shape)
        for cell in self.cells:
            if isinstance(cell, keras.layers.Layer) and not cell.built:
                takes = "constants_shape" in inspect.signature(cell.build).parameters
                cell.build(step_shape, *((constants_shape,) if takes else ()))
                cell.built = True
            if self._is_stack:
                step_shape = (first_shape(sequences_shape)[0], output_size(cell))
        if isinstance(self.cell, keras.layers.Layer):
            self.cell.built = True
        if self.stateful:
            self._keep_states(first_shape(sequences_shape)[0] or self._keras2_batch)
        self.built = True

    def _check_sequences(self, shape):
        if is_shape(shape):
            checks.sequences(self, shape, least=3 if isinstance(self.cells[0], Cell) else 2)

    def _check_step(self, shape, states):
        if is_shape(shape) and isinstance(self.cells[0], Cell):
            checks.step(self, shape)
        checks.initial_state(self, states, self.sizes_to_start(states), first_shape(shape)[0])

    # -- states ----------------------------------------------------------------------------

    def get_initial_state(self, batch_size: int | Tensor) -> list[States]:
        """Zeros, or what the cell's own `get_initial_state` says: a list of the states, with
        `batch_size` rows."""
        return cell_states(self.cell, batch_size)

    def complete_states(self, states: States) -> list[States]:
        """The states as a list, all of them where a cell may begin with a part of them."""
        if not self._is_stack:
            return _of_cell(self.cell, "complete_states", list(states), list(states))
        pairs = zip(self.cells, states)
        return [_of_cell(cell, "complete_states", own, own) for cell, own in pairs]

    def sizes_to_start(self, states: States) -> list[Any]:
        """The sizes that these initial states should have, where a cell may begin with a part."""
        if not self._is_stack:
            states = list(states) if isinstance(states, (list, tuple)) else [states]
            return _of_cell(self.cell, "sizes_to_start", states, self.state_size)
        if not isinstance(states, (list, tuple)) or len(states) != len(self.cells):
            return self.state_size  # refused then
        pairs = zip(self.cells, states, self.state_size)
        return [_of_cell(cell, "sizes_to_start", own, sizes) for cell, own, sizes in pairs]

    def initial_states(self, batch: int | Tensor) -> list[States]:
        """The states of `batch` rows before the first step, to start `step` with: `[B, U]` each."""
        return self.get_initial_state(batch)

    @property
    def states(self) -> list[States] | None:
        """The variables of a stateful layer, as a list of states; None before it is built."""
        return self.kept.variables_tree if self.kept is not None else None

    def _keep_states(self, batch):
        if self.kept is not None:
            self.kept.reset()
            return
        if None in keras.tree.flatten(self.state_size):
            raise ValueError(
                f"{self.name} has stateful=True and a cell whose states are as wide as its memory "
                f"({self.state_size}), which no variable can keep. Hand them on by yourself: "
                "return_state=True and initial_state."
            )
        any_batch = self.stateful == "any_batch"
        if batch is None and not any_batch:
            raise ValueError(
                f"{self.name} has stateful=True and got an unknown batch size. When using "
                "`stateful=True` in a RNN, the batch size must be static: give it, for example "
                'keras.Input(batch_shape=(32, None, 16)), or use stateful="any_batch".'
            )
        with tf.init_scope():
            zeros = self.get_initial_state(1 if any_batch else batch)
            zeros = keras.tree.map_structure(lambda z: tf.cast(z, self.compute_dtype), zeros)
            weigh = self._state_weight if self.save_states else None
            self.kept = KeptStates(zeros, any_batch, weigh)

    def _state_weight(self, zeros):
        return self.add_weight(
            shape=zeros.shape, dtype=zeros.dtype, initializer="zeros", trainable=False, name="state"
        )

    def reset_state(self, states: States | None = None) -> None:
        """Set the kept states of a stateful layer to zeros, or to `states`."""
        if self.kept is not None:
            self.kept.reset(states)

    def reset_states(self, states: States | None = None) -> None:
        """The name of Keras 2 for `reset_state`."""
        self.reset_state(states)


def _of_cell(cell, method, states, otherwise):
    """What a cell of this package says of its states, if they are a list."""
    known = isinstance(cell, Cell) and isinstance(states, (list, tuple))
    return getattr(cell, method)(list(states)) if known else otherwise

"""RNN: any cell, or a list of cells, over a sequence. Base of LSTM, GRU and SimpleRNN."""

import keras
import tensorflow as tf

from keras_rnnx import engine
from keras_rnnx.layers import checks
from keras_rnnx.layers.cell import Cell
from keras_rnnx.layers.kept import KeptStates
from keras_rnnx.layers.sequence import no_cudnn
from keras_rnnx.layers.sequence import output_size
from keras_rnnx.layers.sequence import run_cell


@keras.saving.register_keras_serializable(package="keras_rnnx")
class RNN(keras.layers.Layer):
    """Runs a cell, or a list of cells one above the other, over the steps of a sequence.

    Drop-in for `keras.layers.RNN`. The cells of this package run on its engine; other Keras cells
    run in an ordinary loop that TensorFlow differentiates (`plan()` says which and why).

    Args:
        cell: a cell of this package, any Keras cell (a `call(inputs, states)`, a `state_size`,
            perhaps an `output_size`), or a list of cells.
        return_sequences: return the outputs of all steps instead of the last one.
        return_state: return the last states too.
        go_backwards: go from the last step to the first; outputs come in that order.
        stateful: start each call with the last states of the call before. True needs a fixed
            batch size; `"any_batch"` takes any: a batch uses the first rows of the state.
        unroll: repeat the step in the graph instead of looping, where the loop is not compiled.
            Needs a known number of steps.
        zero_output_for_mask: outputs of masked steps are zeros instead of the previous output.
        jit_compile: `"auto"` compiles the loop with XLA in training and in eager calls, where the
            caller has not; `True` in graphs traced for inference too (`predict`, `evaluate`),
            which are faster then, but an export of which a stock server refuses; `False` never.
        backward: `"full"`, the hand-written backward pass in time, for first derivatives;
            `keras_rnnx.Truncated(steps)`, which stops now and then; `keras_rnnx.Checkpointed()`,
            which is exact in little memory; or `"autodiff"`, TensorFlow's own, which is slower and
            can be differentiated again.
        batch_parts: into how many parts a batch is split for compiled loops on a CPU, which run
            side by side; a part has at least 8 rows. It changes results by rounding only.
        **kwargs: of `keras.layers.Layer`.

    Call arguments:
        sequences: `[B, T, D]` (also named `inputs`).
        initial_state: list of the states before the first step, `[B, U]` each; zeros if None.
        mask: `[B, T]` booleans, True where a step is real, in any pattern.
        training: whether dropout acts. None means that Keras decides.

    Returns:
        `[B, T, U]` if `return_sequences`, else `[B, U]`; with `return_state` a tuple of that and
        of the last states.

    Masks: in a masked step the states stay, and the output is that of the previous step (zeros
    before the first real step, and in rows without one). What the padding holds, NaN included,
    changes neither outputs nor gradients. The mask goes on to the next layer.

    Raises:
        ValueError: for input, mask or states of another shape than expected.

    Example:

    >>> import numpy as np, keras_rnnx
    >>> x = np.ones((2, 5, 3), "float32")
    >>> layer = keras_rnnx.RNN([keras_rnnx.LSTMCell(4), keras_rnnx.GRUCell(6)])
    >>> layer(x).shape
    TensorShape([2, 6])
    """

    def __init__(
        self,
        cell,
        return_sequences=False,
        return_state=False,
        go_backwards=False,
        stateful=False,
        unroll=False,
        zero_output_for_mask=False,
        jit_compile="auto",
        backward="full",
        batch_parts=2,
        **kwargs,
    ):
        keras2_batch = _accept_keras2(kwargs)
        super().__init__(**kwargs)
        if isinstance(cell, (list, tuple)):
            cell = keras.layers.StackedRNNCells(cell)
        for attribute in ("call", "state_size"):
            if not hasattr(cell, attribute):
                raise ValueError(
                    f"cell is {cell!r}, which has no `{attribute}`. Expected a keras_rnnx cell, a "
                    "Keras cell with `call(inputs, states)` and `state_size`, or a list of these."
                )
        checks.one_of("stateful", stateful, (False, True, "any_batch"))
        checks.one_of("jit_compile", jit_compile, ("auto", True, False))
        checks.backward(backward, cell)
        checks.positive("batch_parts", batch_parts)
        self.cell = cell
        self.return_sequences = return_sequences
        self.return_state = return_state
        self.go_backwards = go_backwards
        self.stateful = stateful
        self.unroll = unroll
        self.zero_output_for_mask = zero_output_for_mask
        self.jit_compile = jit_compile
        self.backward = backward
        self.batch_parts = batch_parts
        self.supports_masking = True
        self.settle_jit()
        self.kept = None
        self._keras2_batch = keras2_batch

    def settle_jit(self):
        """Tell Keras whether it may compile a model with this layer."""
        # XLA gives a variable's shape once and for all, and has no cuDNN call for recurrent nets.
        may_use_cudnn = any(self._no_cudnn(c, t) is None for c in self.cells for t in (True, False))
        self.supports_jit = self.stateful != "any_batch" and not may_use_cudnn

    # -- shapes ----------------------------------------------------------------------------

    @property
    def cells(self):
        """The cells from bottom to top; one for most layers."""
        stacked = type(self.cell) is keras.layers.StackedRNNCells
        return list(self.cell.cells) if stacked else [self.cell]

    @property
    def state_size(self):
        """Sizes of the states: a list, of lists for a list of cells."""
        size = self.cell.state_size
        return list(size) if isinstance(size, (list, tuple)) else [size]

    @property
    def input_dim(self):
        """Number of features the layer was built for, None before."""
        return getattr(self.cells[0], "input_dim", None)

    @property
    def output_size(self):
        return output_size(self.cell)

    def compute_output_shape(self, sequences_shape, initial_state_shape=None):
        batch, steps = sequences_shape[:2]
        size = self.output_size
        size = (size,) if isinstance(size, int) else tuple(size)
        output = (batch, steps, *size) if self.return_sequences else (batch, *size)
        if not self.return_state:
            return output

        def shape(size):
            if isinstance(size, (list, tuple)):
                return [shape(s) for s in size]
            return (batch, size)

        return output, *(shape(size) for size in self.state_size)

    def compute_mask(self, sequences, mask=None):
        """The mask goes with the sequence of outputs; last outputs and states have none."""
        mask = keras.tree.flatten(mask)[0] if mask is not None else None
        output = mask if self.return_sequences else None
        if not self.return_state:
            return output
        return [output, *(None for _ in keras.tree.flatten(self.state_size))]

    def build(self, sequences_shape, initial_state_shape=None):
        self._check_sequences(sequences_shape)
        step_shape = (sequences_shape[0], *sequences_shape[2:])
        if isinstance(self.cell, keras.layers.Layer) and not self.cell.built:
            self.cell.build(step_shape)
            self.cell.built = True
        if self.stateful:
            self._keep_states(sequences_shape[0] or self._keras2_batch)
        self.built = True

    def _check_sequences(self, shape):
        checks.sequences(self, shape, least=3 if isinstance(self.cells[0], Cell) else 2)

    # -- states ----------------------------------------------------------------------------

    def get_initial_state(self, batch_size):
        """Zeros, or what the cell's own `get_initial_state` says: a list of the states."""
        make = getattr(self.cell, "get_initial_state", None)
        if make is None:
            dtype = getattr(self.cell, "compute_dtype", self.compute_dtype)
            return [keras.ops.zeros((batch_size, size), dtype=dtype) for size in self.state_size]
        states = make(batch_size=batch_size)
        return list(states) if isinstance(states, (list, tuple)) else [states]

    @property
    def states(self):
        """The variables of a stateful layer, as a list of states; None before it is built."""
        return self.kept.variables_tree if self.kept is not None else None

    def _keep_states(self, batch):
        if self.kept is not None:
            self.kept.reset()
            return
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
            self.kept = KeptStates(zeros, any_batch)

    def reset_state(self, states=None):
        """Set the kept states of a stateful layer to zeros, or to `states`."""
        if self.kept is not None:
            self.kept.reset(states)

    def reset_states(self, states=None):
        """The name of Keras 2 for `reset_state`."""
        self.reset_state(states)

    # -- call ------------------------------------------------------------------------------

    def __call__(self, sequences=None, initial_state=None, mask=None, training=None, inputs=None):
        sequences = inputs if sequences is None else sequences
        if sequences is None:
            raise TypeError(f"{self.name} was called without an input: pass `sequences`.")
        self._check_call(sequences, initial_state, mask)
        return super().__call__(
            sequences, initial_state=initial_state, mask=mask, training=training
        )

    def _check_call(self, sequences, initial_state, mask):
        shape = getattr(sequences, "shape", None)
        if shape is None or getattr(shape, "rank", 0) is None:
            return  # nothing to check it by
        shape = tuple(shape)
        self._check_sequences(shape)
        checks.unroll(self, shape[1])
        if self.kept is not None and self.kept.batch_size is not None:
            checks.stateful_batch(self, self.kept.batch_size, shape[0])
        if mask is not None:
            for one in keras.tree.flatten(mask):
                if one is not None and hasattr(one, "shape"):
                    checks.mask(self, tuple(one.shape), shape)
        if initial_state is not None:
            checks.initial_state(self, initial_state, self.state_size, shape[0])

    def call(self, sequences, initial_state=None, mask=None, training=None):
        sequences = tf.convert_to_tensor(sequences)
        batch = sequences.shape[0] if sequences.shape[0] is not None else tf.shape(sequences)[0]
        if initial_state is None:
            states = self.kept.read(batch) if self.kept else self.get_initial_state(batch)
        else:
            nested = isinstance(initial_state, (list, tuple))
            states = list(initial_state) if nested else [initial_state]
        if self.stateful and initial_state is None and self.kept.batch_size is not None:
            checks.stateful_batch(self, self.kept.batch_size, sequences.shape[0])
        checks.unroll(self, sequences.shape[1])

        x = sequences
        if mask is not None:
            mask = tf.cast(keras.tree.flatten(mask)[0], tf.bool)
            mask = tf.reshape(mask, tf.shape(sequences)[:2])
        if self.go_backwards:
            x = tf.reverse(x, [1])
            mask = tf.reverse(mask, [1]) if mask is not None else None

        cells = self.cells
        plans = [self.plan(training, eager=tf.executing_eagerly(), cell=c) for c in cells]
        # With checkpoints the engine takes the axes as they come.
        turn = engine.swap_time_and_batch if not plans[0].backward.checkpointed else lambda a: a
        x, mask, steps = turn(x), turn(mask) if mask is not None else None, None
        if not plans[0].backward.checkpointed:
            compiled = any(plan.backend == "compiled" for plan in plans)
            x, mask, steps = engine.pad_time(x, mask, compiled)
        stacked = type(self.cell) is keras.layers.StackedRNNCells
        last = []
        for cell, plan, state in zip(cells, plans, states if stacked else [states], strict=True):
            options = dict(
                plan=plan,
                steps=steps,
                mask=mask,
                last_only=cell is cells[-1] and not self.return_sequences,
                zero_masked=self.zero_output_for_mask,
                unroll=self.unroll,
            )
            x, state = run_cell(cell, x, state, training, options)
            last.append(state)
        states = last if stacked else last[0]
        if self.stateful:
            self.kept.write(states)

        cast = lambda tensor: tf.cast(tensor, self.compute_dtype)
        output = cast(turn(x if steps is None else x[:steps]) if self.return_sequences else x)
        if self.return_state:
            return output, *keras.tree.map_structure(cast, states)
        return output

    def plan(self, training=False, eager=False, cell=None):
        """How a call runs, and why: a `Plan` with `backend`, `saves` and `reasons`.

        Args:
            training: whether the call is for training.
            eager: whether it runs eagerly; in `fit`, `predict` and `export` it does not.
            cell: for a list of cells, the one to tell about; None tells of the slowest.
        """
        cells = self.cells if cell is None else [cell]
        cudnn = [self._no_cudnn(c, training, eager) for c in cells]
        foreign = next((type(c).__name__ for c in cells if not isinstance(c, Cell)), None)
        return engine.choose(
            jit_compile=self.jit_compile,
            backward=self.backward,
            training=training,
            eager=eager,
            portable=engine.is_portable(),
            xla_failure=engine.failure(engine.device_type()),
            foreign=foreign,
            batch_parts=self.batch_parts,
            one_program=engine.is_enclosed() or engine.device_type() == "GPU",
            no_cudnn=next((reason for reason in cudnn if reason is not None), None),
        )

    def _no_cudnn(self, cell, training, eager=True):
        """Why cuDNN does not run this cell: None if it does, empty where nobody expects it."""
        use_cudnn = getattr(self, "use_cudnn", "auto")  # an option of LSTM and GRU
        if use_cudnn is False:
            return "The layer has use_cudnn=False."
        if engine.cudnn.failure():
            return engine.cudnn.failure() if use_cudnn is True else ""
        if engine.is_enclosed():
            return "The caller compiles the layer, and XLA has no recurrent call of cuDNN."
        if not training and not eager and use_cudnn == "auto":
            return "Traced for inference: the graph may be exported, and cuDNN runs on GPUs only."
        return no_cudnn(
            cell,
            training,
            unroll=self.unroll,
            backward=self.backward,
            portable=engine.is_portable(),
        )

    # -- configuration ---------------------------------------------------------------------

    def get_config(self):
        return {
            **super().get_config(),
            "cell": keras.saving.serialize_keras_object(self.cell),
            **{name: getattr(self, name) for name in OPTIONS},
            "backward": _serialized(self.backward),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        for name in ("cell", "backward"):
            if isinstance(config.get(name), dict):
                config[name] = keras.saving.deserialize_keras_object(
                    config[name], custom_objects=custom_objects
                )
        return cls(**config)


def _serialized(backward):
    if isinstance(backward, str):
        return backward
    return keras.saving.serialize_keras_object(backward)


OPTIONS = (
    "return_sequences",
    "return_state",
    "go_backwards",
    "stateful",
    "unroll",
    "zero_output_for_mask",
    "jit_compile",
    "backward",
    "batch_parts",
)


def _accept_keras2(kwargs):
    """Take what only Keras 2 knew out of `kwargs`; return the batch size, if they say one."""
    if kwargs.pop("time_major", False):
        raise ValueError(
            "time_major=True is Keras 2's, and Keras 3 has batch-major sequences only: pass "
            "(batch, time, features) and drop the argument."
        )
    kwargs.pop("implementation", None)
    shape = kwargs.pop("batch_input_shape", None)
    if shape is None:
        return None
    kwargs["input_shape"] = tuple(shape[1:])
    return shape[0]

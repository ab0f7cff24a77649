"""RNN: any cell, or a list of cells, over a sequence. Base of LSTM, GRU and SimpleRNN."""

from typing import Any
from typing import Literal

import keras
import tensorflow as tf

from keras_rnnx import engine
from keras_rnnx.annotations import States
from keras_rnnx.annotations import Tensor
from keras_rnnx.cells import LinearSpec
from keras_rnnx.engine import Backward
from keras_rnnx.layers import checks
from keras_rnnx.layers import lengths
from keras_rnnx.layers.cell import Cell
from keras_rnnx.layers.recurrent import Recurrent
from keras_rnnx.layers.sequence import no_cudnn
from keras_rnnx.layers.sequence import run_cells
from keras_rnnx.layers.sequence import with_masks
from keras_rnnx.layers.shapes import map_shapes
from keras_rnnx.layers.shapes import shapes_of
from keras_rnnx.layers.streams import stream


@keras.saving.register_keras_serializable(package="keras_rnnx")
class RNN(Recurrent):
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
        return_ragged: return the sequence of outputs as a `tf.RaggedTensor` of the real steps of
            each row. Needs `return_sequences`; not under `jit_compile=True`.
        save_states: with `stateful=True`, save the kept states with the model, as weights that are
            not trained.
        **kwargs: of `keras.layers.Layer`.

    Call arguments:
        sequences: `[B, T, D]` (also named `inputs`), or a `tf.RaggedTensor`, ragged in time. For
            a Keras cell of your own also a tree of `[B, T, ...]`.
        initial_state: list of the states before the first step, `[B, U]` each; zeros if None.
        mask: `[B, T]` booleans, True where a step is real, in any pattern.
        training: whether dropout acts. None means that Keras decides.
        sequence_length: `[B]` integers: the steps of a row before its length are real. Together
            with a mask both hold. The outputs carry it on as their mask.
        reset_mask: booleans, `[B]`: rows whose states are zeros before the first step, whatever was
            kept or given; or `[B, T]`: before those steps, for documents laid end to end. (Steps
            count in the order in which they run. At a masked step a reset waits for the next.)
        constants: dict of `[B, ...]`, by the names in the cell's `spec.constant_names`, that every
            step gets; for a Keras cell that takes `constants`, any. See `AttentionCell` for its
            memory.

    Returns:
        `[B, T, U]` if `return_sequences`, else `[B, U]`; with `return_state` a tuple of that and
        of the last states.

    Masks: in a masked step the states stay, and the output is that of the previous step (zeros
    before the first real step, and in rows without one). What the padding holds, NaN included,
    changes neither outputs nor gradients. The mask goes on to the next layer.

    One step at a time: `output, states = layer.step(x_t, states)`, from
    `layer.initial_states(batch)`; see also `keras_rnnx.StreamingSession`.

    Raises:
        ValueError: for input, mask, lengths, constants or states of another shape than expected.

    Example:

    >>> import numpy as np, keras_rnnx
    >>> x = np.ones((2, 5, 3), "float32")
    >>> layer = keras_rnnx.RNN([keras_rnnx.LSTMCell(4), keras_rnnx.GRUCell(6)])
    >>> layer(x).shape
    TensorShape([2, 6])
    """

    def __init__(
        self,
        cell: Any,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool | Literal["any_batch"] = False,
        unroll: bool = False,
        zero_output_for_mask: bool = False,
        jit_compile: bool | Literal["auto"] = "auto",
        backward: Literal["full", "autodiff"] | Backward = "full",
        batch_parts: int = 2,
        return_ragged: bool = False,
        save_states: bool = False,
        **kwargs: Any,
    ) -> None:
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
        checks.positive("batch_parts", batch_parts)
        checks.goes_with("return_ragged", return_ragged, "return_sequences", return_sequences, True)
        checks.goes_with("save_states", save_states, "stateful", stateful, True)
        self.cell = cell
        checks.backward(backward, self.foreign_cells)
        self.return_sequences = return_sequences
        self.return_state = return_state
        self.go_backwards = go_backwards
        self.stateful = stateful
        self.unroll = unroll
        self.zero_output_for_mask = zero_output_for_mask
        self.jit_compile = jit_compile
        self.backward = backward
        self.batch_parts = batch_parts
        self.return_ragged = return_ragged
        self.save_states = save_states
        self.supports_masking = True
        self.settle_jit()
        self.kept = None
        self._keras2_batch = keras2_batch

    def settle_jit(self) -> None:
        """Tell Keras whether it may compile a model with this layer."""
        # XLA gives a variable's shape once and for all, and has no cuDNN call for recurrent nets.
        may_use_cudnn = any(self.no_cudnn(c, t) is None for c in self.cells for t in (True, False))
        self.supports_jit = self.stateful != "any_batch" and not may_use_cudnn

    # -- call ------------------------------------------------------------------------------

    def check_call(
        self, sequences: Tensor, initial_state: States | None, mask: Tensor | None
    ) -> None:
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
            sizes = self.sizes_to_start(initial_state)
            checks.initial_state(self, initial_state, sizes, shape[0])

    def call(
        self,
        sequences: Tensor,
        initial_state: States | None = None,
        mask: Tensor | None = None,
        training: bool | None = None,
        sequence_length: Tensor | None = None,
        reset_mask: Tensor | None = None,
        constants: Any = None,
        constants_mask: Any = None,
    ) -> Any:
        constants = with_masks(constants, constants_mask)
        lengths_given = sequence_length is not None or lengths.is_ragged(sequences)
        sequences, mask = lengths.with_mask(self, sequences, mask, sequence_length)
        first = keras.tree.flatten(sequences)[0]
        batch = first.shape[0] if first.shape[0] is not None else tf.shape(first)[0]
        carried = stream(self)
        if initial_state is not None:
            if carried is not None:
                raise ValueError(
                    f"{self.name} gets an initial_state in a model that streams, and would begin "
                    "every chunk from it. Stream the part of the model without that, or call "
                    "`step` with states of your own."
                )
            nested = isinstance(initial_state, (list, tuple))
            states = self.complete_states(initial_state if nested else [initial_state])
        elif carried is not None:
            states = carried.read(self, batch)
        else:
            states = self.kept.read(batch) if self.kept else self.get_initial_state(batch)
        if self.stateful and initial_state is None and self.kept.batch_size is not None:
            checks.stateful_batch(self, self.kept.batch_size, first.shape[0])
        checks.unroll(self, first.shape[1])

        output, states = self._run(sequences, states, mask, training, reset_mask, constants)
        if carried is not None:
            carried.write(states)
        elif self.stateful:
            self.kept.write(states)
        if mask is not None and self.go_backwards:
            mask = tf.reverse(mask, [1])  # in the order of the outputs
        output = self.as_asked(output, mask, lengths_given)
        if self.return_state:
            cast = lambda tensor: tf.cast(tensor, self.compute_dtype)
            return output, *keras.tree.map_structure(cast, states)
        return output

    def _run(self, x, states, mask, training, reset, constants, last_only=None):
        """The outputs, `[B, T, U]` or the last one, and the last states."""
        cells, first = self.cells, keras.tree.flatten(x)[0]
        constants = checks.constants(self, constants)
        if reset is not None:
            reset = checks.reset_mask(self, reset, first.shape)
            if reset.shape.rank == 1:
                states, reset = self._fresh_where(reset, states), None
        if self.go_backwards:
            back = lambda a: None if a is None else tf.reverse(a, [1])
            x, mask, reset = keras.tree.map_structure(back, x), back(mask), back(reset)
        eager, stacked = tf.executing_eagerly(), self._is_stack
        plans = [self.plan(training, eager=eager, cell=c, resets=reset is not None) for c in cells]
        output, states = run_cells(
            cells,
            plans,
            x,
            states if stacked else [states],
            mask=mask,
            reset=reset,
            constants=constants,
            training=training,
            options=dict(
                last_only=not self.return_sequences if last_only is None else last_only,
                zero_masked=self.zero_output_for_mask,
                unroll=self.unroll or first.shape[1] == 1,
            ),
        )
        cast = lambda tensor: tf.cast(tensor, self.compute_dtype)
        return keras.tree.map_structure(cast, output), states if stacked else states[0]

    def _fresh_where(self, reset, states):
        """The states, zeros again in the rows that say so."""
        fresh = self.get_initial_state(tf.shape(reset)[0])
        flat, sizes = map(keras.tree.flatten, (states, self.state_size))
        pairs = zip(keras.tree.flatten(fresh), flat, sizes, strict=True)
        # A state as wide as a memory has no width yet where it is fresh.
        fresh_like = lambda f, s, size: tf.zeros_like(s) if size is None else tf.cast(f, s.dtype)
        flat = [engine.select(reset, fresh_like(f, s, n), s) for f, s, n in pairs]
        return keras.tree.pack_sequence_as(fresh, flat)

    @tf.autograph.experimental.do_not_convert  # as Keras does for calls
    def step(
        self, x: Tensor, states: States, training: bool | None = False, constants: Any = None
    ) -> tuple[Tensor, list[States]]:
        """One step: `x [B, D]` and states `[B, U]` each give the output `[B, U]` and new states.

        Steps in a row, each with the states of the one before, are a call with the whole
        sequence. Start with `initial_states(batch)`. In training every step draws its own noise.
        A ValueError tells of other shapes, and of a layer that goes backwards.
        """
        checks.causal(self)
        if not self.built:
            shape = map_shapes(lambda s: (s[0], None, *s[1:]), shapes_of(x))
            given = {n: c for n, c in (constants or {}).items() if c is not None}
            self.build(shape, constants_shape=shapes_of(given) if given else None)
        self._check_step(shapes_of(x), states)
        x = keras.tree.map_structure(lambda a: tf.convert_to_tensor(a)[:, None], x)
        states = self.complete_states(states)
        return self._run(x, states, None, training, None, constants, last_only=True)

    def plan(
        self,
        training: bool | None = False,
        eager: bool = False,
        cell: Any = None,
        resets: bool = False,
    ) -> engine.Plan:
        """How a call runs, and why: a `Plan` with `backend`, `saves` and `reasons`.

        Args:
            training: whether the call is for training.
            eager: whether it runs eagerly; in `fit`, `predict` and `export` it does not.
            cell: for a list of cells, the one to tell about; None tells of the slowest.
            resets: whether states are reset within the sequence (`reset_mask [B, T]`).
        """
        cells = self.cells if cell is None else [cell]
        cudnn = [self.no_cudnn(c, training, eager, resets) for c in cells]
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
            any_device=all(self._on_any_device(c, training, eager, resets) for c in cells),
            linear=foreign is None
            and not resets
            and any(isinstance(c.recurrence().regularized(training), LinearSpec) for c in cells),
        )

    def no_cudnn(
        self, cell: Any, training: bool | None, eager: bool = True, resets: bool = False
    ) -> str | None:
        """Why cuDNN does not run this cell: None if it does, empty where nobody expects it."""
        use_cudnn = getattr(self, "use_cudnn", "auto")  # an option of LSTM and GRU
        if use_cudnn is False:
            return "The layer has use_cudnn=False."
        if engine.cudnn.failure():
            return engine.cudnn.failure() if use_cudnn is True else ""
        if engine.is_enclosed():
            return "The caller compiles the layer, and XLA has no recurrent call of cuDNN."
        if resets:
            return "States are reset within the sequence, and cuDNN carries them through."
        if not training and not eager and use_cudnn == "auto":
            return "Traced for inference: the graph may be exported, and cuDNN runs on GPUs only."
        return no_cudnn(
            cell,
            training,
            unroll=self.unroll,
            backward=self.backward,
            portable=engine.is_portable(),
        )

    def _on_any_device(self, cell, training, eager, resets):
        """Whether the trace of an export holds this cell for both devices."""
        asked = engine.is_for_any_device() and getattr(self, "use_cudnn", "auto") is not False
        if not asked or training or eager or resets or engine.is_enclosed():
            return False
        return no_cudnn(cell, training, unroll=self.unroll, backward=self.backward) is None

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
    "return_ragged",
    "save_states",
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

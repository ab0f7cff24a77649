"""TruncatedBPTT: fit over streams that are longer than a batch, with the state carried on."""

import functools
import numbers
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any
from typing import Literal

import keras
import tensorflow as tf

from keras_rnnx.annotations import Array
from keras_rnnx.annotations import PathLike
from keras_rnnx.training import documents as sources
from keras_rnnx.training import inside
from keras_rnnx.training.carry import Carry
from keras_rnnx.training.carry import Legs
from keras_rnnx.training.checkpoints import Checkpoints
from keras_rnnx.training.lanes import Ahead
from keras_rnnx.training.lanes import Batch
from keras_rnnx.training.lanes import Lanes


class TruncatedBPTT:
    """Trains stateful recurrent layers on long or endless documents, chunk by chunk, with `fit`.

    Each row of the batch is a lane in which documents lie one after another. Batch `i + 1` takes
    up each lane where batch `i` left it: a stateful layer starts from its last states, and the
    gradient stops there. Werbos, "Backpropagation Through Time: What It Does and How to Do It",
    Proceedings of the IEEE 78 (1990); Williams and Peng, Neural Computation 2 (1990).

    A lane whose document ends within a chunk is padded to the chunk's end, with sample weight 0
    there; its next document begins with the next batch, from zero states, while the other lanes
    go on. A lane always has a document: after the last one of a pass over the documents comes the
    first of the next pass. So an epoch is a number of batches (by default as many as all documents
    fill), and its end is no border: states go on into the next epoch.

    The model is built with the batch size, and layers have `stateful=True` (or `"any_batch"`).
    For gradients that stop within a sequence that fits into memory see `keras_rnnx.Truncated`.

    Args:
        documents: with `targets`, two arrays `[T, ...]`: one series, which is cut into
            `batch_size` documents of the same length; or two lists of such arrays. Without
            `targets`, pairs `(inputs [T, ...], targets [T, ...])`: a list (anything with `len`
            and `[]`, which may read from a disk), a function that gets the number of the pass and
            returns an iterable, or an iterator, which allows for one pass.
        targets: see `documents`; one target for each step.
        batch_size: number of lanes.
        steps: length of a chunk.
        shuffle: take the documents in another order in each pass; for lists.
        seed: of that order, which depends on the seed and on the number of the pass only.
        padding: what stands in `inputs` after the end of a document. For outputs at every step no
            mask is needed, since nothing real comes after the padding; layers that look back from
            it can have one by `keras.layers.Masking(padding)` or an Embedding's `mask_zero`.

    Losses: padded steps count as zeros in Keras' mean over the batch, so every real step has the
    same weight in the whole training. Give metrics as `weighted_metrics`; others count padding.

    Raises:
        ValueError: for documents that do not fit together, and fewer than lanes.

    Example:

    >>> import keras, keras_rnnx, numpy as np
    >>> x, y = np.ones((100, 3), "float32"), np.ones((100, 1), "float32")
    >>> model = keras.Sequential([
    ...     keras.Input(batch_shape=(2, None, 3)),
    ...     keras_rnnx.LSTM(4, return_sequences=True, stateful=True),
    ...     keras.layers.Dense(1),
    ... ])
    >>> model.compile("adam", "mse")
    >>> stream = keras_rnnx.TruncatedBPTT(x, y, batch_size=2, steps=10)
    >>> history = stream.fit(model, epochs=2, verbose=0)  # checkpoint="folder" to resume
    >>> stream.steps_per_epoch, history.epoch
    (5, [0, 1])
    """

    def __init__(
        self,
        documents: sources.Documents,
        targets: Array | Sequence[Array] | None = None,
        *,
        batch_size: int,
        steps: int,
        shuffle: bool = False,
        seed: int = 0,
        padding: float = 0,
    ) -> None:
        for name, value in (("batch_size", batch_size), ("steps", steps)):
            _positive(name, value)
        self.batch_size = batch_size
        self.steps = steps
        self.shuffle = shuffle
        self.seed = seed
        self.padding = padding
        self.source = sources.source(documents, targets, batch_size, shuffle, seed)

    @functools.cached_property
    def steps_per_epoch(self) -> int:
        """Batches that hold all documents once. It reads every document, for their lengths."""
        return -(-self.source.chunks(self.steps) // self.batch_size)

    def batches(self) -> Iterator[Batch]:
        """The batches from the first on, without end.

        Each has `inputs [B, T, ...]`, `targets`, `weights [B, T]` and `begins [B]`: the lanes in
        which a document begins.
        """
        lanes = Lanes(self.source, self.batch_size, self.steps, self.padding)
        while True:
            yield lanes.batch()

    def fit(
        self,
        model: keras.Model,
        epochs: int = 1,
        steps_per_epoch: int | None = None,
        checkpoint: PathLike | None = None,
        save_every: int | None = None,
        keep: int = 2,
        callbacks: Sequence[keras.callbacks.Callback] | None = None,
        verbose: int | Literal["auto"] = "auto",
        **options: Any,
    ) -> keras.callbacks.History:
        """Train a compiled model with `model.fit`; go on from a checkpoint if there is one.

        A process that was killed at any moment and is started again with the same arguments does
        what is left: weights, optimizer, states, seeds, metrics, the place in the documents and
        the history are those of a training that nobody disturbed, to the bit where operations are
        deterministic (`tf.config.experimental.enable_op_determinism()`). Not saved is what other
        callbacks know (EarlyStopping counts anew), and noise of layers without a
        `keras.random.SeedGenerator` of their own. Documents from a function or an iterator are
        told again up to the place, so they must come the same again.

        Args:
            model: built and compiled, with the batch size of the stream.
            epochs: number of epochs in all, those before a checkpoint included.
            steps_per_epoch: batches of an epoch; None for `self.steps_per_epoch`. A function or
                iterator needs it.
            checkpoint: folder, of this training only; None saves nothing.
            save_every: batches from one checkpoint to the next, besides one at the end of each
                epoch; None for those only.
            keep: how many checkpoints stay.
            callbacks, verbose, **options: of `model.fit`. Validation starts each batch from zero
                states and leaves those of training alone.

        Returns:
            The `History` of all epochs.
        """
        steps_per_epoch = self.steps_per_epoch if steps_per_epoch is None else steps_per_epoch
        for name, value in (("steps_per_epoch", steps_per_epoch), ("keep", keep)):
            _positive(name, value)
        if save_every is not None:
            _positive("save_every", save_every)
        self._check_model(model)
        history = keras.callbacks.History()
        carry = Carry(
            model,
            history,
            facts={
                "batch_size": self.batch_size,
                "steps": self.steps,
                "shuffle": self.shuffle,
                "seed": self.seed,
                "steps_per_epoch": steps_per_epoch,
            },
            steps_per_epoch=steps_per_epoch,
            checkpoints=Checkpoints(checkpoint, keep) if checkpoint is not None else None,
            save_every=save_every,
        )
        if checkpoint is not None:
            carry.resume()
        lanes = Lanes(self.source, self.batch_size, self.steps, self.padding, carry.position)
        carry.ahead = Ahead(lanes, carry.trained)
        begun = carry.trained // steps_per_epoch
        skipped = carry.trained % steps_per_epoch
        calls = Legs(
            [*(callbacks or []), history, carry],
            add_history=True,
            add_progbar=verbose != 0,
            model=model,
            verbose=verbose,
            epochs=epochs,
            steps=steps_per_epoch,
        )
        if carry.metrics is not None:
            carry.build_metrics()
        # An epoch cut in two is finished in a `fit` of its own.
        whole = (begun, epochs, steps_per_epoch)
        if skipped and begun < epochs:
            whole = (begun + 1, epochs, steps_per_epoch)
            calls.skipped, calls.last = skipped, begun + 1 == epochs
            self._fit(model, carry, calls, (begun, begun + 1, steps_per_epoch - skipped), options)
            if calls.last or model.stop_training:
                return history
            # The end of a `fit` gives a model its averaged weights, if the optimizer averages.
            for name, variables in carry.variables.items():
                inside.assign(variables, carry.at_epoch_end[name])
        calls.skipped, calls.last = 0, True
        self._fit(model, carry, calls, whole, options)
        return history

    def _fit(self, model, carry, calls, leg, options):
        begin, end, count = leg
        first = carry.ahead[carry.trained]
        signature = tuple(
            tf.TensorSpec(part.shape, part.dtype)
            for part in (first.inputs, first.targets, first.weights)
        )
        # No batch behind the last is read. `fit` may look at one before it begins.
        stop = max(carry.trained + 1, end * carry.steps_per_epoch)
        data = tf.data.Dataset.from_generator(
            lambda: carry.ahead.iterate(carry.trained, stop), output_signature=signature
        )
        model.fit(
            data,
            initial_epoch=begin,
            epochs=end,
            steps_per_epoch=count,
            callbacks=calls,
            shuffle=False,
            **options,
        )

    def _check_model(self, model):
        if not model.built:
            raise ValueError(
                f"{model.name} is not built, expected a model that knows its batch size: give it "
                f"keras.Input(batch_shape=({self.batch_size}, None, ...)), or call it once."
            )
        if not model.compiled:
            raise ValueError(f"{model.name} is not compiled: call model.compile before.")
        if model.steps_per_execution != 1:
            raise ValueError(
                f"{model.name} was compiled with steps_per_execution={model.steps_per_execution}, "
                "expected 1, since states are reset between batches: leave the argument out."
            )
        recurrent = [layer for _, layer in inside.layers(model) if inside.is_recurrent(layer)]
        stateful = [layer for layer in recurrent if layer.stateful]
        if not stateful:
            raise ValueError(
                f"{model.name} has {len(recurrent)} recurrent layers and none of them is stateful, "
                "expected one or more that keep their states between batches: give them "
                "stateful=True, as in keras_rnnx.LSTM(32, stateful=True)."
            )
        for layer in stateful:
            if layer.go_backwards:
                raise ValueError(
                    f"{layer.name} has go_backwards=True and stateful=True, and the last state of "
                    "a chunk read backwards is not where the next chunk goes on: give it "
                    "stateful=False."
                )
            for variable in keras.tree.flatten(layer.states):
                if layer.stateful != "any_batch" and variable.shape[0] != self.batch_size:
                    raise ValueError(
                        f"{layer.name} keeps states for a batch of {variable.shape[0]}, and the "
                        f"stream has batch_size={self.batch_size}: build the model with "
                        f"keras.Input(batch_shape=({self.batch_size}, None, ...))."
                    )


def _positive(name, value):
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(f"TruncatedBPTT got {name}={value!r}, expected a positive integer.")

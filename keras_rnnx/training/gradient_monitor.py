"""GradientMonitor: a callback that says which layer's gradients vanish, explode or turn NaN."""

import numbers
import warnings
from typing import Literal

import keras
import numpy as np
import tensorflow as tf

from keras_rnnx.annotations import Tensor
from keras_rnnx.training import inside
from keras_rnnx.training.findings import find
from keras_rnnx.training.norms import Norms


class GradientMonitor(keras.callbacks.Callback):
    """Measures norms of gradients and states on given data during `fit`, and warns.

    Now and then it takes the loss of the model on `x` and `y`, as in inference (no dropout) and
    from zero states, and measures

    * for each layer with trainable weights the norm of their gradient, `gradient_norm/<layer>`;
    * for each recurrent layer of this package the norm of the gradient with respect to its input
      at each step of time. It takes every path on which a step acts on the loss, through the steps
      after it too, so its course tells how far back the layer learns: Pascanu, Mikolov and Bengio,
      "On the difficulty of training recurrent neural networks", ICML 2013. In the logs stand the
      first and the last step that are not masked, `step_gradient_norm/<layer>/first` and `/last`;
    * the norm of its last states, all together, as root mean square over the batch,
      `state_norm/<layer>`.

    A layer is named as in the model, after those around it: `bidirectional/forward_lstm`. Values
    are those before the first update for the first batch, and then those after every `every`
    batches; the epoch's logs (History, CSVLogger, TensorBoard) hold the latest. For CSVLogger put
    this callback before it. Training goes on as if nobody had looked: states, seeds and statistics
    are put back.

    A warning names one layer for each kind of trouble, once per layer: with NaN or infinite values
    the first that makes them (weights, then states, then gradients); with vanishing and exploding
    gradients the recurrent layer in which they shrink or grow most on the way back.

    Args:
        x, y: a batch of inputs and of targets, of the batch size of stateful layers.
        every: batches from one measurement to the next.
        explode: norms above are reported.
        vanish: norms of gradients below are reported. For a layer with
            `backward=Truncated(...)` the steps count in which the gradient has not been stopped.
        on_nan: "warn", or "raise" to end the training with a ValueError.

    Attributes:
        history: dict of lists: "batch", the number of batches trained, and a list for each name.
        step_gradient_norms: by layer, the latest norms at all steps, `[T]`.

    Raises:
        ValueError: for NaN or infinite values, with `on_nan="raise"`.

    Example:

    >>> import keras, keras_rnnx, numpy as np
    >>> x, y = np.ones((4, 6, 3), "float32"), np.ones((4, 1), "float32")
    >>> layers = [keras_rnnx.LSTM(5, name="lstm"), keras.layers.Dense(1, name="head")]
    >>> model = keras.Sequential([keras.Input((None, 3)), *layers])
    >>> model.compile("sgd", "mse")
    >>> monitor = keras_rnnx.GradientMonitor(x, y, every=10)
    >>> history = model.fit(x, y, callbacks=[monitor], verbose=0)
    >>> for name in monitor.history:
    ...     print(name)
    batch
    gradient_norm/lstm
    gradient_norm/head
    step_gradient_norm/lstm/first
    step_gradient_norm/lstm/last
    state_norm/lstm
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        every: int = 100,
        explode: float = 1e3,
        vanish: float = 1e-7,
        on_nan: Literal["warn", "raise"] = "warn",
    ) -> None:
        super().__init__()
        if isinstance(every, bool) or not isinstance(every, numbers.Integral) or every < 1:
            raise ValueError(f"GradientMonitor got every={every!r}, expected a positive integer.")
        if not 0 <= vanish < explode:
            raise ValueError(
                f"GradientMonitor got vanish={vanish!r} and explode={explode!r}, expected numbers "
                "with 0 <= vanish < explode."
            )
        if on_nan not in ("warn", "raise"):
            raise ValueError(f'GradientMonitor got on_nan={on_nan!r}, expected "warn" or "raise".')
        self.x = keras.tree.map_structure(tf.convert_to_tensor, x)
        self.y = keras.tree.map_structure(tf.convert_to_tensor, y)
        self.every = every
        self.explode = explode
        self.vanish = vanish
        self.on_nan = on_nan
        self.history: dict[str, list[float]] = {}
        self.step_gradient_norms: dict[str, np.ndarray] = {}

    def on_train_begin(self, logs=None):
        self.history, self.step_gradient_norms = {}, {}
        self._batches = 0
        self._latest = {}
        self._warned = set()
        self._norms = Norms(self.model, self.x, self.y)

    def on_train_batch_begin(self, batch, logs=None):
        if self._batches == 0:
            self._measure()

    def on_train_batch_end(self, batch, logs=None):
        self._batches += 1
        if self._batches % self.every == 0:
            self._measure()
        if logs is not None:
            logs.update(self._latest)

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs.update(self._latest)

    def _measure(self):
        unseen = [v for v in self.model.variables if not v.trainable]
        unseen += self.model.metrics_variables
        states = inside.kept_variables(self.model)
        before = inside.values(unseen + states)
        inside.zero(states)
        found = self._norms.measure()
        inside.assign(unseen + states, before)
        if self._batches == 0:  # metrics that this was the first to use
            known = {id(v) for v in unseen}
            inside.zero([v for v in self.model.metrics_variables if id(v) not in known])

        self._latest = {}
        for layer in found:
            if layer.gradient is not None:
                self._latest[f"gradient_norm/{layer.name}"] = layer.gradient
        for layer in found:
            if layer.steps is not None:
                first, last = layer.steps[layer.real][[0, -1]]
                self._latest[f"step_gradient_norm/{layer.name}/first"] = float(first)
                self._latest[f"step_gradient_norm/{layer.name}/last"] = float(last)
                self._latest[f"state_norm/{layer.name}"] = layer.state
                self.step_gradient_norms[layer.name] = layer.steps
        for name, value in {"batch": self._batches, **self._latest}.items():
            self.history.setdefault(name, []).append(value)
        self._report(found)

    def _report(self, found):
        for trouble in find(found, self.explode, self.vanish):
            text = f"GradientMonitor, after {self._batches} batches: {trouble.text}"
            if trouble.kind == "nan" and self.on_nan == "raise":
                raise ValueError(text)
            # NaN spreads: later on, others than the layer that had it first would be named.
            once = trouble.kind if trouble.kind == "nan" else (trouble.kind, trouble.layer)
            if once not in self._warned:
                self._warned.add(once)
                warnings.warn(text, RuntimeWarning, stacklevel=2)

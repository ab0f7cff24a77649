"""Carries the state of a model from batch to batch of `fit`, and from process to process."""

import keras
import tensorflow as tf

from keras_rnnx.training import inside
from keras_rnnx.training.checkpoints import assign_arrays


class Carry(keras.callbacks.Callback):
    """Sets the rows of kept states to zeros where a document begins; saves checkpoints.

    Evaluation within `fit` starts every batch from zeros and leaves the states as they were.
    """

    def __init__(self, model, history, facts, steps_per_epoch, checkpoints, save_every):
        super().__init__()
        self.history = history
        self.facts = facts
        self.steps_per_epoch = steps_per_epoch
        self.checkpoints = checkpoints
        self.save_every = save_every
        self.states = inside.kept_variables(model)
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        # `model.variables` are weights and seeds, without the optimizer and the metrics.
        self.variables = {
            "model": model.variables,
            "optimizer": model.optimizer.variables,
            "states": self.states,
        }
        self.trained = 0  # batches
        self.position = None
        self.logs = []
        self.metrics = None
        self.ahead = None
        self.before_test = None
        self.at_epoch_end = None

    # -- checkpoints -----------------------------------------------------------------------

    def save(self):
        arrays = {name: inside.values(of) for name, of in self.variables.items()}
        if self.trained % self.steps_per_epoch:
            arrays["metrics"] = inside.values(self.model.metrics_variables)
        facts = {"trained": self.trained, "position": self.position, "logs": self.logs}
        self.checkpoints.save(self.trained, {**self.facts, **facts}, arrays)

    def resume(self):
        """Go to where the newest checkpoint stands, if there is one."""
        self.checkpoints.clean()
        found = self.checkpoints.load()
        if found is None:
            return
        facts, arrays = found
        for name, value in self.facts.items():
            if facts[name] != value:
                raise ValueError(
                    f"The checkpoint in {self.checkpoints.folder} was made with {name}="
                    f"{facts[name]!r} and this run has {value!r}: resume with the same, or give "
                    "another folder."
                )
        for name, variables in self.variables.items():
            assign_arrays(variables, arrays[name], name)
        self.trained, self.position, self.logs = facts["trained"], facts["position"], facts["logs"]
        self.metrics = arrays.get("metrics")

    def build_metrics(self):
        """Make the variables of the metrics, as the first batch of a training does."""
        before = {name: inside.values(of) for name, of in self.variables.items()}
        batch = self.ahead[self.trained]
        given = dict(x=batch.inputs, y=batch.targets, sample_weight=batch.weights)
        given = keras.tree.map_structure(tf.convert_to_tensor, given)
        given["y_pred"] = self.model(given["x"], training=False)
        self.model.compute_loss(**given, training=False)
        self.model.compute_metrics(**given)
        for name, variables in self.variables.items():
            inside.assign(variables, before[name])

    def on_train_begin(self, logs=None):
        self.history.epoch = [epoch for epoch, _ in self.logs]
        names = dict.fromkeys(name for _, values in self.logs for name in values)
        self.history.history = {n: [v[n] for _, v in self.logs if n in v] for n in names}

    def on_epoch_begin(self, epoch, logs=None):
        if self.metrics is not None:  # `fit` has just set them to zeros
            assign_arrays(self.model.metrics_variables, self.metrics, "metrics")
            self.metrics = None

    def on_epoch_end(self, epoch, logs=None):
        if self.trained != (epoch + 1) * self.steps_per_epoch:
            return  # someone stopped the training in the middle
        self.logs.append((epoch, dict(logs or {})))
        if self.checkpoints is not None:
            self.save()
        self.at_epoch_end = {name: inside.values(of) for name, of in self.variables.items()}

    # -- states ----------------------------------------------------------------------------

    def on_train_batch_begin(self, batch, logs=None):
        begins = self.ahead[self.trained].begins
        if begins.any():
            inside.zero_rows(self.states, begins)

    def on_train_batch_end(self, batch, logs=None):
        self.position = self.ahead[self.trained].position
        self.ahead.forget(self.trained)
        self.trained += 1
        # The last batch of an epoch waits for the end of the epoch: validation and other
        # callbacks belong to it.
        wanted = self.save_every is not None and self.trained % self.save_every == 0
        if self.checkpoints is not None and wanted and self.trained % self.steps_per_epoch:
            self.save()

    def on_test_begin(self, logs=None):
        self.before_test = inside.values(self.states)

    def on_test_batch_begin(self, batch, logs=None):
        inside.zero(self.states)

    def on_test_end(self, logs=None):
        inside.assign(self.states, self.before_test)


class Legs(keras.callbacks.CallbackList):
    """Callbacks of a training that takes more than one `fit`, for them it is one.

    An epoch that a checkpoint cut in two is shorter than the others, and one `fit` knows one
    length only.
    """

    begun = False
    last = False
    skipped = 0  # batches of the epoch that another process has trained

    def on_train_begin(self, logs=None):
        if not self.begun:
            self.begun = True
            super().on_train_begin(logs)

    def on_train_end(self, logs=None):
        if self.last or self.model.stop_training:
            super().on_train_end(logs)

    def on_train_batch_begin(self, batch, logs=None):
        super().on_train_batch_begin(batch + self.skipped, logs)

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch + self.skipped, logs)

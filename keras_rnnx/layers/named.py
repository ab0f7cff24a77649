"""Layers whose cell is made from their own arguments: the base of LSTM, GRU and SimpleRNN."""

import inspect

from keras_rnnx import engine
from keras_rnnx.layers import checks
from keras_rnnx.layers.cell import write
from keras_rnnx.layers.rnn import OPTIONS
from keras_rnnx.layers.rnn import RNN


class NamedRNN(RNN):
    """An `RNN` around one cell of `cell_class`, with that cell's arguments as its own.

    A subclass passes its arguments on as a dict. The cell's are attributes of the layer too.
    """

    cell_class = None
    cell_name = None

    def __init_subclass__(cls):
        super().__init_subclass__()
        for name in cell_arguments(cls):
            setattr(cls, name, property(lambda self, name=name: getattr(self.cell, name)))

    def __init__(self, arguments, **kwargs):
        cell = self.cell_class(
            **{name: arguments[name] for name in cell_arguments(self)},
            dtype=kwargs.get("dtype"),
            trainable=kwargs.get("trainable", True),
            name=self.cell_name,
        )
        options = {name: arguments[name] for name in OPTIONS}
        activity_regularizer = arguments["activity_regularizer"]
        super().__init__(cell, activity_regularizer=activity_regularizer, **options, **kwargs)
        if "use_cudnn" in arguments:
            self.use_cudnn = arguments["use_cudnn"]
            checks.one_of("use_cudnn", self.use_cudnn, ("auto", True, False))
            self.settle_jit()

    def _run(self, x, states, mask, training, *rest, **options):
        if getattr(self, "use_cudnn", "auto") is True and not engine.is_portable():
            reason = self.no_cudnn(self.cell, training)
            if reason is not None:
                raise ValueError(
                    f"{self.name} has use_cudnn=True, but cuDNN cannot run it. {reason} "
                    'Use use_cudnn="auto" or False.'
                )
        return super()._run(x, states, mask, training, *rest, **options)

    def get_config(self):
        config = super().get_config()
        del config["cell"]
        config["activity_regularizer"] = write("regularizer", self.activity_regularizer)
        if hasattr(self, "use_cudnn"):
            config["use_cudnn"] = self.use_cudnn
        return {**config, **{n: write(n, getattr(self, n)) for n in cell_arguments(self)}}


def cell_arguments(layer):
    """The names of the arguments of a layer's cell."""
    names = inspect.signature(layer.cell_class.__init__).parameters
    return [name for name in names if name not in ("self", "kwargs")]

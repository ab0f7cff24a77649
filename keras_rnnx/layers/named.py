"""Layers whose cell is made from their own arguments: the base of LSTM, GRU and SimpleRNN."""

import inspect
from typing import Any

from keras_rnnx import engine
from keras_rnnx.layers import checks
from keras_rnnx.layers.cell import COMMON
from keras_rnnx.layers.cell import Cell
from keras_rnnx.layers.cell import write
from keras_rnnx.layers.rnn import OPTIONS
from keras_rnnx.layers.rnn import RNN


class NamedRNN(RNN):
    """An `RNN` around one cell of `cell_class`, with that cell's arguments as its own.

    Takes `units`, and by name the arguments of the cell and of `RNN`. The cell's are attributes of
    the layer.
    """

    cell_class: type[Cell]
    cell_name: str | None = None

    def __init_subclass__(cls):
        super().__init_subclass__()
        if cls.__init__ is NamedRNN.__init__:  # for help() and editors
            cls.__signature__ = _signature(cls)
        for name in cell_arguments(cls):
            setattr(cls, name, property(lambda self, name=name: getattr(self.cell, name)))

    def __init__(self, units: int, **given: Any) -> None:
        given["units"] = units
        of_cell = {n: given.pop(n) for n in cell_arguments(self) if n in given}
        cell = self.cell_class(
            **of_cell,
            dtype=given.get("dtype"),
            trainable=given.get("trainable", True),
            name=self.cell_name,
        )
        use_cudnn = given.pop("use_cudnn", None)
        super().__init__(cell, **given)
        if use_cudnn is not None:
            checks.one_of("use_cudnn", use_cudnn, ("auto", True, False))
            self.use_cudnn = use_cudnn
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
    own = [name for name in names if name not in ("self", "kwargs")]
    return [*own, *(name for name in COMMON if name not in own)]


def _signature(layer):
    """Of a layer that takes what its cell and `RNN` take."""
    of = lambda function: inspect.signature(function).parameters.values()
    keyword = inspect.Parameter.KEYWORD_ONLY
    first, *own = [p for p in of(layer.cell_class.__init__) if p.name not in ("self", "kwargs")]
    common = [inspect.Parameter(n, keyword, default=d) for n, d in COMMON.items()]
    options = [p for p in of(RNN.__init__) if p.name in OPTIONS]
    named = {p.name: p.replace(kind=keyword) for p in (*common, *options, *own)}
    kwargs = inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD)
    return inspect.Signature([first, *named.values(), kwargs])

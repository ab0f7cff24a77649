"""LSTMClassifier and GRUModel: the two models that recurrent tutorials begin with."""

from collections.abc import Mapping
from typing import Any

import keras

from keras_rnnx.annotations import Array
from keras_rnnx.interop import from_torch
from keras_rnnx.interop import torch_arrays
from keras_rnnx.layers import GRU
from keras_rnnx.layers import LSTM
from keras_rnnx.layers import Bidirectional
from keras_rnnx.layers import Embedding
from keras_rnnx.layers import Stack


def LSTMClassifier(
    vocabulary_size: int | None = None,
    embedding_size: int | None = None,
    units: int | None = None,
    classes: int | None = None,
    num_layers: int = 2,
    dropout: float = 0.5,
    padding_index: int = 0,
    bidirectional: bool = True,
    state_dict: Mapping[str, Array] | None = None,
    name: str = "lstm_classifier",
) -> keras.Model:
    """Classes of texts: embedding, stacked bidirectional LSTM, its last states, a linear layer.

        x = dropout(embedding(ids))                     positions with padding_index are masked
        h, h' = last states of the upper layer, forward and backward       dropout between layers
        y = linear(dropout([h, h']))

    A padded batch gives what PyTorch gives through `pack_padded_sequence`.

    Args:
        vocabulary_size, embedding_size, units, classes: sizes.
        num_layers: of the LSTM.
        dropout: rate before, between and after its layers.
        padding_index: the id of padding. It may stand anywhere in a row.
        bidirectional: whether there are two directions.
        state_dict: of a PyTorch model that consists of an `nn.Embedding`, an `nn.LSTM` and an
            `nn.Linear`, under whatever names: tensors or arrays. It tells the sizes, the number of
            layers and of directions, which may then be left out.
        name: of the model.

    Returns:
        A Functional `keras.Model`: ids `[B, T]` -> logits `[B, classes]`.

    Raises:
        ValueError: for sizes that nobody told, and for a state dict of another model.

    Example:

    >>> import keras_rnnx, numpy as np
    >>> model = keras_rnnx.models.LSTMClassifier(100, 8, units=16, classes=3)
    >>> model(np.array([[5, 7, 2], [9, 0, 0]])).shape
    TensorShape([2, 3])
    """
    sizes: dict[str, Any] = {"vocabulary_size": vocabulary_size, "embedding_size": embedding_size}
    sizes |= {"units": units, "classes": classes}
    found = None
    if state_dict is not None:
        found = _parts(state_dict, "LSTMClassifier", embedding=True)
        (sizes["vocabulary_size"], sizes["embedding_size"]) = found["embedding"][0].shape
        sizes["classes"] = found["linear"][0].shape[1]
        units, num_layers, bidirectional = found["sizes"]
        sizes["units"] = units
    _told("LSTMClassifier", sizes)
    ids = keras.Input((None,), dtype="int32", name="ids")
    embedding = Embedding(
        sizes["vocabulary_size"],
        sizes["embedding_size"],
        mask_value=padding_index,
        name="embedding",
    )
    x = keras.layers.Dropout(dropout)(embedding(ids))
    recurrent = _stack(LSTM, sizes["units"], num_layers, bidirectional, dropout, "lstm")
    x = keras.layers.Dropout(dropout)(recurrent(x))
    linear = keras.layers.Dense(sizes["classes"], name="linear")
    model = keras.Model(ids, linear(x), name=name)
    if found:
        embedding.set_weights(found["embedding"])
        recurrent.set_weights(found["recurrent"])
        linear.set_weights(found["linear"])
    return model


def GRUModel(
    input_size: int | None = None,
    units: int | None = None,
    outputs: int | None = None,
    num_layers: int = 1,
    dropout: float = 0.0,
    bidirectional: bool = False,
    state_dict: Mapping[str, Array] | None = None,
    name: str = "gru_model",
) -> keras.Model:
    """Numbers from sequences of numbers: stacked GRU, its last output, a linear layer.

    Masks: the last output is that of the last real step, as `h_n` of PyTorch after
    `pack_padded_sequence`. The mask comes with the call, `model(x, mask=mask)`, or from a
    `keras.layers.Masking` before the model.

    Args:
        input_size, units, outputs: sizes.
        num_layers: of the GRU.
        dropout: rate between its layers.
        bidirectional: whether there are two directions.
        state_dict: of a PyTorch model that consists of an `nn.GRU` and an `nn.Linear`, under
            whatever names: tensors or arrays. It tells the sizes, the number of layers and of
            directions, which may then be left out.
        name: of the model.

    Returns:
        A Functional `keras.Model`: `[B, T, input_size]` -> `[B, outputs]`.

    Raises:
        ValueError: for sizes that nobody told, and for a state dict of another model.

    Example:

    >>> import keras_rnnx, numpy as np
    >>> keras_rnnx.models.GRUModel(3, units=8, outputs=1)(np.ones((2, 5, 3))).shape
    TensorShape([2, 1])
    """
    sizes, found = {"input_size": input_size, "units": units, "outputs": outputs}, None
    if state_dict is not None:
        found = _parts(state_dict, "GRUModel", embedding=False)
        sizes["units"], num_layers, bidirectional = found["sizes"]
        sizes["input_size"], sizes["outputs"] = found["input_size"], found["linear"][0].shape[1]
    _told("GRUModel", sizes)
    x = keras.Input((None, sizes["input_size"]), name="sequences")
    recurrent = _stack(GRU, sizes["units"], num_layers, bidirectional, dropout, "gru")
    linear = keras.layers.Dense(sizes["outputs"], name="linear")
    model = keras.Model(x, linear(recurrent(x)), name=name)
    if found:
        recurrent.set_weights(found["recurrent"])
        linear.set_weights(found["linear"])
    return model


def _stack(layer, units, num_layers, bidirectional, dropout, name):
    one = layer(units, return_sequences=True)
    one = Bidirectional(one) if bidirectional else one
    options = {"dropout": dropout, "dropout_mode": "step", "return_sequences": False}
    if bidirectional:  # both last states, and not both outputs of the last step
        last = Bidirectional(layer(units))
        return Stack([*[one] * (num_layers - 1), last], **options, name=name)
    return Stack(one, num_layers, **options, name=name)


def _told(model, sizes):
    missing = [name for name, size in sizes.items() if size is None]
    if missing:
        raise ValueError(
            f"{model} got no {', '.join(missing)}. Give the sizes, or a state_dict that tells them."
        )


def _parts(state_dict, model, embedding):
    """The weights of the parts of a PyTorch model, found by their shapes."""
    recurrent, others = torch_arrays(state_dict)
    layer = from_torch(recurrent, return_sequences=True)
    parts = {}
    for name, a in others.items():
        before, _, last = name.rpartition(".")
        parts.setdefault(before, {})[last] = a
    linear = [p for p in parts.values() if set(p) == {"weight", "bias"} and p["weight"].ndim == 2]
    tables = [p for p in parts.values() if set(p) == {"weight"} and p["weight"].ndim == 2]
    if len(linear) != 1 or len(tables) != int(embedding) or len(parts) != len(linear) + len(tables):
        wanted = (
            "nn.Embedding, a recurrent module and nn.Linear"
            if embedding
            else "nn.GRU and nn.Linear"
        )
        raise ValueError(
            f"{model} got a state dict with {', '.join(sorted(parts)) or 'nothing'} beside the "
            f"recurrent part, expected that of {wanted}. Other models: build them of layers, with "
            "keras_rnnx.interop.from_torch."
        )
    made = layer.layers if isinstance(layer, Stack) else [layer]
    both = isinstance(made[0], Bidirectional)
    first = made[0].forward_layer if both else made[0]
    expected = LSTM if model == "LSTMClassifier" else GRU
    if type(first) is not expected:
        raise ValueError(f"{model} got a state dict with a {type(first).__name__} in it.")
    return {
        "recurrent": layer.get_weights(),
        "linear": [linear[0]["weight"].T, linear[0]["bias"]],
        "embedding": [tables[0]["weight"]] if embedding else None,
        "sizes": (first.units, len(made), both),
        "input_size": first.cell.input_dim,
    }

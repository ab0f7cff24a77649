"""Models of Keras 2, from files and from tf_keras, as models of Keras 3."""

import json
import pathlib
import tempfile
import warnings
import zipfile

import h5py
import keras

from keras_rnnx.interop.keras_layers import NAMED
from keras_rnnx.interop.keras_layers import OLD
from keras_rnnx.interop.keras_layers import NoCounterpart
from keras_rnnx.interop.keras_layers import from_cudnn_weights
from keras_rnnx.interop.keras_layers import stock_name

RECURRENT = (*NAMED, "RNN", "Bidirectional")
NOT_THE_MODEL = ("build_config", "compile_config", "shared_object_id")


def read(path):
    """The model in a file of Keras, of any version, as a model of Keras 3."""
    path = pathlib.Path(path)
    if path.is_file() and zipfile.is_zipfile(path):
        return _read_keras(path)
    if path.is_file() and h5py.is_hdf5(path):
        return _read_h5(path)
    if path.exists():
        raise ValueError(f"{path} is not a model that Keras saved: expected a .keras or .h5 file.")
    raise FileNotFoundError(f"There is no file {path}.")


def _read_keras(path):
    with zipfile.ZipFile(path) as archive:
        about, config = (json.loads(archive.read(f"{n}.json")) for n in ("metadata", "config"))
        if not about["keras_version"].startswith("2."):
            return keras.saving.load_model(path)
        model, cudnn = _made(config)
        if cudnn:
            raise NoCounterpart(
                f"{path} holds {', '.join(cudnn)}, which are read from .h5 files only. Save the "
                "model as .h5, with the Keras that it was made with."
            )
        with tempfile.TemporaryDirectory() as folder:
            model.load_weights(archive.extract("model.weights.h5", folder))
    return model


def _read_h5(path):
    with h5py.File(path) as file:
        if "model_config" not in file.attrs:
            raise ValueError(
                f"{path} holds weights and no model. Make the model, of keras_rnnx's layers, and "
                "call its load_weights with this file."
            )
        text = lambda value: value.decode() if isinstance(value, bytes) else value
        if not text(file.attrs.get("keras_version", "2")).startswith(("1", "2")):
            return _load_h5(path)
        model, cudnn = _made(json.loads(text(file.attrs["model_config"])))
        saved = file["model_weights"]
        arrays = {
            name: [saved[name][text(one)][()] for one in saved[name].attrs["weight_names"]]
            for name in map(text, saved.attrs["layer_names"])
        }
    return _with_weights(model, arrays, cudnn)


def _load_h5(path):
    """What Keras 3 saved: not compiled where it cannot read how, such as a loss given by name."""
    try:
        return keras.saving.load_model(path)
    except (TypeError, ValueError) as why:
        model = keras.saving.load_model(path, compile=False)
        warnings.warn(f"{path}: not compiled, {str(why).splitlines()[0]}", stacklevel=2)
        return model


def from_tf_keras(model):
    """A model of Keras 3 for one of tf_keras."""
    kind = stock_name(model)
    if kind not in ("Sequential", "Functional"):
        raise ValueError(
            f"{model.name} is a {type(model).__name__}, a model of a class of its own, which only "
            "its author can rebuild: make the class of Keras 3 and keras_rnnx, and copy the "
            "weights with set_weights."
        )
    made, cudnn = _made({"class_name": kind, "config": model.get_config()})
    return _with_weights(made, {one.name: one.get_weights() for one in model.layers}, cudnn)


def _with_weights(model, arrays, cudnn):
    for layer in model.layers:
        found = arrays.get(layer.name, [])
        if layer.name in cudnn:
            kind = cudnn[layer.name]
            found = [
                a
                for k in range(0, len(found), 3)
                for a in from_cudnn_weights(kind, found[k : k + 3])
            ]
        # In Keras 2 the weights that are trained come first.
        variables = layer.trainable_weights + layer.non_trainable_weights
        if len(found) != len(variables):
            raise ValueError(
                f"Layer {layer.name} has {len(variables)} weights, and the file or model of old "
                f"{len(found)}."
            )
        for variable, value in zip(variables, found):
            variable.assign(value)
    return model


def _made(config):
    """`(a model of Keras 3 for a configuration of Keras 2, {name: kind} of cuDNN's layers)`."""
    cudnn = {}
    config = _translated(config, cudnn)
    if config["class_name"] not in ("Sequential", "Model"):
        raise ValueError(
            f"The model is a {config['class_name']}, a class of its own, which only its author can "
            "rebuild. Expected a Sequential or Functional one."
        )
    model = keras.saving.deserialize_keras_object(config)
    return model, cudnn


def _translated(node, cudnn):
    """A part of a configuration, as Keras 3 reads it."""
    if isinstance(node, (list, tuple)):
        return [_translated(one, cudnn) for one in node]
    if not isinstance(node, dict):
        return node
    if "class_name" not in node or "config" not in node:
        return {name: _translated(value, cudnn) for name, value in node.items()}
    kind, config = node["class_name"], node["config"]
    if not isinstance(config, (dict, list)):
        return node
    if kind in ("Policy", "DTypePolicy"):
        return config["name"]
    node = {n: v for n, v in node.items() if n not in NOT_THE_MODEL}
    if isinstance(config, list):  # a Sequential of Keras 1 and of the first 2
        config = {"layers": config}
    config = {name: _translated(value, cudnn) for name, value in config.items()}
    module = node.get("module") or ""
    layer = "keras.layers" if "name" in config or module.endswith("layers") else None
    kind = "Model" if kind == "Functional" else kind
    if kind in ("Sequential", "Model"):
        layer = "keras"
        config["layers"] = _with_input(config["layers"], kind == "Sequential")
        _count_calls(config)
    elif layer:
        kind, config = _layer(kind, config, cudnn)
    if kind in RECURRENT and "inbound_nodes" in node:
        node["inbound_nodes"] = [_call(one) for one in node["inbound_nodes"]]
    if ">" in (node.get("registered_name") or ""):  # of the user's own
        return {**node, "config": config}
    return {**node, **_class(kind, config, layer or module or None)}


def _layer(kind, config, cudnn):
    """Class and configuration of a layer."""
    if config.pop("time_major", False):
        raise NoCounterpart(
            f"{config.get('name', kind)} has time_major=True: sequences are batch-major in Keras 3."
        )
    if config.pop("ragged", False):
        raise NoCounterpart(
            f"{config['name']} is an input of ragged tensors, and an Input of Keras 3 has none. "
            "Make the model anew, of padded sequences with their `sequence_length`."
        )
    for name in ("implementation", "input_length"):
        config.pop(name, None)
    shape = config.pop("batch_input_shape", None)
    if kind == "InputLayer":
        config["batch_shape"] = shape or config.get("batch_shape")
    elif shape is not None:
        config["batch_shape"] = shape
    if kind == "BatchNormalization" and isinstance(config.get("axis"), list):
        (config["axis"],) = config["axis"]
    if kind in ("GRU", "GRUCell"):
        config.setdefault("reset_after", False)  # before there was a choice
    if kind in OLD:  # its GRU is that of cuDNN, which is Keras 3's default
        kind = cudnn[config["name"]] = OLD[kind]
    elif kind == "Bidirectional":
        inside = config["layer"]["config"]["name"]
        if inside in cudnn:
            cudnn[config["name"]] = cudnn.pop(inside)
    return kind, config


def _count_calls(config):
    """Number the calls of models in a model from 0: in Keras 2 their own graph is the first."""
    kinds = {one.get("name"): one["class_name"] for one in config["layers"]}
    models = {name for name, kind in kinds.items() if kind in ("Sequential", "Model")}
    for layer in config["layers"]:
        for node in layer.get("inbound_nodes", []):
            for tensor in _tensors(node):
                tensor[1] -= tensor[0] in models
    for tensor in _leaves(config.get("output_layers", [])):
        tensor[1] -= kinds.get(tensor[0]) == "Sequential"  # Keras 3 does it for the others


def _leaves(tree):
    """The tensors `[layer, call, number]` of a tree of them."""
    if isinstance(tree, dict):
        return [leaf for one in tree.values() for leaf in _leaves(one)]
    if len(tree) == 3 and isinstance(tree[0], str):
        return [tree]
    return [leaf for one in tree for leaf in _leaves(one)]


def _tensors(node):
    """The tensors `[layer, call, number, ...]` of a call of a layer."""
    if isinstance(node, list):
        return node
    tensors = [*node["args"], *node["kwargs"]["initial_state"]]
    return [one["config"]["keras_history"] for one in tensors]


def _call(node):
    """A call of a recurrent layer: Keras 2 has its initial states among the inputs."""
    if not isinstance(node, list) or len(node) < 2:
        return node
    tensors = [
        _class(
            "__keras_tensor__",
            {"shape": [None], "dtype": "float32", "keras_history": one[:3]},
            None,
        )
        for one in node
    ]
    told = {n: v for n, v in (node[0][3] if len(node[0]) > 3 else {}).items() if v is not None}
    return {"args": tensors[:1], "kwargs": {**told, "initial_state": tensors[1:]}}


def _with_input(made, sequential):
    """The layers of a model, with the input that the first one told of before there was a layer."""
    shapes = [
        one["config"].pop("batch_shape", None) if one["class_name"] != "InputLayer" else None
        for one in made
    ]
    first = made[0]
    if not sequential or first["class_name"] == "InputLayer" or shapes[0] is None:
        return made
    dtype = "int32" if first["class_name"] == "Embedding" else "float32"
    name = f"{first['config']['name']}_input"
    config = {"batch_shape": shapes[0], "dtype": dtype, "name": name}
    return [_class("InputLayer", config, "keras.layers"), *made]


def _class(name, config, module):
    """An object as Keras 3 writes it."""
    return {"class_name": name, "config": config, "module": module, "registered_name": None}

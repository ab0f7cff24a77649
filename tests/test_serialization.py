"""Configurations: every argument is kept, and what Keras 2 and 3 wrote is understood."""

import copy
import inspect
import json

import keras
import numpy as np
import pytest
from helpers import B, D, T, U, inputs, weights_like
from subject import rnnx

import keras_rnnx

NAMES = ("LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional", "LSTMCell", "GRUCell", "SimpleRNNCell")
NAMED = ("LSTM", "GRU", "SimpleRNN")
every_class = pytest.mark.parametrize("name", NAMES)


def parameters(name, namespace=rnnx):
    """The arguments of a constructor, without self and **kwargs."""
    signature = inspect.signature(getattr(namespace, name).__init__).parameters
    return {k: p for k, p in signature.items() if k != "self" and p.kind is not p.VAR_KEYWORD}


# For every argument a value that is not its default.
OTHER_VALUES = {
    "units": U,
    "activation": "relu",
    "recurrent_activation": "hard_sigmoid",
    "use_bias": False,
    "kernel_initializer": keras.initializers.RandomNormal(0.1, 0.2, seed=3),
    "recurrent_initializer": keras.initializers.RandomUniform(-0.1, 0.2, seed=4),
    "bias_initializer": keras.initializers.Constant(0.3),
    "unit_forget_bias": False,
    "kernel_regularizer": keras.regularizers.L2(0.01),
    "recurrent_regularizer": keras.regularizers.L1(0.02),
    "bias_regularizer": keras.regularizers.L1L2(0.01, 0.02),
    "activity_regularizer": keras.regularizers.L2(0.03),
    "kernel_constraint": keras.constraints.MaxNorm(1.5),
    "recurrent_constraint": keras.constraints.NonNeg(),
    "bias_constraint": keras.constraints.MaxNorm(0.5),
    "dropout": 0.2,
    "recurrent_dropout": 0.3,
    "seed": 12,
    "return_sequences": True,
    "return_state": True,
    "go_backwards": True,
    "stateful": True,
    "unroll": True,
    "use_cudnn": False,
    "reset_after": False,
    "zero_output_for_mask": True,
    "jit_compile": False,
    "backward": "autodiff",
    "batch_parts": 3,
    "projection_units": 2,
    "return_ragged": True,
    "save_states": True,
    "merge_mode": "sum",
    "peephole": True,
    "coupled": True,
    "cell_clip": 3.0,
    "projection_clip": 2.0,
}
NOISE = {  # taken by every cell and by the layer around it, by name only
    "dropout_mode": "gates",
    "recurrent_dropout_mode": "step",
    "zoneout": 0.1,
    "weight_dropout": 0.2,
}


def with_other_values(name):
    """An object of which no argument has its default value."""
    values = dict(OTHER_VALUES)
    if name == "RNN":
        values["cell"] = rnnx.LSTMCell(U, dropout=0.1)
    if name == "Bidirectional":
        values["layer"] = rnnx.GRU(U, return_sequences=True)
        values["backward_layer"] = rnnx.LSTM(U, return_sequences=True, go_backwards=True)
        values["weights"] = None  # saved as weights, not as configuration
    chosen = {argument: values[argument] for argument in parameters(name)}
    others = {"name": "other", "trainable": False, "dtype": "mixed_bfloat16"}
    if name not in ("RNN", "Bidirectional"):
        others.update(NOISE)
    return getattr(rnnx, name)(**chosen, **others)


@pytest.mark.quick
@every_class
def test_constructor_has_the_arguments_and_defaults_of_keras_in_its_order(name):
    ours, theirs = parameters(name), parameters(name, keras.layers)
    assert list(ours)[: len(theirs)] == list(theirs)
    assert {k: ours[k].default for k in theirs} == {k: p.default for k, p in theirs.items()}


@pytest.mark.quick
@every_class
def test_configuration_holds_every_argument(name):
    config = with_other_values(name).get_config()
    assert set(parameters(name)) <= set(config)
    if name not in ("RNN", "Bidirectional"):
        assert {k: config[k] for k in NOISE} == NOISE
    assert {"name", "trainable", "dtype"} <= set(config)


@pytest.mark.quick
@every_class
def test_configuration_comes_back_whole(name):
    """Through JSON, as in a file: every value, none of them a default, is still there."""
    first = with_other_values(name)
    for argument, parameter in parameters(name).items():
        kept = first.get_config()[argument]
        assert argument == "weights" or kept != parameter.default, f"{argument} is a default"
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(first)))
    second = keras.saving.deserialize_keras_object(config)
    assert type(second) is type(first)
    assert second.get_config() == first.get_config()


@pytest.mark.quick
@every_class
def test_registered_under_the_name_of_the_package(name):
    assert keras.saving.get_registered_name(getattr(rnnx, name)) == f"keras_rnnx>{name}"


# Layers and cells that Keras does not have, with the arguments that only they have.
OWN_VALUES = {
    **{k: v for k, v in OTHER_VALUES.items() if k not in ("return_ragged", "save_states")},
    **NOISE,
    "dropout": 0.2,
    "seed": 5,
    "normalize": ("input",),
    "epsilon": 0.01,
    "carry": "normalized",
    "connectivity": 0.9,
    "leaky": 0.5,
    "spectral_radius": 0.7,
    "use_norm2": True,
    "c": 4.0,
}
OWN_LAYERS = (
    "VariationalLSTM",
    "VariationalGRU",
    "LayerNormLSTM",
    "LayerNormGRU",
    "LayerNormSimpleRNN",
    "IndRNN",
    "NAS",
    "ESN",
    "MinGRU",
    "MinLSTM",
    "RGLRU",
)


@pytest.mark.quick
@pytest.mark.parametrize("name", [*OWN_LAYERS, *(f"{name}Cell" for name in OWN_LAYERS)])
def test_configuration_of_our_own_layers_comes_back_whole(name):
    cls = getattr(keras_rnnx, name)
    plain = cls(U)
    defaults = plain.get_config()
    linear = not (plain if name.endswith("Cell") else plain.cell).spec.recurrent
    skipped = {"units", "dtype", "name", "trainable"}
    if linear:  # nothing that recurrent dropout or weight drop could act on
        skipped |= {"weight_dropout", "recurrent_dropout", "recurrent_dropout_mode"}
    chosen = {k: v for k, v in OWN_VALUES.items() if k in defaults and k not in skipped}
    if name.startswith("IndRNN"):
        chosen["activation"] = "tanh"  # relu is its default
    if name.startswith("NAS"):
        chosen["use_bias"] = True
    first = cls(U, **chosen)
    config = first.get_config()
    for argument in set(defaults) - skipped - {"return_ragged", "save_states"}:
        assert config[argument] != defaults[argument], f"{argument} is a default"
    saved = json.loads(json.dumps(keras.saving.serialize_keras_object(first)))
    second = keras.saving.deserialize_keras_object(saved)
    assert type(second) is cls
    assert json.dumps(second.get_config(), default=str) == json.dumps(config, default=str)
    cell = lambda layer: layer if name.endswith("Cell") else layer.cell
    assert cell(second).spec == cell(first).spec


def twins(name, **options):
    """A layer of ours and Keras' own, built."""
    both = []
    for namespace in (rnnx, keras.layers):
        if name == "stack":
            layer = namespace.RNN([namespace.LSTMCell(U), namespace.GRUCell(U + 1)], **options)
        elif name == "Bidirectional":
            layer = namespace.Bidirectional(namespace.LSTM(U, **options))
        elif name.endswith("Cell"):
            layer = namespace.RNN(getattr(namespace, name)(U), **options)
        else:
            layer = getattr(namespace, name)(U, **options)
        layer.build((B, T, D))
        both.append(layer)
    return both


layers = pytest.mark.parametrize("name", [*NAMED, "Bidirectional", "stack", "GRUCell"])


@pytest.mark.quick
@layers
def test_weights_have_the_names_shapes_and_order_of_keras(name):
    ours, theirs = twins(name)
    describe = lambda layer: [(w.name, tuple(w.shape), w.trainable) for w in layer.weights]
    assert describe(ours) == describe(theirs)
    theirs.set_weights(weights_like(theirs))
    ours.set_weights(theirs.get_weights())
    np.testing.assert_allclose(ours(inputs()), theirs(inputs()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMED)
def test_initial_weights_are_those_of_keras(name):
    """Same initializers, same seeds: the same numbers, the forget gate's bias among them."""
    initial = {
        "kernel_initializer": lambda: keras.initializers.GlorotUniform(seed=1),
        "recurrent_initializer": lambda: keras.initializers.Orthogonal(seed=2),
    }
    ours, theirs = (
        getattr(namespace, name)(U, **{k: make() for k, make in initial.items()})
        for namespace in (rnnx, keras.layers)
    )
    for layer in (ours, theirs):
        layer.build((B, T, D))
    for a, e in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(a, e)


def model_of(namespace, dtype=None):
    """Every layer in one model, under a mask."""
    words = keras.Input((None,), dtype="int32", name="words")
    y = keras.layers.Embedding(9, D, mask_zero=True, name="embedding")(words)
    y = namespace.LSTM(U, return_sequences=True, dtype=dtype)(y)
    y = namespace.GRU(U, return_sequences=True, reset_after=False, dtype=dtype)(y)
    y = namespace.Bidirectional(namespace.GRU(U, return_sequences=True, dtype=dtype))(y)
    y = namespace.RNN(
        [namespace.LSTMCell(U, dtype=dtype), namespace.SimpleRNNCell(U + 1, dtype=dtype)],
        return_sequences=True,
        dtype=dtype,
    )(y)
    y = namespace.SimpleRNN(U, dtype=dtype)(y)
    return keras.Model(words, keras.layers.Dense(2, dtype="float32")(y))


def words():
    rng = np.random.default_rng(6)
    return rng.integers(1, 9, (B, T)) * (np.arange(T) < np.array([[T], [4], [1]]))


def random_model(namespace, dtype=None):
    model = model_of(namespace, dtype)
    model.set_weights(weights_like(model))
    return model


@pytest.mark.parametrize("dtype", [None, "mixed_bfloat16"])
@pytest.mark.thin(2)
def test_keras_file(tmp_path, dtype):
    model = random_model(rnnx, dtype)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert [type(layer) for layer in loaded.layers] == [type(layer) for layer in model.layers]
    predicted = [one.predict(words(), verbose=0) for one in (loaded, model)]
    np.testing.assert_array_equal(*predicted)


def test_keras_file_of_a_model_in_training(tmp_path):
    """The optimiser's state comes back: both go on to the same weights."""
    model = keras.Sequential([keras.Input((None, D)), rnnx.GRU(U)])
    model.compile("adam", "mse")
    targets = np.ones((B, U))
    model.fit(inputs(), targets, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for m in (model, loaded):
        m.fit(inputs(), targets, verbose=0)
    for a, e in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "source, target",
    [(rnnx, rnnx), (keras.layers, rnnx), (rnnx, keras.layers)],
    ids=["ours to ours", "Keras to ours", "ours to Keras"],
)
@pytest.mark.thin(5)
def test_weights_file(tmp_path, source, target):
    """Names are counted anew for each model, as in the two programs of a user."""
    keras.backend.clear_session()
    model = random_model(source)
    model.save_weights(tmp_path / "model.weights.h5")
    keras.backend.clear_session()
    other = model_of(target)
    other.load_weights(tmp_path / "model.weights.h5")
    for a, e in zip(other.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, e)
    np.testing.assert_allclose(other(words()), model(words()), rtol=1e-5, atol=1e-6)


def test_clone_of_a_model():
    model = random_model(rnnx)
    clone = keras.models.clone_model(model)
    assert all(a is not e for a, e in zip(clone.weights, model.weights, strict=True))
    clone.set_weights(model.get_weights())
    np.testing.assert_array_equal(clone(words()), model(words()))


def test_accelerating_a_model_of_keras_by_cloning():
    """clone_function puts our layers in place of Keras', configuration and weights kept."""
    model = random_model(keras.layers)

    def replace(layer):
        ours = getattr(rnnx, type(layer).__name__, None) if type(layer).__name__ in NAMED else None
        return (ours or type(layer)).from_config(layer.get_config())

    clone = keras.models.clone_model(model, clone_function=replace)
    assert sum(type(layer) in (rnnx.LSTM, rnnx.GRU, rnnx.SimpleRNN) for layer in clone.layers) == 3
    clone.set_weights(model.get_weights())
    np.testing.assert_allclose(clone(words()), model(words()), rtol=1e-5, atol=1e-6)


@layers
def test_deep_copy(name):
    layer, _ = twins(name)
    expected = layer(inputs())
    other = copy.deepcopy(layer)
    np.testing.assert_array_equal(other(inputs()), expected)
    other.set_weights([0 * w for w in other.get_weights()])
    np.testing.assert_array_equal(layer(inputs()), expected)
    assert not np.array_equal(other(inputs()), expected)


def test_deep_copy_of_a_model():
    model = random_model(rnnx)
    np.testing.assert_array_equal(copy.deepcopy(model)(words()), model(words()))


# What Keras 2 wrote ------------------------------------------------------------------------------

KERAS2_LSTM = {
    "name": "lstm_1", "trainable": True, "dtype": "float32", "batch_input_shape": [None, T, D],
    "return_sequences": True, "return_state": False, "go_backwards": False, "stateful": False,
    "unroll": False, "time_major": False, "units": U, "activation": "tanh",
    "recurrent_activation": "sigmoid", "use_bias": True,
    "kernel_initializer": {"class_name": "GlorotUniform", "config": {"seed": None}},
    "recurrent_initializer": {"class_name": "Orthogonal", "config": {"gain": 1.0, "seed": None}},
    "bias_initializer": {"class_name": "Zeros", "config": {}}, "unit_forget_bias": True,
    "kernel_regularizer": {"class_name": "L2", "config": {"l2": 0.01}},
    "recurrent_regularizer": None, "bias_regularizer": None, "activity_regularizer": None,
    "kernel_constraint": None, "recurrent_constraint": None, "bias_constraint": None,
    "dropout": 0.0, "recurrent_dropout": 0.0, "implementation": 2,
}  # fmt: skip


def test_configuration_of_keras_2():
    layer = rnnx.LSTM.from_config(dict(KERAS2_LSTM))
    assert layer.units == U and layer.name == "lstm_1" and layer.return_sequences
    assert layer(inputs()).shape == (B, T, U)
    assert len(layer.losses) == 1
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()


@pytest.mark.parametrize("name", NAMED)
def test_arguments_of_keras_2(name):
    layer = getattr(rnnx, name)(
        U, time_major=False, implementation=1, batch_input_shape=(None, T, D)
    )
    assert layer(inputs()).shape == (B, U)


def test_input_shape_of_keras_2_builds_a_sequential_model():
    model = keras.Sequential([rnnx.LSTM(U, batch_input_shape=(None, T, D))])
    assert [tuple(w.shape) for w in model.weights] == [(D, 4 * U), (U, 4 * U), (4 * U,)]


def test_time_major_is_refused():
    with pytest.raises(ValueError, match="time_major"):
        rnnx.LSTM(U, time_major=True)


@pytest.mark.parametrize("name", NAMED)
def test_call_with_the_input_named_inputs(name):
    layer, _ = twins(name)
    np.testing.assert_array_equal(layer(inputs=inputs()), layer(inputs()))
    np.testing.assert_array_equal(layer(sequences=inputs()), layer(inputs()))
    symbolic = keras.Input((None, D))
    model = keras.Model(symbolic, layer(inputs=symbolic))
    np.testing.assert_array_equal(model(inputs()), layer(inputs()))


# Seeds -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMED)
def test_seed_decides_the_noise(name):
    def noisy(seed):
        layer = getattr(rnnx, name)(U, dropout=0.5, recurrent_dropout=0.3, seed=seed)
        layer.build((B, T, D))
        layer.set_weights(weights_like(layer))
        return layer

    first = noisy(3)
    expected = [np.asarray(first(inputs(), training=True)) for _ in range(3)]
    assert not np.array_equal(expected[0], expected[1]), "each call draws anew"
    again = type(first).from_config(first.get_config())
    again.build((B, T, D))
    again.set_weights(first.get_weights())
    for other in (noisy(3), again):
        for e in expected:
            np.testing.assert_array_equal(other(inputs(), training=True), e)
    assert not np.array_equal(noisy(4)(inputs(), training=True), expected[0])
    assert not np.array_equal(
        noisy(None)(inputs(), training=True), noisy(None)(inputs(), training=True)
    )


NEW = {
    "Stack": lambda: rnnx.Stack(
        [rnnx.GRU(4), rnnx.GRU(4, return_sequences=True)],
        dropout=0.1,
        dropout_mode="step",
        residual=True,
        skip=True,
        seed=3,
        return_sequences=False,
        return_state=True,
    ),
    "InitialState": lambda: rnnx.InitialState([3, 4], 7, "ones", keras.regularizers.L2(0.1)),
    "TimeDistributed": lambda: rnnx.TimeDistributed(keras.layers.Dense(3), fold=False),
    "AttentionOverTime": lambda: rnnx.AttentionOverTime(3, return_weights=True),
    "Full": lambda: rnnx.Full(clip_norm=2.0),
    "Truncated": lambda: rnnx.Truncated(5, clip_norm=2.0),
    "Checkpointed": lambda: rnnx.Checkpointed(9, clip_norm=2.0),
}


@pytest.mark.quick
@pytest.mark.skipif(rnnx is not keras_rnnx, reason="Keras has none of these")
@pytest.mark.parametrize("name", NEW)
def test_configuration_of_what_keras_has_not(name):
    """Every argument, through JSON and back."""
    first = NEW[name]()
    assert set(parameters(name)) <= set(first.get_config())
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(first)))
    again = keras.saving.deserialize_keras_object(config)
    assert keras.saving.serialize_keras_object(again) == config


@pytest.mark.quick
@pytest.mark.skipif(rnnx is not keras_rnnx, reason="Keras has no ragged outputs")
def test_ragged_outputs_of_both_directions_are_saved():
    layer = rnnx.Bidirectional(rnnx.GRU(3, return_sequences=True, return_ragged=True))
    again = rnnx.Bidirectional.from_config(layer.get_config())
    assert layer.return_ragged and again.return_ragged
    assert not again.forward_layer.return_ragged

"""Exports for a server: the same answers wherever they are loaded, whatever pads the requests."""

import signal
import subprocess
import sys

import descriptors
import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import D, U, inputs, weights_like
from processes import c_program

import keras_rnnx as rnnx
from keras_rnnx import serving
from keras_rnnx.seq2seq import Decoder, Encoder, Seq2Seq, Translator
from keras_rnnx.serving import checking, exporting, graph

OPTIONS = {"return_sequences": True}
FAST = ("lstm", "gru", "rnn_stack", "min_gru")
FAST_BOTH = ("both_lstm",)


def model_of(names, **options):
    """One model that has each of these layers, beside each other, with random weights."""
    x = keras.Input((None, D), name="x")
    made = {}
    for name in names:
        layer = descriptors.BY_NAME[name].make(rnnx, {**OPTIONS, **options})
        y = layer(x)
        for k, part in enumerate(keras.tree.flatten(y)):
            made[f"{name}_{k}"] = part
    model = keras.Model(x, made)
    model.set_weights(weights_like(model))
    return model


def requests_of(model, lengths):
    """A request of different lengths, with garbage behind them."""
    x = inputs(5, batch=len(lengths), steps=max(lengths))
    for row, length in zip(x, lengths):
        row[length:] = 1e3
    return {"x": x, "lengths": np.array(lengths, "int32")}


def expected(model, request):
    """What the model answers in Python: `{output: array}`."""
    mask = np.arange(request["x"].shape[1]) < request["lengths"][:, None]
    with rnnx.portable():  # nothing to compile
        found = model.call(tf.constant(request["x"]), mask=tf.constant(mask), training=False)
    return {name: np.asarray(a) for name, a in found.items()}


def assert_same(found, wanted, tolerance=1e-6):
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        scale = np.abs(value).max()
        np.testing.assert_allclose(
            found[name], value, rtol=0, atol=tolerance * max(scale, 1), err_msg=name
        )


ALL = {d.name for d in descriptors.ALL}
CAUSAL = {d.name for d in descriptors.ALL if d.causal}
GROUPS = [
    pytest.param(FAST, id="causal"),
    pytest.param(FAST_BOTH, id="both", marks=pytest.mark.slow),
    *(
        pytest.param(sorted(part), id=f"every {name} layer", marks=pytest.mark.slow)
        for name, part in {"causal": CAUSAL, "other": ALL - CAUSAL}.items()
    ),
]


@pytest.fixture(scope="module", params=GROUPS)
def exported(request, tmp_path_factory):
    model = model_of(request.param)
    directory = tmp_path_factory.mktemp("served") / "layers"
    version = serving.export(model, directory, verbose=False)
    return model, version, set(request.param) <= CAUSAL


def test_answers_of_every_loader(exported, tmp_path):
    model, version, _ = exported
    assert serving.check(version, verbose=False) == []
    requests = [requests_of(model, lengths) for lengths in ([7, 3, 1], [1], [4] * 20)]
    wanted = [expected(model, one) for one in requests]
    loaded = tf.saved_model.load(str(version)).signatures["serving_default"]
    for one, value in zip(requests, wanted):
        found = loaded(**{name: tf.constant(a) for name, a in one.items()})
        assert_same({name: a.numpy() for name, a in found.items()}, value)
    in_session = checking.answers(version, [("serving_default", one) for one in requests])
    for found, value in zip(in_session, wanted):
        assert_same(found, value)


@pytest.mark.slow
def test_eleven_steps_are_one_call(exported):
    model, version, causal = exported
    if not causal:
        about = exporting.ABOUT
        assert "from both ends" in (version / about).read_text()
        assert set(graph.signatures(graph.read(version))) == {"serving_default"}
        return
    x = inputs(6, batch=2, steps=11)
    whole = {"x": x, "lengths": np.full([2], 11, "int32")}
    rows = {"rows": np.zeros([2], "int32")}
    (states,) = checking.answers(version, [("initial_state", rows)])
    (at_once,) = checking.answers(version, [("step", {**whole, **states})])
    stepped, loaded = [], tf.saved_model.load(str(version)).signatures["step"]
    one = {"lengths": np.ones([2], "int32")}
    for t in range(11):
        given = {"x": x[:, t : t + 1], **one, **states}
        found = {
            n: a.numpy() for n, a in loaded(**{n: tf.constant(a) for n, a in given.items()}).items()
        }
        states = {name: found.pop(name) for name in states}
        stepped.append(found)
    joined = {name: np.concatenate([s[name] for s in stepped], axis=1) for name in stepped[0]}
    assert_same({**joined, **states}, at_once)
    assert_same(joined, expected(model, whole))


needs_compiler = pytest.mark.skipif(c_program.IS_MISSING, reason="there is no C compiler (gcc)")


@needs_compiler
@pytest.mark.slow
def test_answers_of_a_c_program(exported, tmp_path):
    model, version, _ = exported
    request = requests_of(model, [7, 3, 1])
    found = c_program.answers(version, "serving_default", request, tmp_path)
    wanted = expected(model, request)
    assert_same({name: found[name].reshape(value.shape) for name, value in wanted.items()}, wanted)


def assert_same_everywhere(found, version, signature, request, folder):
    """What a session answered is what `tf.saved_model.load` and the program in C answer."""
    given = {name: tf.constant(value) for name, value in request.items()}
    loaded = tf.saved_model.load(str(version)).signatures[signature](**given)
    others = [{name: value.numpy() for name, value in loaded.items()}]
    if not c_program.IS_MISSING:
        others.append(c_program.answers(version, signature, request, folder))
    for other in others:
        assert set(other) == set(found)
        for name, value in found.items():
            if value.dtype.kind == "f":
                np.testing.assert_allclose(other[name].reshape(value.shape), value, atol=1e-6)
            else:
                np.testing.assert_array_equal(other[name].reshape(value.shape), value)


def other_layers():
    """What is not recurrent by itself: embedding, initial state, time distribution, pooling."""
    words = keras.Input((None,), dtype="int32", name="words")
    x = rnnx.Embedding(9, D, mask_zero=True, dropout=0.2)(words)
    start = rnnx.InitialState([U])(x)
    x = rnnx.GRU(U, return_sequences=True)(x, initial_state=start)
    x = rnnx.TimeDistributed(keras.layers.Dense(U))(x)
    pools = rnnx.MeanOverTime(), rnnx.MaxOverTime(), rnnx.LastOverTime(), rnnx.AttentionOverTime(3)
    return keras.Model([words], {p.name: p(x) for p in pools}), None


def attention_layer():
    """A cell that attends to an embedding of words, and feeds its attention to the next step."""
    words, x = keras.Input((None,), dtype="int32", name="words"), keras.Input((None, D), name="x")
    memory = rnnx.Embedding(9, U, mask_zero=True)(words)
    attention = rnnx.attention.BahdanauAttention(5)
    cell = rnnx.AttentionCell(rnnx.LSTMCell(U), attention, input_feeding=True)
    y = rnnx.RNN(cell, return_sequences=True)(x, constants={"memory": memory})
    return keras.Model([words, x], {"y": y}), inputs(2, batch=2, steps=4)


@pytest.mark.parametrize("make", [other_layers, attention_layer])
@pytest.mark.slow
def test_other_layers_with_every_loader(make, tmp_path):
    model, x = make()
    model.set_weights(weights_like(model))
    version = serving.export(model, tmp_path / "m", verbose=False)
    assert serving.check(version, verbose=False) == []
    request = {"words": np.array([[3, 1, 5], [4, 8, 8]], "int32")}
    if x is None:
        request["lengths"] = np.array([3, 1], "int32")
    else:
        request["words_lengths"] = np.array([3, 1], "int32")
        request |= {"x": x, "x_lengths": np.array([2, 4], "int32")}
    (found,) = checking.answers(version, [("serving_default", request)])
    assert_same_everywhere(found, version, "serving_default", request, tmp_path)
    for k, length in enumerate([3, 1]):
        alone = [request["words"][k : k + 1, :length]]
        if x is not None:
            alone.append(x[k : k + 1, : request["x_lengths"][k]])
        for name, value in model(alone).items():
            row = found[name][k : k + 1]
            row = row[:, : value.shape[1]] if value.shape.rank == 3 else row
            np.testing.assert_allclose(row, value, rtol=1e-5, atol=1e-6)


# -- inputs, outputs and their names ------------------------------------------------------------


@pytest.mark.slow
def test_several_inputs_half_precision_and_last_outputs(tmp_path):
    words = keras.Input((None,), dtype="int32", name="words")
    frames = keras.Input((None, D), name="frames")
    who = keras.Input((2,), name="who")
    embedded = keras.layers.Embedding(9, 3, mask_zero=True)(words)
    both = [rnnx.GRU(U, dtype="mixed_bfloat16")(embedded), rnnx.Bidirectional(rnnx.LSTM(U))(frames)]
    y = keras.layers.Concatenate(name="all")([*both, who])
    model = keras.Model([words, frames, who], y)
    version = serving.export(model, tmp_path / "m", verbose=False)
    assert serving.check(version, verbose=False) == []
    signature = graph.read(version).signature_def["serving_default"]
    assert set(signature.inputs) == {"words", "words_lengths", "frames", "frames_lengths", "who"}
    request = {
        "words": np.array([[3, 1, 8], [4, 8, 8]], "int32"),
        "words_lengths": np.array([3, 1], "int32"),
        "frames": inputs(1, batch=2, steps=4),
        "frames_lengths": np.array([2, 4], "int32"),
        "who": np.ones([2, 2], "float32"),
    }
    (found,) = checking.answers(version, [("serving_default", request)])
    assert found["all"].dtype == np.float32
    for k in range(2):
        w, f = request["words_lengths"][k], request["frames_lengths"][k]
        alone = [request["words"][k : k + 1, :w], request["frames"][k : k + 1, :f]]
        wanted = model([*alone, request["who"][k : k + 1]])
        np.testing.assert_allclose(found["all"][k : k + 1], wanted, rtol=1e-2, atol=1e-3)


class Own(keras.Model):
    def __init__(self):
        super().__init__()
        self.inner = rnnx.LSTM(U, return_sequences=True)

    def call(self, x, training=None):
        return {"hidden": self.inner(x, training=training)}


@pytest.mark.slow
def test_a_model_of_a_class_of_its_own(tmp_path):
    model = Own()
    model(inputs())
    with pytest.raises(ValueError, match="Pass an `example`"):
        serving.export(model, tmp_path / "m", verbose=False)
    version = serving.export(model, tmp_path / "m", ["step"], example=inputs(), verbose=False)
    assert serving.check(version, verbose=False) == []
    x = inputs(2, batch=1, steps=3)
    padded = np.concatenate([x, np.full((1, 2, D), 9.0, "float32")], axis=1)
    request = {"inputs": padded, "lengths": np.array([3], "int32")}
    (found,) = checking.answers(version, [("serving_default", request)])
    np.testing.assert_allclose(found["hidden"][:, :3], model(x)["hidden"], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_preprocessing_inside(tmp_path):
    vectorize = keras.layers.TextVectorization(vocabulary=["good", "bad", "film"])
    model = keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            keras.layers.Embedding(6, 3, mask_zero=True),
            rnnx.LSTM(U),
        ]
    )
    version = serving.export(model, tmp_path / "m", preprocess=vectorize, verbose=False)
    assert serving.check(version, verbose=False) == []
    texts = np.array([b"a good film", b"bad"], object)
    (found,) = checking.answers(version, [("serving_default", {"inputs": texts})])
    wanted = model(vectorize(tf.constant(texts)))
    np.testing.assert_allclose(next(iter(found.values())), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("inside", [True, False])
def test_words_by_a_lookup(inside, tmp_path):
    lookup = keras.layers.StringLookup(vocabulary=["good", "bad", "film"], mask_token="")
    words = keras.Input((None,), dtype="string" if inside else "int64", name="words")
    h = keras.layers.Embedding(6, 3, mask_zero=True)(lookup(words) if inside else words)
    model = keras.Model(words, rnnx.GRU(U)(h))
    options = {"example": [["good", "film"]]} if inside else {"preprocess": lookup}
    version = serving.export(model, tmp_path / "m", verbose=False, **options)
    padded = np.array([["a", "good", "film"], ["bad", "film", "film"]], object)
    (found,) = serving.ask(version, {"words": padded, "lengths": [3, 1]}).values()
    alone = tf.constant([["a", "good", "film"], ["bad", "", ""]])
    wanted = model(alone if inside else lookup(alone))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def texts_in():
    """A model of strings `[B, 1]`, as Keras' own guides make it."""
    vectorize = keras.layers.TextVectorization(vocabulary=["good", "bad", "film"])
    layers = [vectorize, keras.layers.Embedding(6, 3, mask_zero=True), rnnx.GRU(U)]
    return keras.Sequential([keras.Input((1,), dtype="string", name="text"), *layers])


def test_vectorization_as_a_layer(tmp_path):
    model = texts_in()
    version = serving.export(model, tmp_path / "m", example=[["bad"], ["film"]], verbose=False)
    names = {"1", "models.config", "batching.config", "README.md"}
    assert {path.name for path in (tmp_path / "m").iterdir()} == names
    texts = np.array([["a good film"], ["bad"]], object)
    found = serving.ask(version, {"text": texts})
    wanted = model(tf.constant(texts))
    np.testing.assert_allclose(next(iter(found.values())), wanted, rtol=1e-5, atol=1e-6)
    page = (tmp_path / "m" / "README.md").read_text()
    assert "| `text` | string | `[any, 1]` |" in page, "what it takes"
    assert f"| `output` | float32 | `[any, {U}]` |" in page, "what it gives"


def test_a_failure_beside_the_version_leaves_none(tmp_path, monkeypatch):
    def fails(*_):
        raise OSError("disk full")

    monkeypatch.setattr(exporting.notes, "files", fails)
    model = keras.Sequential([keras.Input((None, D)), rnnx.GRU(U)])
    with pytest.raises(OSError, match="disk full"):
        serving.export(model, tmp_path / "m", verbose=False)
    assert list((tmp_path / "m").iterdir()) == []


def test_normalization_inside_keeps_the_lengths(tmp_path):
    normalize = keras.layers.Normalization(mean=2.0, variance=4.0)
    x = keras.Input((None, D), name="x")
    model = keras.Model(x, {"y": rnnx.GRU(U)(x)})
    version = serving.export(model, tmp_path / "m", preprocess=normalize, verbose=False)
    request = requests_of(model, [5, 2])
    (found,) = checking.answers(version, [("serving_default", request)])
    short = (request["x"][1:, :2] - 2) / 2
    np.testing.assert_allclose(found["y"][1:], model(short)["y"], rtol=1e-5, atol=1e-6)


def seq2seq():
    rnn = rnnx.GRU(8, return_sequences=True, return_state=True)
    cell = rnnx.AttentionCell(rnnx.GRUCell(8), rnnx.attention.LuongAttention())
    model = Seq2Seq(
        Encoder(rnnx.Bidirectional(rnn), 9, 4),
        Decoder(cell, 6, 4),
        start=5,
        end=4,
        decoding={"max_length": 6, "beam_width": 2},
    )
    model(np.ones((2, 4), "int32"))
    model.set_weights(weights_like(model, 3))
    return model


@pytest.mark.slow
def test_decoding_of_ids(tmp_path):
    model = seq2seq()
    version = serving.export(model, tmp_path / "m", ["decode"], verbose=False)
    assert serving.check(version, verbose=False) == []
    source = np.array([[2, 3, 4, 7], [5, 1, 8, 8], [6, 6, 6, 6]], "int32")
    request = {
        "source": source,
        "lengths": np.array([4, 2, 3], "int32"),
        "beam_width": np.array([1, 3, 2], "int32"),
        "max_length": np.array([6, 3, 9], "int32"),
        "length_penalty": np.array([0.0, 0.7, -0.5], "float32"),
    }
    (found,) = checking.answers(version, [("decode", request)])
    assert_same_everywhere(found, version, "decode", request, tmp_path)
    for k in range(3):
        one = {name: value[k] for name, value in request.items()}
        alone = model.decode(
            source[k : k + 1, : one["lengths"]],
            method="beam",
            beam_width=int(one["beam_width"]),
            max_length=int(one["max_length"]),
            length_penalty=float(one["length_penalty"]),
        )
        width = int(one["beam_width"])
        np.testing.assert_allclose(found["scores"][k, :width], alone.scores[0], atol=1e-5)
        assert np.isneginf(found["scores"][k, width:]).all()
        np.testing.assert_array_equal(found["lengths"][k, :width], alone.lengths[0])
        steps = alone.ids.shape[-1]
        np.testing.assert_array_equal(found["ids"][k, :width, :steps], alone.ids[0])


@pytest.mark.slow
def test_decoding_of_strings(tmp_path):
    letters = keras.layers.TextVectorization(split="character", vocabulary=list("abcdefg"))
    words = keras.layers.TextVectorization(standardize=None, vocabulary=["x", "y"])
    translator = Translator(seq2seq(), letters, words)
    version = serving.export(translator, tmp_path / "m", verbose=False)
    assert serving.check(version, verbose=False) == []
    texts = np.array([b"abc", b"g"], object)
    (found,) = checking.answers(version, [("serving_default", {"text": texts})])
    assert_same_everywhere(found, version, "serving_default", {"text": texts}, tmp_path)
    assert found["text"].tolist() == translator(tf.constant(texts)).numpy().tolist()
    assert found["text"].tolist() == translator.predict(["abc", "g"], verbose=0).tolist()
    with pytest.raises(ValueError, match="answers whole sequences only"):
        serving.export(translator, tmp_path / "n", ["step"], verbose=False)


# -- the folder -----------------------------------------------------------------------------------


def small():
    return keras.Sequential([keras.Input((None, D)), rnnx.GRU(U)])


def test_what_is_left_out_is_said_once(tmp_path, capsys):
    model = keras.Sequential([keras.Input((None, D)), rnnx.Bidirectional(rnnx.GRU(U))])
    serving.export(model, tmp_path / "m")
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.endswith("serving_default")
    assert [line.split(":")[0].strip() for line in rest] == [
        "without decode",
        "without step and initial_state",
    ]


def test_versions_follow_each_other(tmp_path):
    model = small()
    assert serving.export(model, tmp_path, version=7, verbose=False).name == "7"
    assert serving.export(model, tmp_path, verbose=False).name == "8"
    assert sorted(p.name for p in tmp_path.iterdir() if not p.name.isdigit()) == [
        "README.md",
        "batching.config",
        "models.config",
    ]
    with pytest.raises(FileExistsError, match="has a version 7"):
        serving.export(model, tmp_path, version=7)
    with pytest.raises(ValueError, match="expected an integer of 0 or more"):
        serving.export(model, tmp_path, version="new")


@pytest.mark.parametrize(
    "make, options, message",
    [
        (small, {"signatures": ["steps"]}, "signatures has 'steps', expected some of"),
        (small, {"signatures": ["decode"]}, "no model from sequences to sequences"),
        (
            lambda: keras.Sequential([keras.Input((None, D)), rnnx.GRU(U, stateful="any_batch")]),
            {},
            "all clients would share its state",
        ),
        (
            small,
            {"example": ["a", "b"]},
            rf"shapes .\(2,\).*expected one .*'inputs': .None, None, {D}",
        ),
        (small, {"preprocess": {"y": None}}, "names y, and the model has the inputs inputs"),
        (
            lambda: keras.Sequential(
                [keras.Input((None,)), keras.layers.Embedding(9, 3), rnnx.GRU(U)]
            ),
            {},
            "its mask is lost on the way. Use Embedding\\(mask_zero=True\\)",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")
def test_what_cannot_be_exported(make, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        serving.export(make(), tmp_path / "m", verbose=False, **options)
    left = list((tmp_path / "m").iterdir()) if (tmp_path / "m").exists() else []
    assert left == [], "nothing is left of an export that failed"


HALTED = """
import os, sys, time
import keras, keras_rnnx
from keras_rnnx.serving import exporting

def halt(*_):
    print("writing", flush=True)
    time.sleep(600)

if sys.argv[2] == "late":
    os.rename = halt
else:
    exporting._write_extra = halt
model = keras.Sequential([keras.Input((None, 3)), keras_rnnx.GRU(4)])
exporting.export(model, sys.argv[1], verbose=False)
"""


@pytest.mark.parametrize("moment", ["early", "late"])
@pytest.mark.thin(2)
def test_a_killed_export_leaves_nothing_to_serve(moment, tmp_path):
    command = [sys.executable, "-c", HALTED, str(tmp_path / "m"), moment]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "writing\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    (left,) = (tmp_path / "m").iterdir()
    assert not left.name.isdigit() and (left / "saved_model.pb").exists()
    with pytest.raises(FileNotFoundError, match="holds no version"):
        serving.check(tmp_path / "m")


# -- both devices ---------------------------------------------------------------------------------


def functions_for(version):
    """`{api name: {device}}` of the functions in the graph that say for which device they are."""
    found = {}
    for function in graph.read(version).graph_def.library.function:
        if "api_implements" in function.attr:
            name = function.attr["api_implements"].s.decode()
            found.setdefault(name, set()).add(function.attr["api_preferred_device"].s.decode())
    return found


def test_lstm_and_gru_lie_in_the_graph_for_both_devices(tmp_path):
    x = keras.Input((None, D))
    y = rnnx.LSTM(U, return_sequences=True)(x)
    y = rnnx.Bidirectional(rnnx.GRU(U, return_sequences=True))(y)
    y = rnnx.LSTM(U, use_cudnn=False, return_sequences=True)(y)  # not this one
    model = keras.Model(x, rnnx.LSTM(U, peephole=True)(y))  # nor this
    version = serving.export(model, tmp_path / "m", verbose=False)
    pairs = functions_for(version)
    assert len(pairs) == 3 and all(devices == {"CPU", "GPU"} for devices in pairs.values())
    assert not any(name.startswith("lstm_") for name in pairs)
    ops, _ = graph.reachable(graph.read(version), "serving_default")
    assert "BlockLSTMV2" in ops and "CudnnRNNV3" not in ops
    library = graph.read(version).graph_def.library.function
    assert "CudnnRNNV3" in {node.op for f in library for node in f.node_def}
    model.export(tmp_path / "plain", verbose=False)
    assert not functions_for(tmp_path / "plain"), "an export of Keras' own has no pair"


@pytest.mark.parametrize("rows", [3, 20])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.thin(9)
def test_gradients_of_the_pair_are_those_of_the_loop(kind, masked, rows):
    layer = getattr(rnnx, kind)(U, return_sequences=True, return_state=True)
    x = tf.constant(inputs(3, batch=rows))
    mask = tf.constant(np.random.default_rng(0).random(x.shape[:2]) < 0.6) if masked else None
    layer.build(x.shape)

    def gradients(context):
        def call(x):
            with context(), tf.GradientTape() as tape:
                tape.watch(x)
                found = layer(x, mask=mask)
                loss = sum(tf.reduce_sum(tf.sin(a)) for a in found)
            return found, tape.gradient(loss, [x, *layer.trainable_weights])

        spec = tf.TensorSpec([None, None, D])
        return tf.function(call, input_signature=[spec], autograph=False)(x)

    from keras_rnnx import engine

    pair, loop = gradients(engine.for_any_device), gradients(rnnx.portable)
    for a, b in zip(keras.tree.flatten(pair), keras.tree.flatten(loop), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not tf.config.list_physical_devices("GPU"), reason="there is no GPU")
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_cudnn_is_taken_where_there_is_a_gpu(kind, tmp_path):
    x = keras.Input((None, D), name="x")
    model = keras.Model(x, {"y": getattr(rnnx, kind)(U, return_sequences=True)(x)})
    version = serving.export(model, tmp_path / "m", verbose=False)
    request = requests_of(model, [7, 3, 1])
    tf.config.experimental.enable_tensor_float_32_execution(False)
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(version))
        signature = loaded.signature_def["serving_default"]
        feeds = {signature.inputs[n].name: a for n, a in request.items()}
        options = tf.compat.v1.RunOptions(trace_level=tf.compat.v1.RunOptions.FULL_TRACE)
        told = tf.compat.v1.RunMetadata()
        output = signature.outputs["y"].name
        found = session.run(output, feeds, options=options, run_metadata=told)
    ran = {node.node_name for device in told.step_stats.dev_stats for node in device.node_stats}
    assert any("CudnnRNN" in name for name in ran)
    assert_same({"y": found}, expected(model, request), 1e-5)

"""cuDNN: its buffer and its call, held without a GPU by an emulator, and on a GPU if there is one.

The emulator reads the flat buffer as NVIDIA documents it (`cudnnGetRNNWeightParams`: matrices and
biases numbered by linLayerID, equations of `cudnnRNNMode_t`) and knows nothing of Keras' layout.
"""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import (
    MASK_KINDS,
    B,
    D,
    T,
    U,
    assert_all_close,
    assert_close,
    inputs,
    loss_of,
    make_mask,
    outputs_and_gradients,
    run_in_mode,
    states_like,
    weights_like,
)

import keras_rnnx as rnnx
from keras_rnnx.engine import cudnn
from keras_rnnx.layers import one_call

LAYERS = {"lstm": rnnx.LSTM, "gru": rnnx.GRU}
STATES = {"lstm": 2, "gru": 1}
LENGTHS = {"none": None, "full": (T, T, T), "padded": (T, 2, 1), "empty": (3, 0, T - 1)}

kinds = pytest.mark.parametrize("kind", LAYERS)
biased = pytest.mark.parametrize("use_bias", [True, False])
needs_gpu = pytest.mark.skipif(
    not tf.config.list_physical_devices("GPU"), reason="cuDNN needs a GPU, and there is none"
)


# -- an emulator of cuDNN ------------------------------------------------------------------


def read(buffer, kind, sizes, units):
    """Matrices `[U, input or U]` and biases `[U]` of every pseudo-layer, by linLayerID.

    sizes: the input size of each pseudo-layer.
    """
    count, matrices, biases, place = {"lstm": 4, "gru": 3}[kind], [], [], 0

    def take(rows, columns):
        nonlocal place
        place += rows * columns
        return buffer[place - rows * columns : place]

    for size in sizes:
        columns = [size] * count + [units] * count
        matrices.append([take(units, n).reshape(units, n) for n in columns])
    for _ in sizes:
        biases.append([take(units, 1) for _ in range(2 * count)])
    assert place == len(buffer)
    return matrices, biases


def lstm_step(v, w, r, h, c):
    i, f, g, o = (w[n](v) + r[n](h) for n in range(4))
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def gru_step(v, w, r, h):
    reset = sigmoid(w[0](v) + r[0](h))
    update = sigmoid(w[1](v) + r[1](h))
    new = np.tanh(w[2](v) + reset * r[2](h))
    return ((1 - update) * new + update * h,)


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def emulate(kind, x, states, matrices, biases, lengths):
    """One pseudo-layer over `x [T, B, ...]`: outputs and last states, in NumPy."""
    linear = [lambda v, m=m, b=b: v @ m.T + b for m, b in zip(matrices, biases, strict=True)]
    half = len(linear) // 2
    step = {"lstm": lstm_step, "gru": gru_step}[kind]
    outputs = []
    for t in range(len(x)):
        on = t < lengths[:, None]
        new = step(x[t], linear[:half], linear[half:], *states)
        states = [np.where(on, n, s) for n, s in zip(new, states, strict=True)]
        outputs.append(np.where(on, new[0], 0))
    return np.stack(outputs), states


def emulate_layer(kind, x, cells, lengths):
    """A layer of one or two directions: outputs side by side, and the last states of each."""
    outputs, last = [], []
    for (matrices, biases, states), turn in zip(cells, (lambda a: a, real_steps_turned(lengths))):
        y, new = emulate(kind, turn(x), states, matrices, biases, lengths)
        outputs.append(turn(y))
        last.append(new)
    return np.concatenate(outputs, axis=-1), last


def real_steps_turned(lengths):
    """cuDNN's backward direction begins with the last real step of each row."""

    def turn(a):
        turned = a.copy()
        for row, length in enumerate(lengths):
            turned[:length, row] = a[:length, row][::-1]
        return turned

    return turn


class Emulator:
    """Stands in for `tf.raw_ops.CudnnRNNV3` in eager mode, with gradients by finite differences."""

    def __init__(self):
        self.training, self.time_major = [], None

    def __call__(self, input, input_h, input_c, params, sequence_lengths, **options):
        kind, training = options["rnn_mode"], options["is_training"]
        self.training.append(training)
        self.time_major = options["time_major"]
        assert input.dtype == input_h.dtype == input_c.dtype == params.dtype
        lengths = sequence_lengths.numpy()
        batch, steps = input.shape[:2][::-1] if self.time_major else input.shape[:2]
        assert lengths.dtype == np.int32 and lengths.shape == (batch,)
        assert np.all(lengths > 0) and np.all(lengths <= steps)
        turn = (lambda a: a) if self.time_major else (lambda a: a.swapaxes(0, 1))

        directions = {"unidirectional": 1, "bidirectional": 2}[options["direction"]]

        def compute(x, h, c, params):
            states = list(zip(*(turn(state) for state in (h, c)[: STATES[kind]]), strict=True))
            units, above = h.shape[-1], len(states) - directions
            sizes = directions * [x.shape[-1]] + above * [directions * units]
            cells = list(zip(*read(params, kind, sizes, units), states, strict=True))
            outputs, last = turn(x), []
            for k in range(0, len(cells), directions):
                layer = cells[k : k + directions]
                outputs, new = emulate_layer(kind, outputs, layer, lengths)
                last.extend(new)
            last = [turn(np.stack(state)) for state in zip(*last, strict=True)]
            return turn(outputs), last[0], last[1] if kind == "lstm" else np.zeros(0)

        @tf.custom_gradient
        def call(*tensors):
            arrays = [tensor.numpy() for tensor in tensors]

            def grad(*d_results):
                if not training:
                    raise ValueError("is_training must be set to True")
                d = [d_result.numpy() for d_result in d_results]
                gradients = differences(compute, arrays, d)
                if kind == "gru":
                    gradients[2] = np.full_like(arrays[2], np.nan)  # the kernel leaves it undefined
                return [tf.constant(g) for g in gradients]

            return [tf.constant(result) for result in compute(*arrays)], grad

        names = ("output", "output_h", "output_c")
        results = call(input, input_h, input_c, params)
        return type("Results", (), dict(zip(names, results, strict=True)))


def differences(function, arrays, d_results, size=1e-5):
    """Gradients of `sum(d * result)` by central differences."""

    def total(which, change):
        moved = [a + change if n == which else a for n, a in enumerate(arrays)]
        pairs = zip(d_results, function(*moved), strict=True)
        return sum(np.sum(d * result) for d, result in pairs if result.size)

    gradients = []
    for which, array in enumerate(arrays):
        gradient = np.zeros_like(array)
        for place in np.ndindex(array.shape):
            change = np.zeros_like(array)
            change[place] = size
            gradient[place] = (total(which, change) - total(which, -change)) / (2 * size)
        gradients.append(gradient)
    return gradients


# -- a layer of this package to compare with ---------------------------------------------------


def make(kind, use_bias=True, dtype="float64", units=U, features=D, seed=1, **options):
    options = dict(return_sequences=True, return_state=True, jit_compile=False) | options
    layer = LAYERS[kind](units, use_bias=use_bias, dtype=dtype, **options)
    layer.build((None, None, features))
    layer.set_weights(weights_like(layer, seed))
    return layer


def tensors_of(layer):
    return {w.name: w.value for w in layer.trainable_weights}


def problem(kind, lengths, dtype="float64"):
    """Input `[B, T, D]` with zeros in the padding, mask, states and lengths."""
    x = inputs(dtype=dtype)
    states = [tf.constant(s) for s in states_like([U] * STATES[kind], dtype=dtype)]
    if lengths is None:
        return tf.constant(x), None, states, None
    mask = np.arange(T) < np.array(lengths)[:, None]
    return tf.constant(x * mask[:, :, None]), tf.constant(mask), states, tf.constant(lengths)


def by_layer(layer, x, mask, states):
    """Outputs and last states, and gradients of x, states and weights."""
    weights = [w.value for w in layer.trainable_weights]
    with tf.GradientTape() as tape:
        tape.watch([x, *states])
        results = layer(x, initial_state=states, mask=mask, training=True)
        loss = loss_of(list(results))
    return list(results), tape.gradient(loss, [x, *states, *weights])


def by_cudnn(kind, layer, x, lengths, states, training):
    weights = tensors_of(layer)
    with tf.GradientTape() as tape:
        tape.watch([x, *states, *weights.values()])
        time_major = tf.transpose(x, [1, 0, 2])
        outputs, (last,) = cudnn.run(
            kind, time_major, [weights], [tuple(states)], lengths, training
        )
        results = [tf.transpose(outputs, [1, 0, 2]), *last]
        loss = loss_of(results)
    return results, tape.gradient(loss, [x, *states, *weights.values()])


def assert_same(kind, actual, expected, tolerance, gradient_tolerance):
    states = ["h", "c"][: STATES[kind]]
    assert_all_close(actual[0], expected[0], tolerance, ["outputs", *states])
    names = ["x", *states, "kernel", "recurrent_kernel", "bias"][: len(expected[1])]
    assert_all_close(
        actual[1], expected[1], gradient_tolerance, [f"gradient of {n}" for n in names]
    )


# -- the buffer ------------------------------------------------------------------------------


@kinds
@biased
@pytest.mark.quick
def test_cudnn_finds_the_weights_in_the_buffer(kind, use_bias):
    layer = make(kind, use_bias)
    x, _, states, _ = problem(kind, None)
    buffer = cudnn.pack(kind, [tensors_of(layer)]).numpy()
    matrices, biases = read(buffer, kind, [D], U)
    start = [s.numpy() for s in states]
    full = np.full([B], T)
    outputs, last = emulate(kind, x.numpy().swapaxes(0, 1), start, matrices[0], biases[0], full)
    expected = [np.asarray(result) for result in layer(x, initial_state=states)]
    names = ["outputs", "h", "c"][: len(expected)]
    assert_all_close([outputs.swapaxes(0, 1), *last], expected, 1e-12, names)


@kinds
@pytest.mark.quick
def test_several_cells_share_a_buffer(kind):
    """Two layers, one above the other: all matrices come before all biases."""
    layers = [make(kind, return_state=False), make(kind, False, features=U, return_state=False)]
    buffer = cudnn.pack(kind, [tensors_of(layer) for layer in layers]).numpy()
    x = problem(kind, None)[0]
    value, full = x.numpy().swapaxes(0, 1), np.full([B], T)
    for matrices, biases in zip(*read(buffer, kind, [D, U], U), strict=True):
        start = [np.zeros((B, U))] * STATES[kind]
        value, _ = emulate(kind, value, start, matrices, biases, full)
    assert_close(value.swapaxes(0, 1), layers[1](layers[0](x)), 1e-12, "outputs")


# -- the call --------------------------------------------------------------------------------


@kinds
@biased
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.thin(15)
def test_run_gives_what_the_layer_gives(kind, use_bias, lengths, training, monkeypatch):
    emulator = Emulator()
    monkeypatch.setattr(tf.raw_ops, "CudnnRNNV3", emulator)
    layer = make(kind, use_bias, zero_output_for_mask=True)
    x, mask, states, lengths = problem(kind, LENGTHS[lengths])
    actual = by_cudnn(kind, layer, x, lengths, states, training)
    assert_same(kind, actual, by_layer(layer, x, mask, states), 1e-12, 1e-7)
    assert emulator.training == ([True] if training else [False, True])
    # Time-major, a kernel that met a batch without padding first fails at the next one with some.
    assert emulator.time_major == (lengths is None)


@pytest.mark.quick
def test_weights_of_another_dtype_keep_it(monkeypatch):
    monkeypatch.setattr(tf.raw_ops, "CudnnRNNV3", Emulator())
    layer = make("gru", dtype="float32")
    x, _, states, _ = problem("gru", None)
    (outputs, _), gradients = by_cudnn("gru", layer, x, None, states, True)
    assert outputs.dtype == tf.float64
    assert [g.dtype for g in gradients] == [tf.float64] * 2 + [tf.float32] * 3


def operations(function, kind, lengths):
    """The cuDNN operations in the traced graph: `(type, is_training)`; nothing is executed."""
    layer = make(kind, dtype="float32")
    x, _, states, lengths = problem(kind, lengths, "float32")
    spec = lambda t: None if t is None else tf.TensorSpec([None] * t.shape.rank, t.dtype)
    like = tf.TensorSpec([None, None, D], x.dtype)
    traced = tf.function(lambda *a: function(layer, *a), autograph=False)
    states = [tf.TensorSpec([None, U], s.dtype) for s in states]
    graph = traced.get_concrete_function(like, spec(lengths), states).graph
    found = [op for op in graph.get_operations() if "CudnnRNN" in op.type]
    flag = lambda op: op.get_attr("is_training") if op.type == "CudnnRNNV3" else None
    return [(op.type, flag(op)) for op in found], found


@kinds
@pytest.mark.quick
@pytest.mark.parametrize("lengths", ["none", "empty"])
@pytest.mark.parametrize("training", [True, False])
def test_a_graph_holds_one_call(kind, lengths, training):
    def outputs(layer, x, lengths, states):
        return cudnn.run(kind, x, [tensors_of(layer)], [states], lengths, training)

    def gradients(layer, x, lengths, states):
        return by_cudnn(kind, layer, x, lengths, states, training)

    forward, found = operations(outputs, kind, LENGTHS[lengths])
    assert forward == [("CudnnRNNV3", training)]
    assert found[0].get_attr("rnn_mode").decode() == kind
    both, _ = operations(gradients, kind, LENGTHS[lengths])
    again = [] if training else [("CudnnRNNV3", True)]
    assert both == [*forward, *again, ("CudnnRNNBackpropV3", None)]


@pytest.mark.quick
def test_a_second_derivative_is_an_error():
    def second(layer, x, lengths, states):
        with tf.GradientTape() as tape:
            tape.watch(x)
            gradient = by_cudnn("lstm", layer, x, lengths, states, True)[1][0]
        return tape.gradient(gradient, x)

    with pytest.raises(LookupError, match="CudnnRNNBackpropV3"):
        operations(second, "lstm", None)


@pytest.mark.quick
def test_the_operation_takes_these_dtypes():
    _, (operation,) = operations(
        lambda layer, x, lengths, states: cudnn.run("lstm", x, [tensors_of(layer)], [states]),
        "lstm",
        None,
    )
    (attribute,) = [a for a in operation.op_def.attr if a.name == "T"]
    allowed = [tf.dtypes.as_dtype(t).name for t in attribute.allowed_values.list.type]
    assert sorted(allowed) == sorted(cudnn.DTYPES)


# -- what stands in the way ------------------------------------------------------------------

SUITABLE = dict(
    kind="gru",
    activation=keras.activations.tanh,
    recurrent_activation=keras.activations.sigmoid,
    dtype="float32",
)


@pytest.mark.quick
@pytest.mark.parametrize(
    "change, reason",
    [
        ({"kind": "SimpleRNN"}, "computes LSTM and GRU, not SimpleRNN"),
        ({"activation": keras.activations.relu}, "activation tanh only, not relu"),
        ({"activation": tf.tanh}, "activation tanh only"),
        ({"recurrent_activation": keras.activations.hard_sigmoid}, "not hard_sigmoid"),
        ({"reset_after": False}, "reset_after=True only"),
        ({"unroll": True}, "unroll=True"),
        ({"backward": "autodiff"}, 'backward="autodiff"'),
        ({"dtype": "int8"}, "not in int8"),
        ({"portable": True}, "runs on GPUs only"),
    ],
)
def test_obstacles(change, reason):
    sentence = cudnn.obstacle(**SUITABLE | change)
    assert reason in sentence and sentence.endswith(".")


@pytest.mark.quick
@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("dtype", cudnn.DTYPES)
def test_no_obstacle(kind, dtype):
    assert cudnn.obstacle(**SUITABLE | {"kind": kind, "dtype": dtype}) is None
    layer = make(kind)
    functions = dict(activation=layer.activation, recurrent_activation=layer.recurrent_activation)
    assert cudnn.obstacle(kind, dtype=dtype, **functions) is None


@pytest.mark.quick
@pytest.mark.parametrize(
    "build, gpus, reason",
    [
        ({"is_cuda_build": True}, ["GPU:0"], None),
        ({"is_cuda_build": True}, [], "no GPU"),
        ({"is_cuda_build": False, "is_rocm_build": True}, ["GPU:0"], "without CUDA"),
        ({}, ["GPU:0"], "without CUDA"),
    ],
)
def test_failure(build, gpus, reason, monkeypatch):
    monkeypatch.setattr(tf.sysconfig, "get_build_info", lambda: build)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus)
    failure = inspect.unwrap(cudnn.failure)()  # without the cache
    assert failure is None if reason is None else reason in failure


# -- on a GPU --------------------------------------------------------------------------------


@pytest.fixture
def with_cudnn(monkeypatch):
    """A machine that seems to have cuDNN."""
    monkeypatch.setattr(cudnn, "failure", lambda: None)
    monkeypatch.setattr(tf.raw_ops, "CudnnRNNV3", Emulator())


@kinds
@pytest.mark.parametrize("mask", MASK_KINDS)
@pytest.mark.parametrize(
    "options",
    [
        {"return_sequences": True, "return_state": True},
        {"return_sequences": True, "zero_output_for_mask": True, "go_backwards": True},
        {"return_state": True},
    ],
)
@pytest.mark.thin(8)
def test_layer_on_cudnn(kind, mask, options, with_cudnn):
    """Masks of every pattern, and what a masked step gives out."""
    ours, loop = (make(kind, use_cudnn=use, **options) for use in ("auto", False))
    assert ours.plan(training=True, eager=True).backend == "cudnn"
    mask, x = make_mask(mask), inputs(dtype="float64")
    states = states_like(ours.state_size, dtype="float64")
    results, expected = (
        run_in_mode(outputs_and_gradients(layer, training=True), "eager", x, mask, states)
        for layer in (ours, loop)
    )
    assert tf.raw_ops.CudnnRNNV3.training == [True]
    for actual, wanted in zip(sum(results, []), sum(expected, []), strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-6, atol=1e-8)


def deep(kind, **options):
    options = dict(return_sequences=True, return_state=True) | options
    return LAYERS[kind](U, dtype="float64", seed=3, **options)


def both(kind, merge_mode="concat", **options):
    return rnnx.Bidirectional(deep(kind, **options), merge_mode, dtype="float64")


TOGETHER = {
    "stack": lambda kind, **options: rnnx.Stack(deep(kind, **options), 3),
    "both": both,
    "both_apart": lambda kind, **options: both(kind, None, **options),
    "deep_both": lambda kind, **options: rnnx.Stack(both(kind, **options), 2),
    "other_merge": lambda kind, **options: rnnx.Stack(
        [both(kind, **options), both(kind, "mul", **options)]
    ),
}


def together_and_apart(name, kind, **options):
    """The layer that cuDNN runs in one call, and one with the same weights that loops."""
    pair = [TOGETHER[name](kind, use_cudnn=use, **options) for use in ("auto", False)]
    for layer in pair:
        layer.build((None, None, D))
        layer.set_weights(weights_like(layer, seed=1))
    return pair


def states_of(name, kind):
    count = {"stack": 3, "both": 2, "both_apart": 2, "deep_both": 4, "other_merge": 4}[name]
    return states_like([U] * count * STATES[kind], dtype="float64")


@kinds
@pytest.mark.parametrize("name", TOGETHER)
@pytest.mark.parametrize("mask", ["none", "right", "holes", "empty_rows"])
@pytest.mark.parametrize(
    "options",
    [
        {"return_sequences": True},
        {"return_sequences": False},
        pytest.param(
            {"return_sequences": False, "zero_output_for_mask": True}, marks=pytest.mark.slow
        ),
    ],
)
@pytest.mark.thin(36)
def test_layers_and_directions_in_one_call(name, kind, mask, options, with_cudnn):
    mask, x, states = make_mask(mask), inputs(dtype="float64"), states_of(name, kind)
    results = [
        keras.tree.flatten(layer(x, initial_state=states, mask=mask, training=True))
        for layer in together_and_apart(name, kind, **options)
    ]
    assert tf.raw_ops.CudnnRNNV3.training == [True]
    assert_all_close(*results, 1e-12, [f"result {n}" for n in range(len(results[0]))])


@kinds
@pytest.mark.parametrize(
    "name, mask", list(zip(TOGETHER, ["holes", "none", "right", "holes", "none"]))
)
@pytest.mark.thin(10)
def test_gradients_of_one_call(name, mask, kind, with_cudnn):
    mask, x, states = make_mask(mask), inputs(dtype="float64"), states_of(name, kind)
    results, expected = (
        run_in_mode(outputs_and_gradients(layer, training=True), "eager", x, mask, states)
        for layer in together_and_apart(name, kind)
    )
    assert tf.raw_ops.CudnnRNNV3.training == [True]
    for actual, wanted in zip(sum(results, []), sum(expected, []), strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-6, atol=1e-8)


@pytest.mark.quick
@pytest.mark.parametrize("name", TOGETHER)
def test_a_model_on_one_call_starts_from_zeros(name, with_cudnn):
    layers = together_and_apart(name, "lstm", return_state=False, return_sequences=False)
    x = inputs(dtype="float64")
    results, expected = (keras.tree.flatten(layer(x)) for layer in layers)
    assert_all_close(results, expected, 1e-12, ["outputs"] * len(results))
    assert tf.raw_ops.CudnnRNNV3.training == [False]


@pytest.mark.quick
@pytest.mark.parametrize(
    "make, reason",
    [
        (lambda: [rnnx.LSTM(U), rnnx.LSTM(U + 1)], "differ in kind or size"),
        (lambda: [rnnx.LSTM(U), rnnx.GRU(U)], "differ in kind or size"),
        (lambda: [rnnx.LSTM(U), rnnx.LSTM(U, dtype="float64")], "differ in dtype"),
        (lambda: [rnnx.LSTM(U), rnnx.LSTM(U, recurrent_dropout=0.1)], "not RecurrentDropout"),
        (lambda: [rnnx.LSTM(U), rnnx.LSTM(U, dropout=0.1)], "drop inputs of their own"),
        (lambda: [rnnx.GRU(U), rnnx.GRU(U, use_cudnn=False)], "use_cudnn=False"),
        (lambda: [rnnx.GRU(U, stateful=True), rnnx.GRU(U)], "keep states"),
        (lambda: [rnnx.GRU(U, activity_regularizer="l2"), rnnx.GRU(U)], "activity_regularizer"),
        (lambda: [rnnx.GRU(U, go_backwards=True), rnnx.GRU(U)], "goes backwards by itself"),
        (lambda: [rnnx.GRU(U), rnnx.Bidirectional(rnnx.GRU(U))], "one direction and some two"),
    ],
)
def test_what_keeps_layers_apart(make, reason, with_cudnn):
    stack = rnnx.Stack(make())
    pair = lambda one: (one.forward_layer, one.backward_layer)
    two = lambda one: isinstance(one, rnnx.Bidirectional)
    ways = [pair(one) if two(one) else (one,) for one in stack.layers]
    assert reason in one_call.obstacle(ways, training=True)
    assert one_call.obstacle([(rnnx.GRU(U),), (rnnx.GRU(U),)], training=True) is None


@pytest.mark.quick
@pytest.mark.parametrize("options", [{"residual": True}, {"skip": True}, {"dropout": 0.5}])
def test_what_happens_between_layers_keeps_them_apart(options, with_cudnn):
    emulator = tf.raw_ops.CudnnRNNV3
    stack = rnnx.Stack(rnnx.GRU(D, dtype="float64"), 2, **options)  # whose dtype it takes over
    stack(inputs(dtype="float64"), training=True)
    assert emulator.training == [True, True]
    stack(inputs(dtype="float64"), training=True, reset_mask=[True, False, False])
    assert len(emulator.training) == 4


@pytest.mark.quick
def test_where_a_layer_runs_on_cudnn(with_cudnn):
    layer = rnnx.LSTM(U, recurrent_dropout=0.1)
    assert layer.supports_jit is False and rnnx.LSTM(U, use_cudnn=False).supports_jit
    assert layer.plan(training=True).backend == "compiled"  # noise between the steps
    assert layer.plan(eager=True).backend == "cudnn"
    traced = layer.plan(training=False)
    assert traced.backend == "plain" and "may be exported" in traced.reasons[0]
    assert rnnx.LSTM(U, use_cudnn=True).plan(training=False).backend == "cudnn"
    assert rnnx.SimpleRNN(U).supports_jit and rnnx.SimpleRNN(U).plan(eager=True).backend != "cudnn"
    with rnnx.portable():
        assert layer.plan(eager=True).backend == "plain"
    seen = []
    gru = rnnx.GRU(U)
    tf.function(lambda: seen.append(gru.plan(training=True).backend), jit_compile=True)()
    assert seen == ["compiled"]


@pytest.mark.quick
def test_cudnn_that_is_asked_for_and_cannot_be_had(with_cudnn):
    layer = rnnx.LSTM(U, activation="relu", use_cudnn=True)
    with pytest.raises(ValueError, match='use_cudnn=True.*tanh only.*Use use_cudnn="auto"'):
        layer(inputs())


@pytest.fixture
def exact():
    """Full float32: the GPU otherwise multiplies with 10 bits (TensorFloat-32)."""
    was = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    yield
    tf.config.experimental.enable_tensor_float_32_execution(was)


@needs_gpu
@kinds
@biased
@pytest.mark.gpu
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("float64", 1e-12)])
def test_cudnn_on_a_gpu(kind, use_bias, lengths, training, dtype, tolerance, exact):
    layer = make(kind, use_bias, dtype, zero_output_for_mask=True)
    x, mask, states, lengths = problem(kind, LENGTHS[lengths], dtype)
    with tf.device("CPU:0"):
        expected = by_layer(layer, x, mask, states)
    with tf.device("GPU:0"):
        actual = by_cudnn(kind, layer, x, lengths, states, training)
    assert_same(kind, actual, expected, tolerance, 10 * tolerance)


@needs_gpu
@kinds
@pytest.mark.gpu
@pytest.mark.parametrize("dtype, tolerance", [("float16", 5e-3), ("bfloat16", 3e-2)])
def test_half_precision_on_a_gpu(kind, dtype, tolerance):
    layer = make(kind, zero_output_for_mask=True)
    x, mask, states, lengths = problem(kind, LENGTHS["empty"])
    with tf.device("CPU:0"):
        expected = by_layer(layer, x, mask, states)
    half = lambda tensor: tf.cast(tensor, dtype)
    with tf.device("GPU:0"):
        actual = by_cudnn(kind, layer, half(x), lengths, [half(s) for s in states], True)
    wide = [[tf.cast(t, tf.float64) for t in part] for part in actual]
    assert_same(kind, wide, expected, tolerance, 2 * tolerance)


@needs_gpu
@kinds
@pytest.mark.gpu
def test_full_and_padded_batches_in_turn_on_a_gpu(kind, exact):
    """One kernel meets both (tensorflow/tensorflow#41630)."""
    layer = make(kind, dtype="float32", zero_output_for_mask=True)

    @tf.function(autograph=False)
    def step(x, lengths, states):
        with tf.device("GPU:0"):
            return by_cudnn(kind, layer, x, lengths, states, True)

    for name in ("full", "padded", "full", "empty"):
        x, mask, states, lengths = problem(kind, LENGTHS[name], "float32")
        with tf.device("CPU:0"):
            expected = by_layer(layer, x, mask, states)
        assert_same(kind, step(x, lengths, states), expected, 1e-5, 1e-4)

"""TruncatedBPTT: chunks against documents by hand, borders, and trainings that were killed."""

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_rnnx as rnnx
from keras_rnnx.training import TruncatedBPTT

B, S, D, U = 2, 5, 3, 4
LENGTHS = (7, 2, 13, 9, 21)


def documents(lengths=LENGTHS, seed=0):
    rng = np.random.default_rng(seed)
    many = [(rng.normal(size=(n, D)), rng.normal(size=(n, 1))) for n in lengths]
    return [(x.astype("float32"), y.astype("float32")) for x, y in many]


def model_of(layers=rnnx, batch=B, optimizer=None, cell="LSTM", loss="mse", **options):
    keras.utils.set_random_seed(1)
    options = {"return_sequences": True, "stateful": True, **options}
    stack = [getattr(layers, cell)(U, **options), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input(batch_shape=(batch, None, D)), *stack])
    model.compile(optimizer or keras.optimizers.SGD(0.5), loss, weighted_metrics=["mae"])
    return model


def not_compiled(model):
    return keras.Model(model.inputs, model.outputs)


def states_of(model):
    return [tf.convert_to_tensor(v).numpy() for v in model.layers[0].states]


def first(stream, count):
    return list(itertools.islice(stream.batches(), count))


def assert_same(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


# -- the batches ---------------------------------------------------------------------------


@pytest.mark.quick
@pytest.mark.parametrize("shuffle", [False, True])
def test_every_step_of_every_document_once(shuffle):
    """Documents put together from the lanes again are those that were given, in order."""
    given = documents()
    stream = TruncatedBPTT(given, batch_size=B, steps=S, shuffle=shuffle, seed=3, padding=-7)
    found, open_ = [], [None] * B
    batches = first(stream, 40)
    for batch in batches:
        assert batch.inputs.shape == (B, S, D) and batch.targets.shape == (B, S, 1)
        for row in range(B):
            if batch.begins[row]:
                open_[row] = ([], [])
                found.append(open_[row])
            real = batch.weights[row] == 1
            assert np.all(np.diff(real.astype(int)) <= 0)  # padding at the end only
            assert np.all(batch.inputs[row][~real] == -7)
            open_[row][0].append(batch.inputs[row][real])
            open_[row][1].append(batch.targets[row][real])
    order = [np.random.default_rng([3, turn]).permutation(len(given)) for turn in range(3)]
    order = np.concatenate(order) if shuffle else np.tile(range(len(given)), 3)
    for number, (x, y) in zip(order, found):
        np.testing.assert_array_equal(np.concatenate(x), given[number][0])
        np.testing.assert_array_equal(np.concatenate(y), given[number][1])
    assert len(found) >= len(order)


@pytest.mark.quick
def test_one_series_is_cut_into_lanes():
    x, y = documents([21])[0]
    for i, batch in enumerate(first(TruncatedBPTT(x, y, batch_size=2, steps=4), 2)):
        np.testing.assert_array_equal(batch.inputs[0], x[4 * i : 4 * i + 4])
        np.testing.assert_array_equal(batch.inputs[1], x[11 + 4 * i : 15 + 4 * i])
        assert batch.begins.tolist() == [i == 0] * 2


@pytest.mark.quick
def test_documents_in_every_form_are_the_same():
    given = documents()
    xs, ys = [x for x, _ in given], [y for _, y in given]

    class Lazy:
        def __len__(self):
            return len(given)

        def __getitem__(self, number):
            return given[number]

    wanted = first(TruncatedBPTT(given, batch_size=B, steps=S), 4)
    for form in ((xs, ys), (Lazy(),), (lambda turn: iter(given),), (iter(given),)):
        for batch, other in zip(first(TruncatedBPTT(*form, batch_size=B, steps=S), 4), wanted):
            np.testing.assert_array_equal(batch.inputs, other.inputs)
            np.testing.assert_array_equal(batch.weights, other.weights)


# -- training ------------------------------------------------------------------------------


@pytest.mark.parametrize("layers, cell", [(rnnx, "LSTM"), (rnnx, "GRU"), (keras.layers, "LSTM")])
@pytest.mark.thin(3)
def test_as_a_loop_over_chunks_by_hand(layers, cell):
    """Each lane is its own model of batch size 1, without padding, with states in our hands."""
    stream = TruncatedBPTT(documents(), batch_size=B, steps=S)
    model = model_of(layers, cell=cell)
    start = model.get_weights()
    history = stream.fit(model, epochs=2, verbose=0)

    rnn = getattr(keras.layers, cell)(U, return_sequences=True, return_state=True)
    head = keras.layers.Dense(1)
    head(rnn(tf.zeros([1, 1, D]))[0])
    size = len(start) - 2
    rnn.set_weights(start[:size]), head.set_weights(start[size:])
    weights = rnn.trainable_variables + head.trainable_variables
    states, losses = [None] * B, []
    for batch in first(stream, 2 * stream.steps_per_epoch):
        with tf.GradientTape() as tape:
            loss = 0.0
            for row in range(B):
                length = int(batch.weights[row].sum())
                x, y = batch.inputs[row : row + 1, :length], batch.targets[row, :length]
                state = None if batch.begins[row] else states[row]
                h, *states[row] = rnn(x, initial_state=state)
                states[row] = [tf.stop_gradient(s) for s in states[row]]
                loss += tf.reduce_sum((head(h)[0] - y) ** 2) / (B * S)
        gradients = tape.gradient(loss, [w.value for w in weights])
        for weight, gradient in zip(weights, gradients):
            weight.assign_sub(0.5 * gradient)
        losses.append(float(loss))
    for ours, theirs in zip(model.get_weights(), rnn.get_weights() + head.get_weights()):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    n = stream.steps_per_epoch
    assert n == -(-(2 + 1 + 3 + 2 + 5) // B) and len(history.history["loss"]) == 2
    means = [np.mean(losses[:n]), np.mean(losses[n:])]
    np.testing.assert_allclose(history.history["loss"], means, rtol=1e-4)


class States(keras.callbacks.Callback):
    """Notes the kept states after every batch."""

    def on_train_begin(self, logs=None):
        self.after = []

    def on_train_batch_end(self, batch, logs=None):
        self.after.append(states_of(self.model))


@pytest.mark.parametrize("stateful", [True, "any_batch"])
def test_a_border_resets_its_lane_only(stateful):
    """After each batch a lane's state is that of its document so far, read from its start."""
    stream = TruncatedBPTT(documents(), batch_size=B, steps=S)
    model = model_of(stateful=stateful, optimizer=keras.optimizers.SGD(0.0))
    model(np.ones((B, 2, D), "float32"))  # leaves states that are no one's
    seen = States()
    stream.fit(model, epochs=2, verbose=0, callbacks=[seen])
    alone = keras.layers.LSTM(U, return_state=True)
    alone.build((1, None, D))
    alone.set_weights(model.layers[0].get_weights()[:3])
    so_far, compared = [None] * B, 0
    batches = first(stream, 2 * stream.steps_per_epoch)
    assert any(batch.begins.sum() == 1 for batch in batches[1:])
    for batch, states in zip(batches, seen.after, strict=True):
        for row in range(B):
            begun = batch.inputs[row][None]
            old = so_far[row]
            so_far[row] = begun if batch.begins[row] else np.concatenate([old, begun], axis=1)
            for ours, theirs in zip(states, alone(so_far[row])[1:], strict=True):
                np.testing.assert_allclose(ours[row], theirs[0], rtol=1e-4, atol=1e-6)
                compared += 1
    assert compared == 2 * B * len(batches)


def test_states_go_on_over_epochs():
    """Weights after as many batches are the same, however epochs divide them."""
    stream = TruncatedBPTT(documents(), batch_size=B, steps=S)
    weights = []
    for epochs, count in ((1, 14), (2, None), (7, 2)):
        model = model_of()
        stream.fit(model, epochs=epochs, steps_per_epoch=count, verbose=0)
        weights.append(model.get_weights())
    assert stream.steps_per_epoch == 7
    assert_same(weights[0], weights[1])
    assert_same(weights[0], weights[2])


def test_validation_leaves_the_states_alone():
    x, y = np.ones((2 * B, 4, D), "float32"), np.ones((2 * B, 4, 1), "float32")
    stream, found = TruncatedBPTT(documents(), batch_size=B, steps=S), []
    for options in ({}, {"validation_data": (x, y), "validation_batch_size": B}):
        model = model_of()
        history = stream.fit(model, epochs=3, verbose=0, **options)
        found.append(model.get_weights())
    assert_same(*found)
    # From zero states in each batch, both of which hold the same.
    model.layers[0].reset_state()
    last = history.history["val_loss"][-1]
    assert last == pytest.approx(model.evaluate(x[:B], y[:B], batch_size=B, verbose=0)[0], rel=1e-5)


# -- checkpoints ---------------------------------------------------------------------------


class Stop(keras.callbacks.Callback):
    """Ends a `fit` after some batches, as Ctrl-C does."""

    def __init__(self, batches):
        super().__init__()
        self.left = batches
        self.numbers = []

    def on_train_batch_end(self, batch, logs=None):
        self.numbers.append(batch)
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


@pytest.mark.parametrize("form", ["list", "function"])
@pytest.mark.thin(2)
def test_an_interrupted_fit_goes_on(form, tmp_path):
    """In the middle of an epoch, at its end, and when all is done; with averaged weights."""
    given = documents()
    if form == "list":
        make = lambda: TruncatedBPTT(given, batch_size=B, steps=S, shuffle=True)
    else:
        order = lambda turn: np.random.default_rng(turn).permutation(len(given))
        function = lambda turn: (given[i] for i in order(turn))
        make = lambda: TruncatedBPTT(function, batch_size=B, steps=S)
    adam = lambda: keras.optimizers.Adam(0.01, use_ema=True)
    options = {"epochs": 4, "steps_per_epoch": 7, "verbose": 0}
    whole = model_of(dropout=0.3, optimizer=adam())
    expected = make().fit(whole, **options)
    numbers = []
    for stop in (3, 4, 1, 9, 99, 99):
        calls = Stop(stop)
        model = model_of(dropout=0.3, optimizer=adam())
        try:
            history = make().fit(
                model, checkpoint=tmp_path, save_every=1, callbacks=[calls], **options
            )
        except KeyboardInterrupt:
            pass
        numbers += calls.numbers
    # A checkpoint is written after the callbacks of a batch: the last batch is trained again.
    assert numbers[:8] == [0, 1, 2, 2, 3, 4, 5, 5] and numbers[-1] == 6
    assert history.epoch == expected.epoch and history.history == expected.history
    assert_same(model.get_weights(), whole.get_weights())
    assert_same(states_of(model), states_of(whole))
    names = sorted(os.listdir(tmp_path))
    assert names == ["batch-000000000027.npz", "batch-000000000028.npz"]


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    fit = lambda model, steps=S, **options: TruncatedBPTT(
        documents(), batch_size=B, steps=steps
    ).fit(model, verbose=0, checkpoint=tmp_path, steps_per_epoch=1, **options)
    fit(model_of())
    with pytest.raises(ValueError, match="made with steps=5 and this run has 4"):
        fit(model_of(), steps=4)
    with pytest.raises(ValueError, match="holds an array of shape"):
        fit(model_of(cell="GRU"), epochs=2)
    (path,) = tmp_path.glob("batch-*.npz")
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError, match="cannot be read .* delete it"):
        fit(model_of())


def test_bfloat16_states_are_saved(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    options = {"verbose": 0, "checkpoint": tmp_path, "steps_per_epoch": 2}
    stream, models = TruncatedBPTT(documents(), batch_size=B, steps=S), [model_of(), model_of()]
    for model in models:
        stream.fit(model, **options)
    assert models[0].layers[0].states[0].dtype == "bfloat16" and states_of(models[0])[0].any()
    assert_same(*map(states_of, models))


def start(*arguments):
    root = str(Path(rnnx.__file__).parents[1])
    script = Path(__file__).parent / "processes" / "stream.py"
    return subprocess.Popen(
        [sys.executable, str(script), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": root, "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdout=subprocess.PIPE,
        text=True,
    )


def finish(process):
    """Let a process do what is left."""
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0 and printed.endswith("done\n"), printed


def kill(process, line):
    """Kill a process some time after it has printed `line`."""
    for printed in process.stdout:
        if printed.strip() == line:
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
            process.stdout.close()
            return
    raise AssertionError(f"ended before it printed {line}")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    path = tmp_path_factory.mktemp("undisturbed") / "weights.npz"
    finish(start(path))
    return list(np.load(path).values())


@pytest.mark.slow
def test_killed_while_it_wrote_a_checkpoint(undisturbed, tmp_path):
    """The earlier checkpoint is intact, what was begun is removed, the end is the same bits."""
    folder, weights = tmp_path / "checkpoints", tmp_path / "weights.npz"
    kill(start(weights, folder, 15), "writing")
    left = sorted(path.name for path in folder.iterdir())
    assert left[-1] == "batch-000000000015.npz.part" and "batch-000000000012.npz" in left
    finish(start(weights, folder))
    assert not list(folder.glob("*.part")) and len(list(folder.iterdir())) == 2
    assert_same(np.load(weights).values(), undisturbed)


@pytest.mark.slow
def test_killed_five_times(undisturbed, tmp_path):
    """Before the first checkpoint, in the middle, in the writing, after an epoch, late."""
    folder, weights = tmp_path / "checkpoints", tmp_path / "weights.npz"
    kill(start(weights, folder), "1")
    kill(start(weights, folder), "7")
    kill(start(weights, folder, 18), "writing")
    kill(start(weights, folder), "23")
    kill(start(weights, folder), str(np.random.default_rng().integers(4, 20)))
    finish(start(weights, folder))
    assert_same(np.load(weights).values(), undisturbed)


# -- errors --------------------------------------------------------------------------------


@pytest.mark.quick
def test_more_lanes_than_documents():
    with pytest.raises(ValueError, match="got 5 documents for batch_size=6, expected a document"):
        TruncatedBPTT(documents(), batch_size=6, steps=S)
    with pytest.raises(ValueError, match="a series of 21 steps for batch_size=22"):
        TruncatedBPTT(*documents([21])[0], batch_size=22, steps=S)


@pytest.mark.quick
@pytest.mark.parametrize(
    "given, text",
    [
        ([(np.ones((3, 2)), np.ones(4))], "got 3 steps of inputs and 4 of targets for document 0"),
        ([(np.ones((0, 2)), np.ones(0))], "at least one step"),
        ([np.ones((3, 2))], "got a ndarray for document 0 of pass 0, expected a pair"),
        (lambda turn: [], "got no document in pass 1"),
        (iter([(np.ones((3, 2)), np.ones(3))]), "got an iterator, which can be read once"),
        (
            lambda turn: [(np.ones((3, n)), np.ones(3)) for n in (2, 5)],
            r"document 1 of pass 0, expected \(\(\(2,\), 'float64'\)",
        ),
    ],
)
def test_documents_that_do_not_fit(given, text):
    with pytest.raises(ValueError, match=text):
        first(TruncatedBPTT(given, batch_size=1, steps=2), 4)


@pytest.mark.quick
def test_arguments():
    with pytest.raises(ValueError, match="steps=0, expected a positive integer"):
        TruncatedBPTT(documents(), batch_size=B, steps=0)
    with pytest.raises(ValueError, match="shuffle=True and function documents"):
        TruncatedBPTT(lambda turn: documents(), batch_size=B, steps=S, shuffle=True)
    with pytest.raises(TypeError, match="documents of int, expected arrays"):
        TruncatedBPTT(3, batch_size=B, steps=S)
    with pytest.raises(ValueError, match="5 documents and 1 targets"):
        TruncatedBPTT(documents(), [1], batch_size=B, steps=S)
    with pytest.raises(ValueError, match="steps_per_epoch=None"):
        TruncatedBPTT(lambda turn: documents(), batch_size=B, steps=S).fit(model_of())


@pytest.mark.quick
@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: model_of(stateful=False), "1 recurrent layers and none of them is stateful"),
        (lambda: model_of(batch=3), "a batch of 3, and the stream has batch_size=2"),
        (lambda: model_of(go_backwards=True), "go_backwards=True and stateful=True"),
        (lambda: keras.Sequential([rnnx.LSTM(U, stateful=True)]), "is not built"),
        (lambda: not_compiled(model_of()), "is not compiled"),
    ],
)
def test_models_that_cannot_go_on(make, text):
    stream = TruncatedBPTT(documents(), batch_size=B, steps=S)
    with pytest.raises(ValueError, match=text):
        stream.fit(make())


def test_documents_that_fail_in_the_middle_of_fit():
    """The error is ours, not that of the thread that reads ahead."""
    broken = lambda turn: [*documents(), (np.ones((3, D), "float32"), np.ones((2, 1), "float32"))]
    stream = TruncatedBPTT(broken, batch_size=B, steps=S)
    with pytest.raises(ValueError, match="got 3 steps of inputs and 2 of targets for document 5"):
        stream.fit(model_of(), steps_per_epoch=20, verbose=0)

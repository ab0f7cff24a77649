"""Weights from and to PyTorch: outputs and gradients of both, and what is refused."""

import hypothesis
import hypothesis.strategies as st
import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import B, D, T, U, assert_close, inputs, weights_like

import keras_rnnx as rnnx
from keras_rnnx import interop

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
LENGTHS = np.array([7, 4, 1])
OF_LAYERS = {"LSTM": rnnx.LSTM, "GRU": rnnx.GRU, "RNN": rnnx.SimpleRNN}


def module_of(kind, **options):
    torch.manual_seed(3)
    made = getattr(torch.nn, kind)(D, U, batch_first=True, **options)
    with torch.no_grad():
        for p in made.parameters():
            p.normal_(0, 0.5)
    return made


def theirs(module, x, lengths):
    """Outputs of all steps, states, and gradients by x and by the weights, by their names."""
    x = torch.tensor(x, requires_grad=True)
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        x, torch.tensor(lengths), batch_first=True, enforce_sorted=False
    )
    output, states = module(packed)
    output, _ = torch.nn.utils.rnn.pad_packed_sequence(output, True, total_length=T)
    torch.sin(output).sum().backward()
    gradients = {name: p.grad.numpy() for name, p in module.named_parameters()}
    states = states if isinstance(states, tuple) else (states,)
    return output.detach().numpy(), [s.detach().numpy() for s in states], x.grad.numpy(), gradients


def own(layer, x, lengths):
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        output, *states = layer(x, sequence_length=lengths)
        real = tf.cast(tf.sequence_mask(lengths, T), x.dtype)[:, :, None]
        output *= real  # PyTorch has zeros in the padding, of one direction we repeat
        loss = tf.reduce_sum(tf.sin(output))
    return output, states, tape.gradient(loss, [x, *layer.trainable_weights])


CONFIGURATIONS = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["LSTM", "GRU", "RNN"]),
        "num_layers": st.integers(1, 3),
        "bidirectional": st.booleans(),
        "bias": st.booleans(),
        "projected": st.booleans(),
        "nonlinearity": st.sampled_from(["tanh", "relu"]),
    }
)


def options_of(configuration):
    kind, projected, nonlinearity = (
        configuration[n] for n in ("kind", "projected", "nonlinearity")
    )
    options = {n: configuration[n] for n in ("num_layers", "bidirectional", "bias")}
    if kind == "LSTM" and projected:
        options["proj_size"] = U - 2
    if kind == "RNN":
        options["nonlinearity"] = nonlinearity
    return kind, options


@hypothesis.settings(max_examples=25, deadline=None, derandomize=True)
@hypothesis.given(CONFIGURATIONS)
def test_outputs_and_gradients_of_both(configuration):
    kind, options = options_of(configuration)
    module, x = module_of(kind, **options), inputs(5)
    layer = interop.from_torch(module, return_state=True, jit_compile=False)
    output, states, dx, gradients = theirs(module, x, LENGTHS)
    found, found_states, (own_dx, *own_gradients) = own(layer, x, LENGTHS)
    assert_close(found, output, 1e-5, "output")
    # PyTorch: [layers * directions, B, U] of h, and of c.
    per_cell = 2 if kind == "LSTM" else 1
    for k, state in enumerate(found_states):
        assert_close(state, states[k % per_cell][k // per_cell], 1e-5, f"state {k}")
    assert_close(own_dx, dx, 1e-4, "gradient of x")
    as_ours = interop.from_torch(gradients)  # laid out by the same table, summed for two biases
    for weight, a, b in zip(layer.weights, own_gradients, as_ours.get_weights(), strict=True):
        if kind != "GRU" and weight.name == "bias":
            b = b / 2  # each of PyTorch's two has the whole gradient
        assert_close(a, b, 1e-4, f"gradient of {weight.path}")


@hypothesis.settings(max_examples=15, deadline=None, derandomize=True)
@hypothesis.given(CONFIGURATIONS)
def test_there_and_back(configuration):
    kind, options = options_of(configuration)
    module, x = module_of(kind, **options), inputs(6)
    layer = interop.from_torch(module, jit_compile=False)
    back = interop.to_torch(layer)
    for name in ("num_layers", "bidirectional", "bias", "hidden_size", "input_size", "proj_size"):
        assert getattr(back, name) == getattr(module, name), name
    with torch.no_grad():
        found, wanted = (m(torch.tensor(x))[0].numpy() for m in (back, module))
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    again = interop.from_torch(back)
    for a, b in zip(again.get_weights(), layer.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize("kind", ["LSTMCell", "GRUCell", "RNNCell"])
def test_single_cells(kind):
    cell, x = getattr(torch.nn, kind)(D, U), inputs(2)
    layer = interop.from_torch(cell)
    state, outputs = None, []
    with torch.no_grad():
        for t in range(T):
            state = cell(torch.tensor(x[:, t]), state)
            outputs.append((state[0] if kind == "LSTMCell" else state).numpy())
    np.testing.assert_allclose(layer(x), np.stack(outputs, 1), atol=1e-5)


def test_part_of_a_model_and_of_a_file(tmp_path):
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = module_of("LSTM"), module_of("GRU", dropout=0.0)
            self.out = torch.nn.Linear(U, 2)

    model, x = Model(), inputs(1)
    torch.save(model.state_dict(), tmp_path / "plain.pt")
    torch.save({"state_dict": model.state_dict(), "epoch": 3}, tmp_path / "in_a_checkpoint.pt")
    with torch.no_grad():
        wanted = model.decoder(torch.tensor(x))[0].numpy()
    with pytest.raises(ValueError, match="2 sets of recurrent weights, 'decoder.', 'encoder.'"):
        interop.from_torch(model)
    for source in (model, model.state_dict(), *sorted(tmp_path.iterdir())):
        layer = interop.from_torch(source, prefix="decoder.")
        assert type(layer) is rnnx.GRU
        np.testing.assert_allclose(layer(x), wanted, atol=1e-5)
    with pytest.raises(ValueError, match="0 sets .* that begin with 'rnn.', but .*decoder.bias"):
        interop.from_torch(model, prefix="rnn.")
    recurrent, others = interop.torch_arrays(tmp_path / "plain.pt")
    assert len(recurrent) == 8 and list(others) == ["out.weight", "out.bias"]
    torch.save(model.decoder, tmp_path / "module.pt")
    with pytest.raises(ValueError, match="holds more than tensors.*Save its state dict"):
        interop.from_torch(tmp_path / "module.pt")
    arrays = {name: np.asarray(a) for name, a in model.decoder.state_dict().items()}
    np.testing.assert_allclose(interop.from_torch(arrays)(x), wanted, atol=1e-5)


def test_other_precisions():
    module, x = module_of("GRU").double(), inputs(1, dtype="float64")
    layer = interop.from_torch(module, dtype="float64")
    with torch.no_grad():
        wanted = module(torch.tensor(x))[0].numpy()
    np.testing.assert_allclose(layer(x), wanted, atol=1e-12)
    back = interop.to_torch(layer)
    np.testing.assert_array_equal(back(torch.tensor(x))[0].detach().numpy(), wanted)
    half = interop.from_torch(module_of("GRU").bfloat16())
    assert np.isfinite(half.get_weights()[0]).all()


def test_dropout_between_layers_goes_along():
    layer = interop.from_torch(module_of("GRU", num_layers=2, dropout=0.3))
    assert (layer.dropout, layer.dropout_mode) == (0.3, "step")
    assert interop.to_torch(layer).dropout == 0.3
    assert interop.to_torch(layer, inference_only=True).dropout == 0


def built(layer):
    layer.build((None, None, D))
    layer.set_weights(weights_like(layer))
    return layer


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: rnnx.LSTM(U, zoneout=0.1), "zoneout=0.1, which PyTorch does not have"),
        (lambda: rnnx.LSTM(U, peephole=True), "peephole=True"),
        (lambda: rnnx.GRU(U, dropout=0.2), "dropout=0.2, .* inference_only=True"),
        (lambda: rnnx.GRU(U, reset_after=False), "reset_after=False, .* only have True"),
        (lambda: rnnx.LSTM(U, activation="relu"), "activation=relu, .* only have tanh"),
        (lambda: rnnx.SimpleRNN(U, activation="elu"), "activation=elu"),
        (lambda: rnnx.LSTM(U, recurrent_activation="relu"), "recurrent_activation=relu"),
        (lambda: rnnx.GRU(U, go_backwards=True), "go_backwards=True"),
        (lambda: rnnx.GRU(U, backward=rnnx.Truncated(3)), r"backward=Truncated\(.*steps=3\)"),
        (lambda: rnnx.Bidirectional(rnnx.GRU(U), "sum"), "merge_mode='sum'"),
        (lambda: rnnx.Stack(rnnx.GRU(U), 2, residual=True), "residual=True"),
        (lambda: rnnx.Stack(rnnx.GRU(U), 2, dropout=0.1), "dropout_mode='locked'"),
        (lambda: rnnx.Stack([rnnx.GRU(U), rnnx.GRU(U + 1)]), "units=6, .* only have 5"),
        (lambda: rnnx.Stack([rnnx.GRU(U), rnnx.LSTM(U)]), "runs a LSTM beside"),
        (lambda: rnnx.LayerNormLSTM(U), "runs a LayerNormLSTM beside or in place of"),
    ],
)
def test_no_counterpart_in_pytorch(make, message):
    with pytest.raises(interop.NoCounterpart, match=message):
        interop.to_torch(built(make()))


def test_what_is_not_asked_of_pytorch():
    layer = built(rnnx.LSTM(U, jit_compile=False, seed=3, batch_parts=4, stateful=False))
    assert isinstance(interop.to_torch(layer), torch.nn.LSTM)
    with pytest.raises(ValueError, match="has no weights yet"):
        interop.to_torch(rnnx.LSTM(U))


@pytest.mark.parametrize(
    "source, message",
    [
        ({"linear.weight": np.ones((2, 3))}, "found 0 sets of recurrent weights"),
        (
            {"weight_ih_l0": np.ones((7, 3)), "weight_hh_l0": np.ones((7, 5))},
            "weight_ih of 7 rows and a weight_hh of 5 columns",
        ),
        (3, "Got a int, expected a module of PyTorch"),
    ],
)
def test_sources_that_are_none(source, message):
    with pytest.raises(ValueError, match=message):
        interop.from_torch(source)


# -- the seed models ------------------------------------------------------------------------------


class TorchClassifier(torch.nn.Module):
    def __init__(self, padding, layers, both):
        super().__init__()
        self.embedding = torch.nn.Embedding(11, 4, padding_idx=padding)
        options = {"num_layers": layers, "bidirectional": both, "dropout": 0.5 * (layers > 1)}
        self.lstm = torch.nn.LSTM(4, U, batch_first=True, **options)
        self.fc = torch.nn.Linear(U * (1 + both), 3)
        self.dropout, self.both = torch.nn.Dropout(0.5), both

    def forward(self, ids, lengths):
        x = self.dropout(self.embedding(ids))
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            x, lengths, batch_first=True, enforce_sorted=False
        )
        _, (h, _) = self.lstm(packed)
        last = torch.cat([h[-2], h[-1]], 1) if self.both else h[-1]
        return self.fc(self.dropout(last))


class TorchGRU(torch.nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.rnn = torch.nn.GRU(D, U, layers, batch_first=True)
        self.head = torch.nn.Linear(U, 2)

    def forward(self, x, lengths):
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            x, lengths, batch_first=True, enforce_sorted=False
        )
        return self.head(self.rnn(packed)[1][-1])


@pytest.mark.parametrize("layers, both", [(1, True), (2, True), (3, False)])
@pytest.mark.parametrize("padding", [0, 1])
def test_lstm_classifier(padding, layers, both, tmp_path):
    torch.manual_seed(0)
    theirs = TorchClassifier(padding, layers, both).eval()
    ids = np.random.default_rng(0).integers(2, 11, size=(B, T))
    for row, length in zip(ids, LENGTHS):
        row[length:] = padding
    with torch.no_grad():
        wanted = theirs(torch.tensor(ids), torch.tensor(LENGTHS)).numpy()
    ours = rnnx.models.LSTMClassifier(state_dict=theirs.state_dict(), padding_index=padding)
    np.testing.assert_allclose(ours(ids), wanted, atol=1e-5)
    sizes = {"vocabulary_size": 11, "embedding_size": 4, "units": U, "classes": 3}
    told = rnnx.models.LSTMClassifier(
        **sizes, num_layers=layers, bidirectional=both, padding_index=padding
    )
    assert [w.shape for w in told.weights] == [w.shape for w in ours.weights]
    ours.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(loaded(ids), wanted, atol=1e-5)


@pytest.mark.parametrize("layers", [1, 2])
def test_gru_model(layers):
    torch.manual_seed(0)
    theirs, x = TorchGRU(layers).eval(), inputs(4)
    with torch.no_grad():
        wanted = theirs(torch.tensor(x), torch.tensor(LENGTHS)).numpy()
    ours = rnnx.models.GRUModel(state_dict=theirs.state_dict())
    mask = np.arange(T) < LENGTHS[:, None]
    np.testing.assert_allclose(ours(x, mask=mask), wanted, atol=1e-5)
    told = rnnx.models.GRUModel(D, U, 2, num_layers=layers)
    assert [w.shape for w in told.weights] == [w.shape for w in ours.weights]


def test_models_that_cannot_be_made():
    with pytest.raises(ValueError, match="got no units, classes"):
        rnnx.models.LSTMClassifier(9, 4)
    classifier = TorchClassifier(0, 1, True).state_dict()
    with pytest.raises(ValueError, match="with embedding, fc beside the recurrent part"):
        rnnx.models.GRUModel(state_dict=classifier)
    with pytest.raises(ValueError, match="with head beside .* expected that of nn.Embedding"):
        rnnx.models.LSTMClassifier(state_dict=TorchGRU(1).state_dict())


@pytest.mark.slow
def test_classifier_that_is_served(tmp_path):
    from keras_rnnx import serving

    model = rnnx.models.LSTMClassifier(9, 4, U, 3, padding_index=1)
    model.set_weights(weights_like(model))
    version = serving.export(model, tmp_path / "m", verbose=False)
    assert serving.check(version, verbose=False) == []

"""Seq2Seq: training, decoding, scheduled sampling, files; losses and metrics of sequences."""

import keras
import numpy as np
import pytest
import search_oracles
import tensorflow as tf

import keras_rnnx as rnnx
from keras_rnnx.attention import BahdanauAttention
from keras_rnnx.attention import LocationAttention
from keras_rnnx.attention import LuongAttention
from keras_rnnx.seq2seq import Bridge
from keras_rnnx.seq2seq import Decoder
from keras_rnnx.seq2seq import Encoder
from keras_rnnx.seq2seq import ErrorRate
from keras_rnnx.seq2seq import ExactMatch
from keras_rnnx.seq2seq import InverseSigmoidDecay
from keras_rnnx.seq2seq import Perplexity
from keras_rnnx.seq2seq import ScheduledSampling
from keras_rnnx.seq2seq import Seq2Seq
from keras_rnnx.seq2seq import SequenceLoss
from keras_rnnx.seq2seq import TokenAccuracy
from keras_rnnx.seq2seq import corpus_bleu

START, END = 7, 8
STATES = {"return_sequences": True, "return_state": True}


def sources(rows=6, steps=5):
    x = np.random.default_rng(3).integers(1, 9, (rows, steps))
    x[: rows // 2, 3:] = 0
    return x


def targets(rows=6):
    some = np.array([[1, 2, 3, END, 0], [4, 5, END, 0, 0], [6, 2, 2, 1, END]])
    return some[np.arange(rows) % 3]


def seq2seq(cell=None, encoder=None, jit_compile=False, **options):
    """A small model whose weights are random and not zero; its loops are plain."""
    keras.utils.set_random_seed(5)
    if encoder is None:
        rnn = rnnx.Bidirectional(rnnx.GRU(4, jit_compile=jit_compile, **STATES))
        encoder = Encoder(rnn, vocabulary_size=9, embedding_size=3)
    if cell is None:
        cell = rnnx.AttentionCell(rnnx.GRUCell(5), BahdanauAttention(6), attention_size=7)
    rnn = rnnx.RNN(cell, return_sequences=True, jit_compile=jit_compile)
    parts = {k: options.pop(k) for k in ("tie_embeddings", "dropout") if k in options}
    decoder = Decoder(rnn, vocabulary_size=9, embedding_size=4, **parts)
    options = {"decoding": {"beam_width": 3, "max_length": 6}, **options}
    model = Seq2Seq(encoder, decoder, start=START, end=END, **options)
    model(sources())
    draw = np.random.default_rng(8)
    model.set_weights([0.6 * draw.standard_normal(w.shape) for w in model.get_weights()])
    return model


def attentive(attention, cell=rnnx.GRUCell, **options):
    return rnnx.AttentionCell(cell(5), attention, **options)


CELLS = {
    "additive": lambda: attentive(BahdanauAttention(6), attention_size=7),
    "fed": lambda: attentive(LuongAttention(), rnnx.LSTMCell, input_feeding=True),
    "location": lambda: attentive(LocationAttention(6, filters=3, kernel_size=3)),
    "bahdanau": lambda: attentive(BahdanauAttention(6, coverage=True), query="state"),
    "stack": lambda: [rnnx.LSTMCell(4), attentive(LuongAttention("general"), rnnx.LSTMCell)],
    "plain": lambda: rnnx.LSTMCell(5),
}


def real(ids, lengths):
    """Ids with padding after their end token, as targets are."""
    return np.where(np.arange(ids.shape[-1]) <= lengths[..., None], ids, 0)


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.thin(6)
def test_scores_are_those_of_teacher_forcing(name):
    """Decoded step by step and scored as a whole: two ways through the model, one number."""
    model = seq2seq(CELLS[name]())
    for options in ({"beam_width": 4}, {"method": "greedy"}, {"method": "sample", "seed": 3}):
        found = model.decode(sources(), max_length=6, **options)
        for k in range(found.ids.shape[1]):
            ids = real(found.ids[:, k].numpy(), found.lengths[:, k].numpy())
            scores = model.log_probability(sources(), ids)
            np.testing.assert_allclose(found.scores[:, k], scores, rtol=0, atol=1e-4)


@pytest.mark.quick
def test_alignments_are_those_of_the_layer():
    model = seq2seq(CELLS["location"]())
    found = model.decode(sources(), beam_width=3)
    ids = real(found.ids[:, 0].numpy(), found.lengths[:, 0].numpy())
    encoded = model.encode(sources(), training=False)
    decoder = model.decoder
    config = decoder.cells[0].get_config()
    shown = rnnx.AttentionCell.from_config({**config, "return_alignments": True})
    layer = rnnx.RNN(shown, return_sequences=True, jit_compile=False)
    x = decoder.embedding(model.teacher_inputs(ids))
    given = {"memory": encoded.memory, "memory_mask": encoded.mask}
    layer(x, initial_state=encoded.states[0], constants=given)
    layer.set_weights(decoder.rnn.get_weights())
    _, alignments = layer(x, initial_state=encoded.states[0], constants=given)
    alignments = np.where((ids != 0)[..., None], alignments, 0)
    np.testing.assert_allclose(found.alignments[:, 0], alignments, rtol=0, atol=1e-5)
    assert (found.alignments[:3, :, :, 3:].numpy() == 0).all(), "padding is attended to"


@pytest.mark.quick
def test_rows_do_not_depend_on_their_neighbours():
    model = seq2seq()
    whole = model.decode(sources(), beam_width=3)
    for k in range(len(sources())):
        length = np.count_nonzero(sources()[k])  # alone a row needs no padding either
        alone = model.decode(sources()[k : k + 1, :length], beam_width=3)
        T = alone.ids.shape[-1]
        np.testing.assert_array_equal(alone.ids[0], whole.ids[k, :, :T])
        np.testing.assert_array_equal(alone.lengths[0], whole.lengths[k])
        np.testing.assert_allclose(alone.scores[0], whole.scores[k], rtol=0, atol=1e-5)


def test_xla_decodes_the_same():
    model = seq2seq()
    for options in ({"length_penalty": 0.7, "coverage_penalty": 0.2}, {"method": "greedy"}):
        plain = model.decode(sources(), **options)
        compiled = model.decode(sources(), jit_compile=True, **options)
        for name in plain._fields:
            one, other = getattr(plain, name), getattr(compiled, name)
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-5, err_msg=name)


def test_predict_and_evaluate():
    model = seq2seq()
    model.compile("adam", SequenceLoss(), metrics=[TokenAccuracy(), Perplexity()])
    found = model.predict(sources(), batch_size=4, verbose=0)
    expected = model.decode(sources())
    T = expected.ids.shape[-1]
    np.testing.assert_array_equal(found["ids"][:, :, :T], expected.ids)
    assert found["ids"].shape == (6, 3, 6) and (found["ids"][:, :, T:] == END).all()
    logs = model.evaluate(sources(), targets(), batch_size=6, verbose=0, return_dict=True)
    total = -model.log_probability(sources(), targets()).numpy().sum()
    mean = total / np.count_nonzero(targets())
    assert logs["loss"] == pytest.approx(mean, rel=1e-5)
    assert logs["perplexity"] == pytest.approx(np.exp(mean), rel=1e-5)


@pytest.mark.slow
def test_learns_to_reverse():
    """More than a loss that falls: what comes out is right, on sources never seen."""
    draw = np.random.default_rng(0)
    x = draw.integers(1, 7, (640, 6))
    y = np.concatenate([x[:, ::-1], np.full((640, 1), END)], axis=1)
    keras.utils.set_random_seed(1)
    rnn = rnnx.Bidirectional(rnnx.GRU(16, **STATES))
    cell = rnnx.AttentionCell(rnnx.GRUCell(32), BahdanauAttention(16), attention_size=32)
    model = Seq2Seq(
        Encoder(rnn, 9, 12), Decoder(cell, 9, 12, tie_embeddings=True), start=START, end=END
    )
    model.compile(keras.optimizers.Adam(1e-2), SequenceLoss(label_smoothing=0.1))
    model.fit(x[:600], y[:600], batch_size=40, epochs=12, verbose=0)
    metrics = [ExactMatch(END), ErrorRate(END)]
    found = model.evaluate_decoded(x[600:], y[600:], metrics, beam_width=3, max_length=9)
    assert found["exact_match"] > 0.9 and found["error_rate"] < 0.05


@pytest.mark.parametrize("name", ("location", "stack"))
@pytest.mark.thin(3)
@pytest.mark.slow
def test_saved_it_continues_with_the_same_losses(name, tmp_path):
    model = seq2seq(CELLS[name](), tie_embeddings=name == "stack")
    model.compile(keras.optimizers.Adam(1e-2), SequenceLoss(label_smoothing=0.1))
    fit = {"epochs": 2, "batch_size": 4, "shuffle": False, "verbose": 0}
    model.fit(sources(), targets(), **fit)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    expected, found = model.decode(sources()), loaded.decode(sources())
    np.testing.assert_array_equal(found.ids, expected.ids)
    losses = model.fit(sources(), targets(), **fit).history["loss"]
    assert loaded.fit(sources(), targets(), **fit).history["loss"] == losses
    assert losses[-1] < losses[0]


@pytest.mark.slow
def test_any_keras_model_encodes():
    """A convolution over features, without states; and two memories for two attentions."""
    inputs = keras.Input((None, 3))
    encoder = keras.Model(inputs, keras.layers.Conv1D(4, 3, padding="same")(inputs))
    features = np.random.default_rng(0).standard_normal((6, 5, 3)).astype("float32")
    model = Seq2Seq(
        encoder,
        Decoder(attentive(LuongAttention()), vocabulary_size=9, embedding_size=4),
        start=START,
        end=END,
    )
    model.compile("adam", SequenceLoss())
    model.fit(features, targets(), verbose=0)
    assert model.decode(features, beam_width=2, max_length=4).alignments.shape[-1] == 5

    ids, other = keras.Input((None,), dtype="int32"), keras.Input((None, 3))
    memory = keras.layers.Embedding(9, 6, mask_zero=True)(ids)
    two = keras.Model([ids, other], {"memory": [memory, keras.layers.Dense(4)(other)]})
    both = attentive([BahdanauAttention(5), LuongAttention()])
    model = Seq2Seq(two, Decoder(both, vocabulary_size=9, embedding_size=4), start=START, end=END)
    found = model.decode([sources().astype("int32"), features[:, :4]], beam_width=2, max_length=4)
    assert [a.shape[-1] for a in found.alignments] == [5, 4]
    assert (found.alignments[0][:3, :, :, 3:].numpy() == 0).all()


@pytest.mark.parametrize("mode", ("dense", "mean", "copy", "zeros"))
def test_bridges(mode):
    bridge = Bridge(mode)
    draw = np.random.default_rng(1)
    memory = tf.constant(draw.standard_normal((2, 4, 3)), tf.float32)
    states = [tf.constant(draw.standard_normal((2, size)), tf.float32) for size in (5, 6)]
    mask = tf.constant([[True, True, False, False], [True] * 4])
    found = bridge.start([[5], [6]], memory, mask, states)
    assert [[tuple(s.shape) for s in cell] for cell in found] == [[(2, 5)], [(2, 6)]]
    mean = np.stack([memory[0, :2].numpy().mean(0), memory[1].numpy().mean(0)])
    seen = {"dense": np.concatenate(states, axis=1), "mean": mean}.get(mode)
    for k, (state,) in enumerate(found):
        if mode in ("zeros", "copy"):
            expected = states[k].numpy() * (mode == "copy")
        else:
            kernel, bias = bridge.dense[k].get_weights()
            expected = np.tanh(seen @ kernel + bias)
        np.testing.assert_allclose(state, expected, rtol=0, atol=1e-6)


def test_scheduled_sampling_feeds_what_the_decoder_said():
    """At rate 1 and by argmax the inputs are those of greedy search; at rate 0 the targets."""
    model = seq2seq()
    greedy = model.decode(sources(), method="greedy", max_length=5).ids[:, 0].numpy()
    inputs = model.teacher_inputs(np.full((6, 5), 3))
    _, state, constants = model.begin(tf.constant(sources()))
    mix = lambda rate, choice: ScheduledSampling(rate, choice).mix(
        model.decoder.step, state, constants, inputs, tf.constant(rate), tf.constant([1, 2])
    )
    found = mix(1.0, "argmax").numpy()
    for row, said in zip(found, greedy):
        length = list(said).index(END) if END in said else len(said)
        assert row[0] == START
        np.testing.assert_array_equal(row[1 : length + 1], said[: len(row[1 : length + 1])])
    np.testing.assert_array_equal(mix(0.0, "sample"), inputs)
    part = mix(0.5, "sample").numpy() != inputs.numpy()
    assert 0 < part.mean() < 0.9


@pytest.mark.slow
def test_scheduled_sampling_trains():
    model = seq2seq(scheduled_sampling=ScheduledSampling(InverseSigmoidDecay(2.0)), seed=4)
    model.compile(keras.optimizers.Adam(1e-2), SequenceLoss())
    losses = model.fit(sources(), targets(), epochs=8, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    k = 2.0
    for step in (0, 3, 50):
        expected = 1 - k / (k + np.exp(step / k))
        assert float(InverseSigmoidDecay(k)(step)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
def test_frames():
    """A decoder of numbers: trained on the frames before, and rolled out on its own."""
    keras.utils.set_random_seed(2)
    draw = np.random.default_rng(4)
    x = draw.standard_normal((6, 5, 3)).astype("float32")
    y = draw.standard_normal((6, 4, 2)).astype("float32")
    model = Seq2Seq(
        Encoder(rnnx.LSTM(4, **STATES)),
        Decoder(attentive(LuongAttention(), rnnx.LSTMCell), features=2),
        scheduled_sampling=ScheduledSampling(0.5),
    )
    model.compile("adam", "mse")
    model.fit(x, y, verbose=0)
    rolled = model.rollout(x, 4).numpy()
    from keras_rnnx.seq2seq.model import Pair

    forced = model(Pair(x, model.teacher_inputs(rolled)), training=False)
    np.testing.assert_allclose(rolled, forced, rtol=0, atol=1e-5)


# -- losses and metrics --------------------------------------------------------------------------


def loss_by_hand(y, logits, smoothing):
    """`[B, T]`, from the definition."""
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    V = logits.shape[-1]
    q = (1 - smoothing) * np.eye(V)[y] + smoothing / V
    return -(q * logs).sum(-1) * (y != 0)


@pytest.mark.quick
@pytest.mark.parametrize("smoothing", (0.0, 0.2))
def test_sequence_loss(smoothing):
    logits = np.random.default_rng(0).standard_normal((6, 5, 9)).astype("float32")
    losses, count = loss_by_hand(targets(), logits, smoothing), np.count_nonzero(targets())
    expected = {"tokens": losses.sum() / count, "sequences": losses.sum() / 6, None: losses.sum()}
    for average, value in expected.items():
        loss = SequenceLoss(average, label_smoothing=smoothing)
        assert float(loss(targets(), logits)) == pytest.approx(value, rel=1e-5)
        again = SequenceLoss.from_config(loss.get_config())
        assert float(again(targets(), logits)) == float(loss(targets(), logits))
    weight = np.arange(6.0)
    found = SequenceLoss(label_smoothing=smoothing)(targets(), logits, weight)
    assert float(found) == pytest.approx((losses * weight[:, None]).sum() / count, rel=1e-5)
    assert float(SequenceLoss()(0 * targets(), logits)) == 0, "no token, no NaN"


@pytest.mark.quick
def test_token_metrics_over_batches():
    logits = np.random.default_rng(1).standard_normal((6, 5, 9)).astype("float32")
    accuracy, perplexity = TokenAccuracy(), Perplexity()
    for rows in (slice(0, 1), slice(1, 6)):
        accuracy.update_state(targets()[rows], logits[rows])
        perplexity.update_state(targets()[rows], logits[rows])
    real = targets() != 0
    right = (logits.argmax(-1) == targets())[real]
    assert float(accuracy.result()) == pytest.approx(right.mean())
    mean = loss_by_hand(targets(), logits, 0.0).sum() / real.sum()
    assert float(perplexity.result()) == pytest.approx(np.exp(mean), rel=1e-5)


@pytest.mark.quick
def test_error_rate_takes_the_closest_reference():
    draw = np.random.default_rng(7)
    rows = [[draw.integers(1, 5, draw.integers(0, 6)) for _ in range(3)] for _ in range(40)]
    guesses = [draw.integers(1, 5, draw.integers(0, 6)) for _ in range(40)]
    pad = lambda ids, n=7: np.pad(np.append(ids, END), (0, n - len(ids)))[:n]
    truth = np.stack([[pad(ids) for ids in several] for several in rows])
    truth[::2, 1:] = 0  # every other sample has one reference
    found = np.stack([pad(ids) for ids in guesses])
    rate, exact = ErrorRate(END), ExactMatch(END)
    for part in (slice(0, 15), slice(15, 40)):
        rate.update_state(truth[part], found[part])
        exact.update_state(truth[part], found[part])
    errors = length = matches = 0
    for k, several in enumerate(rows):
        several = several[:1] if k % 2 == 0 else several
        distances = [search_oracles.edit_distance(list(guesses[k]), list(ids)) for ids in several]
        closest = int(np.argmin(distances))
        errors, length = errors + distances[closest], length + len(several[closest])
        matches += distances[closest] == 0
    assert float(rate.result()) == pytest.approx(errors / length)
    assert float(exact.result()) == pytest.approx(matches / 40)


@pytest.mark.quick
def test_bleu():
    assert corpus_bleu(["a b c d e"], [["x y z", "a b c d e"]]) == pytest.approx(100)
    # 3 of 4 words, 2 of 3 pairs, 1 of 2 triples, 0 of 1 quadruples, which counts as 1 / 2
    expected = 100 * (3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** 0.25
    assert corpus_bleu(["a b c x"], ["a b c d"]) == pytest.approx(expected)
    with pytest.raises(ValueError, match="1 hypotheses and 2 references"):
        corpus_bleu(["a"], ["a", "b"])


BAD = {
    "start": (lambda: seq2seq().__class__(*parts(), start=9, end=8), "start is 9, expected an id"),
    "end": (lambda: Seq2Seq(*parts(), start=1, end=0), "end is 0, expected an id from 1 to 8"),
    "option": (lambda: seq2seq(decoding={"beams": 3}), "got beams, expected options of beam"),
    "method": (lambda: seq2seq().decode(sources(), method="best"), "method is 'best'"),
    "width": (lambda: seq2seq().decode(sources(), beam_width=0), "beam_width is 0"),
    "length": (lambda: seq2seq().decode(sources(), max_length=0), "max_length is 0"),
    "rollout": (lambda: seq2seq().rollout(sources(), 3), "a decoder of ids: use `decode`"),
    "last": (lambda: Encoder(rnnx.GRU(4)), "return_sequences=False, expected True"),
    "both": (lambda: Decoder(rnnx.GRUCell(3)), "expected one of them"),
    "copy": (lambda: seq2seq(bridge=Bridge("copy")), r"sizes \[4, 4\] from the encoder"),
    "average": (lambda: SequenceLoss("mean"), "average is 'mean'"),
    "logits": (lambda: SequenceLoss()(targets(), np.zeros((6, 4, 9))), "expected ids"),
    "rate": (lambda: ScheduledSampling(1.5), "rate is 1.5"),
}


def parts():
    rnn = rnnx.GRU(4, **STATES)
    return Encoder(rnn, 9, 3), Decoder(attentive(LuongAttention()), 9, 4)


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    make, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        make()

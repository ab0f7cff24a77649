"""examples/hybrid.py: its encoder and stock decoder, its baseline that counts, its short form."""

import itertools
import json
import math
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import hybrid
import keras
import matplotlib.image
import numpy as np
from parts import pronunciations
import pytest
import tensorflow as tf

import keras_rnnx
from keras_rnnx.seq2seq.model import Pair

ROOT = Path(__file__).parents[1]
WORDS = {  # as `load` gives them
    "hello": ["HH AH L OW", "HH EH L OW"],
    "cab": ["K AE B"],
    "ooze": ["UW Z"],
    "axe": ["AE K S"],
}


@pytest.fixture(autouse=True)
def nothing_is_compiled():
    with keras_rnnx.portable():
        yield


@pytest.mark.slow
def test_short_form(tmp_path):
    command = [sys.executable, ROOT / "examples" / "hybrid.py", "--quick", "--out", tmp_path]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    names = {"data", "export", "hybrid.png", "model.keras", "result.json"}
    assert {path.name for path in tmp_path.iterdir()} == names
    result = json.loads((tmp_path / "result.json").read_text())
    metrics, baselines = result["metrics"], result["baselines"]
    assert result["layers"] == "keras_rnnx" and result["quick"] and result["seconds"] > 0
    assert 0 < metrics["phoneme error"] < 50, "two short epochs: most phonemes are right"
    assert metrics["phoneme error"] < metrics["word error"] < 100
    counted = "counting letters with neighbours"
    assert 5 < baselines[f"{counted}: phoneme error"] < 30
    assert baselines[f"{counted}: phoneme error"] < baselines[f"{counted}: word error"] < 90
    height, width, _ = matplotlib.image.imread(tmp_path / "hybrid.png").shape
    assert width > height > 300
    translator = keras.saving.load_model(tmp_path / "model.keras")
    assert translator.model.count_params() == result["parameters"]
    assert translator(tf.constant(["hello", "o'clock"])).shape == (2,)


def translator(layers):
    """Untrained, with random weights, biases too."""
    made = hybrid.build(SimpleNamespace(encoder="transformer", layers=layers), WORDS)
    model, rng = made.model, np.random.default_rng(1)
    model(np.array([[2, 3, 4]]))
    for weight in model.trainable_weights:
        weight.assign(rng.normal(scale=0.1, size=weight.shape))
    return made


@pytest.mark.parametrize("layers", ["keras_rnnx", "keras"])
def test_padding_changes_nothing(layers):
    """A word alone, and beside a longer one."""
    made = translator(layers)
    logits = lambda source, targets: made.model(Pair(source, made.model.teacher_inputs(targets)))
    alone = logits(*made.pairs(["cab"], ["K AE B"]))
    beside = logits(*made.pairs(["hello", "cab"], ["HH AH L OW", "K AE B"]))
    assert alone.shape[1] == 4 and beside.shape[1] == 5
    np.testing.assert_allclose(beside[1:, :4], alone, rtol=0, atol=1e-5)


def test_encoder_knows_places():
    """Without them attention sees a set of letters, and "abc" backwards is "cba"."""
    encoder = hybrid.transformer(30)
    there, back = encoder(np.array([[2, 3, 4]])), encoder(np.array([[4, 3, 2]]))
    assert np.abs(there - back[:, ::-1]).max() > 0.01


def test_stock_decoder_is_the_same_net():
    """The decoder of Keras' layers with the weights of the other one: the same logits and words."""
    ours, stock = translator("keras_rnnx").model, translator("keras").model
    query, memory, v, combine, *gru, embedding, kernel, bias = ours.decoder.get_weights()
    stock.decoder.set_weights([embedding, *gru, query, memory, v, combine, kernel, bias])
    for name in ("encoder", "bridge"):
        getattr(stock, name).set_weights(getattr(ours, name).get_weights())
    source = np.array([[2, 3, 4, 5, 6], [6, 7, 0, 0, 0]])
    pair = Pair(source, ours.teacher_inputs(np.array([[2, 3, 4, 5], [3, 2, 0, 0]])))
    expected, found = ours(pair), stock(pair)
    np.testing.assert_allclose(found[0], expected[0], rtol=0, atol=1e-5)
    np.testing.assert_allclose(found[1, :2], expected[1, :2], rtol=0, atol=1e-5)
    greedy = [model.decode(source, method="greedy", max_length=6) for model in (ours, stock)]
    np.testing.assert_array_equal(greedy[1].ids, greedy[0].ids)
    np.testing.assert_allclose(greedy[1].scores, greedy[0].scores, rtol=0, atol=1e-4)


def test_align_finds_the_likeliest():
    """Beside a search through all ways."""
    rng = np.random.default_rng(3)
    for _ in range(40):
        word = "".join(rng.choice(list("abc"), size=rng.integers(1, 6)))
        phones = tuple(rng.choice(["P", "Q"], size=rng.integers(0, 2 * len(word) + 1)))
        often = Counter()
        for letter in "abc":
            for size in range(3):
                for chunk in itertools.product("PQ", repeat=size):
                    often[letter, chunk] = int(rng.integers(0, 50))
        ways = {}
        for sizes in itertools.product(range(3), repeat=len(word)):
            if sum(sizes) == len(phones):
                ends = np.cumsum(sizes)
                way = tuple(phones[end - size : end] for size, end in zip(sizes, ends))
                ways[way] = sum(math.log(often[each] + 0.1) for each in zip(word, way))
        found = pronunciations.align(word, phones, often)
        assert ways[found] == pytest.approx(max(ways.values()))
    assert pronunciations.align("a", ("P", "Q", "P"), often) == (), "more than letters can say"


def test_counting():
    """A silent letter, one that says two phonemes, and one that its neighbour changes."""
    words = "ab=A B;ba=B A;cab=K A B;bac=B A K;abe=A B;bae=B A;axa=A K S A"
    words += ";ice=I S;ace=A S;cib=S I B"
    pairs = (pair.split("=") for pair in words.split(";"))
    seen = pronunciations.count({word: [phones] for word, phones in pairs})
    assert pronunciations.say(seen, "baxe") == "B A K S"
    assert pronunciations.say(seen, "cace") == "K A S", "c before a, and before e"
    assert seen["c"] == {("S",): 3, ("K",): 2}, "alone it would be S"


def test_errors():
    """Of two words one is wrong, by one phoneme of three from the closest of its pronunciations."""
    made = hybrid.build(SimpleNamespace(encoder="transformer", layers="keras_rnnx"), WORDS)
    words = {"hello": WORDS["hello"], "axe": WORDS["axe"]}
    found = pronunciations.errors_of(made, words, ["HH EH L OW", "AE K"])
    assert found == {"phoneme error": pytest.approx(100 / 7), "word error": 50}

"""examples/captioning.py: its parts, its short form; and the emoji that it names.

The font is that of a Debian package, which may not be installed, so the example is tried on
pictures of our own: colored shapes, with captions such as "small red circle left".
"""

import itertools
import json
import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path
from types import SimpleNamespace

from parts import caption_data
from parts import caption_report
import captioning
import keras
import matplotlib.image
import numpy as np
import PIL.features
import pytest
import tensorflow_datasets as tfds

import keras_rnnx.datasets  # noqa: F401  (registers `emoji_captions`)
from keras_rnnx.datasets import emoji_captions

ROOT = Path(__file__).parents[1]
COLORS = {"red": (220, 30, 40), "green": (30, 160, 60), "blue": (40, 70, 220), "black": (0, 0, 0)}
SHAPES, SIDES = ("circle", "square", "bar"), ("left", "middle", "right")
WORDS = ["", "[unknown]", "red", "green", "circle"]
END, START = 5, 6


def shape(size, color, kind, side):
    """A made-up picture."""
    y, x = np.mgrid[:48, :48]
    dx, dy = x - 12 - 12 * SIDES.index(side), y - 24
    radius = {"small": 5, "large": 10}[size]
    inside = {
        "circle": dx**2 + dy**2 < radius**2,
        "square": np.maximum(abs(dx), abs(dy)) < radius,
        "bar": (abs(dx) < radius) & (abs(dy) < 2),
    }[kind]
    return np.where(inside[..., None], COLORS[color], 255).astype("uint8")


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """Where TFDS has the made-up pictures, ten of each caption, prepared as the data set."""
    kinds = itertools.product(("small", "large"), COLORS, SHAPES, SIDES)
    captions, images, rng = {}, {}, np.random.default_rng(0)
    for k, (kind, _) in enumerate(itertools.product(kinds, range(10))):
        character = chr(0x4E00 + k)  # stands for an emoji
        captions[character] = " ".join(kind)
        noise = rng.integers(-9, 10, (48, 48, 3))
        images[character] = np.clip(shape(*kind) + noise, 0, 255).astype("uint8")
    captions["twin"], images["twin"] = "looks the same", images["一"]
    folder = tmp_path_factory.mktemp("shapes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(emoji_captions, "captions", lambda: captions)
        patch.setattr(emoji_captions, "drawn", lambda font, emoji: images.items())
        tfds.builder("emoji_captions", data_dir=folder).download_and_prepare()
    return SimpleNamespace(folder=folder, captions=captions, images=images)


# -- the emoji ---------------------------------------------------------------------------------


def test_variants_have_one_base():
    groups = (
        "👩🏽‍🚀 👨‍🚀 🧑🏿‍🚀",
        "🧕 🧕🏻",
        "🏃 🏃🏾‍♀️‍➡️ 🏃‍➡️",
        "👨 👩🏻‍🦰 🧑🏿‍🦲 👨‍🦳 🧔🏻‍♂️ 🧔‍♀️ 👱",
        "👪 👨‍👩‍👧‍👦 👩‍👦 🧑‍🧑‍🧒",
        "💑 👩‍❤️‍👨 👨🏻‍❤️‍👨🏿",
        "💏 👩‍❤️‍💋‍👩",
        "👫 👭🏽 🧑🏻‍🤝‍🧑🏿",
        "🤝 🤝🏽 🫱🏻‍🫲🏿",
        "🎅 🤶🏾 🧑‍🎄",
        "🍎",
        "🍏",
        "❤️",
        "♀️",
        "➡️",
    )
    bases = [{emoji_captions.base(emoji) for emoji in group.split()} for group in groups]
    assert all(len(found) == 1 for found in bases), bases
    assert len(set().union(*bases)) == len(groups)
    assert emoji_captions.base("👩🏽‍🚀") == "🧑🚀"
    assert emoji_captions.base("➡️") == "➡️", "the direction itself is no variant"


def test_split_is_that_of_the_base():
    # From `printf emojiEMOJI | sha256sum`: the first 16 digits as a number, modulo 10.
    expected = {"🍕": "test", "🍊": "validation", "🍉": "train", "👩🏽‍🚀": "train"}  # 0, 1, 9, 7
    assert {emoji: emoji_captions.split_of(emoji) for emoji in expected} == expected


def test_captions():
    found = emoji_captions.captions()
    expected = {
        "🚣🏽‍♀️": "woman rowing boat medium skin tone",
        "🇰🇪": "flag Kenya",
        "🏴󠁧󠁢󠁳󠁣󠁴󠁿": "flag Scotland",
        "🏴‍☠️": "pirate flag",
        "🅰️": "A button (blood type)",
    }
    assert {emoji: found[emoji] for emoji in expected} == expected
    assert len(found) == len(set(found.values())) > 3500
    assert "👩🏻‍🤝‍👨🏿" not in found and "👩‍🤝‍👨" not in found, "two tones; not fully qualified"
    flags = [emoji for emoji in found if unicodedata.name(emoji[0], "").startswith("REGIONAL")]
    assert len(flags) == 259, "`grep -c RGI_Emoji_Flag_Sequence emoji-sequences.txt`, Unicode 16"
    assert all(found[emoji].startswith("flag ") for emoji in flags)


def test_drawn():
    """With a font of matplotlib: what it has is drawn, and not what is too wide or empty."""
    font = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    found = dict(emoji_captions.drawn(font, ["I", "WWWW", " ", "o"]))
    assert list(found) == ["I", "o"]
    for image in found.values():
        assert image.shape == (48, 48, 3) and image.dtype == np.uint8
        assert image[0, -1].tolist() == [255, 255, 255] and image.min() < 40
    assert found["I"][24, 3:8].min() < found["o"].min() + 100


def test_builder(shapes):
    sets = tfds.load("emoji_captions", data_dir=shapes.folder)
    found = {}
    for split, rows in sets.items():
        for row in tfds.as_numpy(rows):
            character = row["emoji"].decode()
            assert row["caption"].decode() == shapes.captions[character]
            np.testing.assert_array_equal(row["image"], shapes.images[character])
            assert split == emoji_captions.split_of(character)
            found[character] = split
    assert set(found) == set(shapes.captions) - {"twin"}, "that one looks like another"
    assert set(found.values()) == {"train", "validation", "test"}


def test_font_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="`apt install fonts-noto-color-emoji`"):
        next(emoji_captions.drawn(tmp_path / "NotoColorEmoji.ttf", ["🍎"]))


@pytest.mark.parametrize("package", ["emoji", "PIL"])
def test_package_that_is_not_installed(package, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=re.escape("pip install 'keras_rnnx[examples]'")):
        list(emoji_captions.drawn(tmp_path, emoji_captions.captions()))


def test_pillow_without_raqm(monkeypatch, tmp_path):
    monkeypatch.setattr(PIL.features, "check", lambda feature: feature != "raqm")
    (tmp_path / "font.ttf").touch()
    with pytest.raises(RuntimeError, match="apt install libfribidi0"):
        next(emoji_captions.drawn(tmp_path / "font.ttf", ["🍎"]))


def test_the_font():
    if not Path(emoji_captions.FONT).is_file():
        pytest.skip("the Debian package fonts-noto-color-emoji is not installed")
    names = {"🍎": "red apple", "👩🏽‍🚀": "woman astronaut medium skin tone", "🍏": "green apple"}
    found = dict(emoji_captions.drawn(Path(emoji_captions.FONT), names))
    assert list(found) == list(names)
    red, green = (found[apple].reshape(-1, 3).mean(axis=0) for apple in "🍎🍏")
    assert red[0] > red[1] + 20 and green[1] > green[0] + 20


# -- the parts of the example ------------------------------------------------------------------


def test_ids_and_back():
    captions = [["red circle", "not this one"], ["green square"], [" ".join(15 * ["red"])]]
    ids = caption_data.encode(captions, WORDS)
    assert ids[:2].tolist() == [[2, 4, END, *9 * [0]], [3, 1, END, *9 * [0]]]
    assert ids[2].tolist() == [*11 * [2], END]
    texts = ["red circle", "green [unknown]", " ".join(11 * ["red"])]
    assert caption_data.decode(ids, WORDS) == texts
    assert caption_data.decode([[END, 2]], WORDS) == [""]


def test_word_f1():
    f1 = caption_report.word_f1
    assert f1("a b", ["b a"]) == 1
    assert f1("a a b", ["a c"]) == pytest.approx(2 * (1 / 3 * 1 / 2) / (1 / 3 + 1 / 2))
    assert f1("a a b", ["c", "a b d"]) == pytest.approx(2 / 3)
    assert f1("", ["a"]) == 0


def test_quality():
    found = caption_report.quality(["a b c d", "e"], [["a b c d"], ["f"]], "this: {}")
    assert found == {"this: word F1": 0.5, "this: BLEU": pytest.approx(100, abs=40)}


def test_baselines_of_captions():
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    others = rng.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    captions = [[str(k), "another"] for k in range(5)]
    distance = lambda a, b: np.abs(a.astype(int) - b.astype(int)).astype(float).ravel()
    expected = [
        str(np.argmin([np.linalg.norm(distance(one, known)) for known in images])) for one in others
    ]
    assert caption_report.nearest(images, captions, others) == expected
    assert caption_report.always([["a"], ["d"], ["a b"], ["a b c"]]) == "a b"


def test_bigrams():
    train = np.array([[2, 3, END, 0], [2, 2, 3, END], [4, END, 0, 0]])
    test = np.array([[2, 3, END, 0], [3, END, 0, 0]])
    after = lambda rows: [list(zip([None, *row], [k for k in row if k])) for row in rows.tolist()]
    pairs = sum(after(train), [])
    words = [b for _, b in pairs]

    def p(a, b, prior):
        alone = (words.count(b) + 1) / (len(words) + 6)  # six ids, END the largest
        return (pairs.count((a, b)) + prior * alone) / (sum(one == a for one, _ in pairs) + prior)

    expected = -np.mean([np.log(p(a, b, 2)) for a, b in sum(after(test), [])])
    assert caption_report.bigram_nats(train, test, prior=2) == pytest.approx(expected)
    total = sum(np.exp(-caption_report.bigram_nats(train, np.array([[k]]), 2)) for k in range(1, 6))
    assert total + p(None, 0, 2) == pytest.approx(1), "probabilities"


@pytest.fixture(scope="module")
def pair():
    """Both models with the same weights, random and not zero."""
    ours, stock = captioning.build(5), captioning.build_stock(5)
    ours(np.zeros((1, 48, 48, 3), "uint8"))
    rng = np.random.default_rng(5)
    draw = lambda weight: rng.uniform(0.1, 0.5, weight.shape) * rng.choice([1, 1, -1], weight.shape)
    positive = lambda weight: np.abs(draw(weight)) if "variance" in weight.path else draw(weight)
    cnn, dense, others = stock.get_layer("cnn"), {}, {}
    for weight in stock.weights:
        if "float" in weight.dtype:
            weight.assign(positive(weight))
    for layer in stock.layers:
        if isinstance(layer, keras.layers.Dense):
            dense[layer.kernel.shape] = layer.get_weights()
        else:
            others[type(layer)] = layer.get_weights()
    ours.encoder.set_weights(cnn.get_weights())
    ours.bridge.dense[0].set_weights(dense[128, 192])
    ours.decoder.embedding.set_weights(others[keras.layers.Embedding])
    ours.decoder.output_layer.set_weights(dense[192, 7])
    (cell,) = ours.decoder.cells
    cell.cell.set_weights(others[keras.layers.GRU])
    attention = {
        "query_kernel": dense[192, 96][0],
        "memory_kernel": dense[128, 96][0],
        "attention_v": others[keras.layers.AdditiveAttention][0],
        "attention_kernel": dense[320, 192][0],
    }
    for weight in cell.weights:
        if weight.name in attention:
            weight.assign(attention.pop(weight.name))
    assert not attention
    return ours, stock


def test_stock_is_the_same_net(pair):
    ours, stock = pair
    assert ours.count_params() == stock.count_params()
    images = np.random.default_rng(6).integers(0, 256, (3, 48, 48, 3), dtype=np.uint8)
    ids = caption_data.encode([["red circle"], ["green"], ["circle red red green"]], WORDS)
    p = keras.ops.log_softmax(stock.predict([images, ids], verbose=0)).numpy()
    expected = [sum(row[t, k] for t, k in enumerate(one) if k) for row, one in zip(p, ids)]
    np.testing.assert_allclose(ours.log_probability(images, ids), expected, rtol=1e-4)
    greedy = captioning.describe(ours, images, WORDS, method="greedy")
    assert captioning.describe(stock, images, WORDS) == greedy
    assert len(set(greedy)) > 1 or any(greedy), greedy
    assert not {"", "[unknown]"} & set(" ".join(greedy).split())


def test_map_lies_like_the_picture(pair):
    ours, _ = pair
    white = np.full((1, 48, 48, 3), 255, "uint8")
    dotted = white.copy()
    dotted[0, 4, 44] = 0  # above, on the right
    maps = [ours.encoder(one, training=False).numpy() for one in (white, dotted)]
    changed = np.abs(maps[0] - maps[1]).reshape(6, 6, -1).max(axis=-1) > 0
    # From the strides and the padding: a place sees 31 pixels of a side.
    sees = lambda pixel: [k for k in range(6) if 8 * k - 8 <= pixel < 8 * k + 23]
    np.testing.assert_array_equal(np.flatnonzero(changed.any(axis=1)), sees(4))
    np.testing.assert_array_equal(np.flatnonzero(changed.any(axis=0)), sees(44))


# -- the data that it reads, and the whole ------------------------------------------------------


def options(folder, dataset="emoji_captions", quick=False):
    return SimpleNamespace(dataset=dataset, font=None, data_dir=folder, quick=quick)


def test_load(shapes):
    sets = caption_data.load(options(shapes.folder))
    assert sum(len(images) for images, _ in sets.values()) == 720
    images, captions = sets["test"]
    by_caption = {}
    for character, image in shapes.images.items():
        by_caption.setdefault(shapes.captions[character], []).append(image)
    for image, (caption,) in zip(images, captions):
        assert any(np.array_equal(image, one) for one in by_caption[caption])
    quick = caption_data.load(options(shapes.folder, quick=True))
    assert len(quick["train"][0]) == len(sets["train"][0]) // 2


def test_coco(tmp_path):
    with tfds.testing.mock_data(num_examples=3):
        sets = caption_data.load(options(tmp_path, "coco_captions"))
    assert set(sets) == {"train", "validation", "test"}
    for images, captions in sets.values():
        assert images.shape == (3, 48, 48, 3) and images.dtype == np.uint8
        assert len(captions) == 3 and all(isinstance(one, str) for few in captions for one in few)
        assert caption_data.encode(captions, WORDS).shape == (3, caption_data.LENGTH)


@pytest.mark.slow
@pytest.mark.parametrize("layers", ["keras_rnnx", "keras"])
def test_short_form(layers, shapes, tmp_path):
    command = [sys.executable, ROOT / "examples" / "captioning.py", "--quick", "--layers", layers]
    command += ["--data-dir", shapes.folder, "--out", tmp_path]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    metrics, baselines = result["metrics"], result["baselines"]
    assert result["quick"] and np.isfinite([*metrics.values(), *baselines.values()]).all()
    assert 0 <= metrics["BLEU"] <= 100
    assert metrics["word F1"] > baselines["always the same caption: word F1"]
    assert metrics["nats per word"] < baselines["bigrams, no picture: nats per word"]
    names = {"result.json"}
    if layers == "keras_rnnx":
        names |= {"captions.png", "export", "model.keras", "words.txt"}
        height, width, _ = matplotlib.image.imread(tmp_path / "captions.png").shape
        assert width > 500 and height > 500
        words = (tmp_path / "words.txt").read_text().splitlines()
        assert {"red", "circle", "left"} < set(words)
        model = keras.saving.load_model(tmp_path / "model.keras")
        assert model.end == len(words) and model.count_params() == result["parameters"]
    assert {path.name for path in tmp_path.iterdir()} == names, "nothing unfinished is left"

"""Small pictures with short captions: emoji and their English names."""

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from keras_rnnx.annotations import PathLike
from keras_rnnx.datasets import cmudict

FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"  # where apt puts it
DRAWN, SIZE = 136, 48  # width of the font's pictures, and of those that are made of them

# What tells variants of one emoji apart: joiner and style, genders, direction, skin, hair.
SKIN_TONES = [*map(chr, range(0x1F3FB, 0x1F400))]
HAIR = [*map(chr, range(0x1F9B0, 0x1F9B4))]
MARKS = {"\u200d", "\ufe0f", "\u2640", "\u2642", "\u27a1", *SKIN_TONES, *HAIR}
VARIANTS = dict(zip("👨👩👱🧔👦👧👴👵👸🫅🤶💃👬👭🫃🫄", "🧑🧑🧑🧑🧒🧒🧓🧓🤴🤴🎅🕺👫👫🤰🤰"))
SPELLED = {"🧑🎄": "🎅", "🧑🤝🧑": "👫", "🧑❤🧑": "💑", "🧑❤💋🧑": "💏", "🫱🫲": "🤝"}


class EmojiCaptions(tfds.core.GeneratorBasedBuilder):
    """Emoji drawn with the font Noto Color Emoji, with their names in the package `emoji`.

    3,476 pictures of 1,666 emoji and their variants of skin tone, hair, gender and direction. The
    names are those of Unicode (CLDR), without their colons and commas. The font is that of the
    Debian package `fonts-noto-color-emoji`. Left out are emoji that the font does not have; of
    those that look the same, such as some flags, all but the first; and those with a skin tone for
    each of two people, hundreds of pictures of five motifs.

    The split is drawn by the emoji without what makes a variant of it, so all of its variants are
    on one side. About 80 % of these are `train`, 10 % `validation` and 10 % `test`.

    Args:
        font: the file of the font. `apt install fonts-noto-color-emoji` puts it where the default
            is; unpacked with `apt download fonts-noto-color-emoji` and `dpkg-deb -x`, it may lie
            anywhere.
        **kwargs: of `tfds.core.GeneratorBasedBuilder`.

    Features:
        image: `[48, 48, 3]` uint8, on white.
        caption: the name ("woman rowing boat medium skin tone", "flag Kenya").
        emoji: the characters that it is.

    The font is under the SIL Open Font License 1.1, the package under the BSD license, the names
    under the Unicode License; no copy of them comes with keras_rnnx.

    References: https://packages.debian.org/fonts-noto-color-emoji, https://pypi.org/project/emoji

    Example, in a folder of your choice:

        import keras_rnnx.datasets, tensorflow_datasets as tfds
        train = tfds.load("emoji_captions", split="train", data_dir="data")
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, font: PathLike = FONT, **kwargs: Any) -> None:
        self.font = Path(font)
        super().__init__(**kwargs)

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description="Pictures of emoji with their English names.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(SIZE, SIZE, 3)),
                    "caption": tfds.features.Text(),
                    "emoji": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "caption"),
            homepage="https://packages.debian.org/fonts-noto-color-emoji",
        )

    def _split_generators(self, dl_manager):
        examples = {"train": [], "validation": [], "test": []}
        seen = set()
        for emoji, image in drawn(self.font, names := captions()):
            if image.tobytes() not in seen:
                seen.add(image.tobytes())
                example = {"image": image, "caption": names[emoji], "emoji": emoji}
                examples[split_of(emoji)].append(example)
        return {split: self._generate_examples(chosen) for split, chosen in examples.items()}

    def _generate_examples(self, examples):
        for example in examples:
            yield example["emoji"], example


def captions():
    """`{emoji: caption}` of all in the package `emoji`, in its order."""
    try:
        from emoji import EMOJI_DATA, STATUS  # here: prepared files do not need it
    except ModuleNotFoundError as error:
        if error.name != "emoji":
            raise
        raise ModuleNotFoundError(
            "The names of the data set `emoji_captions` are those of the package `emoji`, which is "
            "not installed. Install it with the extra `examples`: "
            "pip install 'keras_rnnx[examples]'",
            name="emoji",
        ) from error
    return {
        emoji: caption(emoji, row["en"])
        for emoji, row in EMOJI_DATA.items()
        if row["status"] == STATUS["fully_qualified"] and sum(map(emoji.count, SKIN_TONES)) < 2
    }


def caption(emoji, name):
    """The name of an emoji in the package, ":man_with_veil:", in words."""
    words = name.strip(":").replace("_", " ")
    # The flags of countries, and of England, Scotland and Wales, have the countries' names there.
    is_flag = "🇦" <= emoji[0] <= "🇿" or "\U000e007f" in emoji
    return f"flag {words}" if is_flag else words


def drawn(path, emoji):
    """`(emoji, picture [SIZE, SIZE, 3])` of those that the font has."""
    try:
        from PIL import Image, ImageDraw, ImageFont, features  # here: prepared files do not need it
    except ModuleNotFoundError as error:
        if error.name != "PIL":
            raise
        raise ModuleNotFoundError(
            "Drawing emoji needs the package `pillow`, which is not installed. Install it with the "
            "extra `examples`: pip install 'keras_rnnx[examples]'",
            name="PIL",
        ) from error
    if not path.is_file():
        raise FileNotFoundError(
            "The data set `emoji_captions` is drawn with the font of the Debian package "
            f"`fonts-noto-color-emoji`, and there is no file {path}. Run `apt install "
            "fonts-noto-color-emoji`; or, without its rights, `apt download fonts-noto-color-emoji`"
            " and `dpkg-deb -x fonts-noto-color-emoji*.deb DIR`, and give font="
            "DIR/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf."
        )
    if not features.check("raqm"):
        raise RuntimeError(
            "Pillow finds no Raqm, without which it draws no emoji of several characters. Install "
            "what Raqm needs: `apt install libfribidi0`."
        )
    font = ImageFont.truetype(path, 109)  # the one size that it has
    for one in emoji:
        if font.getlength(one) > DRAWN:  # the font has its parts only
            continue
        picture = Image.new("RGBA", (DRAWN, DRAWN), (255, 255, 255, 0))
        ImageDraw.Draw(picture).text((0, 4), one, "black", font, embedded_color=True)
        if picture.getextrema()[3][1] > 0:  # else it does not have it, and drew nothing
            white = Image.new("RGBA", picture.size, "white")
            small = Image.alpha_composite(white, picture).resize((SIZE, SIZE), Image.LANCZOS)
            yield one, np.array(small.convert("RGB"))


def base(emoji):
    """The emoji that this one is a variant of, or itself: people become persons without traits."""
    parts = "".join(VARIANTS.get(one, one) for one in emoji if one not in MARKS)
    if len(parts) > 1 and set(parts) <= set("🧑🧒"):
        return "👪"
    return SPELLED.get(parts, parts) or emoji


def split_of(emoji):
    """`train`, `validation` or `test`: the same on every machine and whatever the other emoji."""
    # Without "emoji" before it, one face with all its hair would be a fourth of the test.
    return cmudict.split_of("emoji" + base(emoji))

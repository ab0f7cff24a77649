"""Data sets that arrive inside installed packages, as `tensorflow_datasets` builders.

Nothing is downloaded: a builder reads a file of a package that pip has installed. Importing this
folder registers its builders, so that `tfds.load("cmudict", data_dir=...)` finds them.
"""

try:
    import tensorflow_datasets  # noqa: F401  (first here: one clear error for every builder)
except ModuleNotFoundError as error:
    if error.name != "tensorflow_datasets":
        raise
    raise ModuleNotFoundError(
        "keras_rnnx.datasets needs the package `tensorflow-datasets`, which is not installed. "
        "Install it with the extra `examples`: pip install 'keras_rnnx[examples]'",
        name=error.name,
    ) from error

from keras_rnnx.datasets.chorales import Chorales
from keras_rnnx.datasets.cmudict import Cmudict
from keras_rnnx.datasets.elecdemand import Elecdemand
from keras_rnnx.datasets.emoji_captions import EmojiCaptions
from keras_rnnx.datasets.gcin_voice import GcinVoice
from keras_rnnx.datasets.hebrew_entities import HebrewEntities
from keras_rnnx.datasets.movie_sentiment import MovieSentiment
from keras_rnnx.datasets.shakespeare import Shakespeare

__all__ = [
    "Chorales",
    "Cmudict",
    "Elecdemand",
    "EmojiCaptions",
    "GcinVoice",
    "HebrewEntities",
    "MovieSentiment",
    "Shakespeare",
]

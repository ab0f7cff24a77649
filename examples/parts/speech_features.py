"""What the net of examples/speech_ctc.py hears: bands and pitch, in training of another voice.

Layers from waveforms to features, in the graph, so that an export takes waveforms.
"""

import keras
import tensorflow as tf

from keras_rnnx.datasets import gcin_voice  # registers it for TFDS

RATE = gcin_voice.RATE  # samples per second
HOP = RATE // 100  # of frames, 10 ms
PADDING = -2.0  # behind a clip; samples are between -1 and 1


@keras.saving.register_keras_serializable(package="speech_features")
class Hearing(keras.layers.Layer):
    """Log-mel bands and pitch of waveforms [B, N], every 10 ms: [B, T, bands + 2], with a mask.

    The bands are relative to the loudness of the clip, the pitch, in thirds of an octave, to the
    mean of the clip: what differs from voice to voice. The last feature says how sure the pitch is.
    Samples equal to `mask_value` are padding.
    """

    def __init__(self, bands=40, mask_value=PADDING, **kwargs):
        super().__init__(autocast=False, **kwargs)  # a spectrum wants float32
        self.bands, self.mask_value = bands, mask_value
        self.supports_masking = True

    def call(self, waveform):
        real = tf.cast(self.compute_mask(waveform), tf.float32)[..., None]
        samples = tf.where(waveform == self.mask_value, 0.0, waveform)
        mean = lambda a, weight=real: tf.math.divide_no_nan(
            tf.reduce_sum(a * weight, axis=1, keepdims=True),
            tf.reduce_sum(weight, axis=1, keepdims=True),
        )
        power = self.power(samples, 368, 512, real)
        mel = power @ tf.signal.linear_to_mel_weight_matrix(self.bands, 257, RATE, 80.0, 7000.0)
        loudness = tf.reduce_mean(mean(mel), axis=2, keepdims=True) + 1e-9
        mel = tf.math.log(mel / loudness + 3e-3) / 3

        # A periodic sound is like itself one period later: the peak of the autocorrelation, which
        # is the transform of the power. Without what is below 70 Hz, rumble, or above 1.4 kHz.
        power = tf.pad(self.power(samples, 588, 1024, real)[..., 5:100], [[0, 0], [0, 0], [5, 413]])
        alike = tf.signal.irfft(tf.cast(power, tf.complex64))
        quiet = 1e-2 * tf.reduce_max(alike[..., :1], axis=1, keepdims=True) + 1e-9
        octaves = tf.range(0, 3, 1 / 32)  # above 60 Hz
        alike = alike @ hats(RATE / 60 * 2**-octaves, 1024) / (alike[..., :1] + quiet)
        best = tf.argmax(alike + 0.1 * octaves, axis=2)  # two periods later it is, too
        sure = tf.gather(alike, best, axis=2, batch_dims=2)[..., None]
        sure = tf.clip_by_value(4 * sure - 1.6, 0, 1) * real
        pitch = tf.gather(octaves, best)[..., None]
        pitch = 3 * (pitch - mean(pitch, sure)) * sure
        return tf.cast(tf.concat([mel, pitch, sure], axis=2) * real, self.compute_dtype)

    def power(self, samples, window, size, real):
        """`[B, T, size // 2 + 1]`, of windows around the middle of each frame."""
        samples = tf.pad(samples, [[0, 0], [(window - HOP) // 2, 0]])
        found = tf.abs(tf.signal.stft(samples, window, HOP, size, pad_end=True)) ** 2
        return found[:, : tf.shape(real)[1]]

    def compute_mask(self, waveform, mask=None):
        return keras.ops.not_equal(waveform, self.mask_value)[:, ::HOP]

    def get_config(self):
        return super().get_config() | {"bands": self.bands, "mask_value": self.mask_value}


@keras.saving.register_keras_serializable(package="speech_features")
class OtherVoice(keras.layers.Layer):
    """In training: each clip as if said by someone else, from the features of `Hearing`.

    The bands are stretched by up to `stretch` and moved by up to `shift` of them, tilted and
    disturbed; the melody is made flatter or livelier.
    """

    def __init__(self, stretch=0.15, shift=2.0, tilt=0.3, noise=0.15, melody=0.5, **kwargs):
        super().__init__(**kwargs)
        self.options = {
            "stretch": stretch, "shift": shift, "tilt": tilt, "noise": noise, "melody": melody,
        }  # fmt: skip
        self.seed_generator = keras.random.SeedGenerator()
        self.supports_masking = True

    def call(self, x, training=False):
        if not training:
            return x
        bands, seed = x.shape[2] - 2, self.seed_generator
        draw = {
            name: keras.random.uniform((tf.shape(x)[0], 1, 1), -most, most, x.dtype, seed=seed)
            for name, most in self.options.items()
        }
        band = tf.range(bands, dtype=x.dtype)
        places = (1 + draw["stretch"]) * band + draw["shift"]
        mel = x[..., :bands] @ hats(places[:, 0], bands)
        mel += draw["tilt"] * (2 * band / bands - 1)
        mel += draw["noise"] * keras.random.normal(tf.shape(mel), dtype=x.dtype, seed=seed)
        return tf.concat([mel, x[..., -2:-1] * (1 + draw["melody"]), x[..., -1:]], axis=2)

    def get_config(self):
        return super().get_config() | self.options


@keras.saving.register_keras_serializable(package="speech_features")
class Window(keras.layers.Layer):
    """Every other frame, with those around it: [B, T, M] -> [B, (T + 1) // 2, width * M]."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width, self.supports_masking = width, True

    def call(self, x):
        around, steps = self.width // 2, tf.shape(x)[1]
        padded = tf.pad(x, [[0, 0], [around, around], [0, 0]])
        return tf.concat([padded[:, k : k + steps : 2] for k in range(self.width)], axis=2)

    def compute_mask(self, x, mask=None):
        return None if mask is None else mask[:, ::2]

    def get_config(self):
        return super().get_config() | {"width": self.width}


def hats(places, size):
    """The matrix [..., size, P] that interpolates `size` values at places [..., P]."""
    places = tf.clip_by_value(places, 0, size - 1)
    return tf.nn.relu(
        1 - tf.abs(places[..., None, :] - tf.range(size, dtype=places.dtype)[:, None])
    )

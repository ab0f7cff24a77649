"""Learn from Bach's chorales which chord comes next, then compose one: a MIDI file.

An LSTM reads the chords of a chorale, one per quarter note (many-to-many). At each step it says
which of 88 keys sound next, each for itself, as in the literature (Boulanger-Lewandowski et al.,
2012); and the notes of soprano, alto, tenor and bass, each given those above it. From the latter it
composes: given a beginning, it goes on by itself. The chorales come with the package `music21`.

    python examples/music.py            # all chorales, a few minutes
    python examples/music.py --quick    # some of them, two epochs: to see that all works
"""

import common  # first: it sets the environment
import keras
import numpy as np
import tensorflow as tf
from parts.chorale_data import KEYS
from parts.chorale_data import NOTES
from parts.chorale_data import PADDING
from parts.chorale_data import examples
from parts.chorale_data import keys_of
from parts.chorale_data import load
from parts.chorale_score import BEGINNING
from parts.chorale_score import draw
from parts.chorale_score import write_midi

import keras_rnnx


def key_nats(y, logits):
    """Negative log-likelihood of which keys sound, `[B, T]`: the sum over all keys."""
    return keras.ops.sum(keras.ops.softplus(logits) - y * logits, axis=-1)


def voice_nats(y, logits):
    """Negative log-likelihood of the notes of the four voices, `[B, T]`."""
    y = keras.ops.maximum(y, 0)  # the mask takes the padding out
    nats = keras.ops.sparse_categorical_crossentropy(y, logits, from_logits=True)
    return keras.ops.sum(nats, axis=-1)


@keras.saving.register_keras_serializable(package="music")
class Voices(keras.layers.Layer):
    """Logits of the note of each voice, `[B, T, 4, NOTES]`, given `h` and the voices above it."""

    def __init__(self, units=128, **kwargs):
        super().__init__(**kwargs)
        self.units, self.supports_masking = units, True
        self.heard = keras.layers.Dense(4 * units)
        self.above = keras.layers.Embedding(4 * NOTES, 4 * units)  # row: a note of a voice
        self.said = keras.layers.EinsumDense("btvu,vun->btvn", (None, 4, NOTES), bias_axes="vn")

    def build(self, h_shape, notes_shape):
        self.heard.build(h_shape)
        self.above.build(notes_shape)
        self.said.build((*notes_shape, self.units))

    def call(self, h, notes):
        steps = keras.ops.shape(notes)[:2]
        pairs = self.above(notes + NOTES * np.arange(4))
        pairs = keras.ops.reshape(pairs, (*steps, 4, 4, self.units))
        is_above = np.triu(np.ones((4, 4), "float32"), k=1)  # of row, for column
        hidden = keras.ops.reshape(self.heard(h), (*steps, 4, self.units))
        hidden += keras.ops.einsum("btavu,av->btvu", pairs, is_above)
        return self.said(keras.ops.relu(hidden))

    def compute_mask(self, inputs, mask=None):
        return mask

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def build(rnn, units, often):
    """The model of all nats, and the part of it that reads: chords to keys and state."""
    chords = keras.Input((None, KEYS), name="chords")
    following = keras.Input((None, 4), dtype="int32", name="following")
    lstm = rnn.LSTM(units, return_sequences=True, dropout=0.1, recurrent_dropout=0.5)
    h = lstm(keras.layers.Masking(PADDING)(chords))
    say = keras.layers.Dense(KEYS, name="keys")
    keys = say(h)
    say.bias.assign(np.log(often / (1 - often)))  # saves epochs
    voices = Voices(name="voices")(h, following)
    model = keras.Model([chords, following], {"keys": keys, "voices": voices})
    return model, keras.Model(chords, {"keys": keys, "h": h})


def compose(reader, voices, beginning, length, rng, temperature=0.7):
    """Notes `[length, 4]`, the first ones given: each chord is drawn from what the net expects."""
    session = keras_rnnx.StreamingSession(reader)
    notes = [*beginning]
    h = session.feed("composer", keys_of(np.array(notes)))["h"][-1]
    while len(notes) < length:
        chord = np.zeros((1, 1, 4), "int32")
        for voice in range(4):
            logits = voices(h[None, None], chord)[0, 0, voice].numpy() / temperature
            chord[..., voice] = np.argmax(logits + rng.gumbel(size=NOTES))  # a draw
        notes.append(chord[0, 0])
        h = session.feed("composer", keys_of(chord[0]))["h"][-1]
    return np.array(notes)


def count(train, test):
    """Nats per chord of two models that only count: what follows each key, each note of a voice."""

    def pairs(notes):
        real = notes[:, 1:, 0] != PADDING
        return notes[:, :-1][real], notes[:, 1:][real]

    (before, after), (before_test, after_test) = pairs(train), pairs(test)
    was, sounds = keys_of(before), keys_of(after)
    chance = [((now * sounds).sum(axis=0) + 0.1) / (now.sum(axis=0) + 1) for now in (1 - was, was)]
    chance = np.where(keys_of(before_test) == 1, chance[1], chance[0])
    chance = np.where(keys_of(after_test) == 1, chance, 1 - chance)
    nats = 0.0
    for voice in range(4):
        counts = np.full((NOTES, NOTES), 0.02)
        np.add.at(counts, (before[:, voice], after[:, voice]), 1)
        found = (counts / counts.sum(axis=1, keepdims=True))[before_test, after_test]
        nats -= np.log(found[:, voice]).mean()
    return {
        "each key after itself: keys": -np.log(chance).sum(axis=-1).mean(),
        "each voice after itself: voices": nats,
    }


def main():
    options = common.start(common.parser(__doc__, "music"))
    sets = load(options.data_dir, options.quick)
    print(", ".join(f"{len(notes)} {split}" for split, notes in sets.items()), "chorales")
    data = {split: examples(notes) for split, notes in sets.items()}
    keys = data["train"][1]["keys"]
    often = np.clip(keys[keys[..., 0] != PADDING].mean(axis=0), 1e-4, None)

    model, reader = build(options.rnn, 32 if options.quick else 200, often)
    nats = {"keys": key_nats, "voices": voice_nats}
    adam = keras.optimizers.Adam(0.01, global_clipnorm=1.0)
    model.compile(adam, nats, weighted_metrics={name: [each] for name, each in nats.items()})
    budget = common.Budget(options.seconds)
    stop = keras.callbacks.EarlyStopping("val_loss", patience=6, restore_best_weights=True)
    rows = tf.data.Dataset.from_tensor_slices(data["train"]).shuffle(len(sets["train"]))
    model.fit(
        rows.batch(16, drop_remainder=True),  # one shape, so one compilation
        epochs=2 if options.quick else 60,
        validation_data=data["validation"],
        validation_batch_size=64,
        callbacks=[stop, budget],
        shuffle=False,  # done above
        verbose=common.VERBOSE,
    )
    x, y = data["test"]
    found = model.evaluate(x, y, batch_size=64, verbose=0, return_dict=True)
    metrics = {name: found[f"{name}_{name[:-1]}_nats"] for name in nats}

    if options.layers == "keras_rnnx":
        beginning = sets["test"][0][:BEGINNING]
        rng = np.random.default_rng(options.seed)
        notes = compose(reader, model.get_layer("voices"), beginning, 96, rng)
        common.write(options.out / "chorale.mid", lambda path: write_midi(path, notes))
        common.save(options, draw(notes), "chorale.png")
        chords = keys_of(sets["test"][:4, :BEGINNING])
        lengths = np.full(len(chords), BEGINNING, "int32")
        common.export(options, reader, chords, tolerance=1e-4, lengths=lengths)
    common.report(options, model, budget, metrics, count(sets["train"], sets["test"]))


if __name__ == "__main__":
    main()

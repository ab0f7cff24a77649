"""Learn from Bach's chorales which chord comes next, then compose one: a MIDI file.

An LSTM reads the chords of a chorale, one per quarter note (many-to-many). At each step it says
which of 88 keys sound next, each for itself, as in the literature (Boulanger-Lewandowski et al.,
2012); and the notes of soprano, alto, tenor and bass, each given those above it. From the latter it
composes: given a beginning, it goes on by itself. The chorales come with the package `music21`.

    python examples/music.py            # all chorales, a few minutes
    python examples/music.py --quick    # some of them, two epochs: to see that all works
"""

import itertools

import common  # first: it sets the environment
import keras
import matplotlib.pyplot as plt
import music21
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

import keras_rnnx
import keras_rnnx.datasets  # registers `chorales` for TFDS

KEYS, LOWEST = 88, 21  # of a piano; MIDI number of the first
NOTES = KEYS + 1  # what a voice can do: 0 is a rest, n the n-th key
PADDING = -1
BEGINNING = 16  # chords of a real chorale that the composition begins with


def load(data_dir, quick):
    """`{split: notes [N, T, 4]}`, a step per quarter note, PADDING after the end of a piece."""
    builder = tfds.builder("chorales", data_dir=data_dir)
    builder.download_and_prepare()
    sets = {}
    for split in ("train", "validation", "test"):
        pieces = [row["pitches"][::2] for row in tfds.as_numpy(builder.as_dataset(split=split))]
        pieces = [piece[:24] for piece in pieces[:32]] if quick else pieces
        notes = np.full((len(pieces), max(map(len, pieces)), 4), PADDING, "int32")
        for row, piece in zip(notes, pieces):
            row[: len(piece)] = np.where(piece > 0, piece - LOWEST + 1, 0)
        sets[split] = notes
    return sets


def keys_of(notes):
    """Which keys sound, `[..., 88]`, of notes `[..., 4]`; PADDING stays what it is."""
    sound = (notes[..., None] == np.arange(1, NOTES)).any(axis=-2)
    return np.where(notes[..., :1] == PADDING, PADDING, sound).astype("float32")


def examples(notes):
    """Inputs and targets of each step: what sounds, and what sounds next."""
    following = notes[:, 1:]
    chords = np.where(following[..., :1] == PADDING, PADDING, keys_of(notes)[:, :-1])
    x = {"chords": chords.astype("float32"), "following": np.maximum(following, 0)}
    return x, {"keys": keys_of(following), "voices": following}


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


def tones(line):
    """`(note, start, length)` of what one voice does, in steps: a note that stays is held."""
    start = 0
    for note, steps in itertools.groupby(line):
        length = len(list(steps))
        yield int(note), start, length
        start += length


def write_midi(path, notes):
    """The composition as a MIDI file, a part for each voice."""
    score = music21.stream.Score()
    for line in notes.T:
        part = music21.stream.Part()
        for note, _, length in tones(line):
            kind = music21.note.Note(note + LOWEST - 1) if note else music21.note.Rest()
            kind.quarterLength = length
            part.append(kind)
        score.insert(0, part)
    score.write("midi", path)


def draw(notes):
    """The composition as a piano roll."""
    figure, axis = plt.subplots(figsize=(11, 4), layout="constrained")
    for voice, line in zip(("soprano", "alto", "tenor", "bass"), notes.T):
        bars = [(start, length, note + LOWEST - 1) for note, start, length in tones(line) if note]
        starts, lengths, pitches = zip(*bars)
        axis.barh(pitches, np.array(lengths) - 0.1, left=starts, height=0.8, label=voice)
    axis.axvline(BEGINNING, color="gray", linestyle="--")
    axis.set(xlabel="quarter notes (left of the line: by Bach)", ylabel="MIDI number of the key")
    axis.legend(ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1))
    return figure


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

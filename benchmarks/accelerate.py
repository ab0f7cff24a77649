"""What `keras_rnnx.accelerate(model)` gains: a batch of `fit` and of `predict`, before and after.

    python -m benchmarks.accelerate

Five models of stock Keras as people write them, each with its accelerated copy. Batches of the two
go in turns; milliseconds are medians, the ratio is that of the medians. The first epoch, which
compiles, does not count.

Axes: B rows, T steps, D features, U units.
"""

import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import keras
import numpy as np

import keras_rnnx

B, T, D, U = 32, 100, 64, 128
ROUNDS, STEPS = 7, 8  # batches of one model before those of the other
layers = keras.layers
draw = np.random.default_rng(0)


def text_classifier():
    stack = [
        keras.Input((None,), dtype="int32"),
        layers.Embedding(1000, D, mask_zero=True),
        layers.LSTM(U),
        layers.Dense(2, activation="softmax"),
    ]
    x = draw.integers(1, 1000, size=(B * STEPS, T))
    x *= np.arange(T) < draw.integers(T // 4, T + 1, size=(len(x), 1))
    return (
        keras.Sequential(stack),
        x,
        draw.integers(0, 2, len(x)),
        "sparse_categorical_crossentropy",
    )


def two_inputs_and_initial_states():
    x, about = keras.Input((T, D)), keras.Input((8,))
    y = layers.GRU(U)(x, initial_state=layers.Dense(U, activation="tanh")(about))
    model = keras.Model([x, about], layers.Dense(1)(y))
    rows = B * STEPS
    return model, [numbers(rows, T, D), numbers(rows, 8)], numbers(rows, 1), "mse"


def bidirectional_stack():
    x = keras.Input((None, D))
    y = layers.Masking()(x)
    y = layers.Bidirectional(layers.LSTM(U // 2, return_sequences=True))(y)
    y = layers.Bidirectional(layers.LSTM(U // 2))(y)
    a = numbers(B * STEPS, T, D)
    a[np.arange(T) >= draw.integers(T // 4, T + 1, size=(len(a), 1))] = 0
    return keras.Model(x, layers.Dense(1)(y)), a, numbers(len(a), 1), "mse"


def stateful_forecaster():
    x = keras.Input(batch_shape=(B, 24, 8))
    y = layers.LSTM(U // 2, stateful=True, return_sequences=True)(x)
    y = layers.TimeDistributed(layers.Dense(1))(y)
    a = numbers(B * STEPS, 24, 8)
    return keras.Model(x, y), a, a[:, :, :1], "mse"


def sequence_to_sequence():
    source, target = keras.Input((None, D)), keras.Input((None, D))
    _, *states = layers.LSTM(U, return_state=True)(source)
    y = layers.LSTM(U, return_sequences=True)(target, initial_state=states)
    model = keras.Model([source, target], layers.Dense(D)(y))
    a, b = numbers(B * STEPS, T // 2, D), numbers(B * STEPS, T // 2, D)
    return model, [a, b], b, "mse"


MODELS = (
    text_classifier,
    two_inputs_and_initial_states,
    bidirectional_stack,
    stateful_forecaster,
    sequence_to_sequence,
)


def numbers(*shape):
    return draw.normal(size=shape).astype("float32")


def in_turns(calls):
    """Median milliseconds a batch, of each of the calls."""
    times = [[] for _ in calls]
    for call in calls:
        call()
    for _ in range(ROUNDS):
        for call, found in zip(calls, times):
            start = time.perf_counter()
            call()
            found.append(1e3 * (time.perf_counter() - start) / STEPS)
    return [statistics.median(found) for found in times]


def compare(make):
    """`((ms of Keras, ours) in fit, the same in predict)`."""
    model, x, y, loss = make()
    model.compile("adam", loss)
    pair = [model, keras_rnnx.accelerate(model, verbose=False)]
    options = {"batch_size": B, "verbose": 0}
    fit = in_turns([lambda m=m: m.fit(x, y, shuffle=False, **options) for m in pair])
    return fit, in_turns([lambda m=m: m.predict(x, **options) for m in pair])


def main():
    print(f"ms a batch of {B}, medians of {ROUNDS} rounds")
    print(f"{'':<32} {'fit':^27} {'predict':^27}")
    print(f"{'model':<32}" + f" {'Keras':>8} {'ours':>8} {'ratio':>9}" * 2)
    for make in MODELS:
        line = f"{make.__name__:<32}"
        for old, new in compare(make):
            line += f" {old:8.1f} {new:8.1f} {old / new:9.2f}"
        print(line, flush=True)


if __name__ == "__main__":
    main()

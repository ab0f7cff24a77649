"""PNG charts: ratios to ours, nearness to the floor, growth with T."""

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib import ticker

from benchmarks.peers import COUNTERPART
from benchmarks.peers import is_floor
from benchmarks.peers import is_ours

# Ours are blue and black; a plain graph is lighter than XLA.
COLOURS = {
    "keras-graph": "#fdae6b",
    "keras-xla": "#e6550d",
    "keras-rnn-cell": "#e6550d",
    "keras-fit": "#fdae6b",
    "keras-fit-xla": "#e6550d",
    "torch": "#756bb1",
    "jax": "#31a354",
    "onnxruntime": "#dd1c77",
    "rnnx": "#6baed6",
    "rnnx-graph-inference": "#6baed6",
    "rnnx-compiled-inference": "#2171b5",
    "rnnx-xla": "#08306b",
    "rnnx-fit": "#6baed6",
    "rnnx-fit-xla": "#08306b",
    "floor-xla": "#252525",
    "floor-torch": "#969696",
    "floor-numpy": "#d9d9d9",
}


def draw(records, folder):
    """Write the charts that the records allow: their paths."""
    charts = {}
    for group in dict.fromkeys(record["group"] for record in records):
        ours = [record for record in records if record["group"] == group]
        charts[f"ratios-{group}"] = dots(ratios(ours), f"{group}: peer's time / ours")
        charts[f"floor-{group}"] = dots(shares(ours), f"{group}: time / bare matrix products")
    charts["growth"] = lines([record for record in records if record["group"] == "growth"])
    paths = []
    for name, figure in charts.items():
        if figure is not None:
            paths.append(folder / f"{name}.png")
            figure.savefig(paths[-1], dpi=120)
            pyplot.close(figure)
    return paths


def style(label):
    return {"label": label, "color": COLOURS[label], "marker": "D" if is_ours(label) else "o"}


def ratios(records):
    """{net and size: {peer: quartiles}}, each peer over the one of ours that is called like it."""
    return {
        f"{record['net']} {record['size']}": {
            pair["of"]: pair["ratio"]
            for pair in record["ratios"]
            if pair["over"] in COUNTERPART.get(pair["of"], ())
        }
        for record in records
    }


def shares(records):
    return {
        f"{record['net']} {record['size']}": {
            row["label"]: [seconds / record["floor"] for seconds in row["time"]]
            for row in record["rows"]
            if not is_floor(row["peer"])
        }
        for record in records
        if record["floor"]
    }


def dots(table, title):
    """A line per case, a dot with its quartiles per peer; None if there is nothing to draw."""
    labels = list(dict.fromkeys(label for line in table.values() for label in line))
    if not labels:
        return None
    table = {name: line for name, line in table.items() if line}
    height = 1.7 + (0.2 + 0.08 * len(labels)) * len(table)
    figure, axes = pyplot.subplots(figsize=(9, height), layout="constrained")
    for k, label in enumerate(labels):
        points = [(y, *line[label]) for y, line in enumerate(table.values()) if label in line]
        y, low, middle, high = np.array(points).T
        offset = 0.6 * ((k + 0.5) / len(labels) - 0.5)  # side by side, not on top of each other
        errors = (middle - low, high - middle)
        axes.errorbar(middle, y + offset, xerr=errors, linestyle="none", **style(label))
    axes.axvline(1, color="black", linewidth=1)
    axes.set(xscale="log", title=title)
    axes.set_yticks(range(len(table)), list(table))
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    axes.set_ylim(len(table) - 0.5, -0.5)
    for k in range(1, len(table)):
        axes.axhline(k - 0.5, color="lightgrey", linewidth=1)
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def lines(records):
    """Time and memory against T."""
    if len(records) < 2:
        return None
    lengths = sorted(record["T"] for record in records)
    figure, (time, memory) = pyplot.subplots(1, 2, figsize=(10, 4.5), layout="constrained")
    for label in dict.fromkeys(row["label"] for record in records for row in record["rows"]):
        points = [(r["T"], row) for r in records for row in r["rows"] if row["label"] == label]
        per_step = [(T, 1e6 * row["time"][1] / T) for T, row in points]
        time.plot(*zip(*per_step, strict=True), **style(label))
        known = [(T, row["peak_memory"] / 2**20) for T, row in points if row["peak_memory"]]
        if known and not is_floor(label):
            memory.plot(*zip(*known, strict=True), **style(label))
    time.set(xscale="log", yscale="log", xlabel="T", ylabel="microseconds per step", title="time")
    memory.set(xscale="log", yscale="log", xlabel="T", ylabel="MB", title="peak memory")
    for axes in (time, memory):
        axes.set_xticks(lengths, map(str, lengths))
        axes.xaxis.set_minor_formatter(ticker.NullFormatter())
        axes.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
        axes.grid(alpha=0.3)
    figure.legend(*time.get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure

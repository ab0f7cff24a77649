"""The command of the results table: what it runs, what it keeps, what it prints."""

import json
import statistics

import pytest
import results  # examples/results.py

ROW = results.Row("error", "error, %", 1, "7.6 (somebody)")
EXAMPLE = results.Example("toy", "a task", "some data", "`a` (pip)", "less", (ROW,))


@pytest.fixture
def folder(monkeypatch, tmp_path):
    monkeypatch.setattr(results, "RECORD", tmp_path / "results.json")
    monkeypatch.setattr(results, "EXAMPLES", (EXAMPLE,))
    return tmp_path


def found(example, layers, seed, out, seconds=None):
    error = seed + (10 if layers == "keras" else 0)
    return {
        "example": example.name,
        "layers": layers,
        "seed": seed,
        "seconds": seconds or 30.0 + seed,
        "cores": 2,
        "parameters": 1234,
        "metrics": {"error": error},
        "baselines": {"a guess: error": 50.04, "a guess: something else": 1},
    }


def test_goes_on_where_it_was(folder, monkeypatch):
    asked = []

    def run(example, layers, seed, out, seconds=None):
        if len(asked) == 3:
            asked.append("cut off")
            raise SystemExit("cut off")
        asked.append((layers, seed, seconds))
        return found(example, layers, seed, out, seconds)

    monkeypatch.setattr(results, "run", run)
    with pytest.raises(SystemExit):
        results.complete(EXAMPLE, folder)
    results.complete(EXAMPLE, folder)
    results.complete(EXAMPLE, folder)  # nothing is missing any more
    # Stock Keras has the seconds that ours took with that seed.
    seeds = {1: 31.0, 2: 32.0, 3: 33.0}
    expected = [run for s, t in seeds.items() for run in (("keras_rnnx", s, None), ("keras", s, t))]
    assert asked == [*expected[:3], "cut off", *expected[3:]]
    record = json.loads((folder / "results.json").read_text())
    assert len(record) == 6
    assert [path.name for path in folder.iterdir()] == ["results.json"], "nothing unfinished"


def test_page(folder):
    assert "not run" in results.page([])
    runs = [found(EXAMPLE, layers, seed, None) for layers in results.LAYERS for seed in (1, 2, 3)]
    text = results.page(runs)
    deviation = statistics.stdev([1, 2, 3])
    reached = f"2.0 ± {deviation:.1f} | 12.0 ± {deviation:.1f}"
    line = f"error, % | {reached} | a guess 50.0 | 7.6 (somebody) |"
    assert f"| [toy](../examples/toy.py) | {line}\n" in text
    assert "| some data | `a` (pip) | less | 1,234 | 32 ± 1 | 2 |\n" in text
    assert "| 2.0 (one seed) | not run |" in results.page(runs[1:2])
    assert f"| 1.5 ± {statistics.stdev([1, 2]):.1f} (two seeds) |" in results.page(runs[:2])
    runs[3:] = [run | {"metrics": {}} for run in runs[3:]]
    assert f"| 2.0 ± {deviation:.1f} | – |" in results.page(runs), "what stock Keras does not have"


def test_page_of_the_documentation_is_that_of_the_record():
    assert results.PAGE.read_text(encoding="utf-8") == results.page(results.read())


def test_every_example_is_in_the_table():
    """But for those whose figures have a page of their own, or that are about something else."""
    elsewhere = {"quickstart", "regularizers", "long_memory", "inspecting", "own_cell"}
    elsewhere |= {"distributed", "common", "results"}
    files = {path.stem for path in (results.ROOT / "examples").glob("*.py")}
    assert {example.name for example in results.EXAMPLES} == files - elsewhere

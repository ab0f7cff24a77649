"""The benchmarks' own parts: statistics, tables, choice, comparison, workers. No time is judged."""

import json

import numpy as np
import pytest

from benchmarks import compare
from benchmarks import data
from benchmarks import report
from benchmarks import run
from benchmarks import session
from benchmarks import stats
from benchmarks.__main__ import main
from benchmarks.cases import Case
from benchmarks.cases import Row
from benchmarks.cases import all_cases
from benchmarks.cases import rows_of
from benchmarks.cases import select
from benchmarks.peers import PEERS
from benchmarks.peers import Entry
from benchmarks.peers import peers_of

TINY = {"B": 3, "T": 7, "D": 4, "U": 5}
BRIEF = run.Pace(rounds=2, turn=0.001)


def test_times_are_quartiles_over_all_calls():
    assert stats.times([[1.0, 2.0], [3.0, 4.0, 5.0]]) == (2.0, 3.0, 4.0)


def test_ratio_is_formed_round_by_round():
    ours = [[1.0, 1.0], [10.0, 10.0], [1.0, 1.0]]
    twice = [[2.0, 2.0], [20.0, 20.0], [2.0, 9.0]]  # the second round was slow for both
    assert stats.ratio(twice, ours)[1] == 2.0


def test_geometric_mean():
    assert stats.geometric_mean([0.5, 2.0, 8.0]) == pytest.approx(2.0)


def test_table_columns_line_up():
    lines = report.table(["peer", "ms"], [["keras", "1.25"], ["a longer name", "2"]])
    assert lines == [
        "| peer          |   ms |",
        "| ------------- | ---: |",
        "| keras         | 1.25 |",
        "| a longer name |    2 |",
    ]


def record(ratio=2.0, **changes):
    row = {
        "time": [0.9, 1.0, 1.1],
        "first_call": 3.0,
        "peak_memory": 2**21,
        "difference": [0, "output"],
    }
    pair = {"of": "torch", "over": "rnnx-xla", "padded_over_full": False, "ratio": [ratio] * 3}
    rows = [row | {"label": name, "peer": name} for name in ("torch", "rnnx-xla")]
    return {
        "name": "training/LSTM/1x2x3x4",
        "group": "training",
        "net": "LSTM",
        "size": "1x2x3x4",
        "T": 2,
        "floor": 0.5,
        "others": 0.25,
        "rows": rows,
        "ratios": [pair],
        "failures": {},
    } | changes


def test_case_table_shows_ratio_floor_and_noise():
    text = "\n".join(report.case_table(record()))
    assert "others took 25% of the machine" in text
    torch, ours = (line for line in text.splitlines() if line.startswith(("| torch", "| rnnx")))
    assert "2.00 (2.00-2.00)" in torch and "50%" in torch and "1000" in torch and "2.0 |" in torch
    assert "2.00 (" not in ours


def test_summary_gives_every_size():
    pair = {"of": "torch", "over": "rnnx", "padded_over_full": False, "ratio": [1.1, 1.2, 1.3]}
    text = "\n".join(report.summary([record(ratios=[pair])]))
    assert "Training, every size" in text and "Inference, every size" not in text
    assert "| net          | torch / rnnx |" in text
    assert "| LSTM 1x2x3x4 |         1.20 |" in text


def test_summary_gives_mean_least_and_its_size():
    text = "\n".join(report.summary([record(0.5), record(8.0, size="32x2x3x4")]))
    line = next(line for line in text.splitlines() if "torch / rnnx-xla" in line)
    assert [cell.strip() for cell in line.split("|")[3:7]] == ["2.00", "0.50", "1x2x3x4", "2"]


def test_growth_gives_the_factor_of_each_doubling():
    rows = record()["rows"]
    slower = [row | {"time": [2.0, 2.1, 2.2], "peak_memory": 2**22} for row in rows]
    text = "\n".join(
        report.growth([record(group="growth"), record(group="growth", T=4, rows=slower)])
    )
    assert "| 2 to 4 |" in text and "2.10" in text and "2.00" in text


def test_failures_are_printed():
    text = report.case_table(record(rows=[], ratios=[], failures={"torch": "d input differs"}))
    assert "FAILED torch: d input differs" in text


def test_names_of_cases_are_unique_and_quick_is_a_part():
    names = [case.name for case in all_cases()]
    assert len(set(names)) == len(names)
    assert 0 < sum(case.quick for case in all_cases()) < len(names) / 3


def test_quick_runs_few_cases_unless_some_are_asked_for(monkeypatch):
    seen = []
    monkeypatch.setattr(session, "run", lambda table, *rest: seen.append(len(table)) or [])
    for arguments in (["--quick"], ["--quick", "--filter", "^training/LSTM/"], []):
        assert main(arguments) == 0
    assert seen[0] == sum(case.quick for case in all_cases())
    assert seen[1] == 5 and seen[2] == len(all_cases())


def test_select_finds_nets_and_peers():
    table = [(case, rows_of(case, peers_of(case))) for case in all_cases()]
    assert select("", table) == table
    assert {case.net for case, _ in select("^training/GRU/", table)} == {"GRU"}
    rows = select("training/LSTM/1x100.*/(rnnx|torch)$", table)[0][1]
    assert {row.label for row in rows} == {
        "rnnx",
        "torch",
        "floor-xla",
        "floor-torch",
        "floor-numpy",
    }
    assert select("no such net", table) == []


def test_padded_case_has_every_peer_twice():
    rows = rows_of(Case("training", "LSTM", **TINY, padded=True), ["torch"])
    assert [(row.label, row.case.padded) for row in rows] == [
        ("torch", True),
        ("torch (full)", False),
    ]


def test_missing_peer_is_named(monkeypatch):
    monkeypatch.setitem(PEERS, "torch", Entry("torch", ("torch", "no_such_package")))
    case = Case("training", "LSTM", **TINY)
    table, missing = session.plan([case], "/(torch|keras-graph)$")
    assert missing == {"torch": ["no_such_package"]}
    assert "torch" not in {row.peer for _, rows in table for row in rows}
    result = {"command": "", "machine": {"cpu": "", "cores": 1, "system": "", "load": 0}}
    lines = report.heading(result | {"versions": {}, "rounds": 1, "missing": missing})
    assert "missing: torch, needs no_such_package" in lines


def numbers(case):
    x, dy, _ = data.inputs(case)
    return [dy, x, *data.weights(case)]


def compared(case, other):
    rows = [Row("one", "keras-graph", case), Row("other", "torch", case)]
    return compare.mismatches(compare.compare(rows, {"one": numbers(case), "other": other}))


@pytest.mark.parametrize("cell", ["LSTM", "GRU", "SimpleRNN", "LayerNormLSTM", "PeepholeLSTM"])
def test_equal_numbers_agree(cell):
    case = Case("training", cell, **TINY, layers=2)
    assert compared(case, numbers(case)) == {}


def test_a_wrong_number_is_named():
    case = Case("training", "LSTM", **TINY)
    names = data.names(case)
    for name in names:
        wrong = numbers(case)
        wrong[names.index(name)] = wrong[names.index(name)] * 1.001
        assert compared(case, wrong)["other"].startswith(f"{name} differs by 1.0e-03")


@pytest.mark.parametrize("spoil", [lambda a: a * np.nan, lambda a: a[:1]])
def test_nan_and_another_shape_are_wrong(spoil):
    case = Case("inference", "LSTM", **TINY)
    one = numbers(case)[:1]
    rows = [Row("one", "torch", case), Row("other", "jax", case)]
    assert compare.mismatches(compare.compare(rows, {"one": one, "other": [spoil(one[0])]}))


def test_padded_outputs_are_not_compared():
    case = Case("training", "LSTM", **TINY, padded=True)
    keep = data.mask(data.inputs(case)[2], case.T)[:, :, None]
    other = numbers(case)
    other[0] = np.where(keep, other[0], 7)
    assert not keep.all() and compared(case, other) == {}


def test_a_failing_peer_is_told_and_the_others_go_on(monkeypatch):
    monkeypatch.setitem(PEERS, "broken", Entry("no_such_module", ()))
    case = Case("training", "LSTM", **TINY)
    rows = [Row("broken", "broken", case), Row("floor-numpy", "floor-numpy", case)]
    result = run.run_case(case, rows, BRIEF)
    assert "no_such_module" in result["failures"]["broken"]
    assert [row["label"] for row in result["rows"]] == ["floor-numpy"]
    assert result["floor"] > 0


@pytest.mark.slow
def test_a_case_from_end_to_end(tmp_path, capsys):
    case = Case("training", "GRU", **TINY)
    table, missing = session.plan([case])
    session.run(table, missing, BRIEF, "a test", tmp_path)
    result = json.loads((tmp_path / "results.json").read_text())
    (case_record,) = result["cases"]
    assert case_record["failures"] == {}
    rows = {row["label"]: row for row in case_record["rows"]}
    assert set(rows) | set(missing) == set(peers_of(case))
    for label, row in rows.items():
        assert len(row["rounds"]) == 2 and row["time"][0] <= row["time"][1] <= row["time"][2]
        assert label.startswith("floor") or row["difference"][0] < compare.TOLERANCE
    assert {pair["over"] for pair in case_record["ratios"]} == {"rnnx", "rnnx-xla"}
    assert (tmp_path / "ratios-training.png").stat().st_size > 1000
    printed = capsys.readouterr().out
    assert "### training/GRU/3x7x4x5" in printed and "Geometric mean over sizes" in printed


@pytest.mark.slow
def test_memory_is_that_of_the_first_long_step():
    """In one table, over the default way of going back; all ways compute the same numbers."""
    case = Case("memory", "LSTM", 16, 60, 4, 5)
    found = run.run_case(case, rows_of(case, peers_of(case)), BRIEF)
    assert not found["failures"]
    labels = [row["label"] for row in found["rows"]]
    assert labels == ["rnnx", "rnnx-one-part", "rnnx-checkpointed", "rnnx-checkpointed-one-part"]
    lines = report.memory([found])
    assert lines and all(label in "\n".join(lines) for label in labels)

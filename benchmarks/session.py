"""A run: from the choice of cases to the last file."""

import importlib.util
import json

from rich import progress
from rich.console import Console

from benchmarks import machine
from benchmarks import report
from benchmarks.cases import rows_of
from benchmarks.cases import select
from benchmarks.peers import PEERS
from benchmarks.peers import peers_of
from benchmarks.run import run_case
from benchmarks.run import ticks


def plan(cases, pattern=""):
    """([(case, rows)] that the pattern leaves and that can run here, {missing peer: packages})."""
    table = select(pattern, [(case, rows_of(case, peers_of(case))) for case in cases])
    wanted = {row.peer: PEERS[row.peer].lacks() for _, rows in table for row in rows}
    missing = {peer: lacks for peer, lacks in wanted.items() if lacks}
    table = [(case, [row for row in rows if row.peer not in missing]) for case, rows in table]
    return [(case, rows) for case, rows in table if rows], missing


def run(table, missing, pace, command, folder, json_file=None):
    """The records of all cases; prints tables, writes JSON after each case, charts at the end."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    folder.mkdir(parents=True, exist_ok=True)
    json_file = json_file or folder / "results.json"
    result = {
        "command": command,
        "machine": machine.describe(),
        "versions": machine.versions(),
        "missing": missing,
        "rounds": pace.rounds,
        "cases": [],
    }
    show(console, report.heading(result))
    with bar(console) as shown:
        task = shown.add_task("", total=sum(ticks(case, rows, pace) for case, rows in table))
        for case, rows in table:

            def tick(label, case=case):
                shown.update(task, advance=1, refresh=True, description=f"{case.name} {label}")

            record = run_case(case, rows, pace, tick)
            result["cases"].append(record)
            json_file.write_text(json.dumps(result, indent=1))
            show(console, report.case_table(record))
    show(console, report.summary(result["cases"]))
    files = [json_file, *charts(result["cases"], folder, console)]
    show(console, [f"written: {path}" for path in files])
    return result["cases"]


def bar(console):
    # Drawn when told to: a thread that draws would take time from what is timed.
    columns = (progress.BarColumn(), progress.TaskProgressColumn(), progress.TimeRemainingColumn())
    return progress.Progress(
        *columns, progress.TextColumn("{task.description}"), console=console, auto_refresh=False
    )


def show(console, lines):
    for line in lines:
        console.print(line)


def charts(records, folder, console):
    if importlib.util.find_spec("matplotlib") is None:
        show(console, ["missing: charts, they need matplotlib"])
        return []
    from benchmarks import charts

    return charts.draw(records, folder)

"""Runs a case: starts its peers, compares their numbers, times them in turns."""

import math
import time
from typing import NamedTuple

from benchmarks import machine
from benchmarks import stats
from benchmarks.cases import NEW_SHAPES
from benchmarks.compare import compare
from benchmarks.compare import mismatches
from benchmarks.peers import PEERS
from benchmarks.peers import is_floor
from benchmarks.peers import is_ours
from benchmarks.worker import Worker
from benchmarks.worker import WorkerError


class Pace(NamedTuple):
    rounds: int
    turn: float  # seconds that a peer is timed for in a round

    def calls(self, seconds):
        return max(1, min(200, math.ceil(self.turn / seconds)))


FULL, QUICK = Pace(rounds=7, turn=0.3), Pace(rounds=3, turn=0.2)


class Team:
    """The peers of a case, each in its process; one that fails leaves."""

    def __init__(self, rows, tick):
        self.rows, self.tick, self.failures, self.workers = list(rows), tick, {}, {}

    def __enter__(self):
        for row in self.rows:
            self.workers[row.label] = Worker(row.case, PEERS[row.peer])
            self.workers[row.label].send("prepare")  # side by side: nothing is timed yet
        for row in list(self.rows):
            self.receive(row)
        return self

    def __exit__(self, *error):
        for worker in self.workers.values():
            worker.pipe.close()  # all leave side by side
        for worker in self.workers.values():
            worker.stop()

    def each(self, command, argument=None):
        """Ask one after another: {label: answer}. argument: {label: value}, or None for none."""
        answers = {}
        for row in list(self.rows):
            self.tick(row.label)
            self.workers[row.label].send(command, *([argument[row.label]] if argument else []))
            answers[row.label] = self.receive(row)
        return answers

    def receive(self, row):
        try:
            return self.workers[row.label].receive()
        except WorkerError as error:
            self.failures[row.label] = str(error)
            self.rows.remove(row)


def run_case(case, rows, pace, tick=lambda label: None):
    """The record of a case: times in seconds, memory in bytes, spreads as three quartiles.

    Whoever fails stands in `failures`; after a mismatch nobody is timed.
    """
    with Team(rows, tick) as team:
        built = team.each("build")
        differences = compare(team.rows, {row.label: built[row.label].numbers for row in team.rows})
        wrong = mismatches(differences)
        rounds, others, memory = [], None, {}
        if not wrong:
            calls = {label: pace.calls(one.later) for label, one in built.items() if one}
            rounds, others = watched(team, lambda: take_turns(case, team, pace.rounds, calls))
            memory = team.each("memory")
        done = team.rows if rounds else []
    times = {row.label: [answers[row.label] for answers in rounds] for row in done}
    floors = [stats.times(times[row.label])[1] for row in done if is_floor(row.peer)]
    return {
        "name": case.name,
        "group": case.group,
        "net": case.net,
        "size": case.size,
        "T": case.T,
        "floor": min(floors, default=None),
        "rows": [
            {
                "label": row.label,
                "peer": row.peer,
                "time": stats.times(times[row.label]),
                "rounds": times[row.label],
                "first_call": built[row.label].first,
                "peak_memory": memory[row.label],
                "difference": differences.get(row.label),
            }
            for row in done
        ],
        "ratios": [
            {
                "of": of.label,
                "over": over.label,
                "padded_over_full": of.case != over.case,
                "ratio": stats.ratio(times[of.label], times[over.label]),
            }
            for of in done
            for over in done
            if comparable(of, over)
        ],
        "others": others,
        "failures": team.failures | wrong,
    }


def take_turns(case, team, rounds, calls):
    """Rounds of {label: seconds of each call}, A B C A B C: what others do hits all alike."""
    if case.group == "compile":
        lengths = [round(case.T * part) for part in NEW_SHAPES]
        return [team.each("meet", dict.fromkeys(calls, T)) for T in lengths]
    return [team.each("time", calls) for _ in range(rounds)]


def watched(team, work):
    """(what `work` returns, the share of the machine that others took meanwhile or None)."""
    if machine.busy() is None:
        return work(), None
    before = team.each("used")
    start, busy = time.perf_counter(), machine.busy()
    result = work()
    seconds, busy = time.perf_counter() - start, machine.busy() - busy
    after = team.each("used")
    others = busy - sum(after[row.label] - before[row.label] for row in team.rows)
    return result, max(0.0, others / seconds / machine.cores())


def comparable(of, over):
    """A peer over ours in the same net, or a padded batch over a full one of the same peer."""
    if of.case == over.case:
        return is_ours(over.peer) and not is_ours(of.peer) and not is_floor(of.peer)
    return of.peer == over.peer and of.case.padded


def ticks(case, rows, pace):
    """How often `run_case` calls `tick` if nobody fails."""
    rounds = len(NEW_SHAPES) if case.group == "compile" else pace.rounds
    return len(rows) * (rounds + 4)

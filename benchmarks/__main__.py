"""`python -m benchmarks`: the layers timed beside what one would use instead."""

import argparse
import pathlib
import shlex
import sys

from benchmarks import session
from benchmarks.cases import all_cases
from benchmarks.run import FULL
from benchmarks.run import QUICK


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="few rounds and, without --filter, few cases"
    )
    parser.add_argument(
        "--filter", default="", metavar="REGEX", help="only rows whose group/net/size/peer holds it"
    )
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="default: in DIR")
    parser.add_argument("--out", type=pathlib.Path, metavar="DIR", help="for JSON and charts")
    parser.set_defaults(out=pathlib.Path("benchmark-results"))
    arguments = sys.argv[1:] if arguments is None else arguments
    chosen = parser.parse_args(arguments)
    few = chosen.quick and not chosen.filter
    cases = [case for case in all_cases() if case.quick or not few]
    table, missing = session.plan(cases, chosen.filter)
    if not table:
        paths = "\n".join(case.name for case in cases)
        lacking = ", ".join(missing) or "none"
        parser.error(f"nothing is left to run. Missing peers: {lacking}. Cases:\n{paths}")
    pace = QUICK if chosen.quick else FULL
    command = shlex.join(["python", "-m", "benchmarks", *arguments])
    records = session.run(table, missing, pace, command, chosen.out, chosen.json)
    return 1 if any(record["failures"] for record in records) else 0


if __name__ == "__main__":
    sys.exit(main())

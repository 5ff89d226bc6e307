"""`make chaos SEED=n TURNS=n`: the whole product under a load, while whatever can go wrong does.

    make chaos                                      seed 1, 1,000 turns: every fault once
    make chaos SEED=7 TURNS=5000 JSON=report.json
    make chaos TURNS=200 ONLY="kill *,exit history.*"

ONLY takes names of faults as shell patterns; `--plan` shows what a seed plans. Exit codes: 0 nothing was lost and
nothing happened twice; 1 a violation, a lost acknowledgement, a fault that did not fire, or no start; 2 usage.
"""

import argparse
import signal
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import uvloop

from libs.failpoints.catalogue import POINTS
from services.cli.errors import CommandError
from tests.bench.children import BenchError
from tests.chaos import report, stack, suite
from tests.chaos.faults import Fault, deck
from tests.chaos.plan import Planned, plan
from tests.chaos.report import Header
from tests.chaos.topology import PROCESSES


def main() -> int:
    """Parse, run, and return the exit code."""
    parser = _parser()
    arguments = parser.parse_args()
    faults = _only(arguments.only.split(",") if arguments.only else ["*"])
    if arguments.turns < 1 or not faults:
        parser.error("--turns must be at least 1, and --only must leave a fault")
    planned = plan(arguments.seed, arguments.turns, faults)
    if arguments.plan:
        print("\n".join(f"turn {it.at_turn:>5}  #{it.number:<4} {it.fault.name}" for it in planned))
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that it ends all in order, as Ctrl-C does
    header = Header(arguments.seed, arguments.turns, len(planned), _commit())
    try:
        outcome = uvloop.run(_run(arguments, planned))
    except KeyboardInterrupt:
        return 130
    except (BenchError, CommandError, OSError) as error:
        sys.stderr.write(f"chaos: {error}\n")
        return 1
    print(report.text(outcome, header))
    if arguments.json:
        Path(arguments.json).write_bytes(report.document(outcome, header))
    return int(bool(report.problems(outcome)))


async def _run(arguments: argparse.Namespace, planned: list[Planned]) -> suite.Outcome:
    async with (
        stack.running(PROCESSES, linked=True, logs=arguments.logs) as running,
        suite.ground(running, arguments.seed) as ground,
    ):
        struck, seconds = await suite.carry_out(ground, planned, arguments.turns, _tell)
        return await suite.judged(ground, struck, seconds)


def _only(patterns: list[str]) -> list[Fault]:
    return [it for it in deck(POINTS.values()) if any(fnmatchcase(it.name, pattern.strip()) for pattern in patterns)]


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="What survives which faults.")
    add = parser.add_argument
    add("--seed", type=int, default=1, metavar="N", help="of the plan and of what clients do (%(default)s)")
    add("--turns", type=int, default=1000, metavar="N", help="of the load, at least (%(default)s)")
    add("--only", default="", metavar="PATTERNS", help="faults by name, as shell patterns with commas between them")
    add("--plan", action="store_true", help="print what would happen, and stop")
    add("--json", metavar="FILE", help="write the report as JSON")
    add("--logs", type=Path, metavar="DIRECTORY", help="keep the processes' logs there")
    return parser


if __name__ == "__main__":
    sys.exit(main())

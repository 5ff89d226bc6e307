"""`make chaos SEED=n TURNS=n`: the whole product under a load, while whatever can go wrong does.

    make chaos                                          seed 1, 1,000 turns: every fault at least once
    make chaos SEED=7 TURNS=5000 JSON=report.json
    make chaos TURNS=200 ARGS="--only 'kill *' --only 'exit history.*'"
    make chaos ARGS="crash-table --times 20"            each row of the protocol's crash table
    make chaos ARGS="errors --percent 30" TURNS=2000    random errors from every dependency
    make chaos ARGS=postgres                            PostgreSQL killed: how long until it serves again
    make chaos ARGS=gateway                             a gateway killed in mid-turn: until the answer is there
    make chaos ARGS=restarts                            every process replaced under load, two replicas of each

The same seed plans the same faults (`--plan` prints them). Exit codes: 0 nothing was lost and nothing happened twice;
1 a violation, a lost acknowledgement, a fault that did not fire, a promise that was not kept, or no start; 2 usage.
"""

import argparse
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from fnmatch import fnmatchcase
from pathlib import Path

import uvloop

from libs.failpoints.catalogue import POINTS
from services.cli.errors import CommandError
from tests.bench.children import BenchError
from tests.chaos import gateway_death, outage, random_errors, report, restarts, stack, suite
from tests.chaos.crash_table import crash_plan
from tests.chaos.faults import Fault, deck
from tests.chaos.figures import Figure
from tests.chaos.plan import Planned, plan
from tests.chaos.report import Header
from tests.chaos.suite import Ground, Outcome
from tests.chaos.topology import PROCESSES, Replica

PLANNED = ("faults", "crash-table")
MEASURED = ("errors", "postgres", "gateway", "restarts")


def main() -> int:
    """Parse, run, and return the exit code."""
    parser = _parser()
    arguments = parser.parse_args()
    if arguments.turns < 1 or arguments.times < 1 or not _deck(arguments.only):
        parser.error("--turns and --times must be at least 1, and --only must leave a fault")
    planned = _plan(arguments)
    if arguments.plan:
        print("\n".join(f"turn {it.at_turn:>5}  #{it.number:<4} {it.part}: {it.fault.name}" for it in planned))
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that it ends all in order, as Ctrl-C does
    header = Header(arguments.what, arguments.seed, arguments.turns, _commit())
    try:
        measured, outcome = uvloop.run(_run(arguments, planned))
    except KeyboardInterrupt:
        return 130
    except (BenchError, CommandError, OSError) as error:
        sys.stderr.write(f"chaos: {error}\n")
        return 1
    print(report.text(outcome, header, measured))
    if arguments.json:
        Path(arguments.json).write_bytes(report.document(outcome, header, measured))
    return int(bool(report.problems(outcome, measured)))


async def _run(arguments: argparse.Namespace, planned: Sequence[Planned]) -> tuple[Sequence[Figure], Outcome]:
    match arguments.what:
        case "errors":
            async with _ground(arguments, PROCESSES) as ground:
                return await random_errors.measure(ground, arguments.turns, arguments.percent)
        case "postgres":
            async with _ground(arguments, PROCESSES) as ground:
                return await outage.measure(ground, _tell)
        case "gateway":
            async with _ground(arguments, PROCESSES) as ground:
                return await gateway_death.measure(ground)
        case "restarts":
            async with _ground(arguments, restarts.PROCESSES) as ground:
                return await restarts.measure(ground, _tell)
        case _:
            async with _ground(arguments, PROCESSES, linked=True) as ground:
                struck, seconds = await suite.carry_out(ground, planned, arguments.turns, _tell)
                return (), await suite.judged(ground, struck, seconds)


@asynccontextmanager
async def _ground(
    arguments: argparse.Namespace, replicas: Sequence[Replica], *, linked: bool = False
) -> AsyncIterator[Ground]:
    async with (
        stack.running(replicas, linked=linked, logs=arguments.logs) as running,
        suite.ground(running, arguments.seed) as made,
    ):
        yield made


def _plan(arguments: argparse.Namespace) -> list[Planned]:
    match arguments.what:
        case "faults":
            return plan(arguments.seed, arguments.turns, _deck(arguments.only))
        case "crash-table":
            return crash_plan(arguments.seed, arguments.times)
        case _:
            return []


def _deck(patterns: Sequence[str]) -> list[Fault]:
    return [it for it in deck(POINTS.values()) if any(fnmatchcase(it.name, pattern) for pattern in patterns or ["*"])]


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
    add("what", nargs="?", default="faults", choices=[*PLANNED, *MEASURED], help="what to do (%(default)s)")
    add("--seed", type=int, default=1, metavar="N", help="of the plan and of what clients do (%(default)s)")
    add("--turns", type=int, default=1000, metavar="N", help="of the load, at least (%(default)s)")
    add("--only", action="append", default=[], metavar="PATTERN", help="faults with such a name; repeatable")
    add("--times", type=int, default=20, metavar="N", help="each row of the crash table (%(default)s)")
    add("--percent", type=int, default=10, choices=random_errors.BOUNDS, help="of all tries that fail (%(default)s)")
    add("--plan", action="store_true", help="print what would happen, and stop")
    add("--json", metavar="FILE", help="write the report as JSON")
    add("--logs", type=Path, metavar="DIRECTORY", help="keep the processes' logs there")
    return parser


if __name__ == "__main__":
    sys.exit(main())

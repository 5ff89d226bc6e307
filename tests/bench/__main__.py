"""`make bench ARGS="..."`: start the whole product, put a load on it, print what a turn cost.

    make bench                                  a quick look at both: less than two minutes
    make bench ARGS=--saturate                  50 sessions in a closed loop, the model at 20 ms
    make bench ARGS=--paced                     50 sessions x 20 turns, one turn per 3 s, the model at 300 ms
    make bench ARGS="--sessions 8 --turns 30 --pace 1 --model-ms 100 --stream --json out.json"

A preset may be changed by the other options; options without a preset describe a run of their own. Exit codes: 0
measured, 1 could not measure, 2 usage. That turns failed or were slow is a figure, not a failure of this command.
"""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TextIO

import aiohttp

from libs.postgres.errors import LaunchError
from services.cli.errors import CommandError
from tests.bench import measurement, product, report
from tests.bench.children import BenchError
from tests.bench.measurement import Measurement
from tests.bench.workloads import PACED, QUICK, SATURATE, Workload


def main() -> int:
    """Parse, measure, and return the exit code."""
    parser = _parser()
    arguments = parser.parse_args()
    workloads = _workloads(arguments)
    if any(it.sessions < 1 or it.turns < 1 or it.warmup < 0 or it.pace_seconds < 0 for it in workloads):
        parser.error("--sessions and --turns must be at least 1, --warmup and --pace at least 0")
    if arguments.json not in (None, "-") and not Path(arguments.json).absolute().parent.is_dir():
        parser.error(f"--json: there is no directory for {arguments.json}")  # now, not when all is measured
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that it ends all in order, as Ctrl-C does
    out = sys.stderr if arguments.json == "-" else sys.stdout
    try:
        with product.ground(os.environ) as ground:
            measured = asyncio.run(_measure(ground, workloads, out))
        document = measurement.as_json(measured, report.machine())
        if arguments.json == "-":
            sys.stdout.buffer.write(document)
        elif arguments.json:
            Path(arguments.json).write_bytes(document)
    except KeyboardInterrupt:
        return 130
    except (BenchError, CommandError, LaunchError, aiohttp.ClientError, OSError) as error:
        sys.stderr.write(f"bench: {error}\n")
        return 1
    return 0


async def _measure(ground: product.Ground, workloads: Sequence[Workload], out: TextIO) -> list[Measurement]:
    measured = []
    async with aiohttp.ClientSession() as http, product.running(ground, http) as running:
        print(_listed(report.machine()), file=out)
        print(f"processes, for a profiler: {_listed(running.pids)}", file=out, flush=True)
        for workload in workloads:
            measured.append(await measurement.measure(running, http, workload))
            print(report.text(measured[-1]), file=out, flush=True)
    return measured


def _workloads(arguments: argparse.Namespace) -> list[Workload]:
    changes = {name: value for name, value in vars(arguments).items() if name in _CHANGES and value is not None}
    presets = [preset for preset in (SATURATE, PACED) if getattr(arguments, preset.name)]
    if not presets:
        presets = [Workload("custom")] if changes else list(QUICK)
    return [replace(preset, **changes) for preset in presets]


_CHANGES = frozenset({"sessions", "turns", "warmup", "pace_seconds", "model_ms", "model_sigma", "streamed"})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="What a turn costs in time and CPU.")
    own = Workload("")
    add = parser.add_argument
    add("--saturate", action="store_true", help=SATURATE.described())
    add("--paced", action="store_true", help=PACED.described())
    add("--sessions", type=int, metavar="N", help=f"at the same time ({own.sessions})")
    add("--turns", type=int, metavar="N", help=f"measured ones of each session ({own.turns})")
    add("--warmup", type=int, metavar="N", help=f"turns of each session that do not count ({own.warmup})")
    add("--pace", type=float, dest="pace_seconds", metavar="S", help="seconds from turn to turn; 0: closed loop (0)")
    add("--model-ms", type=float, metavar="MS", help=f"median latency of the model ({own.model_ms:g})")
    add("--model-sigma", type=float, metavar="X", help=f"deviation of its logarithm ({own.model_sigma:g})")
    add("--stream", action="store_const", const=True, dest="streamed", help="ask for server-sent events")
    add("--json", nargs="?", const="-", metavar="FILE", help="write the figures as JSON, to stdout without FILE")
    return parser


def _listed(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


if __name__ == "__main__":
    sys.exit(main())

"""Runs the simulator until SIGTERM or SIGINT.

    python -m services.simulator --port 8090 --latency-ms 300 --latency-sigma 0.3 --seed 1 --fault 500=0.1

One line of JSON on stdout says when it is ready and where. Exit codes: 0 stopped, 1 could not start, 2 usage.
"""

import argparse
import asyncio
import signal
import sys
from importlib import metadata

import uvloop

from libs.runtime import logs
from libs.tokens import counting, ranks
from services.simulator.server import HOST, serving
from services.simulator.settings import Behaviour, Fault, Latency, Settings, SettingsError, parse_fault


def main() -> int:
    """Parse the command line, serve, and return the exit code."""
    parser = _parser()
    arguments = parser.parse_args()
    try:
        latency = Latency(arguments.latency_ms, arguments.latency_sigma)
        settings = Settings(arguments.seed, Behaviour(latency, dict(map(parse_fault, arguments.fault))))
    except SettingsError as error:
        parser.error(str(error))
    logs.configure("simulator", metadata.version("colloquy"), "info")
    try:
        counting.warm()
        uvloop.run(_serve(settings, arguments.host, arguments.port))
    except (OSError, ranks.RankFileError) as error:
        sys.stderr.write(f"simulator: {error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    defaults = Latency()
    parser = argparse.ArgumentParser(
        prog="python -m services.simulator", description="OpenAI-compatible model simulator"
    )
    parser.add_argument("--host", default=HOST, help="the address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=8090, help="0 for any free one (%(default)s)")
    parser.add_argument(
        "--latency-ms",
        type=float,
        default=defaults.median_ms,
        metavar="MEDIAN",
        help="median latency to the last byte; 0 for none (%(default)s)",
    )
    parser.add_argument(
        "--latency-sigma",
        type=float,
        default=defaults.sigma,
        metavar="S",
        help="spread of the lognormal latency; 0 for a constant one (%(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of draws and texts (%(default)s)")
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="KIND=PROBABILITY",
        help=f"repeatable; KIND is one of {', '.join(Fault)}",
    )
    return parser


async def _serve(settings: Settings, host: str, port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with serving(settings, port, host) as url:
        logs.logger().info("ready", url=f"{url}/v1")
        await stop.wait()
    logs.logger().info("stopped")


if __name__ == "__main__":
    sys.exit(main())

"""The yardstick: the CPU time of one bare unary gRPC call, client and server together, on this machine and just now.

    python -m tests.bench.yardstick

prints it in milliseconds. Machines differ, and a shared one drifts by 1.7 times within minutes; a turn's CPU divided by
this is a figure that can be compared. grpc.aio on uvloop, two processes, 400 bytes there and back, 8 calls in flight;
no interceptor, metadata or deadline, nor any of the product's code.
"""

import asyncio
import statistics
import sys
import time
from itertools import pairwise
from typing import TypeAlias

import grpc
import uvloop

from tests.bench.children import child

PAIRS = 3
ROUNDS = 3  # of a pair, of which the median counts: a neighbour's burst spoils one
CALLS = 2_000  # in a round
WARM_UP_CALLS = 1_000
IN_FLIGHT = 8
MESSAGE = bytes(400)

_SERVICE = "bench.Yardstick"
_Method: TypeAlias = "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]"
_Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"


async def measured_ms() -> float:
    """Measure it now, in processes of their own: the median of a few pairs, for each pair has its own luck."""
    measured = []
    for _ in range(PAIRS):
        async with child("tests.bench.yardstick") as client:
            measured.append(float(await client.rest()))
    return statistics.median(measured)


def main() -> int:
    """Be the client, or with `--serve` its server."""
    if sys.argv[1:] == ["--serve"]:
        uvloop.run(_serve())
    else:
        sys.stdout.write(f"{uvloop.run(_measure()):.4f}\n")
    return 0


async def _measure() -> float:
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.yardstick", "--serve"),
        stdin=asyncio.subprocess.PIPE,  # closed by our end, whichever it is, it ends the server
        stdout=asyncio.subprocess.PIPE,
    )
    assert server.stdout is not None
    assert server.stdin is not None
    address = f"127.0.0.1:{int(await server.stdout.readline())}"
    async with grpc.aio.insecure_channel(address) as channel:
        echo: _Method = channel.unary_unary(f"/{_SERVICE}/Echo")
        cpu: _Method = channel.unary_unary(f"/{_SERVICE}/Cpu")
        await _call(echo, WARM_UP_CALLS)
        used_ns = [time.process_time_ns() + int.from_bytes(await cpu(b""))]
        for _ in range(ROUNDS):
            await _call(echo, CALLS)
            used_ns.append(time.process_time_ns() + int.from_bytes(await cpu(b"")))
    server.stdin.close()
    await server.wait()
    return statistics.median(after - before for before, after in pairwise(used_ns)) / CALLS / 1e6


async def _call(echo: _Method, calls: int) -> None:
    async def one_after_another() -> None:
        for _ in range(calls // IN_FLIGHT):
            await echo(MESSAGE)

    await asyncio.gather(*(one_after_another() for _ in range(IN_FLIGHT)))


async def _echo(request: bytes, _: _Context) -> bytes:
    return request


async def _cpu(_: bytes, __: _Context) -> bytes:
    return time.process_time_ns().to_bytes(8)


async def _serve() -> None:
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Echo": grpc.unary_unary_rpc_method_handler(_echo),
        "Cpu": grpc.unary_unary_rpc_method_handler(_cpu),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(_SERVICE, handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


if __name__ == "__main__":
    sys.exit(main())

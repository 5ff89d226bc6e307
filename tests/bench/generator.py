"""The load generator, a process of its own so that its CPU is nobody else's.

It is driven over standard input and output: a line with the order comes in, `warm` goes out once every session has
done its warm-up; a line comes in, the load runs, `done` goes out; the input ends, and what was seen goes out. Until
then it stays, for its CPU to be read.
"""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import aiohttp
import orjson
import uvloop

from tests.bench.answers import answers
from tests.bench.candidate import Candidate, TurnError
from tests.bench.figures import Turn
from tests.bench.workloads import Workload

REQUEST_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Order:
    """What to do: `tokens` are one for each session of the workload."""

    url: str
    tokens: Sequence[str]
    workload: Workload

    @classmethod
    def read(cls, line: bytes) -> "Order":
        fields = orjson.loads(line)
        return cls(fields["url"], fields["tokens"], Workload(**fields["workload"]))


@dataclass(slots=True)
class Seen:
    """What the sessions saw. behind: turns that were due while the one before was still being answered."""

    turns: list[Turn] = field(default_factory=list)
    starts_ms: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    behind: int = 0
    seconds: float = 0.0

    @classmethod
    def read(cls, document: bytes) -> "Seen":
        fields = orjson.loads(document)
        return cls(
            turns=[Turn(**turn) for turn in fields["turns"]],
            starts_ms=fields["starts_ms"],
            errors=Counter(fields["errors"]),
            behind=fields["behind"],
            seconds=fields["seconds"],
        )


async def generate() -> None:
    """Do what standard input orders."""
    order = Order.read(await _line())
    workload = order.workload
    async with aiohttp.ClientSession(
        base_url=order.url,
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
        timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS),
    ) as http:
        candidates = [
            Candidate(http, token, answers(seed), streamed=workload.streamed) for seed, token in enumerate(order.tokens)
        ]
        await _load(candidates, workload.warmup, pace_seconds=0)
        _tell(b"warm\n")
        await _line()
        seen = await _load(candidates, workload.turns, pace_seconds=workload.pace_seconds)
        _tell(b"done\n")
        await _line()
    _tell(orjson.dumps(seen))


async def _load(candidates: Sequence[Candidate], turns: int, *, pace_seconds: float) -> Seen:
    """Let every candidate do its turns, one after another; paced ones begin evenly spread over the pace."""
    seen, began = Seen(), time.perf_counter()
    async with asyncio.TaskGroup() as sessions:
        for number, candidate in enumerate(candidates):
            first_at = began + pace_seconds * number / len(candidates)
            sessions.create_task(_session(candidate, turns, first_at, pace_seconds, seen))
    seen.seconds = time.perf_counter() - began
    return seen


async def _session(candidate: Candidate, turns: int, first_at: float, pace_seconds: float, seen: Seen) -> None:
    for turn in range(turns):
        if pace_seconds:
            wait_seconds = first_at + pace_seconds * turn - time.perf_counter()
            seen.behind += wait_seconds < 0 and turn > 0
            await asyncio.sleep(max(0.0, wait_seconds))
        try:
            start_ms = await candidate.prepare()
            if start_ms is not None:
                seen.starts_ms.append(start_ms)
            seen.turns.append(await candidate.answer())
        except TurnError as error:
            seen.errors[str(error)] += 1


async def _line() -> bytes:
    return await asyncio.to_thread(sys.stdin.buffer.readline)


def _tell(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    uvloop.run(generate())

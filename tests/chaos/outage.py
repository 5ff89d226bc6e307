"""PostgreSQL killed under load: how long until turns are answered again, by themselves?"""

import asyncio
import time

from tests.chaos import processes, suite
from tests.chaos.figures import Figure, worst
from tests.chaos.load import Load
from tests.chaos.manners import FAITHFUL
from tests.chaos.suite import CLIENTS, Ground, Outcome

TIMES = 5
PROBES = 4
RESUMES_SECONDS = 5.0


async def measure(ground: Ground) -> tuple[list[Figure], Outcome]:
    """Kill it several times; how long clients waited whose message came at that moment."""
    began, before = time.monotonic(), _pids(ground)
    waited: list[float | None] = []
    async with suite.loaded(ground, 0, FAITHFUL) as load:
        for number in range(TIMES):
            await load.reached(load.ended + 2 * CLIENTS)
            waited += await _killed(ground, load, number)
    outcome = await suite.judged(ground, [], time.monotonic() - began)
    replaced = sum(before[name] != pid for name, pid in _pids(ground).items())
    return [
        worst(f"until a turn is answered that began as PostgreSQL was killed ({len(waited)})", waited, RESUMES_SECONDS),
        Figure("processes that had to be started again for it", replaced, 0, "processes"),
    ], outcome


async def _killed(ground: Ground, load: Load, number: int) -> list[float | None]:
    """For each of some clients how many seconds they waited; None where they were not answered."""
    clients = [ground.client(900 + PROBES * number + probe, load, FAITHFUL) for probe in range(PROBES)]
    interviews = await asyncio.gather(*(client.interview() for client in clients))
    messages = [
        await client.written(interview)
        for client, interview in zip(clients, interviews, strict=True)
        if not interview.over
    ]
    postmaster = await processes.postmaster(ground.stack.host)
    postmaster.kill()
    return await asyncio.gather(
        *(client.sender.seconds_until_answered(message) for client, message in zip(clients, messages, strict=True))
    )


def _pids(ground: Ground) -> dict[str, int | None]:
    return {name: it.running.pid if it.running else None for name, it in ground.stack.processes.items()}

"""PostgreSQL killed under load: how long until turns are answered again, by themselves?"""

import asyncio
import time

from tests.chaos import ledger, processes, suite
from tests.chaos.figures import Figure, worst
from tests.chaos.load import Load
from tests.chaos.manners import FAITHFUL
from tests.chaos.polling import until_told
from tests.chaos.suite import CLIENTS, Ground, Outcome

TIMES = 5
PROBES = 4
RESUMES_SECONDS = 5.0


async def measure(ground: Ground, tell: suite.Tell) -> tuple[list[Figure], Outcome]:
    """Kill it several times; how long clients waited whose message came at that moment."""
    began, before = time.monotonic(), _pids(ground)
    waited: list[float | None] = []
    async with suite.loaded(ground, 0, FAITHFUL) as load:
        for number in range(TIMES):
            await load.reached(load.ended + 2 * CLIENTS)
            back, answered = await _killed(ground, load, number)
            waited += answered
            tell(f"PostgreSQL was back after {back:.2f} s, turns were answered after {sorted(answered, key=str)}")
    outcome = await suite.judged(ground, [], time.monotonic() - began)
    replaced = sum(before[name] != pid for name, pid in _pids(ground).items())
    return [
        worst(f"until a turn is answered that began as PostgreSQL was killed ({len(waited)})", waited, RESUMES_SECONDS),
        Figure("processes that had to be started again for it", replaced, 0, "processes"),
    ], outcome


async def _killed(ground: Ground, load: Load, number: int) -> tuple[float, list[float | None]]:
    """Seconds until the server accepts connections, and until each of some clients was answered (None: never)."""
    clients = [ground.client(900 + PROBES * number + probe, load, FAITHFUL) for probe in range(PROBES)]
    messages = [await client.written(await client.interview()) for client in clients]
    postmaster = await processes.postmaster(ground.stack.host)
    postmaster.kill()
    async with asyncio.TaskGroup() as group:
        accepting = group.create_task(_seconds_until_accepting(ground))
        asking = [
            group.create_task(client.sender.seconds_until_answered(message))
            for client, message in zip(clients, messages, strict=True)
        ]
    return accepting.result(), [it.result() for it in asking]


async def _seconds_until_accepting(ground: Ground) -> float:
    began = time.monotonic()
    await until_told(lambda: _accepts(ground.stack.host.owner_dsn))
    return time.monotonic() - began


async def _accepts(dsn: str) -> bool:
    return await ledger.unsettled(dsn) is not None


def _pids(ground: Ground) -> dict[str, int | None]:
    return {name: it.running.pid if it.running else None for name, it in ground.stack.processes.items()}

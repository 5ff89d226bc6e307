"""Lossless restarts: every process ended with SIGTERM and replaced, one at a time, two replicas of each, under load.

Every message is sent once, and each must be answered. What a load balancer does in front of the BFFs, clients do
here: they ask only replicas that say they are ready.
"""

import asyncio
import time

from tests.chaos import suite
from tests.chaos.figures import Figure
from tests.chaos.judgement import stories
from tests.chaos.manners import ONCE
from tests.chaos.suite import Ground, Outcome
from tests.chaos.topology import CALLS, Replica

PROCESSES = tuple(Replica(service, number) for service in reversed(CALLS) for number in (1, 2))
TURNS_BETWEEN = 10


async def measure(ground: Ground, tell: suite.Tell) -> tuple[list[Figure], Outcome]:
    """Replace them all; how many requests were not answered the first time."""
    began = time.monotonic()
    async with suite.loaded(ground, 0, ONCE) as load, asyncio.TaskGroup() as group:
        watching = group.create_task(ground.bffs.watch(ground.http))
        for replica in PROCESSES:
            await load.reached(load.ended + TURNS_BETWEEN)
            process = ground.stack.processes[replica.name]
            await ground.stack.supervisor.stop_one(process)
            await ground.stack.supervisor.start_one(process)
            tell(f"turn {load.ended:>5}  {replica.name} has been replaced")
        await load.reached(load.ended + TURNS_BETWEEN)
        watching.cancel()
    outcome = await suite.judged(ground, [], time.monotonic() - began)
    asked = stories(outcome.entries).values()
    failed = [story for story in asked if not story.bodies]
    for story in failed:
        tell(f"not answered: {story}")
    return [
        Figure(f"of {len(asked)} requests while {len(PROCESSES)} processes were replaced, failed", len(failed), 0, "")
    ], outcome

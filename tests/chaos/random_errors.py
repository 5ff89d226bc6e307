"""Random errors from every dependency: how many turns end without an answer for a client that asks again?

At each step (an RPC, a transaction, an attempt at the provider) so many percent of the tries fail, half of them before
it is taken, half of them when it has been and nobody knows.
"""

import time
from collections.abc import Iterable

from libs.failpoints.catalogue import STEPS, Step
from tests.chaos import processes, suite
from tests.chaos.figures import Figure
from tests.chaos.judgement import stories
from tests.chaos.manners import FAITHFUL
from tests.chaos.suite import Ground, Outcome
from tests.chaos.topology import PROCESSES

BOUNDS = {10: 0.001, 30: 0.01}
"""The most that may stay unanswered, by the percentage of tries that fail."""


async def measure(ground: Ground, turns: int, percent: int) -> tuple[list[Figure], Outcome]:
    """Put a load of so many turns on, with errors; what was not answered, and how it was judged."""
    began = time.monotonic()
    async with suite.loaded(ground, turns, FAITHFUL) as load:
        for replica in PROCESSES:
            steps = [step for step in STEPS if step.service == replica.service]
            await processes.arm(ground.http, ground.stack, replica.name, orders(steps, percent))
        await load.reached(turns)
        fired = sum([await processes.fired(ground.http, ground.stack, replica.name) for replica in PROCESSES])
        for replica in PROCESSES:
            await processes.arm(ground.http, ground.stack, replica.name, "")
    outcome = await suite.judged(ground, [], time.monotonic() - began)
    messages = [story for story in stories(outcome.entries).values() if story.text]
    share = sum(not story.bodies for story in messages) / len(messages)
    what = f"share of {len(messages)} turns without an answer, {percent} % of all tries failing ({fired} did)"
    return [Figure(what, share, BOUNDS[percent], "")], outcome


def orders(steps: Iterable[Step], percent: int) -> str:
    """What to arm, in the grammar of failpoints."""
    return ";".join(f"{point}={percent // 2}%error" for step in steps for point in (step.before, step.after))

"""The fault suite itself, in small: some faults of each sort, on a stack whose links can fail, and a clean verdict.

`make chaos` does all of them.
"""

import sys
from collections.abc import AsyncIterator, Sequence
from random import Random

import pytest
import pytest_asyncio

from tests.chaos import report, stack, suite
from tests.chaos.faults import Fault, Kind
from tests.chaos.plan import planned
from tests.chaos.suite import Outcome
from tests.chaos.topology import PROCESSES

pytestmark = pytest.mark.timeout(240)
SEED = 1
FAULTS: Sequence[Fault] = (
    Fault(Kind.DELAY, "gateway-1>history"),
    Fault(Kind.RESET, "history>postgres"),
    Fault(Kind.EXIT, "gateway-2", "gateway.history.commit_turn.after"),
    Fault(Kind.PROVIDER, "cut_stream"),
    Fault(Kind.END),
    Fault(Kind.HALF_OPEN, "bff>gateway-1"),
    Fault(Kind.POSTGRES_CRASH),
    Fault(Kind.ERASE),
    Fault(Kind.KILL, "assessment"),
)


@pytest_asyncio.fixture(scope="module")
async def outcome() -> AsyncIterator[Outcome]:
    """What is left when all of it has happened and everything is quiet."""
    randomness = Random(SEED)
    plan = [planned(randomness, number, 0, fault, fault.name) for number, fault in enumerate(FAULTS, 1)]
    async with stack.running(PROCESSES, linked=True) as running, suite.ground(running, SEED) as ground:
        struck, seconds = await suite.carry_out(ground, plan, 0, lambda line: print(line, file=sys.stderr))
        yield await suite.judged(ground, struck, seconds)


def test_every_fault_struck_while_messages_were_under_way(outcome: Outcome) -> None:
    assert {struck.planned.fault: bool(struck.fired) for struck in outcome.struck} == dict.fromkeys(FAULTS, True)
    assert all(struck.flights for struck in outcome.struck)


def test_nothing_was_lost_and_nothing_happened_twice(outcome: Outcome) -> None:
    assert report.problems(outcome) == []


def test_everybody_was_answered_or_refused(outcome: Outcome) -> None:
    assert report.figures(outcome)["given_up"] == 0

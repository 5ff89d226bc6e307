"""Which fault happens when: a pure function of the seed and the number of turns, so that a run can be repeated.

Faults are due by turns, not by time: on a slow machine they hit the same share of the load. They are dealt from a deck
that is shuffled anew whenever it is used up, so that 1,000 turns see every fault at least once.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from tests.chaos.faults import Fault, Kind

TURNS_PER_FAULT = 5
FIRST_SHARE, LAST_SHARE = 0.03, 0.95
"""Of the turns: before the first fault the load is under way, after the last one there is some left to suffer it."""

SECONDS = {
    Kind.PAUSE: (5.0, 6.0),  # an interview's lease is 4 s
    Kind.POSTGRES_FREEZE: (1.0, 3.5),  # a statement is ended after 2 s
    Kind.PROVIDER: (1.0, 3.0),
    Kind.DELAY: (1.0, 3.0),
    Kind.RESET: (0.2, 1.0),
    Kind.HALF_OPEN: (2.0, 5.0),
}
"""How long faults last that do not end by themselves, at least and at most."""
DELAY_MS = (50, 900)
"""What a delaying link adds, each way: a step's deadline is 150 to 1,000 ms."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A fault that is due once `at_turn` turns have ended.

    Attributes:
        seconds: how long it lasts, 0 where it is over at once.
        delay_ms: what a delaying link adds, else 0.
        pick: from [0, 1): which of the things that it may hit then (a session, a backend) it hits.
        part: what the report counts it under.
    """

    number: int
    at_turn: int
    fault: Fault
    seconds: float
    delay_ms: int
    pick: float
    part: str


def plan(seed: int, turns: int, deck: Sequence[Fault]) -> list[Planned]:
    """Deal faults for a load of so many turns, in the order in which they are due."""
    randomness = random.Random(seed)
    dealt = _dealt(randomness, -(-turns // TURNS_PER_FAULT), deck)
    first, last = turns * FIRST_SHARE, turns * LAST_SHARE
    due = sorted(int(randomness.uniform(first, last)) for _ in dealt)
    numbered = enumerate(zip(due, dealt, strict=True), 1)
    return [planned(randomness, number, at_turn, fault, fault.name) for number, (at_turn, fault) in numbered]


def planned(randomness: random.Random, number: int, at_turn: int, fault: Fault, part: str) -> Planned:
    """A fault with what is left to chance drawn."""
    seconds = randomness.uniform(*SECONDS.get(fault.kind, (0.0, 0.0)))
    delay_ms = randomness.randint(*DELAY_MS) if fault.kind is Kind.DELAY else 0
    return Planned(number, at_turn, fault, round(seconds, 2), delay_ms, randomness.random(), part)


def _dealt(randomness: random.Random, count: int, deck: Sequence[Fault]) -> list[Fault]:
    dealt: list[Fault] = []
    while len(dealt) < count:
        dealt += randomness.sample(deck, len(deck))
    return dealt[:count]

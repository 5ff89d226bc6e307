"""The crash table of the turn protocol, row by row: what ends at that point, and a plan that does each row n times."""

import random
from collections.abc import Mapping, Sequence
from typing import Final

from tests.chaos.faults import Fault, Kind
from tests.chaos.plan import Planned, planned

TURNS_APART: Final = 30
"""From one crash to the next: all that was under way at the first has ended by then."""

ROWS: Final[Mapping[str, Sequence[Fault]]] = {
    "before or inside BeginTurn": (
        Fault(Kind.EXIT, "gateway-1", "gateway.history.begin_turn.before"),
        Fault(Kind.EXIT, "history", "history.begin.before"),
    ),
    "after BeginTurn, its reply lost": (Fault(Kind.EXIT, "history", "history.begin.after"),),
    "gateway dies after BeginTurn": (Fault(Kind.EXIT, "gateway-2", "gateway.history.begin_turn.after"),),
    "llm-gateway dies in a call": (
        Fault(Kind.EXIT, "llm-gateway", "llm.provider.before"),
        Fault(Kind.EXIT, "llm-gateway", "llm.provider.after"),
    ),
    "after the ledger has the result": (
        Fault(Kind.EXIT, "llm-gateway", "llm.finish.after"),
        Fault(Kind.EXIT, "gateway-1", "gateway.llm.generate.after"),
    ),
    "inside CommitTurn": (
        Fault(Kind.EXIT, "history", "history.commit.before"),
        Fault(Kind.KILL, "history"),
    ),
    "inside CommitTurn, PostgreSQL too": (Fault(Kind.POSTGRES_KILL),),
    "after CommitTurn, its reply lost": (
        Fault(Kind.EXIT, "history", "history.commit.after"),
        Fault(Kind.EXIT, "gateway-2", "gateway.history.commit_turn.after"),
    ),
    "around ApplyTurn or the acknowledgement": (
        Fault(Kind.EXIT, "session", "session.advance.before"),
        Fault(Kind.EXIT, "assessment", "assessment.advance.after"),
        Fault(Kind.EXIT, "gateway-1", "gateway.history.acknowledge_streams.before"),
        Fault(Kind.EXIT, "history", "history.acknowledge.after"),
    ),
    "a paused owner wakes up": (Fault(Kind.PAUSE, "gateway-1"), Fault(Kind.PAUSE, "gateway-2")),
    "End during a turn": (Fault(Kind.END), Fault(Kind.EXIT, "history", "history.seal.after")),
    "Erase during a turn": (Fault(Kind.ERASE), Fault(Kind.EXIT, "history", "history.erase.after")),
}
"""By row, the faults that it stands for; they take turns."""


def crash_plan(seed: int, times: int) -> list[Planned]:
    """Every row so many times, the rows one after another."""
    randomness = random.Random(seed)
    crashes = [(row, faults[time % len(faults)]) for time in range(times) for row, faults in ROWS.items()]
    return [
        planned(randomness, number, number * TURNS_APART, fault, row) for number, (row, fault) in enumerate(crashes, 1)
    ]

"""A session as the directory shows it, and the turns that are folded into it.

An entry is a projection of its ledger (`libs.folding`). Values only, like `domain`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from libs.folding.runs import Digest, Position, Run
from libs.runtime.errors import FieldViolation, InvalidField
from services.session.domain import MAX_PER_TURN, NewSession, Status, Totals


@dataclass(frozen=True, slots=True)
class AppliedTurn:
    """What the directory folds of a committed turn; `seq` counts from 1. Raises InvalidField."""

    seq: int
    previous_digest: Digest
    digest: Digest
    totals: Totals

    def __post_init__(self) -> None:
        used = {"prompt_tokens": self.totals.prompt_tokens, "completion_tokens": self.totals.completion_tokens}
        counts = {**used, "cost_nano_usd": self.totals.cost_nano_usd}
        wrong = [name for name, count in counts.items() if not 0 <= count <= MAX_PER_TURN]
        if wrong:
            raise InvalidField([FieldViolation(name, f"0 to {MAX_PER_TURN}.") for name in wrong])


@dataclass(frozen=True, slots=True)
class Reading:
    """A run, and when its ledger was sealed, which it must say of one that is. Raises InvalidField."""

    run: Run[AppliedTurn]
    sealed_at: datetime | None = None

    def __post_init__(self) -> None:
        if self.run.sealed and self.sealed_at is None:
            raise InvalidField([FieldViolation("sealed_at", "Say when it was sealed.")])


@dataclass(frozen=True, slots=True)
class Entry:
    """A session, how far its ledger is folded, and what the folded turns used; `completed_at` is None until it is."""

    facts: NewSession
    position: Position
    totals: Totals
    completed_at: datetime | None = None

    @property
    def status(self) -> Status:
        return Status.COMPLETED if self.position.completed else Status.OPEN


def gained(turns: Iterable[AppliedTurn]) -> Totals:
    """What these turns used together."""
    return sum((turn.totals for turn in turns), Totals())

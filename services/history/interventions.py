"""Repairs by hand: what an operator may ask for, and what is put on record of it. Values only."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, NewType
from uuid import UUID

from libs.messages.text import storable
from libs.runtime.errors import FieldViolation
from services.history.admission import lease_left_ms
from services.history.commands import MAX_NAME_CODE_POINTS, refuse, within
from services.history.domain import Head, SessionId, Turn, TurnId

InterventionId = NewType("InterventionId", UUID)
"""The caller's: a repair whose answer got lost is not made twice."""

MAX_REASON_CODE_POINTS: Final = 500


class Action(StrEnum):
    """What an operator does to a stream."""

    RESET = "RESET"
    COMPLETE = "COMPLETE"


@dataclass(frozen=True, slots=True)
class NewIntervention:
    """A repair that is asked for; `actor` is the subject of who asks.

    Raises:
        InvalidField: naming every field that breaks a rule.
    """

    session_id: SessionId
    intervention_id: InterventionId
    action: Action | None
    actor: str
    reason: str

    def __post_init__(self) -> None:
        refuse(
            () if self.action else [FieldViolation("action", "must be given")],
            storable("actor", self.actor),
            within(1, MAX_NAME_CODE_POINTS, "actor", len(self.actor), " code points"),
            storable("reason", self.reason),
            within(1, MAX_REASON_CODE_POINTS, "reason", len(self.reason), " code points"),
        )


@dataclass(frozen=True, slots=True)
class Standing:
    """How a stream stood; `active_turn` is None and `lease_left_ms` 0 where no claim was held."""

    fence: int
    rev: int
    last_seq: int
    sealed: bool
    active_turn: TurnId | None
    lease_left_ms: int


def standing_of(head: Head, now: datetime) -> Standing:
    """How the stream stood when its head was read, at `now`."""
    left_ms = lease_left_ms(head, now)
    return Standing(head.fence, head.rev, head.last_seq, head.sealed, head.active_turn, left_ms)


@dataclass(frozen=True, slots=True)
class Intervention:
    """A repair on record; `turn_id` is the turn whose claim it ended, None for none."""

    session_id: SessionId
    intervention_id: InterventionId
    turn_id: TurnId | None
    action: Action
    actor: str
    reason: str
    before: Standing
    after: Standing
    at: datetime

    def answers(self, asked: NewIntervention) -> bool:
        """Whether this is what was asked for, and not something else under the same id."""
        return (self.action, self.actor, self.reason) == (asked.action, asked.actor, asked.reason)


@dataclass(frozen=True, slots=True)
class Inspection:
    """A turn as an operator saw it at `now`."""

    now: datetime
    head: Head
    turn: Turn
    user_tokens: int
    reply_tokens: int

    @property
    def lease_left_ms(self) -> int:
        """What is left of the turn's own claim."""
        return lease_left_ms(self.head, self.now) if self.head.active_turn == self.turn.turn_id else 0

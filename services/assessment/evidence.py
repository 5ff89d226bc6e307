"""What an interview has shown so far: the turns that were folded, the items that were asked, what answers scored.

Values only. An interview is a projection of its ledger (`libs.folding`); a score is no part of the fold, it joins its
turn by the turn's id, whichever comes first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, NewType
from uuid import UUID

from libs.folding.runs import Digest, Position
from libs.runtime.errors import FieldViolation, InvalidField
from services.assessment.domain import BankVersion, ItemId, Level, PlanName, Score, ScoredAnswer
from services.assessment.judging import Verdict

SessionId = NewType("SessionId", UUID)
TurnId = NewType("TurnId", UUID)
NanoUsd = NewType("NanoUsd", int)
"""Money, in 1e-9 US dollars."""

MAX_FAILED_CALLS: Final = 3
"""After so many judge calls without a usable verdict an answer is unscorable."""
PAUSES_MS: Final = (0, 3_000, 12_000)
"""How long an answer is left alone after so many failed calls: three within a few seconds may all meet one outage."""
MAX_UNSCORED: Final = 500


@dataclass(frozen=True, slots=True)
class AppliedTurn:
    """What the assessment folds of a committed turn; `item_answered` is None in the opening, `item_asked` in the last
    turn."""

    turn_id: TurnId
    seq: int
    previous_digest: Digest
    digest: Digest
    item_answered: ItemId | None
    item_asked: ItemId | None


@dataclass(frozen=True, slots=True)
class Pins:
    """What an interview measures with, from its start to its end."""

    plan: PlanName
    bank_version: BankVersion


@dataclass(frozen=True, slots=True)
class Interview:
    """An interview as far as it is folded: what it has asked, and the scores of folded answers."""

    pins: Pins
    position: Position
    asked: tuple[ItemId, ...]
    scored: tuple[ScoredAnswer, ...]


@dataclass(frozen=True, slots=True)
class AnswerKey:
    """The answer that is a turn's message."""

    session_id: SessionId
    turn_id: TurnId


class AnswerState(StrEnum):
    """Whether an answer has its score; the last two are for good."""

    PENDING = "PENDING"
    SCORED = "SCORED"
    UNSCORABLE = "UNSCORABLE"


@dataclass(frozen=True, slots=True)
class Standing:
    """Where an answer stands; it has a level once it is SCORED."""

    state: AnswerState
    level: Level | None = None


@dataclass(frozen=True, slots=True)
class Scored:
    """A verdict that was accepted, the score that it is worth, and who gave it: the prompt's version and the model."""

    verdict: Verdict
    score: Score
    judge_version: str
    judge_model: str


@dataclass(frozen=True, slots=True)
class Unscored:
    """An answer that has a seq and no score."""

    key: AnswerKey
    seq: int
    item_id: ItemId
    bank_version: BankVersion


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in the list of answers that wait for their scores, which runs from the one that has waited longest."""

    waits_from: datetime
    key: AnswerKey


LONGEST: Final = Cursor(datetime.min.replace(tzinfo=UTC), AnswerKey(SessionId(UUID(int=0)), TurnId(UUID(int=0))))
"""The place before the first answer."""


@dataclass(frozen=True, slots=True)
class UnscoredRequest:
    """At most `max_answers` after a place, that have waited for at least `min_age_ms`. Raises InvalidField."""

    max_answers: int
    min_age_ms: int
    after: Cursor = LONGEST

    def __post_init__(self) -> None:
        violations = []
        if not 1 <= self.max_answers <= MAX_UNSCORED:
            violations.append(FieldViolation("max_answers", f"1 to {MAX_UNSCORED}."))
        if self.min_age_ms < 0:
            violations.append(FieldViolation("min_age_ms", "At least 0."))
        if violations:
            raise InvalidField(violations)


@dataclass(frozen=True, slots=True)
class UnscoredPage:
    """Answers that have a seq and no score; `next` is where the next page begins, None on the last."""

    answers: tuple[Unscored, ...]
    next: Cursor | None


def asked_in(turns: Sequence[AppliedTurn]) -> tuple[ItemId, ...]:
    """The items that these turns asked, in their order."""
    return tuple(turn.item_asked for turn in turns if turn.item_asked is not None)

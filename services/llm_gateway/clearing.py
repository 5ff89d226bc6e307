"""Which turns' results and contexts may be asked to be cleared, and in which order the ledger names them.

Values only, like `domain`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from libs.runtime.errors import FieldViolation, InvalidField
from services.llm_gateway.domain import SessionId, TurnId

MAX_TURNS: Final = 500


@dataclass(frozen=True, slots=True)
class TurnKey:
    """A turn, as the ledger of calls knows it."""

    session_id: SessionId
    turn_id: TurnId


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in the list, which runs from the oldest call on."""

    dispatched_at: datetime
    turn: TurnKey


OLDEST: Final = Cursor(datetime.min.replace(tzinfo=UTC), TurnKey(SessionId(UUID(int=0)), TurnId(UUID(int=0))))
"""The place before the first call."""


@dataclass(frozen=True, slots=True)
class ClearableRequest:
    """At most so many turns after a place, all of whose calls ended at least `min_age_ms` ago. Raises InvalidField."""

    max_turns: int
    min_age_ms: int
    after: Cursor

    def __post_init__(self) -> None:
        if violations := [*self._violations()]:
            raise InvalidField(violations)

    def _violations(self) -> Iterator[FieldViolation]:
        if not 1 <= self.max_turns <= MAX_TURNS:
            yield FieldViolation("max_turns", f"1 to {MAX_TURNS}.")
        if self.min_age_ms < 0:
            yield FieldViolation("min_age_ms", "At least 0.")


@dataclass(frozen=True, slots=True)
class Clearable:
    """Turns that hold something, each once; `next` is where the next page begins, None on the last."""

    turns: tuple[TurnKey, ...]
    next: Cursor | None


@dataclass(frozen=True, slots=True)
class Settled:
    """Turns of one session that will never be asked for again. Raises InvalidField."""

    session_id: SessionId
    turn_ids: tuple[TurnId, ...]

    def __post_init__(self) -> None:
        if len(self.turn_ids) > MAX_TURNS:
            raise InvalidField([FieldViolation("turn_ids", f"At most {MAX_TURNS}.")])

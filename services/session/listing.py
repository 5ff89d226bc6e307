"""Who may see which entries, and the places in a list of them.

Values only, like `domain`.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from libs.runtime.errors import FieldViolation, InvalidField
from services.session.domain import Kind, OwnerId, SessionId
from services.session.entries import Entry

MAX_PAGE_SIZE: Final = 200


@dataclass(frozen=True, slots=True)
class Viewer:
    """On whose behalf the directory is read: `owner_id` None sees every owner's sessions, `kind` None both kinds."""

    owner_id: OwnerId | None
    kind: Kind | None


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in the list, which runs from the newest session to the oldest: what follows is older."""

    created_at: datetime
    session_id: SessionId


NEWEST: Final = Cursor(datetime.max.replace(tzinfo=UTC), SessionId(UUID(int=2**128 - 1)))
"""The place before the first entry."""


@dataclass(frozen=True, slots=True)
class PageRequest:
    """At most `size` entries, 1 to MAX_PAGE_SIZE, that follow `after`. Raises InvalidField."""

    size: int
    after: Cursor

    def __post_init__(self) -> None:
        if not 1 <= self.size <= MAX_PAGE_SIZE:
            raise InvalidField([FieldViolation("page_size", f"1 to {MAX_PAGE_SIZE}, or 0 for the default.")])


@dataclass(frozen=True, slots=True)
class Page:
    """Entries, newest first; `next` is where the next page begins, None on the last."""

    entries: tuple[Entry, ...]
    next: Cursor | None

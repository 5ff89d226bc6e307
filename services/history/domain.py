"""What a stream of turns is made of: values, and the one function of them that belongs to no rule of its own.

Nothing here reads a clock or a database, or draws a random number. Whether a message may enter is in `admission`, what
a caller may ask in `commands`, the chain in `digest`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NewType
from uuid import UUID

SessionId = NewType("SessionId", UUID)
TurnId = NewType("TurnId", UUID)
RequestId = NewType("RequestId", UUID)
ClaimId = NewType("ClaimId", UUID)
"""Random per request of a gateway: tells a lost reply from a second gateway."""
OwnerId = NewType("OwnerId", str)
Fence = NewType("Fence", int)
"""Grows with every claim and seal; what a commit must show."""
Rev = NewType("Rev", int)
"""Grows with every write to a head or to one of its turns."""
Digest = NewType("Digest", bytes)
"""32 bytes."""


class Kind(StrEnum):
    """What a session is."""

    INTERVIEW = "interview"
    CHAT = "chat"


class TurnState(StrEnum):
    """Where a turn stands; COMMITTED and FAILED are absorbing."""

    RUNNING = "RUNNING"
    COMMITTED = "COMMITTED"
    FAILED = "FAILED"
    ABANDONED = "ABANDONED"


@dataclass(frozen=True, slots=True)
class Head:
    """The state of a stream outside its turns.

    `active_turn`, `claim_id` and `lease_until` are the claim that is held, all None where there is none. `rev`, `fence`
    and `changed_at` are those of the last write, to the stream or to one of its turns. What Erase has cleared,
    `personal_facts` and `fingerprint`, is empty.
    """

    session_id: SessionId
    owner_id: OwnerId
    tenant_id: str
    kind: Kind
    facts: bytes
    personal_facts: bytes
    fingerprint: bytes
    max_turns: int
    min_interval_ms: int
    lease_ms: int
    last_seq: int
    fence: Fence
    rev: Rev
    acked_rev: Rev
    active_turn: TurnId | None
    claim_id: ClaimId | None
    lease_until: datetime | None
    last_begin_at: datetime | None
    sealed_at: datetime | None
    created_at: datetime
    changed_at: datetime
    digest: Digest
    erased: bool

    @property
    def sealed(self) -> bool:
        return self.sealed_at is not None


@dataclass(frozen=True, slots=True)
class Turn:
    """One row of the ledger: a message and its reply.

    `seq` (else 0), `reply_text`, `record`, the digests and `committed_at` are there once it is committed; `reason` once
    it FAILED or was ABANDONED. `user_text` is None in the opening of an interview only.
    """

    turn_id: TurnId
    request_id: RequestId
    fingerprint: bytes
    state: TurnState
    reason: str
    fence: Fence
    base_seq: int
    seq: int
    user_text: str | None
    reply_text: str
    item_answered: str
    item_asked: str
    record: bytes
    previous_digest: Digest
    digest: Digest
    begun_at: datetime
    committed_at: datetime | None


@dataclass(frozen=True, slots=True)
class TurnStatus:
    """Where a turn stands for its request, and no more of it; `committed_at` is None while it is not COMMITTED.

    FAILED is also what was ABANDONED on a base that has been built upon: it can never be answered any more.
    """

    session_id: SessionId
    turn_id: TurnId
    state: TurnState
    committed_at: datetime | None


@dataclass(frozen=True, slots=True)
class WindowLimit:
    """The context that a model is given: the newest messages within both bounds."""

    max_messages: int
    max_tokens: int


@dataclass(frozen=True, slots=True)
class WindowMessage:
    """One message of the context, with the tokens counted when it was stored."""

    from_user: bool
    text: str
    tokens: int


def select_window(newest_first: Iterable[WindowMessage], limit: WindowLimit) -> list[WindowMessage]:
    """The newest messages within the limit, oldest first. A message that does not fit ends the window: no gaps."""
    window: list[WindowMessage] = []
    tokens_left = limit.max_tokens
    for message in newest_first:
        tokens_left -= message.tokens
        if tokens_left < 0 or len(window) >= limit.max_messages:
            break
        window.append(message)
    window.reverse()
    return window


def within_bytes(turns: Sequence[Turn], max_bytes: int, *, newest: bool) -> list[Turn]:
    """As many consecutive turns as fit, at least one: from the oldest on, or from the newest back. The order stays."""
    fitting = how_many_fit(map(size_of, reversed(turns) if newest else turns), max_bytes)
    return list(turns[len(turns) - fitting :] if newest else turns[:fitting])


def how_many_fit(sizes: Iterable[int], max_bytes: int) -> int:
    """How many things of these sizes, in bytes, fit one after the other; the first one always does."""
    left, fitting = max_bytes, 0
    for size in sizes:
        left -= size
        if fitting and left < 0:
            break
        fitting += 1
    return fitting


def size_of(turn: Turn) -> int:
    """The bytes of what a turn says."""
    return len((turn.user_text or "").encode()) + len(turn.reply_text.encode()) + len(turn.record)

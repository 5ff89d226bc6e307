"""Whether a message may enter, and who answers it: the one rule of the system that refuses.

A function of values that were read from one database snapshot. Its decisions are not yet true: those that write are
carried out only if the head still has the rev that was read (see `store`).
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from libs.runtime.errors import (
    Conflict,
    FieldViolation,
    InvalidField,
    RateLimited,
    RequestIdReused,
    SessionClosed,
    SessionLimit,
)
from services.history.domain import ClaimId, Head, RequestId, Turn, TurnState

_MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Request:
    """What admission knows of a message or of an opening. `in_reply_to` is None where the client does not say."""

    request_id: RequestId
    claim_id: ClaimId
    fingerprint: bytes
    in_reply_to: int | None = None


@dataclass(frozen=True, slots=True)
class Replay:
    """The turn is COMMITTED or FAILED: answer with it."""

    turn: Turn


@dataclass(frozen=True, slots=True)
class Hold:
    """The asker holds the claim already: an earlier reply was lost."""

    turn: Turn
    lease_left_ms: int


@dataclass(frozen=True, slots=True)
class InProgress:
    """Somebody else answers the same request."""

    turn: Turn
    lease_left_ms: int


@dataclass(frozen=True, slots=True)
class OtherTurn:
    """Another request holds the session; `lease_left_ms` is 0 once its turn is ripe for repair."""

    turn: Turn
    lease_left_ms: int


@dataclass(frozen=True, slots=True)
class Claim:
    """A new turn may begin."""


@dataclass(frozen=True, slots=True)
class TakeOver:
    """The request's own turn may run again, under a new fence and on the same base."""

    turn: Turn


@dataclass(frozen=True, slots=True)
class Supersede:
    """The ledger has moved on since the turn was begun: it FAILED(CONFLICT). An answer is never judged against
    another question."""

    turn: Turn


Decision = Replay | Hold | InProgress | OtherTurn | Claim | TakeOver | Supersede


def admit(head: Head, same: Turn | None, active: Turn | None, request: Request, now: datetime) -> Decision:
    """Decide on a request, in the order of the turn protocol.

    Args:
        head: of a stream that the asker may see.
        same: the turn of the same request id, if there is one: without it the request is new.
        active: the turn that holds the claim, if one does.
        now: by the clock that wrote `head.lease_until`.

    Raises:
        RequestIdReused, SessionClosed, Conflict, InvalidField, SessionLimit, RateLimited: in this order.
    """
    if same is not None:
        if same.fingerprint != request.fingerprint:
            raise RequestIdReused
        if same.state in {TurnState.COMMITTED, TurnState.FAILED}:
            return Replay(same)
    if head.sealed:
        raise SessionClosed
    if same is None:
        _check_reply(head, request.in_reply_to)
    if active is not None:
        left_ms = lease_left_ms(head, now)
        if same is None or active.turn_id != same.turn_id:
            return OtherTurn(active, left_ms)
        if left_ms:
            return (Hold if head.claim_id == request.claim_id else InProgress)(active, left_ms)
    if same is None:  # what was let in once has a row, and is answered by what becomes of that (I3)
        if head.last_seq >= head.max_turns:
            raise SessionLimit
        _check_pace(head, now)
        return Claim()
    return TakeOver(same) if same.base_seq == head.last_seq else Supersede(same)


def lease_left_ms(head: Head, now: datetime) -> int:
    """What is left of the claim that is held, rounded up; 0 once it has expired or where none is held."""
    return 0 if head.lease_until is None else _milliseconds(head.lease_until - now)


def was_taken_over(head: Head, turn: Turn) -> bool:
    """Whether the claim that is held is not the turn's first, which was made when the turn was."""
    return head.lease_until != turn.begun_at + head.lease_ms * _MILLISECOND


def _check_reply(head: Head, in_reply_to: int | None) -> None:
    if in_reply_to is None or in_reply_to == head.last_seq:
        return
    if in_reply_to < head.last_seq:
        raise Conflict
    raise InvalidField([FieldViolation("in_reply_to", "names a turn that is not there yet")])


def _check_pace(head: Head, now: datetime) -> None:
    if head.last_begin_at is not None:
        wait_ms = _milliseconds(head.last_begin_at + head.min_interval_ms * _MILLISECOND - now)
        if wait_ms and head.min_interval_ms:
            raise RateLimited(min(wait_ms, head.min_interval_ms))  # a clock set back must not add to the wait


def _milliseconds(left: timedelta) -> int:
    """Rounded up, so that what is left is never called 0; nothing is left of a negative duration."""
    return max(0, -(-left // _MILLISECOND))

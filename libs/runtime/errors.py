# ruff: noqa: N818 (the names are the contract's reasons)
"""Why a request was refused or failed, as types that mean the same in every process.

Domain code raises these; one interceptor turns them into a gRPC status and one client turns that status back into the
same type, so a reason is decided in exactly one place. Standard library only: `domain.py` modules import this file.
A `detail` is read by end users: it never holds a message's text, a token, or another system's error text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar


class Reason(StrEnum):
    """The stable, machine-readable word for a failure: what clients branch on."""

    MALFORMED = "MALFORMED"
    INVALID_FIELD = "INVALID_FIELD"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    ROLE_MISSING = "ROLE_MISSING"
    NOT_FOUND = "NOT_FOUND"
    TURN_IN_PROGRESS = "TURN_IN_PROGRESS"
    SESSION_CLOSED = "SESSION_CLOSED"
    CONFLICT = "CONFLICT"
    SESSION_LIMIT = "SESSION_LIMIT"
    TOO_LARGE = "TOO_LARGE"
    RATE_LIMITED = "RATE_LIMITED"
    INTERNAL = "INTERNAL"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    UNAVAILABLE = "UNAVAILABLE"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field that breaks a rule; `field` is its name in the request, `message` a sentence for its author."""

    field: str
    message: str


class ColloquyError(Exception):
    """A failure with a reason. Raise a subclass, never this class.

    Args:
        detail: a sentence that is safe to show to any client; each subclass has a default.
        violations: the fields at fault (`InvalidField`).
        retry_after_ms: when the same request is worth sending again; None where it is not, or not known.
        metadata: further stable facts for machines.
    """

    reason: ClassVar[Reason]
    summary: ClassVar[str]
    default_retry_after_ms: ClassVar[int | None] = None

    def __init__(
        self,
        detail: str | None = None,
        *,
        violations: Sequence[FieldViolation] = (),
        retry_after_ms: int | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self.detail = self.summary if detail is None else detail
        self.violations = tuple(violations)
        self.retry_after_ms = self.default_retry_after_ms if retry_after_ms is None else retry_after_ms
        self.metadata: Mapping[str, str] = {} if metadata is None else dict(metadata)
        super().__init__(self.detail)


class Malformed(ColloquyError):
    reason = Reason.MALFORMED
    summary = "The request could not be read."


class InvalidField(ColloquyError):
    """Raised with every violated field of the request at once."""

    reason = Reason.INVALID_FIELD
    summary = "A field of the request is not valid."

    def __init__(
        self,
        violations: Sequence[FieldViolation],
        detail: str | None = None,
        *,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail, violations=violations, metadata=metadata)


class RequestIdReused(ColloquyError):
    reason = Reason.REQUEST_ID_REUSED
    summary = "This request id was used before, with another request."


class Unauthenticated(ColloquyError):
    reason = Reason.UNAUTHENTICATED
    summary = "A valid bearer token is required."


class RoleMissing(ColloquyError):
    reason = Reason.ROLE_MISSING
    summary = "The token's roles do not allow this."


class NotFound(ColloquyError):
    """Absent and not yours are the same answer: leave the detail alone where the two must not be told apart."""

    reason = Reason.NOT_FOUND
    summary = "There is no such thing."


class _Timed(ColloquyError):
    """An error whose wait is known when it is raised."""

    def __init__(
        self, retry_after_ms: int, detail: str | None = None, *, metadata: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail, retry_after_ms=retry_after_ms, metadata=metadata)


class TurnInProgress(_Timed):
    reason = Reason.TURN_IN_PROGRESS
    summary = "A turn of this session is still being answered."


class SessionClosed(ColloquyError):
    reason = Reason.SESSION_CLOSED
    summary = "This session has ended."


class Conflict(ColloquyError):
    reason = Reason.CONFLICT
    summary = "The session has moved on since the request was made."


class SessionLimit(ColloquyError):
    reason = Reason.SESSION_LIMIT
    summary = "This session has had all its turns."


class TooLarge(ColloquyError):
    reason = Reason.TOO_LARGE
    summary = "The request is too large."


class RateLimited(_Timed):
    reason = Reason.RATE_LIMITED
    summary = "Too many requests."


class Internal(ColloquyError):
    reason = Reason.INTERNAL
    summary = "Something went wrong on our side."


class Unimplemented(ColloquyError):
    reason = Reason.UNIMPLEMENTED
    summary = "This is not implemented."


class Unavailable(ColloquyError):
    """Not confirmed: the same request with the same id is safe to send again."""

    reason = Reason.UNAVAILABLE
    summary = "The service is unavailable; the same request may be sent again."
    default_retry_after_ms = 1000


class DeadlineExceeded(ColloquyError):
    """Not confirmed: the same request with the same id is safe to send again."""

    reason = Reason.DEADLINE_EXCEEDED
    summary = "The request took too long; it may be sent again."
    default_retry_after_ms = 1000


BY_REASON: Mapping[Reason, type[ColloquyError]] = {
    error.reason: error
    for error in (
        Malformed,
        InvalidField,
        RequestIdReused,
        Unauthenticated,
        RoleMissing,
        NotFound,
        TurnInProgress,
        SessionClosed,
        Conflict,
        SessionLimit,
        TooLarge,
        RateLimited,
        Internal,
        Unimplemented,
        Unavailable,
        DeadlineExceeded,
    )
}


def error_of(
    reason: Reason,
    detail: str | None = None,
    *,
    violations: Sequence[FieldViolation] = (),
    retry_after_ms: int | None = None,
    metadata: Mapping[str, str] | None = None,
) -> ColloquyError:
    """The error for a reason that was read off a wire, whatever arguments its constructor asks of domain code."""
    kind = BY_REASON[reason]
    error = kind.__new__(kind)
    ColloquyError.__init__(error, detail, violations=violations, retry_after_ms=retry_after_ms, metadata=metadata)
    return error

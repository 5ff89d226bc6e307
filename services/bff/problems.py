"""Failures as clients of the REST interface see them: RFC 9457 problems.

The only place that knows HTTP statuses. A new `Reason` without a row here fails the tests, not a request.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from libs.runtime.errors import ColloquyError, FieldViolation, NotFound, Reason

MEDIA_TYPE = "application/problem+json"
METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED"
UNSUPPORTED_MEDIA_TYPE = "UNSUPPORTED_MEDIA_TYPE"
DEFAULT_RETRY_AFTER_MS = 1000


@dataclass(frozen=True, slots=True)
class _Row:
    status: int
    title: str
    retried: bool = False  # always says when to try again


ROWS: Mapping[str, _Row] = {
    Reason.MALFORMED: _Row(400, "The request cannot be read"),
    Reason.INVALID_FIELD: _Row(422, "A field is not valid"),
    Reason.REQUEST_ID_REUSED: _Row(422, "The key was used for another request"),
    Reason.UNAUTHENTICATED: _Row(401, "Not authenticated"),
    Reason.ROLE_MISSING: _Row(403, "Not allowed"),
    Reason.NOT_FOUND: _Row(404, "Not found"),
    METHOD_NOT_ALLOWED: _Row(405, "Method not allowed"),
    Reason.TURN_IN_PROGRESS: _Row(409, "A turn is in progress", retried=True),
    Reason.SESSION_CLOSED: _Row(409, "The session has ended"),
    Reason.CONFLICT: _Row(409, "The session has moved on"),
    Reason.SESSION_LIMIT: _Row(409, "The session has had all its turns"),
    Reason.TOO_LARGE: _Row(413, "Too large"),
    UNSUPPORTED_MEDIA_TYPE: _Row(415, "Unsupported media type"),
    Reason.RATE_LIMITED: _Row(429, "Too many requests", retried=True),
    Reason.INTERNAL: _Row(500, "Internal error"),
    Reason.UNIMPLEMENTED: _Row(501, "Not implemented"),
    Reason.UNAVAILABLE: _Row(503, "Unavailable", retried=True),
    Reason.DEADLINE_EXCEEDED: _Row(504, "Out of time", retried=True),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One failure, ready to be rendered; `headers` are those that its status asks for."""

    reason: str
    detail: str
    violations: Sequence[FieldViolation] = ()
    retry_after_ms: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def status(self) -> int:
        return ROWS[self.reason].status

    def body(self, correlation_id: str) -> bytes:
        """The problem document. For NOT_FOUND it depends on the correlation id alone."""
        document: dict[str, object] = {
            "type": f"urn:colloquy:problem:{self.reason.lower().replace('_', '-')}",
            "title": ROWS[self.reason].title,
            "status": self.status,
            "detail": self.detail,
            "reason": self.reason,
            "correlation_id": correlation_id,
        }
        if self.violations:
            document["errors"] = [{"field": it.field, "message": it.message} for it in self.violations]
        if self.retry_after_ms is not None:
            document["retry_after_ms"] = self.retry_after_ms
        return orjson.dumps(document)


def of_error(error: ColloquyError) -> Problem:
    """The problem that a typed error means. A wait is whole seconds in the header, at least one."""
    row = ROWS[error.reason]
    retry_after_ms = error.retry_after_ms
    if retry_after_ms is None and row.retried:
        retry_after_ms = DEFAULT_RETRY_AFTER_MS
    headers: dict[str, str] = {}
    if retry_after_ms is not None:
        headers["Retry-After"] = str(max(1, math.ceil(retry_after_ms / 1000)))
    if error.reason is Reason.UNAUTHENTICATED:
        headers["WWW-Authenticate"] = "Bearer"
    # Absent, erased, not yours, no such route: one answer, whatever was said on the way.
    detail = NotFound.summary if error.reason is Reason.NOT_FOUND else error.detail
    return Problem(error.reason.value, detail, error.violations, retry_after_ms, headers)


def method_not_allowed(allowed: Sequence[str]) -> Problem:
    """A route that exists, for other methods (RFC 9110, section 15.5.6)."""
    return Problem(METHOD_NOT_ALLOWED, "This route has other methods.", headers={"Allow": ", ".join(allowed)})


def unsupported_media_type() -> Problem:
    """A body that is not JSON by its own account (RFC 9110, section 15.5.16)."""
    return Problem(UNSUPPORTED_MEDIA_TYPE, "Send JSON: application/json.", headers={"Accept": "application/json"})

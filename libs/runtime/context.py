"""The call being served: who asked, until when, and what its log line says.

Context variables hold it, so that tasks started by a handler inherit it. grpc.aio passes no deadline on to inner calls;
`remaining_ms()` is how our client does. Trace context is W3C Trace Context (https://www.w3.org/TR/trace-context/),
placed by hand: each hop keeps the trace id and has a span id of its own.
"""

import random
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(?:-.*)?")
MAX_CORRELATION_ID_CHARS = 128
MAX_AUTHORIZATION_CHARS = 6000  # gRPC takes 8 KB of metadata

# Ids must differ, not be unguessable: a generator seeded by the system costs less than a system call for each.
_random = random.Random()


class Call:
    """One served call, or one round of a background loop. `fields` end in its log lines.

    Its ids are read or made when first asked for: by a call that it makes, else by its log line (see `logs`).
    """

    __slots__ = ("_ids", "_metadata", "_traceparent", "fields", "outgoing", "rpc")

    def __init__(self, metadata: Mapping[str, str], rpc: str) -> None:
        self._metadata = metadata
        self._ids: tuple[str, str, str] | None = None
        self._traceparent = ""
        self.outgoing: object = None  # `identity()` as a client sends it, made once
        self.rpc = rpc
        self.fields: dict[str, str] = {}

    def ids(self) -> tuple[str, str, str]:
        """Correlation id, trace id, trace flags: the caller's, or new ones where those are absent or malformed."""
        if self._ids is None:
            correlation_id = self._printable("x-correlation-id", MAX_CORRELATION_ID_CHARS) or _random_hex(128)
            parent = _TRACEPARENT.fullmatch(self._metadata.get("traceparent", ""))
            trace_id, flags = parent.groups() if parent else (_random_hex(128), "00")
            self._ids = (correlation_id, trace_id, flags)
        return self._ids

    def authorization(self) -> str:
        return self._printable("authorization", MAX_AUTHORIZATION_CHARS)

    def _printable(self, name: str, most_chars: int) -> str:
        """A value that gRPC metadata can carry on, else nothing."""
        value = self._metadata.get(name, "")
        return value if len(value) <= most_chars and value.isascii() and value.isprintable() else ""

    def traceparent(self) -> str:
        """What to hand on: the caller's trace, with this hop's own span as the parent."""
        if not self._traceparent:
            _, trace_id, flags = self.ids()
            self._traceparent = f"00-{trace_id}-{_random_hex(64)}-{flags}"
        return self._traceparent

    def identity(self) -> list[tuple[str, str]]:
        """The metadata that each call made on behalf of this one carries."""
        pairs = [("x-correlation-id", self.ids()[0]), ("traceparent", self.traceparent())]
        authorization = self.authorization()
        return [*pairs, ("authorization", authorization)] if authorization else pairs


def _random_hex(bits: int) -> str:
    return f"{_random.getrandbits(bits):0{bits // 4}x}"


_call: ContextVar[Call | None] = ContextVar("call", default=None)
_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)  # seconds on the monotonic clock


def begin(metadata: Mapping[str, str], *, budget_ms: float | None = None, rpc: str = "") -> Call:
    """Make this task serve a new call, with what `x-correlation-id`, `traceparent` and `authorization` say.

    What is absent or malformed is made anew. Used by the server interceptor; elsewhere prefer `serving`.
    """
    call = Call(metadata, rpc)
    _call.set(call)
    _deadline.set(None if budget_ms is None else time.monotonic() + budget_ms / 1000)
    return call


@contextmanager
def serving(
    metadata: Mapping[str, str] | None = None, *, budget_ms: float | None = None, rpc: str = ""
) -> Iterator[Call]:
    """A call that did not come over gRPC: an HTTP request (give its headers, names in lower case), a sweep's round."""
    call_token, deadline_token = _call.set(None), _deadline.set(None)
    try:
        yield begin(metadata or {}, budget_ms=budget_ms, rpc=rpc)
    finally:
        _deadline.reset(deadline_token)
        _call.reset(call_token)


def current() -> Call | None:
    """The call being served by this task, if any."""
    return _call.get()


def correlation_id() -> str:
    """The id that joins all log lines of one user request; empty outside a call."""
    call = _call.get()
    return call.ids()[0] if call else ""


def traceparent() -> str:
    """The W3C traceparent to hand on, with this hop's span as the parent; empty outside a call."""
    call = _call.get()
    return call.traceparent() if call else ""


def authorization() -> str:
    """The caller's `authorization` value, to be verified; empty where there is none."""
    call = _call.get()
    return call.authorization() if call else ""


def bind(**fields: object) -> None:
    """Add fields (session_id, turn_id, ...) to the call's log lines. Ids and codes only, never content."""
    call = _call.get()
    if call:
        for name, value in fields.items():
            call.fields[name] = str(value)


def remaining_ms() -> int | None:
    """Milliseconds left before the call's deadline, 0 once it has passed; None where there is no deadline."""
    deadline_at = _deadline.get()
    return None if deadline_at is None else max(0, int((deadline_at - time.monotonic()) * 1000))


@contextmanager
def deadline(budget_ms: float) -> Iterator[None]:
    """Narrow the deadline inside the block to `budget_ms` from now; it never widens."""
    now_left, until = _deadline.get(), time.monotonic() + budget_ms / 1000
    token = _deadline.set(until if now_left is None else min(now_left, until))
    try:
        yield
    finally:
        _deadline.reset(token)


@contextmanager
def detach(budget_ms: float | None = None) -> Iterator[None]:
    """Inside the block the caller's deadline does not count; `budget_ms` is the deadline instead, if given.

    Start a task in the block, or use the block in the task: the ids, the token and the log fields stay.
    """
    token = _deadline.set(None if budget_ms is None else time.monotonic() + budget_ms / 1000)
    try:
        yield
    finally:
        _deadline.reset(token)

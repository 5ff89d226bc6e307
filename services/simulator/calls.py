"""Remembers the latest calls, so that tests and benchmarks can tell what reached the model and how long it took.

Never a message's text. Memory is bounded: the oldest calls are forgotten, and the report says how many.
"""

import itertools
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from services.simulator.chat_request import Purpose
from services.simulator.json_schema import Json
from services.simulator.settings import Fault

_CAPACITY = 50_000


class Outcome(StrEnum):
    """How a call ended."""

    ANSWERED = "answered"
    """200, and everything was sent."""
    REFUSED = "refused"
    """An error status."""
    BROKEN = "broken"
    """200, but cut off or not JSON."""
    ABANDONED = "abandoned"
    """The caller went away first, or the simulator was stopped."""


@dataclass(slots=True)
class Call:
    """One call; what is not known yet, or never was because the request was unreadable, is None or 0."""

    call_id: str
    started_at: datetime
    started: float
    """`time.monotonic()` when the headers of the request had been read."""
    purpose: Purpose | None = None
    streamed: bool = False
    fault: Fault | None = None
    status: int | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    outcome: Outcome = Outcome.ABANDONED
    duration_ms: float = 0.0
    """Until the last byte was handed to the operating system."""

    def as_json(self) -> dict[str, Json]:
        """Return the call as `GET /simulator/calls` reports it; without an outcome while it runs."""
        return {
            "call": self.call_id,
            "started_at": self.started_at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "purpose": self.purpose,
            "streamed": self.streamed,
            "fault": self.fault,
        }

    def as_ended_json(self, number: int) -> dict[str, Json]:
        """Return an ended call with its number."""
        return {
            "number": number,
            **self.as_json(),
            "status": self.status,
            "outcome": self.outcome,
            "duration_ms": round(self.duration_ms, 3),
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
        }


@dataclass(slots=True)
class CallLog:
    """The running calls and the latest of the ended ones, which are numbered 1, 2, 3 ... in the order of ending."""

    capacity: int = _CAPACITY
    _ended: deque[Call] = field(init=False)
    _running: dict[int, Call] = field(init=False, default_factory=dict)
    _last: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._ended = deque(maxlen=self.capacity)

    def begin(self, call_id: str) -> Call:
        """Note that a call has arrived."""
        call = Call(call_id, datetime.now(UTC), time.monotonic())
        self._running[id(call)] = call
        return call

    def end(self, call: Call) -> None:
        """Note that the call is over; its outcome has been set."""
        call.duration_ms = (time.monotonic() - call.started) * 1000
        del self._running[id(call)]
        self._last += 1
        self._ended.append(call)

    def report(self, since: int) -> Json:
        """Return the calls that ended after number `since`, the last number, how many are lost, and the running."""
        forgotten = self._last - len(self._ended)
        first = max(since, forgotten)
        wanted = itertools.islice(self._ended, first - forgotten, None)
        return {
            "calls": [call.as_ended_json(number) for number, call in enumerate(wanted, start=first + 1)],
            "last": self._last,
            "forgotten": max(0, forgotten - since),
            "running": [call.as_json() for call in self._running.values()],
        }

    def clear(self) -> None:
        """Forget the ended calls and number from 1 again; running ones will be added when they end."""
        self._ended.clear()
        self._last = 0

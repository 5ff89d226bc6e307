"""One simulated candidate over REST: starts interviews, answers one question after another, and times each answer."""

import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from tests.bench.figures import Turn

_INTERVIEWS = "/api/v1/interviews"
_EVENTS = "text/event-stream"


class TurnError(Exception):
    """A request was not answered as it should be; the text says how, by status and reason."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A turn as the product reported it, and when its draft began."""

    turn: Mapping[str, Any]
    first_delta_at: float | None = None


class Candidate:
    """Answers until an interview is over, then starts the next.

    Args:
        http: with the BFF as its base URL; shared, so that its connections are.
        token: this candidate's own.
        says: what is answered, without end.
    """

    def __init__(self, http: aiohttp.ClientSession, token: str, says: Iterator[str], *, streamed: bool) -> None:
        self._http = http
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._accept = {"Accept": _EVENTS} if streamed else {}
        self._says = says
        self._interview: str | None = None

    async def prepare(self) -> float | None:
        """Have an interview to go on with; how many milliseconds starting one took, None where there was one.

        Raises:
            TurnError: none could be started.
        """
        if self._interview is not None:
            return None
        began = time.perf_counter()
        interview = await self._start()
        self._interview = interview["interview_id"]
        return (time.perf_counter() - began) * 1000

    async def answer(self) -> Turn:
        """Answer the question; `prepare` comes first.

        Raises:
            TurnError: the answer was not accepted, or not answered. The interview is left, for a new one.
        """
        path = f"{_INTERVIEWS}/{self._interview}/messages"
        body = orjson.dumps({"message_text": next(self._says)})
        began = time.perf_counter()
        try:
            reply = await self._send(path, body)
        except TurnError:
            self._interview = None
            raise
        turn_ms, ended_at = (time.perf_counter() - began) * 1000, time.time()
        if reply.turn["session_status"] != "open":
            self._interview = None
        return Turn(
            session_id=reply.turn["session_id"],
            turn_id=reply.turn["turn_id"],
            turn_ms=turn_ms,
            ended_at=ended_at,
            degraded=reply.turn["degraded"],
            stages_ms=reply.turn["timing"]["stages"],
            first_delta_ms=None if reply.first_delta_at is None else (reply.first_delta_at - began) * 1000,
        )

    async def _start(self) -> Mapping[str, Any]:
        return (await self._send(_INTERVIEWS, b"{}", accept={})).turn

    async def _send(self, path: str, body: bytes, accept: Mapping[str, str] | None = None) -> Reply:
        headers = {
            **self._headers,
            **(self._accept if accept is None else accept),
            "Idempotency-Key": str(uuid.uuid4()),
        }
        try:
            async with self._http.post(path, data=body, headers=headers) as response:
                if response.content_type == _EVENTS:
                    return await _streamed(response)
                document: Mapping[str, Any] = orjson.loads(await response.read())
        except (aiohttp.ClientError, TimeoutError, orjson.JSONDecodeError) as error:
            raise TurnError(type(error).__name__) from error
        if not response.ok:
            raise TurnError(f"{response.status} {document.get('reason', '')}")
        return Reply(document)


async def _streamed(response: aiohttp.ClientResponse) -> Reply:
    first_delta_at = None
    async for event, data in _events(response.content):
        if event == b"delta" and first_delta_at is None:
            first_delta_at = time.perf_counter()
        elif event == b"completed":
            return Reply(orjson.loads(data), first_delta_at)
        elif event == b"failed":
            raise TurnError(f"failed {orjson.loads(data).get('reason', '')}")
    raise TurnError("the stream ended early")


async def _events(content: aiohttp.StreamReader) -> AsyncIterator[tuple[bytes, bytes]]:
    """Name and data of each server-sent event; ours have one line of data."""
    event = b""
    async for line in content:
        if line.startswith(b"event: "):
            event = line[7:].rstrip()
        elif line.startswith(b"data: "):
            yield event, line[6:]

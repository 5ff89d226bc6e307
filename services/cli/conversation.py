"""A client of the REST face, for the terminal: it sends, follows the stream, waits where it is told to, and retries.

A message keeps its id across retries, so a lost answer is asked for again and never answered twice.
"""

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp

from services.cli.errors import CommandError

REQUEST_SECONDS = 20.0  # above the longest turn, a chat's 15 s
RETRY_SECONDS = 30.0  # after this long a request is not sent again
PAUSE_SECONDS = 1.0
TRANSIENT_REASONS = frozenset({"TURN_IN_PROGRESS", "RATE_LIMITED", "UNAVAILABLE", "DEADLINE_EXCEEDED"})

Say = Callable[[str], None]
Body = dict[str, Any]


class ConversationError(CommandError):
    """The product refused or could not be reached; the text is for whoever types."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn as the client saw it; duration_ms from sending the request that was answered to its last byte."""

    text: str
    seq: int
    final: bool
    degraded: list[str]
    duration_ms: float


class _RetryableError(Exception):
    def __init__(self, why: str, wait_seconds: float) -> None:
        self.wait_seconds = wait_seconds
        super().__init__(why)


class Conversation:
    """One candidate's or user's side. Use as a context manager.

    Args:
        url: of the BFF.
        token: a bearer token with the role candidate.
        request_seconds: how long a request may take, whole.
    """

    def __init__(self, url: str, token: str, request_seconds: float = REQUEST_SECONDS) -> None:
        self._url = url
        self._request_seconds = request_seconds
        self._reached = False
        self._http = aiohttp.ClientSession(
            base_url=url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=aiohttp.ClientTimeout(total=request_seconds),
        )

    async def __aenter__(self) -> "Conversation":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    async def start_interview(self, plan: str | None, name: str | None) -> tuple[str, str]:
        """Open an interview; its id and the opening."""
        body = {key: value for key, value in (("plan", plan), ("candidate_name", name)) if value}
        interview, _ = await self._ask("/api/v1/interviews", body)
        return interview["interview_id"], interview["message"]["text"]

    async def answer(self, interview_id: str, text: str, say: Say) -> Turn:
        """Send an answer; the draft of the reply goes to `say` as it comes."""
        turn, duration_ms = await self._ask(f"/api/v1/interviews/{interview_id}/messages", {"message_text": text}, say)
        return _turn(turn, duration_ms)

    async def chat(self, conversation_id: str | None, text: str, say: Say) -> tuple[str, Turn]:
        """Send a chat message; the conversation's id and the turn."""
        body = {"message": text} | ({"conversation_id": conversation_id} if conversation_id else {})
        turn, duration_ms = await self._ask("/api/v1/chat", body)
        say(turn["reply"]["text"])
        return turn["session_id"], _turn(turn, duration_ms)

    async def _ask(self, path: str, body: Body, say: Say | None = None) -> tuple[Body, float]:
        """Send until there is an answer: that, and how long the request took that got it, in milliseconds.

        A lost connection, a late reply, a busy or paced session are waited out; a product that was never there is not.
        """
        headers = {"Idempotency-Key": str(uuid.uuid4())} | ({"Accept": "text/event-stream"} if say else {})
        give_up = time.monotonic() + RETRY_SECONDS
        while True:
            sent_at = time.monotonic()
            try:
                answer = await self._once(path, body, headers, say)
                return answer, (time.monotonic() - sent_at) * 1000
            except _RetryableError as error:
                why, wait_seconds = str(error), error.wait_seconds
            except TimeoutError:
                why, wait_seconds = f"none within {self._request_seconds:g} s", PAUSE_SECONDS
            except aiohttp.ClientError as error:
                if isinstance(error, aiohttp.ClientConnectorError) and not self._reached:
                    raise ConversationError(f"nothing answers at {self._url}: is `colloquy run` up?") from None
                why, wait_seconds = str(error), PAUSE_SECONDS
            if time.monotonic() + wait_seconds > give_up:
                raise ConversationError(f"no answer: {why}")
            await asyncio.sleep(wait_seconds)

    async def _once(self, path: str, body: Body, headers: dict[str, str], say: Say | None) -> Body:
        async with self._http.post(path, json=body, headers=headers) as reply:
            self._reached = True
            if reply.content_type != "text/event-stream" or say is None:
                return await _checked(reply)
            async for event, data in _events(reply.content):
                if event == "delta":
                    say(data["text"])
                elif event == "completed":
                    return data
                elif event == "failed":
                    raise _problem(data)
        raise _RetryableError("the stream ended early", PAUSE_SECONDS)


async def _checked(reply: aiohttp.ClientResponse) -> Body:
    if reply.content_type == ("application/json" if reply.ok else "application/problem+json"):
        with contextlib.suppress(ValueError):
            body: Body = await reply.json(content_type=None)
            if reply.ok:
                return body
            raise _problem(body)
    raise ConversationError(f"{reply.url} does not answer as Colloquy does (status {reply.status})")


def _problem(problem: Body) -> Exception:
    if problem.get("reason") in TRANSIENT_REASONS:
        wait_seconds = max(0.1, problem.get("retry_after_ms", 1000) / 1000)
        return _RetryableError(str(problem.get("detail", "")), wait_seconds)
    fields = "".join(f"\n  {error['field']}: {error['message']}" for error in problem.get("errors", []))
    return ConversationError(f"{problem.get('detail') or problem.get('title')}{fields}")


def _turn(turn: Body, duration_ms: float) -> Turn:
    return Turn(
        text=turn["reply"]["text"],
        seq=turn["seq"],
        final=turn["session_status"] == "completed",
        degraded=turn["degraded"],
        duration_ms=duration_ms,
    )


async def _events(content: aiohttp.StreamReader) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Server-sent events (WHATWG HTML, 9.2): name and data of each."""
    event, data = "", ""
    async for raw in content:
        line = raw.decode().rstrip("\r\n")
        if line.startswith("event:"):
            event = line[6:].strip()
        elif line.startswith("data:"):
            data += line[5:].strip()
        elif not line and data:
            yield event, json.loads(data)
            event, data = "", ""

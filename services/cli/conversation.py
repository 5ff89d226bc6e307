"""A client of the REST face, for the terminal: it sends, follows the stream, waits where it is told to, and retries.

A message keeps its id across retries, so a lost answer is asked for again and never answered twice.
"""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp

RETRY_SECONDS = 30.0
TRANSIENT_REASONS = frozenset({"TURN_IN_PROGRESS", "RATE_LIMITED", "UNAVAILABLE", "DEADLINE_EXCEEDED"})

Say = Callable[[str], None]


class ConversationError(Exception):
    """The product refused or could not be reached; the text is for whoever types."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn as the client saw it; duration_ms from sending the message that was answered to its last byte."""

    text: str
    seq: int
    final: bool
    degraded: list[str]
    duration_ms: float


class _RetryableError(Exception):
    def __init__(self, problem: dict[str, Any]) -> None:
        self.problem = problem
        super().__init__(str(problem.get("detail", "")))


class Conversation:
    """One candidate's or user's side. Use as a context manager.

    Args:
        url: of the BFF.
        token: a bearer token with the role candidate.
    """

    def __init__(self, url: str, token: str) -> None:
        self._http = aiohttp.ClientSession(
            base_url=url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=aiohttp.ClientTimeout(total=30),
        )

    async def __aenter__(self) -> "Conversation":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    async def start_interview(self, plan: str | None, name: str | None) -> tuple[str, str]:
        """Open an interview; its id and the opening."""
        body = {key: value for key, value in (("plan", plan), ("candidate_name", name)) if value}
        key = str(uuid.uuid4())

        async def once() -> dict[str, Any]:
            async with self._http.post("/api/v1/interviews", json=body, headers={"Idempotency-Key": key}) as reply:
                return await _checked(reply)

        interview = await _retrying(once)
        return interview["interview_id"], interview["message"]["text"]

    async def answer(self, interview_id: str, text: str, say: Say) -> Turn:
        """Send an answer; the draft of the reply goes to `say` as it comes."""
        return await self._send(f"/api/v1/interviews/{interview_id}/messages", {"message_text": text}, say)

    async def chat(self, conversation_id: str | None, text: str, say: Say) -> tuple[str, Turn]:
        """Send a chat message; the conversation's id and the turn."""
        body = {"message": text} | ({"conversation_id": conversation_id} if conversation_id else {})
        key, began = str(uuid.uuid4()), time.monotonic()

        async def once() -> dict[str, Any]:
            async with self._http.post("/api/v1/chat", json=body, headers={"Idempotency-Key": key}) as reply:
                return await _checked(reply)

        turn = await _retrying(once)
        say(turn["reply"]["text"])
        return turn["session_id"], _turn(turn, began)

    async def _send(self, path: str, body: dict[str, str], say: Say) -> Turn:
        key = str(uuid.uuid4())
        sent_at = time.monotonic()

        async def once() -> dict[str, Any]:
            nonlocal sent_at
            sent_at = time.monotonic()
            headers = {"Idempotency-Key": key, "Accept": "text/event-stream"}
            async with self._http.post(path, json=body, headers=headers) as reply:
                if reply.content_type != "text/event-stream":
                    return await _checked(reply)
                async for event, data in _events(reply.content):
                    if event == "delta":
                        say(data["text"])
                    elif event == "completed":
                        return data
                    elif event == "failed":
                        raise _problem(data)
            raise _RetryableError({"detail": "the stream ended early"})

        turn = await _retrying(once)
        return _turn(turn, sent_at)


async def _retrying(once: Callable[[], Any]) -> dict[str, Any]:
    """Send until there is an answer; a lost connection, a busy or paced session are waited out."""
    give_up = time.monotonic() + RETRY_SECONDS
    while True:
        try:
            answer: dict[str, Any] = await once()
        except _RetryableError as error:
            wait_seconds = max(0.1, error.problem.get("retry_after_ms", 1000) / 1000)
            reason: Exception = error
        except aiohttp.ClientError as error:
            wait_seconds, reason = 1.0, error
        else:
            return answer
        if time.monotonic() + wait_seconds > give_up:
            raise ConversationError(f"no answer: {reason}") from None
        await asyncio.sleep(wait_seconds)


async def _checked(reply: aiohttp.ClientResponse) -> dict[str, Any]:
    if reply.content_type not in ("application/json", "application/problem+json"):
        raise ConversationError(f"{reply.url} does not answer as Colloquy does (status {reply.status})")
    body: dict[str, Any] = await reply.json(content_type=None)
    if reply.ok:
        return body
    raise _problem(body)


def _problem(problem: dict[str, Any]) -> Exception:
    if problem.get("reason") in TRANSIENT_REASONS:
        return _RetryableError(problem)
    fields = "".join(f"\n  {error['field']}: {error['message']}" for error in problem.get("errors", []))
    return ConversationError(f"{problem.get('detail') or problem.get('title')}{fields}")


def _turn(turn: dict[str, Any], sent_at: float) -> Turn:
    return Turn(
        text=turn["reply"]["text"],
        seq=turn["seq"],
        final=turn["session_status"] == "completed",
        degraded=turn["degraded"],
        duration_ms=(time.monotonic() - sent_at) * 1000,
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

"""One HTTP request to a BFF, whole or as a stream."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import aiohttp
import orjson

from tests.chaos.balancer import Balancer
from tests.chaos.replies import REPLAYED, Reply

REQUEST_SECONDS = 20.0  # above a chat's whole budget
CONNECT_SECONDS = 2.0
EVENTS = "text/event-stream"

Accepted = Callable[[str], Awaitable[None]]


class UnreachedError(Exception):
    """No whole response came; whether the request arrived is not known."""


class Rest:
    """Somebody with a token; `http` and `bffs` are shared."""

    def __init__(self, http: aiohttp.ClientSession, bffs: Balancer, subject: str, token: str) -> None:
        self.subject = subject
        self._http, self._bffs = http, bffs
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    async def ask(self, method: str, path: str, body: object = None, *, key: str = "") -> Reply:
        """Send JSON, and read the response.

        Raises:
            UnreachedError: none came.
        """
        async with self._sent(method, path, body, {"Idempotency-Key": key} if key else {}) as response:
            return await _whole(response)

    async def stream(self, path: str, body: object, *, key: str, accepted: Accepted) -> Reply:
        """Send a message and read its events; `accepted` is awaited with the turn's id when that is told.

        Raises:
            UnreachedError: the stream did not come to its end.
        """
        async with self._sent("POST", path, body, {"Idempotency-Key": key, "Accept": EVENTS}) as response:
            if response.content_type != EVENTS:
                return await _whole(response)
            async for event, data in _events(response.content):
                if event == b"accepted":
                    await accepted(orjson.loads(data)["turn_id"])
                elif event == b"completed":
                    return Reply(200, data)
                elif event == b"failed":
                    return Reply(orjson.loads(data)["status"], data)
            raise UnreachedError("the stream ended early")

    @asynccontextmanager
    async def _sent(
        self, method: str, path: str, body: object, headers: Mapping[str, str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        data = None if body is None else orjson.dumps(body)
        try:
            async with self._http.request(
                method, self._bffs.pick() + path, headers={**self._headers, **headers}, data=data
            ) as response:
                yield response
        except (aiohttp.ClientError, TimeoutError) as error:
            raise UnreachedError(type(error).__name__) from error


def open_http() -> aiohttp.ClientSession:
    """The connections that all clients share."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
        timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS, sock_connect=CONNECT_SECONDS),
    )


async def _whole(response: aiohttp.ClientResponse) -> Reply:
    return Reply(response.status, await response.read(), response.headers.get(REPLAYED) == "true")


async def _events(content: aiohttp.StreamReader) -> AsyncIterator[tuple[bytes, bytes]]:
    """Name and data of each server-sent event; ours have one line of data."""
    event = b""
    async for line in content:
        if line.startswith(b"event: "):
            event = line[7:].rstrip()
        elif line.startswith(b"data: "):
            yield event, line[6:].rstrip(b"\n")

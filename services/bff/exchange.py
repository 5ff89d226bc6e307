"""One HTTP request and what is known about it: headers, body, deadline, and what its response will say of it.

A body is read before anything judges the request: refusing an unread one would cost the connection, and 64 KiB are
cheap. What is wrong with it is raised where it is asked for.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence

from starlette.types import Receive, Scope

from libs.runtime import context
from libs.runtime.errors import ColloquyError, DeadlineExceeded, Malformed, TooLarge

MAX_BODY_BYTES = 64 * 1024
BODY_SECONDS = 10.0
# What the way back to the client needs of a budget that is the client's: rendering, and two network stacks.
RESERVE_MS = 60

_SCOPE_KEY = "colloquy.exchange"
_CALL_HEADERS = ("x-correlation-id", "traceparent", "authorization")


class DisconnectedError(Exception):
    """The client left before it had sent its request."""


class Exchange:
    """What the request's handlers share; making one makes its task serve a new call (`libs.runtime.context`).

    `headers` has names in lower case and repeated ones joined by commas. `gateway_ms` is the time spent in calls so
    far, `stages` those of a turn that was made for this request, `replayed` whether an earlier request made it.
    """

    __slots__ = (
        "_body",
        "_body_read_at",
        "_refusal",
        "body_is_read",
        "gateway_ms",
        "headers",
        "replayed",
        "scope",
        "stages",
    )

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.headers = _joined(scope["headers"])
        context.begin({name: self.header(name) for name in _CALL_HEADERS})
        self.body_is_read = b"content-length" not in self.headers and b"transfer-encoding" not in self.headers
        self.gateway_ms = 0.0
        self.stages: Sequence[tuple[str, float]] = ()
        self.replayed = False
        self._body = b""
        self._refusal: ColloquyError | None = None
        self._body_read_at = time.monotonic()
        scope[_SCOPE_KEY] = self

    @staticmethod
    def of(scope: Scope) -> "Exchange":
        """The exchange that a request belongs to."""
        exchange = scope[_SCOPE_KEY]
        assert isinstance(exchange, Exchange)
        return exchange

    def header(self, name: str) -> str:
        """A header's value, empty where it was not sent."""
        return self.headers.get(name.encode(), b"").decode("latin-1")

    @property
    def body(self) -> bytes:
        """The body; empty where none was sent.

        Raises:
            TooLarge: it is larger than MAX_BODY_BYTES.
            Malformed: it did not arrive in time.
        """
        if self._refusal:
            raise self._refusal
        return self._body

    def cap_ms(self, budget_ms: float) -> float:
        """What a call to the gateway may take, for the client to have its reply within `budget_ms` of its request.

        Raises:
            DeadlineExceeded: nothing is left.
        """
        left_ms = budget_ms - RESERVE_MS - (time.monotonic() - self._body_read_at) * 1000
        if left_ms <= 0:
            raise DeadlineExceeded
        return left_ms

    async def read_body(self, receive: Receive) -> None:
        """Take in the body, or find out why not.

        Raises:
            DisconnectedError: the client left meanwhile.
        """
        if self.body_is_read:
            return
        if int(self.headers.get(b"content-length", b"0")) > MAX_BODY_BYTES:
            self._refusal = TooLarge(f"A body has at most {MAX_BODY_BYTES} bytes.")
            return
        try:
            async with asyncio.timeout(BODY_SECONDS):
                await self._collect(receive)
        except TimeoutError:
            self._refusal = Malformed(f"The body did not arrive within {BODY_SECONDS:.0f} seconds.")
        self._body_read_at = time.monotonic()

    async def _collect(self, receive: Receive) -> None:
        chunks, size = [], 0
        while not self.body_is_read:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise DisconnectedError
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > MAX_BODY_BYTES:
                self._refusal = TooLarge(f"A body has at most {MAX_BODY_BYTES} bytes.")
                return
            chunks.append(chunk)
            self.body_is_read = not message.get("more_body", False)
        self._body = b"".join(chunks)


def _joined(raw: Sequence[tuple[bytes, bytes]]) -> Mapping[bytes, bytes]:
    headers = dict(raw)
    if len(headers) == len(raw):
        return headers
    joined: dict[bytes, bytes] = {}
    for name, value in raw:
        joined[name] = joined[name] + b", " + value if name in joined else value
    return joined

"""A turn as server-sent events (HTML Standard, section 9.2): `accepted`, `delta`..., then `completed` or `failed`.

The client's leaving cancels the call to the gateway, never the turn: the same request, sent again, resumes it.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from colloquy.gateway.v1 import gateway_pb2
from libs.runtime import context, logs
from libs.runtime.errors import ColloquyError, Internal, Unavailable
from services.bff import problems, rendering

COMMENT_SECONDS = 10.0
_COMMENT = b": still here\n\n"
_HEADERS: Mapping[str, str] = {"X-Accel-Buffering": "no"}  # nginx must not wait for the end

Answers = AsyncGenerator[gateway_pb2.StreamTurnResponse, None]


class TurnEvents(Response):
    """The response that streams a turn whose first answer is there: what failed before it has its own status.

    Args:
        answers: the gateway's stream, of which `first` was taken.
    """

    media_type = "text/event-stream"

    def __init__(self, first: gateway_pb2.StreamTurnResponse, answers: Answers) -> None:
        super().__init__(headers=_HEADERS)
        del self.headers["content-length"]
        self._first, self._answers = first, answers

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self._answers):
            pump = asyncio.create_task(self._pump(send), name="turn events")
            attend = asyncio.create_task(_attend(receive, send), name="turn events' client")
            try:
                await asyncio.wait((pump, attend), return_when=asyncio.FIRST_COMPLETED)
            finally:
                ended = pump.done()
                for task in (pump, attend):
                    task.cancel()
                await asyncio.wait((pump, attend))
        context.bind(stream="ended" if ended else "left")
        if ended:
            pump.result()

    async def _pump(self, send: Send) -> None:
        try:
            await send(_body(_event(self._first)))
            async for answer in self._answers:
                await send(_body(_event(answer)))
                if answer.HasField("completed"):
                    break
            else:
                raise Unavailable  # a stream that just ends has confirmed nothing
        except ColloquyError as error:
            await send(_body(_failed(error)))
        except Exception as error:
            logs.logger().error("stream_failed", exc_info=error)
            await send(_body(_failed(Internal())))
        await send({"type": "http.response.body", "body": b""})


async def _attend(receive: Receive, send: Send) -> None:
    """Return when the client has left; say something now and then, for proxies that close what is silent."""
    while True:
        try:
            async with asyncio.timeout(COMMENT_SECONDS):
                message = await receive()
        except TimeoutError:
            await send(_body(_COMMENT))
        else:
            if message["type"] == "http.disconnect":
                return


def _event(answer: gateway_pb2.StreamTurnResponse) -> bytes:
    match answer.WhichOneof("event"):
        case "delta":
            return _frame(b"delta", orjson.dumps({"text": answer.delta}))
        case "accepted":
            accepted = {"turn_id": answer.accepted.turn_id, "request_id": answer.accepted.request_id}
            return _frame(b"accepted", orjson.dumps(accepted))
        case "completed":
            return _frame(b"completed", rendering.turn(answer.completed.turn))
        case _:  # an event of a newer gateway
            return b""


def _failed(error: ColloquyError) -> bytes:
    context.bind(reason=error.reason.value)
    return _frame(b"failed", problems.of_error(error).body(context.correlation_id()))


def _frame(name: bytes, data: bytes) -> bytes:
    """JSON has no raw line ends, so that it is one `data` line."""
    return b"event: " + name + b"\ndata: " + data + b"\n\n"


def _body(data: bytes) -> dict[str, object]:
    return {"type": "http.response.body", "body": data, "more_body": True}

"""Asks the product once more for everything that clients know, over REST and over gRPC."""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress

import grpc
import orjson

from colloquy.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from libs.runtime import status
from services.bff import rendering
from tests.chaos import paths
from tests.chaos.judgement import Line, Story, Told
from tests.chaos.replies import Reply, Verdict, pause_seconds
from tests.chaos.rest import Rest, UnreachedError
from tests.chaos.stack import Stack

AT_ONCE = 8
TRIES = 8
GRPC_SECONDS = 10.0
_WORDS = {"interview": rendering.INTERVIEW, "chat": rendering.CHAT}

RestOf = Callable[[str], Rest]


class Asking:
    """Sends requests again, as their clients."""

    def __init__(self, stack: Stack, rest_of: RestOf, channel: grpc.aio.Channel) -> None:
        self._stack, self._rest_of = stack, rest_of
        self._gateway: gateway_pb2_grpc.ConversationServiceAsyncStub = gateway_pb2_grpc.ConversationServiceStub(channel)
        self._turn = asyncio.Semaphore(AT_ONCE)

    async def all(self, stories: Iterable[Story]) -> Told:
        """What is told now of every request that was answered, and what its session lists."""
        answered = [story for story in stories if story.bodies]
        sessions = {story.answered_session: story for story in answered}
        again, by_grpc, listed = await asyncio.gather(
            asyncio.gather(*map(self._again, answered)),
            asyncio.gather(*map(self._over_grpc, answered)),
            asyncio.gather(*(self._listed(session, story) for session, story in sessions.items())),
        )
        requests = [story.request for story in answered]
        return Told(
            dict(zip(requests, again, strict=True)),
            dict(zip(requests, by_grpc, strict=True)),
            dict(zip(sessions, listed, strict=True)),
        )

    async def _again(self, story: Story) -> str:
        path = paths.saying(story.kind, story.session) if story.text else paths.INTERVIEWS
        reply = await self._asked(story.client, "POST", path, orjson.loads(story.sent), key=story.request)
        return reply.body.decode() if reply.status < 300 else f"{reply.status} {reply.reason}"

    async def _over_grpc(self, story: Story) -> str:
        """The same request to a gateway itself, its answer rendered as the BFF renders it."""
        metadata = (("authorization", f"Bearer {self._stack.token(story.client)}"),)
        words, sent = _WORDS[story.kind], orjson.loads(story.sent)
        try:
            async with self._turn:
                if not story.text:
                    start = gateway_pb2.StartSessionRequest(request_id=story.request, kind=words.kind, **sent)
                    started = await self._gateway.StartSession(start, metadata=metadata, timeout=GRPC_SECONDS)
                    return rendering.opened(started.session, started.opening, words).decode()
                submit = gateway_pb2.SubmitTurnRequest(
                    session_id=story.answered_session,
                    request_id=story.request,
                    text=story.text,
                    in_reply_to=sent.get("in_reply_to"),
                    kind=words.kind,
                )
                submitted = await self._gateway.SubmitTurn(submit, metadata=metadata, timeout=GRPC_SECONDS)
                return rendering.turn(submitted.turn).decode()
        except grpc.aio.AioRpcError as error:
            return str(status.decode(error).reason)

    async def _listed(self, session: str, story: Story) -> list[Line]:
        """All messages of a session; none where there is no such session any more."""
        lines: list[Line] = []
        path, token = paths.messages(story.kind, session), ""
        while True:
            reply = await self._asked(story.client, "GET", f"{path}?page_size=200&page_token={token}")
            if reply.status >= 300:
                return lines
            lines += [(it["seq"], it["turn_id"], it["role"], it["text"]) for it in reply.document["messages"]]
            token = reply.document["next_page_token"] or ""
            if not token:
                return lines

    async def _asked(self, client: str, method: str, path: str, body: object = None, *, key: str = "") -> Reply:
        """The reply, after some tries where it says to ask again: on a busy machine one may be late."""
        rest = self._rest_of(client)
        async with self._turn:
            for tried in range(TRIES - 1):
                wait_seconds = 0.0
                with suppress(UnreachedError):
                    reply = await rest.ask(method, path, body, key=key)
                    if reply.verdict is not Verdict.AGAIN:
                        return reply
                    wait_seconds = reply.wait_seconds
                await asyncio.sleep(pause_seconds(tried, wait_seconds, 1.0))
            return await rest.ask(method, path, body, key=key)

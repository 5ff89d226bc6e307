"""The gateway, the only service that the BFF calls, and whether it can be called."""

import asyncio
from collections.abc import AsyncGenerator
from time import perf_counter
from typing import TypeVar

import grpc

from colloquy.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from libs.runtime import client, logs
from libs.runtime.errors import Unavailable
from services.bff.exchange import Exchange

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


class Gateway:
    """The conversations, as RPCs on one channel. Create it on the running loop; `await close()` when draining."""

    def __init__(self, target: str) -> None:
        self._channel = client.open_channel(target)
        self.conversations: gateway_pb2_grpc.ConversationServiceAsyncStub = gateway_pb2_grpc.ConversationServiceStub(
            self._channel
        )
        self._watch = asyncio.create_task(self._watch_channel(), name="gateway watch")
        self.ready = False

    async def call(
        self,
        method: "grpc.aio.UnaryUnaryMultiCallable[_Request, _Response]",
        request: _Request,
        exchange: Exchange,
        budget_ms: float,
    ) -> _Response:
        """Call within what the exchange has left of `budget_ms`; the time is noted there.

        Raises:
            ColloquyError: what the gateway raised; Unavailable or DeadlineExceeded where it did not answer.
        """
        started = perf_counter()
        try:
            return await client.call(method, request, cap_ms=exchange.cap_ms(budget_ms))
        finally:
            exchange.gateway_ms += (perf_counter() - started) * 1000

    async def stream(
        self, request: gateway_pb2.StreamTurnRequest, exchange: Exchange, budget_ms: float
    ) -> tuple[gateway_pb2.StreamTurnResponse, AsyncGenerator[gateway_pb2.StreamTurnResponse, None]]:
        """StreamTurn: its first event and the iterator of the others; closing that cancels the call, not the turn. The
        time until the first event is noted in the exchange.

        Raises:
            ColloquyError: as `call`; Unavailable where the stream ends without an event.
        """
        started = perf_counter()
        events = client.stream(self.conversations.StreamTurn, request, cap_ms=exchange.cap_ms(budget_ms))
        try:
            first = await anext(events, None)
        finally:
            exchange.gateway_ms += (perf_counter() - started) * 1000
        if first is None:
            raise Unavailable
        return first, events

    async def close(self) -> None:
        self._watch.cancel()
        await self._channel.close()

    async def _watch_channel(self) -> None:
        """Keep `ready` true to the channel: it is READY while an address is connected and its health is SERVING."""
        while True:
            state = self._channel.get_state(try_to_connect=True)
            if self.ready != (state is grpc.ChannelConnectivity.READY):
                self.ready = not self.ready
                logs.logger().info("gateway_readiness", ready=self.ready)
            await self._channel.wait_for_state_change(state)

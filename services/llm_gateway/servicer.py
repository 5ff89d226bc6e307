"""LlmService: each method decodes, calls its use case and encodes."""

from collections.abc import AsyncIterator
from typing import Any

import grpc

from colloquy.llm.v1 import llm_pb2, llm_pb2_grpc
from libs.runtime import context
from services.llm_gateway import wire
from services.llm_gateway.records import Records
from services.llm_gateway.usecases import Answer, Calls

_Context = grpc.aio.ServicerContext[Any, Any]


class LlmServicer(llm_pb2_grpc.LlmServiceServicer):
    """LlmService, on the call ledger's use cases."""

    def __init__(self, calls: Calls, records: Records) -> None:
        self._calls, self._records = calls, records

    async def Generate(self, request: llm_pb2.GenerateRequest, _: _Context) -> llm_pb2.GenerateResponse:
        _bind(request)
        return wire.answer(await self._calls.generate(wire.offer(request)))

    async def StreamGenerate(
        self, request: llm_pb2.StreamGenerateRequest, _: _Context
    ) -> AsyncIterator[llm_pb2.StreamGenerateResponse]:
        _bind(request.call)
        async for event in self._calls.stream(wire.offer(request.call)):
            if isinstance(event, Answer):
                yield llm_pb2.StreamGenerateResponse(done=wire.answer(event))
            else:
                yield llm_pb2.StreamGenerateResponse(delta=event)

    async def GetCall(self, request: llm_pb2.GetCallRequest, _: _Context) -> llm_pb2.GetCallResponse:
        _bind(request)
        return llm_pb2.GetCallResponse(call=wire.call(await self._calls.get(wire.call_key(request))))

    async def ListCalls(self, request: llm_pb2.ListCallsRequest, _: _Context) -> llm_pb2.ListCallsResponse:
        context.bind(session_id=request.session_id, turn_id=request.turn_id)
        entries = await self._records.calls(wire.turn_key(request))
        return llm_pb2.ListCallsResponse(calls=[wire.call_entry(entry) for entry in entries])

    async def ListClearable(self, request: llm_pb2.ListClearableRequest, _: _Context) -> llm_pb2.ListClearableResponse:
        return wire.clearable(await self._records.clearable(wire.clearable_request(request)))

    async def ClearResults(self, request: llm_pb2.ClearResultsRequest, _: _Context) -> llm_pb2.ClearResultsResponse:
        context.bind(session_id=request.session_id)
        await self._records.clear(wire.settled(request))
        return llm_pb2.ClearResultsResponse()

    async def EraseSession(self, request: llm_pb2.EraseSessionRequest, _: _Context) -> llm_pb2.EraseSessionResponse:
        context.bind(session_id=request.session_id)
        await self._records.erase(wire.session_id(request.session_id))
        return llm_pb2.EraseSessionResponse()


def _bind(request: llm_pb2.GenerateRequest | llm_pb2.GetCallRequest) -> None:
    context.bind(session_id=request.session_id, turn_id=request.turn_id, purpose=request.purpose)

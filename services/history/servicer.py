"""HistoryService and OperationsService: each method decodes, calls its use case and encodes."""

from typing import Any, TypeAlias

import grpc

from colloquy.history.v1 import history_pb2 as pb
from colloquy.history.v1 import history_pb2_grpc, operations_pb2, operations_pb2_grpc
from libs.runtime import context
from services.history import wire
from services.history.domain import Fence, Rev
from services.history.operations import Operations
from services.history.usecases import History, Owner

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class HistoryServicer(history_pb2_grpc.HistoryServiceServicer):
    """HistoryService, on the ledger's use cases."""

    def __init__(self, history: History) -> None:
        self._history = history

    async def OpenStream(self, request: pb.OpenStreamRequest, _: _Context) -> pb.OpenStreamResponse:
        context.bind(session_id=request.session_id)
        return wire.opened(await self._history.open_stream(wire.new_stream(request)))

    async def BeginTurn(self, request: pb.BeginTurnRequest, _: _Context) -> pb.BeginTurnResponse:
        context.bind(session_id=request.session_id)
        begun = await self._history.begin_turn(wire.new_turn(request))
        if isinstance(begun, Owner):
            context.bind(turn_id=begun.turn_id)
        return wire.begun(begun)

    async def CommitTurn(self, request: pb.CommitTurnRequest, _: _Context) -> pb.CommitTurnResponse:
        context.bind(session_id=request.session_id, turn_id=request.turn_id)
        session_id, turn_id = wire.session_id(request.session_id), wire.turn_id(request.turn_id)
        result = await self._history.commit_turn(session_id, turn_id, Fence(request.fence), wire.reply(request))
        return wire.committed(result)

    async def ReleaseTurn(self, request: pb.ReleaseTurnRequest, _: _Context) -> pb.ReleaseTurnResponse:
        context.bind(session_id=request.session_id, turn_id=request.turn_id)
        session_id, turn_id = wire.session_id(request.session_id), wire.turn_id(request.turn_id)
        released = await self._history.release_turn(session_id, turn_id, Fence(request.fence), wire.release(request))
        return pb.ReleaseTurnResponse(released=released)

    async def GetStream(self, request: pb.GetStreamRequest, _: _Context) -> pb.GetStreamResponse:
        context.bind(session_id=request.session_id)
        sight = await self._history.get_stream(wire.session_id(request.session_id), wire.viewer(request.viewer))
        return wire.stream(sight)

    async def BatchGetStreams(self, request: pb.BatchGetStreamsRequest, _: _Context) -> pb.BatchGetStreamsResponse:
        session_ids = [wire.session_id(text) for text in request.session_ids]
        sights = await self._history.get_streams(session_ids, wire.viewer(request.viewer))
        return pb.BatchGetStreamsResponse(streams=[wire.stream(sight) for sight in sights])

    async def ListTurns(self, request: pb.ListTurnsRequest, _: _Context) -> pb.ListTurnsResponse:
        context.bind(session_id=request.session_id)
        session_id, viewer = wire.session_id(request.session_id), wire.viewer(request.viewer)
        head, turns = await self._history.list_turns(session_id, viewer, wire.turn_range(request))
        return pb.ListTurnsResponse(turns=[wire.turn(turn) for turn in turns], head=wire.head(head))

    async def BatchGetTurns(self, request: pb.BatchGetTurnsRequest, _: _Context) -> pb.BatchGetTurnsResponse:
        keys = [(wire.session_id(key.session_id), wire.turn_id(key.turn_id)) for key in request.turns]
        found = await self._history.get_turn_states(keys)
        return pb.BatchGetTurnsResponse(turns=[wire.turn_status(status) for status in found])

    async def AcknowledgeStreams(
        self, request: pb.AcknowledgeStreamsRequest, _: _Context
    ) -> pb.AcknowledgeStreamsResponse:
        settled = [(wire.session_id(stream.session_id), Rev(stream.rev)) for stream in request.streams]
        return pb.AcknowledgeStreamsResponse(acknowledged=await self._history.acknowledge_streams(settled))

    async def SealStream(self, request: pb.SealStreamRequest, _: _Context) -> pb.SealStreamResponse:
        context.bind(session_id=request.session_id)
        head = await self._history.seal_stream(wire.session_id(request.session_id), wire.viewer(request.viewer))
        return pb.SealStreamResponse(head=wire.head(head))

    async def EraseStream(self, request: pb.EraseStreamRequest, _: _Context) -> pb.EraseStreamResponse:
        context.bind(session_id=request.session_id)
        head = await self._history.erase_stream(wire.session_id(request.session_id), wire.viewer(request.viewer))
        return pb.EraseStreamResponse(head=wire.head(head))

    async def ListUnsettled(self, request: pb.ListUnsettledRequest, _: _Context) -> pb.ListUnsettledResponse:
        return wire.unsettled(*await self._history.list_unsettled(wire.unsettled_range(request)))


class OperationsServicer(operations_pb2_grpc.OperationsServiceServicer):
    """OperationsService, on the operators' use cases."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    async def InterveneStream(
        self, request: operations_pb2.InterveneStreamRequest, _: _Context
    ) -> operations_pb2.InterveneStreamResponse:
        context.bind(session_id=request.session_id)
        head, made = await self._operations.intervene(wire.new_intervention(request))
        return operations_pb2.InterveneStreamResponse(intervention=wire.intervention(made), head=wire.head(head))

    async def ListInterventions(
        self, request: operations_pb2.ListInterventionsRequest, _: _Context
    ) -> operations_pb2.ListInterventionsResponse:
        context.bind(session_id=request.session_id)
        found = await self._operations.interventions(wire.session_id(request.session_id))
        return operations_pb2.ListInterventionsResponse(interventions=[wire.intervention(made) for made in found])

    async def GetTurn(self, request: operations_pb2.GetTurnRequest, _: _Context) -> operations_pb2.GetTurnResponse:
        context.bind(session_id=request.session_id)
        session_id, sought = wire.session_id(request.session_id), wire.turn_or_request_id(request.turn_or_request_id)
        return wire.inspection(await self._operations.turn(session_id, sought))

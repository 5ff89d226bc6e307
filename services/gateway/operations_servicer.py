"""OperationsService: verify that the caller is an operator, decode, call, encode."""

from typing import Any

import grpc

from colloquy.gateway.v1 import operations_pb2, operations_pb2_grpc
from libs.identity.actor import Actor, bearer_token
from libs.identity.permissions import Action, authorize
from libs.identity.verifier import Verifier
from libs.runtime import context as served
from services.gateway.ids import canonical
from services.gateway.operations import Operations

_Context = grpc.aio.ServicerContext[Any, Any]


class OperationsServicer(operations_pb2_grpc.OperationsServiceServicer):
    """What operators call."""

    def __init__(self, verifier: Verifier, operations: Operations) -> None:
        self._verifier = verifier
        self._operations = operations

    async def ListStuckSessions(  # noqa: N802
        self, request: operations_pb2.ListStuckSessionsRequest, _: _Context
    ) -> operations_pb2.ListStuckSessionsResponse:
        await self._operator()
        return await self._operations.stuck(request)

    async def RepairSession(  # noqa: N802
        self, request: operations_pb2.RepairSessionRequest, _: _Context
    ) -> operations_pb2.RepairSessionResponse:
        operator = await self._operator()
        session_id, repair_id = _session_id(request.session_id), canonical(request.repair_id, "repair_id")
        made = await self._operations.repair(request, session_id, repair_id, operator.subject)
        return operations_pb2.RepairSessionResponse(repair=made)

    async def GetTurnLife(  # noqa: N802
        self, request: operations_pb2.GetTurnLifeRequest, _: _Context
    ) -> operations_pb2.GetTurnLifeResponse:
        await self._operator()
        sought = canonical(request.turn_or_request_id, "turn_or_request_id")
        return await self._operations.turn_life(_session_id(request.session_id), sought)

    async def _operator(self) -> Actor:
        actor = await self._verifier.verify(bearer_token(served.authorization()))
        authorize(actor, Action.OPERATE)
        return actor


def _session_id(text: str) -> str:
    session_id = canonical(text, "session_id")
    served.bind(session_id=session_id)
    return session_id

"""SessionService: each method decodes, calls its use case and encodes."""

from typing import Any

import grpc

from colloquy.session.v1 import session_pb2, session_pb2_grpc
from libs.runtime import context
from services.session import wire
from services.session.usecases import Directory

_Context = grpc.aio.ServicerContext[Any, Any]


class SessionServicer(session_pb2_grpc.SessionServiceServicer):
    """SessionService, on the directory's use cases."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    async def CreateSession(
        self, request: session_pb2.CreateSessionRequest, _: _Context
    ) -> session_pb2.CreateSessionResponse:
        context.bind(session_id=request.session.session_id)
        entry = await self._directory.create(wire.new_session(request.session))
        return session_pb2.CreateSessionResponse(session=wire.session(entry))

    async def ApplyTurns(self, request: session_pb2.ApplyTurnsRequest, _: _Context) -> session_pb2.ApplyTurnsResponse:
        results = await self._directory.apply(wire.readings(request))
        return session_pb2.ApplyTurnsResponse(results=[wire.result(applied) for applied in results])

    async def GetSession(self, request: session_pb2.GetSessionRequest, _: _Context) -> session_pb2.GetSessionResponse:
        context.bind(session_id=request.session_id)
        entry = await self._directory.get(wire.session_id(request.session_id), wire.viewer(request.viewer))
        return session_pb2.GetSessionResponse(session=wire.session(entry))

    async def ListSessions(
        self, request: session_pb2.ListSessionsRequest, _: _Context
    ) -> session_pb2.ListSessionsResponse:
        page = await self._directory.page(wire.viewer(request.viewer), wire.page_request(request))
        return session_pb2.ListSessionsResponse(
            sessions=[wire.session(entry) for entry in page.entries],
            next_page_token=wire.page_token(page.next) if page.next else "",
        )

    async def EraseSession(
        self, request: session_pb2.EraseSessionRequest, _: _Context
    ) -> session_pb2.EraseSessionResponse:
        context.bind(session_id=request.session_id)
        await self._directory.erase(wire.session_id(request.session_id))
        return session_pb2.EraseSessionResponse()

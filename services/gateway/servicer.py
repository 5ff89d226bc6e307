"""ConversationService: verify the caller, decode, call, encode."""

import uuid
from collections.abc import AsyncIterator
from typing import Any

import grpc

from colloquy.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from colloquy.history.v1 import history_pb2
from libs.identity import actor as actors
from libs.identity.actor import Actor
from libs.identity.permissions import Action, Kind, authorize, meant
from libs.identity.verifier import Verifier
from libs.runtime import context as served
from libs.runtime.errors import FieldViolation, InvalidField, RoleMissing, Unimplemented
from services.gateway import domain
from services.gateway.claim import Message
from services.gateway.erasing import Erasing
from services.gateway.ids import canonical
from services.gateway.opening import Sessions
from services.gateway.reading import Reading
from services.gateway.usecases import Turns

Context = grpc.aio.ServicerContext[Any, Any]

_KINDS = {
    gateway_pb2.KIND_UNSPECIFIED: Kind.ANY,
    gateway_pb2.KIND_INTERVIEW: Kind.INTERVIEW,
    gateway_pb2.KIND_CHAT: Kind.CHAT,
}
_EXPECTED = {
    Kind.ANY: history_pb2.KIND_UNSPECIFIED,
    Kind.INTERVIEW: history_pb2.KIND_INTERVIEW,
    Kind.CHAT: history_pb2.KIND_CHAT,
}
_OPENED = {gateway_pb2.KIND_INTERVIEW: "interview", gateway_pb2.KIND_CHAT: "chat"}


class ConversationServicer(gateway_pb2_grpc.ConversationServiceServicer):
    """What backends and the BFF call."""

    def __init__(
        self, verifier: Verifier, turns: Turns, sessions: Sessions, reading: Reading, erasing: Erasing
    ) -> None:
        self._verifier = verifier
        self._turns = turns
        self._sessions = sessions
        self._reading = reading
        self._erasing = erasing

    async def StartSession(
        self, request: gateway_pb2.StartSessionRequest, context: Context
    ) -> gateway_pb2.StartSessionResponse:
        actor = await self._actor()
        scope = authorize(actor, Action.START, _kind(request.kind), request.owner_id)
        asked = domain.Opening(
            _OPENED.get(request.kind, ""), request.plan, request.candidate_name, dict(request.metadata)
        )
        request_id = uuid.UUID(canonical(request.request_id, "request_id")) if request.request_id else None
        return await self._sessions.start(asked, scope.owner_id, actor.tenant, request_id)

    async def SubmitTurn(
        self, request: gateway_pb2.SubmitTurnRequest, context: Context
    ) -> gateway_pb2.SubmitTurnResponse:
        return await self._turns.submit(_message(request, await self._actor()))

    async def StreamTurn(
        self, request: gateway_pb2.StreamTurnRequest, context: Context
    ) -> AsyncIterator[gateway_pb2.StreamTurnResponse]:
        async for event in self._turns.stream(_message(request.turn, await self._actor())):
            yield event

    async def GetSession(
        self, request: gateway_pb2.GetSessionRequest, context: Context
    ) -> gateway_pb2.GetSessionResponse:
        actor = await self._actor()
        viewer = _viewer(actor, Action.READ_STATE, request.kind, request.owner_id)
        reader = _reader(actor, request.kind, request.owner_id)
        session = await self._reading.session(_session_id(request.session_id), viewer, reader)
        return gateway_pb2.GetSessionResponse(session=session)

    async def ListSessions(
        self, request: gateway_pb2.ListSessionsRequest, context: Context
    ) -> gateway_pb2.ListSessionsResponse:
        actor = await self._actor()
        viewer = _viewer(actor, Action.READ_STATE, request.kind, request.owner_id)
        reader = _reader(actor, request.kind, request.owner_id)
        return await self._reading.sessions(viewer, reader, request.page_size, request.page_token)

    async def ListMessages(
        self, request: gateway_pb2.ListMessagesRequest, context: Context
    ) -> gateway_pb2.ListMessagesResponse:
        viewer = _viewer(await self._actor(), Action.READ_MESSAGES, request.kind, request.owner_id)
        session_id = _session_id(request.session_id)
        return await self._reading.messages(session_id, viewer, request.page_size, request.page_token)

    async def EndSession(
        self, request: gateway_pb2.EndSessionRequest, context: Context
    ) -> gateway_pb2.EndSessionResponse:
        viewer = _viewer(await self._actor(), Action.END, request.kind, request.owner_id)
        session = await self._reading.end(_session_id(request.session_id), viewer)
        return gateway_pb2.EndSessionResponse(session=session)

    async def GetReport(self, request: gateway_pb2.GetReportRequest, context: Context) -> gateway_pb2.GetReportResponse:
        raise Unimplemented

    async def EraseSession(
        self, request: gateway_pb2.EraseSessionRequest, context: Context
    ) -> gateway_pb2.EraseSessionResponse:
        viewer = _viewer(await self._actor(), Action.ERASE, request.kind, request.owner_id)
        await self._erasing.erase(_session_id(request.session_id), viewer)
        return gateway_pb2.EraseSessionResponse()

    async def _actor(self) -> Actor:
        return await self._verifier.verify(actors.bearer_token(served.authorization()))


def _message(request: gateway_pb2.SubmitTurnRequest, actor: Actor) -> Message:
    kind = _kind(request.kind)
    scope = authorize(actor, Action.SUBMIT, kind, request.owner_id)
    return Message(
        session_id=_session_id(request.session_id),
        owner_id=scope.owner_id,
        kind=_EXPECTED[kind],
        request_id=canonical(request.request_id, "request_id"),
        text=request.text,
        in_reply_to=request.in_reply_to if request.HasField("in_reply_to") else None,
    )


def _viewer(actor: Actor, action: Action, kind: gateway_pb2.Kind.ValueType, owner_id: str) -> history_pb2.Viewer:
    about = meant(actor, action, _kind(kind), owner_id)
    scope = authorize(actor, action, about, owner_id)
    return history_pb2.Viewer(owner_id=scope.owner_id, any_owner=scope.any_owner, kind=_EXPECTED[about])


def _reader(actor: Actor, kind: gateway_pb2.Kind.ValueType, owner_id: str) -> history_pb2.Viewer | None:
    """Where the actor may also see what was said: of others' sessions an operator sees only how they stand."""
    try:
        return _viewer(actor, Action.READ_MESSAGES, kind, owner_id)
    except RoleMissing:
        return None


def _kind(kind: gateway_pb2.Kind.ValueType) -> Kind:
    if kind not in _KINDS:
        raise InvalidField([FieldViolation("kind", "Not a kind of session that there is.")])
    return _KINDS[kind]


def _session_id(text: str) -> str:
    session_id = canonical(text, "session_id")
    served.bind(session_id=session_id)
    return session_id

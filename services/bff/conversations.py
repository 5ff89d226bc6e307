"""The routes that interviews and chats have in common. A handler decodes, calls and renders."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.responses import Response

from colloquy.gateway.v1 import gateway_pb2
from libs.runtime import context
from libs.runtime.errors import FieldViolation, InvalidField
from services.bff import decoding, rendering
from services.bff.events import TurnEvents
from services.bff.exchange import Exchange
from services.bff.gateway import Gateway
from services.bff.rendering import Words


@dataclass(frozen=True, slots=True)
class Budgets:
    """What a client is promised, in milliseconds: `reply_ms` for every reply that is not streamed and for the whole of
    an interview's stream, `chat_ms` for the whole of a chat's."""

    reply_ms: int
    chat_ms: int


class Conversations:
    """Reads, the end, the erasure, and one turn, of one kind of conversation."""

    def __init__(self, words: Words, gateway: Gateway, budgets: Budgets) -> None:
        self._words, self._gateway, self._budgets = words, gateway, budgets
        self._stream_ms = budgets.chat_ms if words is rendering.CHAT else budgets.reply_ms
        # The gateway and history name fields as their own contracts do.
        self._field_names = {
            "text": words.message,
            "user_text": words.message,
            "session_id": words.session_id,
            "request_id": "Idempotency-Key",
        }

    async def list(self, exchange: Exchange) -> Response:
        """A page of the caller's sessions, newest first."""
        page_size, page_token = decoding.page(exchange)
        request = gateway_pb2.ListSessionsRequest(kind=self._words.kind, page_size=page_size, page_token=page_token)
        method = self._gateway.conversations.ListSessions
        page = await self._gateway.call(method, request, exchange, self._budgets.reply_ms)
        return json_response(rendering.sessions(page, self._words))

    async def get(self, exchange: Exchange) -> Response:
        """One session."""
        session_id = _session_id(exchange)
        request = gateway_pb2.GetSessionRequest(session_id=session_id, kind=self._words.kind)
        method = self._gateway.conversations.GetSession
        found = await self._gateway.call(method, request, exchange, self._budgets.reply_ms)
        return json_response(rendering.session(found.session, self._words))

    async def messages(self, exchange: Exchange) -> Response:
        """A page of what was said: the newest page first, the oldest message first inside."""
        session_id = _session_id(exchange)
        page_size, page_token = decoding.page(exchange)
        request = gateway_pb2.ListMessagesRequest(
            session_id=session_id, kind=self._words.kind, page_size=page_size, page_token=page_token
        )
        method = self._gateway.conversations.ListMessages
        page = await self._gateway.call(method, request, exchange, self._budgets.reply_ms)
        return json_response(rendering.messages(page, self._words))

    async def end(self, exchange: Exchange) -> Response:
        """Close a session; closing it again changes nothing."""
        session_id = _session_id(exchange)
        decoding.idempotency_key(exchange)  # this needs none, but what is sent as one must be one, as everywhere
        request = gateway_pb2.EndSessionRequest(session_id=session_id, kind=self._words.kind)
        method = self._gateway.conversations.EndSession
        ended = await self._gateway.call(method, request, exchange, self._budgets.reply_ms)
        return json_response(rendering.session(ended.session, self._words))

    async def erase(self, exchange: Exchange) -> Response:
        """Remove a session, for good; removing it again is answered the same."""
        session_id = _session_id(exchange)
        request = gateway_pb2.EraseSessionRequest(session_id=session_id, kind=self._words.kind)
        method = self._gateway.conversations.EraseSession
        await self._gateway.call(method, request, exchange, self._budgets.reply_ms)
        return Response(status_code=204)

    async def open(
        self, exchange: Exchange, request: gateway_pb2.StartSessionRequest
    ) -> gateway_pb2.StartSessionResponse:
        """Open a session, or have the one that the same request opened."""
        method = self._gateway.conversations.StartSession
        with renaming(self._field_names):
            started = await self._gateway.call(method, request, exchange, self._budgets.reply_ms)
        context.bind(session_id=started.session.session_id)
        return started

    async def answer(self, exchange: Exchange, request: gateway_pb2.SubmitTurnRequest) -> Response:
        """One turn, whole or as a stream, as the client asked for it."""
        with renaming(self._field_names):
            if decoding.wants_events(exchange):
                return await self._stream(exchange, request)
            return await self._submit(exchange, request)

    async def _submit(self, exchange: Exchange, request: gateway_pb2.SubmitTurnRequest) -> Response:
        method = self._gateway.conversations.SubmitTurn
        answered = await self._gateway.call(method, request, exchange, self._budgets.reply_ms)
        context.bind(turn_id=answered.turn.turn_id)
        if answered.replayed:
            exchange.replayed = True
        else:
            exchange.stages = [(stage.name, stage.duration_ms) for stage in answered.turn.timing.stages]
        return json_response(rendering.turn(answered.turn))

    async def _stream(self, exchange: Exchange, request: gateway_pb2.SubmitTurnRequest) -> Response:
        asked = gateway_pb2.StreamTurnRequest(turn=request)
        first, answers = await self._gateway.stream(asked, exchange, self._stream_ms)
        context.bind(turn_id=first.accepted.turn_id)
        exchange.replayed = first.accepted.replayed
        return TurnEvents(first, answers)


def json_response(body: bytes, status: int = 200) -> Response:
    """A JSON document that is bytes already."""
    return Response(body, status, media_type="application/json")


@contextmanager
def renaming(names: Mapping[str, str]) -> Iterator[None]:
    """Give the fields that an inner service found at fault the names they have in REST."""
    try:
        yield
    except InvalidField as error:
        violations = [FieldViolation(names.get(it.field, it.field), it.message) for it in error.violations]
        raise InvalidField(violations, error.detail) from error


def _session_id(exchange: Exchange) -> str:
    session_id = decoding.session_id(exchange)
    context.bind(session_id=session_id)
    return session_id

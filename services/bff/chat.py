"""What only chats have: one route that begins a conversation or goes on with one, for old clients and new.

Old clients send neither an id nor a key: every message of theirs begins a conversation.
"""

import uuid

from starlette.responses import Response

from colloquy.gateway.v1 import gateway_pb2
from libs.messages.text import message_violations
from libs.runtime import context
from libs.runtime.errors import InvalidField
from services.bff import decoding
from services.bff.conversations import Conversations
from services.bff.exchange import Exchange


class Chat:
    """`POST /chat`."""

    def __init__(self, conversations: Conversations) -> None:
        self._conversations = conversations

    async def submit(self, exchange: Exchange) -> Response:
        """Answer a user's message, in a new conversation where none is named.

        A new conversation has the message's key as its own, so that the same request finds it again.
        """
        fields = decoding.json_fields(exchange)
        text, conversation_id = fields.text("message"), fields.optional_text("conversation_id")
        fields.check()
        request_id = decoding.idempotency_key(exchange) or str(uuid.uuid4())
        if conversation_id:
            session_id = decoding.uuid_text(conversation_id, "conversation_id")
            context.bind(session_id=session_id)
        else:
            session_id = await self._begin(exchange, request_id, text)
        request = gateway_pb2.SubmitTurnRequest(
            session_id=session_id, request_id=request_id, text=text, kind=gateway_pb2.KIND_CHAT
        )
        return await self._conversations.answer(exchange, request)

    async def _begin(self, exchange: Exchange, request_id: str, text: str) -> str:
        # History judges every message, but only once there is a conversation: a refused one must leave none behind.
        if violations := list(message_violations("message", text)):
            raise InvalidField(violations)
        request = gateway_pb2.StartSessionRequest(request_id=request_id, kind=gateway_pb2.KIND_CHAT)
        return (await self._conversations.open(exchange, request)).session.session_id

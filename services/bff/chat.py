"""What only chats have: one route that begins a conversation or goes on with one, for old clients and new.

Old clients send neither an id nor a key: every message of theirs begins a conversation.
"""

import unicodedata
import uuid
from collections.abc import Iterator
from itertools import groupby

from starlette.responses import Response

from colloquy.gateway.v1 import gateway_pb2
from libs.runtime import context
from libs.runtime.errors import FieldViolation, InvalidField
from services.bff import decoding
from services.bff.conversations import Conversations
from services.bff.exchange import Exchange

MAX_CODE_POINTS = 2000
# One code point of NFC stands for four as written at most (U+1F82: a letter with three marks).
_MAX_WRITTEN_PER_NFC = 4
# Text in which no more marks follow each other normalises in linear time (UAX #15, stream-safe text format).
_MAX_MARKS_IN_A_ROW = 30
_UNSEEN = frozenset({"Cc", "Cf", "Zl", "Zp", "Zs"})


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
        violations = list(surely_refused(text))
        if violations:
            raise InvalidField(violations)
        request = gateway_pb2.StartSessionRequest(request_id=request_id, kind=gateway_pb2.KIND_CHAT)
        return (await self._conversations.open(exchange, request)).session.session_id


def surely_refused(text: str) -> Iterator[FieldViolation]:
    """What history would refuse in this message, as far as it is plain.

    History judges every message. But a conversation is opened before its first message can be judged, and one that is
    refused must leave nothing behind. Where this lets something through that history refuses, an empty conversation
    stays; it must never refuse what history would take.
    """
    if "\0" in text:
        yield FieldViolation("message", "must not hold NUL")
    if all(unicodedata.category(character) in _UNSEEN for character in text):
        yield FieldViolation("message", "must hold something that can be seen")
    if _surely_too_long(text):
        yield FieldViolation("message", f"must be at most {MAX_CODE_POINTS} code points after NFC")


def _surely_too_long(text: str) -> bool:
    if len(text) <= MAX_CODE_POINTS:
        return False
    if len(text) > MAX_CODE_POINTS * _MAX_WRITTEN_PER_NFC:
        return True
    marks = (len(list(run)) for marked, run in groupby(text, lambda it: unicodedata.combining(it) > 0) if marked)
    return max(marks, default=0) <= _MAX_MARKS_IN_A_ROW and len(unicodedata.normalize("NFC", text)) > MAX_CODE_POINTS

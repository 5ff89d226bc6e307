"""What only interviews have: how one begins, and that a message needs its key."""

import uuid

from starlette.responses import Response

from colloquy.gateway.v1 import gateway_pb2
from libs.runtime import context
from libs.runtime.errors import Malformed
from services.bff import decoding, rendering
from services.bff.conversations import Conversations, json_response
from services.bff.exchange import Exchange


class Interviews:
    """`POST /interviews` and `POST /interviews/{id}/messages`."""

    def __init__(self, conversations: Conversations) -> None:
        self._conversations = conversations

    async def start(self, exchange: Exchange) -> Response:
        """Open an interview; its opening is in the reply."""
        fields = decoding.json_fields(exchange)
        request = gateway_pb2.StartSessionRequest(
            # One of our own, where the client has none: a call may be made twice on its way.
            request_id=decoding.idempotency_key(exchange) or str(uuid.uuid4()),
            kind=gateway_pb2.KIND_INTERVIEW,
            plan=fields.optional_text("plan"),
            candidate_name=fields.optional_text("candidate_name"),
            metadata=fields.optional_pairs("metadata"),
        )
        fields.check()
        started = await self._conversations.open(exchange, request)
        exchange.replayed = started.replayed
        return json_response(rendering.opened(started.session, started.opening, rendering.INTERVIEW), status=201)

    async def submit(self, exchange: Exchange) -> Response:
        """Answer a candidate's message."""
        fields = decoding.json_fields(exchange)
        session_id, request_id = decoding.session_id(exchange), decoding.idempotency_key(exchange)
        context.bind(session_id=session_id)
        if not request_id:
            raise Malformed("Send the header Idempotency-Key, a UUID of your own for each message.")
        request = gateway_pb2.SubmitTurnRequest(
            session_id=session_id,
            request_id=request_id,
            text=fields.text("message_text"),
            in_reply_to=fields.optional_seq("in_reply_to"),
            kind=gateway_pb2.KIND_INTERVIEW,
        )
        fields.check()
        return await self._conversations.answer(exchange, request)

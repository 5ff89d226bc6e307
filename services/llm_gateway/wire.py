"""Protobuf messages of colloquy.llm.v1 to the ledger's values, and back."""

from typing import Final
from uuid import UUID

from colloquy.llm.v1 import llm_pb2
from libs.runtime.errors import Malformed
from services.llm_gateway.domain import (
    Call,
    CallKey,
    CallState,
    Message,
    Offer,
    Prompt,
    Purpose,
    Role,
    SessionId,
    TurnId,
)
from services.llm_gateway.usecases import Answer

_ROLES: Final = {
    llm_pb2.Message.ROLE_SYSTEM: Role.SYSTEM,
    llm_pb2.Message.ROLE_USER: Role.USER,
    llm_pb2.Message.ROLE_ASSISTANT: Role.ASSISTANT,
}
_STATES: Final = {
    CallState.INFLIGHT: llm_pb2.CALL_STATE_INFLIGHT,
    CallState.DONE: llm_pb2.CALL_STATE_DONE,
    CallState.FAILED: llm_pb2.CALL_STATE_FAILED,
    CallState.UNKNOWN: llm_pb2.CALL_STATE_UNKNOWN,
}


def call_key(request: llm_pb2.GenerateRequest | llm_pb2.GetCallRequest) -> CallKey:
    """Raises Malformed: an id is not a UUID."""
    return CallKey(
        SessionId(_uuid(request.session_id, "session_id")),
        TurnId(_uuid(request.turn_id, "turn_id")),
        Purpose(request.purpose),
    )


def offer(request: llm_pb2.GenerateRequest) -> Offer:
    """Raises Malformed or InvalidField."""
    prompt = request.prompt
    return Offer(
        call_key(request),
        Prompt(
            tuple(Message(_ROLES.get(message.role), message.content) for message in prompt.messages),
            prompt.version,
            prompt.max_output_tokens,
            prompt.temperature if prompt.HasField("temperature") else None,
            prompt.json_schema,
        ),
        request.context,
    )


def call(entry: Call) -> llm_pb2.Call:
    """The ledger's entry."""
    return llm_pb2.Call(
        session_id=str(entry.key.session_id),
        turn_id=str(entry.key.turn_id),
        purpose=entry.key.purpose,
        state=_STATES[entry.state],
        context=entry.context,
        text=entry.text,
        usage=llm_pb2.Usage(
            prompt_tokens=entry.usage.prompt_tokens,
            completion_tokens=entry.usage.completion_tokens,
            cost_nano_usd=entry.usage.cost_nano_usd,
        ),
        finish_reason=entry.finish_reason,
        prompt_version=entry.prompt_version,
        model=entry.model,
        repeats=entry.repeats,
        lease_left_ms=entry.lease_left_ms,
        duration_ms=entry.duration_ms,
    )


def answer(made: Answer) -> llm_pb2.GenerateResponse:
    """The call that counts."""
    return llm_pb2.GenerateResponse(call=call(made.call), reused=made.reused)


def _uuid(text: str, field: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise Malformed(f"{field} is not a UUID.") from None

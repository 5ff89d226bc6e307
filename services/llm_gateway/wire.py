"""Protobuf messages of colloquy.llm.v1 to the ledger's values, and back."""

from datetime import datetime
from typing import Final
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

from colloquy.llm.v1 import llm_pb2
from libs.paging import tokens
from libs.paging.tokens import Place
from libs.runtime.errors import Malformed
from services.llm_gateway.clearing import OLDEST, Clearable, ClearableRequest, Cursor, Settled, TurnKey
from services.llm_gateway.domain import (
    AttemptState,
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
    Usage,
)
from services.llm_gateway.entries import Attempt, CallEntry
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
_ATTEMPT_STATES: Final = {
    AttemptState.DISPATCHED: llm_pb2.ATTEMPT_STATE_DISPATCHED,
    AttemptState.SETTLED: llm_pb2.ATTEMPT_STATE_SETTLED,
    AttemptState.RELEASED: llm_pb2.ATTEMPT_STATE_RELEASED,
    AttemptState.UNKNOWN: llm_pb2.ATTEMPT_STATE_UNKNOWN,
}


def call_key(request: llm_pb2.GenerateRequest | llm_pb2.GetCallRequest) -> CallKey:
    """Raises Malformed: an id is not a UUID."""
    return CallKey(session_id(request.session_id), _turn_id(request.turn_id), Purpose(request.purpose))


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
        request.max_repeats if request.HasField("max_repeats") else None,
    )


def turn_key(request: llm_pb2.ListCallsRequest) -> TurnKey:
    """Raises Malformed: an id is not a UUID."""
    return TurnKey(session_id(request.session_id), _turn_id(request.turn_id))


def clearable_request(request: llm_pb2.ListClearableRequest) -> ClearableRequest:
    """Raises InvalidField."""
    after = _cursor(request.page_token) if request.page_token else OLDEST
    return ClearableRequest(request.max_turns, request.min_age_ms, after)


def settled(request: llm_pb2.ClearResultsRequest) -> Settled:
    """Raises Malformed or InvalidField."""
    return Settled(session_id(request.session_id), tuple(map(_turn_id, request.turn_ids)))


def session_id(text: str) -> SessionId:
    """Raises Malformed: it is not a UUID."""
    return SessionId(_uuid(text, "session_id"))


def call(entry: Call) -> llm_pb2.Call:
    """The ledger's entry."""
    return llm_pb2.Call(
        session_id=str(entry.key.session_id),
        turn_id=str(entry.key.turn_id),
        purpose=entry.key.purpose,
        state=_STATES[entry.state],
        context=entry.context,
        text=entry.text,
        usage=_usage(entry.usage),
        finish_reason=entry.finish_reason,
        prompt_version=entry.prompt_version,
        model=entry.model,
        repeats=entry.repeats,
        lease_left_ms=entry.lease_left_ms,
        duration_ms=entry.duration_ms,
        cleared=entry.cleared,
    )


def answer(made: Answer) -> llm_pb2.GenerateResponse:
    """The call that counts."""
    return llm_pb2.GenerateResponse(call=call(made.call), reused=made.reused)


def call_entry(entry: CallEntry) -> llm_pb2.CallEntry:
    """A call with its attempts."""
    return llm_pb2.CallEntry(
        purpose=entry.purpose,
        state=_STATES[entry.state],
        fence=entry.fence,
        repeats=entry.repeats,
        lease_left_ms=entry.lease_left_ms,
        error=entry.error.value if entry.error else "",
        usage=_usage(entry.usage),
        finish_reason=entry.finish_reason,
        prompt_version=entry.prompt_version,
        model=entry.model,
        dispatched_at=_timestamp(entry.dispatched_at),
        finished_at=_timestamp(entry.finished_at),
        cleared=entry.cleared,
        attempts=[_attempt(attempt) for attempt in entry.attempts],
    )


def clearable(page: Clearable) -> llm_pb2.ListClearableResponse:
    """A page, with the token of the next."""
    turns = [
        llm_pb2.ListClearableResponse.Turn(session_id=str(turn.session_id), turn_id=str(turn.turn_id))
        for turn in page.turns
    ]
    return llm_pb2.ListClearableResponse(turns=turns, next_page_token=_page_token(page.next) if page.next else "")


def _attempt(attempt: Attempt) -> llm_pb2.Attempt:
    return llm_pb2.Attempt(
        fence=attempt.fence,
        attempt=attempt.number,
        state=_ATTEMPT_STATES[attempt.state],
        provider=attempt.provider,
        model=attempt.model,
        status=attempt.status or 0,
        error=attempt.error.value if attempt.error else "",
        usage=_usage(attempt.usage),
        dispatched_at=_timestamp(attempt.dispatched_at),
        finished_at=_timestamp(attempt.finished_at),
    )


def _usage(usage: Usage) -> llm_pb2.Usage:
    return llm_pb2.Usage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        cost_nano_usd=usage.cost_nano_usd,
    )


def _timestamp(moment: datetime | None) -> Timestamp | None:
    if moment is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def _page_token(cursor: Cursor) -> str:
    return tokens.encode(Place(cursor.dispatched_at, (cursor.turn.session_id, cursor.turn.turn_id)))


def _cursor(token: str) -> Cursor:
    place = tokens.decode(token, ids=2)
    return Cursor(place.moment, TurnKey(SessionId(place.ids[0]), TurnId(place.ids[1])))


def _turn_id(text: str) -> TurnId:
    return TurnId(_uuid(text, "turn_id"))


def _uuid(text: str, field: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise Malformed(f"{field} is not a UUID.") from None

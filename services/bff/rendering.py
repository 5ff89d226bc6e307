"""The gateway's messages as JSON. Pure, and deterministic: keys in a fixed order, so that equal messages are equal
bytes (every response to one request id is the same).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

import orjson
from google.protobuf.timestamp_pb2 import Timestamp

from colloquy.gateway.v1 import gateway_pb2

NANO_PER_USD = 10**9

_Object: TypeAlias = dict[str, object]

_STATUS: Mapping[int, str] = {
    gateway_pb2.SESSION_STATUS_OPEN: "open",
    gateway_pb2.SESSION_STATUS_COMPLETED: "completed",
}
_PENDING_STATE: Mapping[int, str] = {
    gateway_pb2.PendingTurn.STATE_RUNNING: "running",
    gateway_pb2.PendingTurn.STATE_ABANDONED: "abandoned",
}


@dataclass(frozen=True, slots=True)
class Words:
    """What the two kinds of conversation call the same things.

    client, server: the roles of a message; message: the field of a request that carries it.
    """

    kind: gateway_pb2.Kind.ValueType
    session_id: str
    sessions: str
    message: str
    client: str
    server: str


INTERVIEW = Words(
    gateway_pb2.KIND_INTERVIEW,
    session_id="interview_id",
    sessions="interviews",
    message="message_text",
    client="candidate",
    server="interviewer",
)
CHAT = Words(
    gateway_pb2.KIND_CHAT,
    session_id="conversation_id",
    sessions="conversations",
    message="message",
    client="user",
    server="assistant",
)


def turn(it: gateway_pb2.Turn) -> bytes:
    """A turn."""
    return orjson.dumps(
        {
            "session_id": it.session_id,
            "turn_id": it.turn_id,
            "seq": it.seq,
            "reply": {"text": it.reply_text},
            "status": "completed",
            "session_status": _STATUS[it.session_status],
            "degraded": list(it.degraded),
            "timing": {
                "budget_ms": it.timing.budget_ms,
                "total_ms": it.timing.total_ms,
                "stages": {stage.name: stage.duration_ms for stage in it.timing.stages},
            },
            "usage": {
                "prompt_tokens": it.usage.prompt_tokens,
                "completion_tokens": it.usage.completion_tokens,
                "cost_usd": usd(it.usage.cost_nano_usd),
            },
            "created_at": timestamp(it.created_at),
        }
    )


def opened(session: gateway_pb2.Session, opening: gateway_pb2.Turn, words: Words) -> bytes:
    """A new session with its opening as `message`."""
    message = _message(opening.seq, opening.turn_id, words.server, opening.reply_text, opening.created_at)
    return orjson.dumps({**_session(session, words), "message": message})


def session(it: gateway_pb2.Session, words: Words) -> bytes:
    """A session."""
    return orjson.dumps(_session(it, words))


def sessions(page: gateway_pb2.ListSessionsResponse, words: Words) -> bytes:
    """A page of sessions; `next_page_token` is null on the last."""
    return orjson.dumps(
        {
            words.sessions: [_session(it, words) for it in page.sessions],
            "next_page_token": page.next_page_token or None,
        }
    )


def messages(page: gateway_pb2.ListMessagesResponse, words: Words) -> bytes:
    """A page of messages; `next_page_token` is null on the last."""
    role = {
        gateway_pb2.Message.ROLE_CANDIDATE: words.client,
        gateway_pb2.Message.ROLE_INTERVIEWER: words.server,
    }
    return orjson.dumps(
        {
            "messages": [_message(it.seq, it.turn_id, role[it.role], it.text, it.created_at) for it in page.messages],
            "next_page_token": page.next_page_token or None,
        }
    )


def usd(nano_usd: int) -> str:
    """An amount in 1e-9 US dollars (not negative) as a decimal string in dollars, all nine places given."""
    whole, nano = divmod(nano_usd, NANO_PER_USD)
    return f"{whole}.{nano:09d}"


def timestamp(at: Timestamp) -> str:
    """RFC 3339 in UTC with `Z` and microseconds; what is finer is cut off."""
    whole = datetime.fromtimestamp(at.seconds, UTC).replace(tzinfo=None, microsecond=at.nanos // 1000)
    return f"{whole.isoformat(timespec='microseconds')}Z"


def _session(it: gateway_pb2.Session, words: Words) -> _Object:
    shown: _Object = {words.session_id: it.session_id, "session_id": it.session_id, "status": _STATUS[it.status]}
    if words.kind == gateway_pb2.KIND_INTERVIEW:
        shown["plan"] = it.plan
        shown["candidate_name"] = it.candidate_name or None
    shown["metadata"] = {name: it.metadata[name] for name in sorted(it.metadata)}
    shown["turns"] = it.turns
    shown["max_turns"] = it.max_turns
    shown["created_at"] = timestamp(it.created_at)
    shown["completed_at"] = timestamp(it.completed_at) if it.HasField("completed_at") else None
    shown["pending"] = _pending(it.pending) if it.HasField("pending") else None
    return shown


def _pending(it: gateway_pb2.PendingTurn) -> _Object:
    return {
        "turn_id": it.turn_id,
        "request_id": it.request_id,
        "message_text": it.text,
        "state": _PENDING_STATE[it.state],
    }


def _message(seq: int, turn_id: str, role: str, text: str, created_at: Timestamp) -> _Object:
    return {"seq": seq, "turn_id": turn_id, "role": role, "text": text, "created_at": timestamp(created_at)}

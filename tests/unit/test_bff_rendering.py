"""Documents of the REST interface: exact, deterministic, and as /openapi.json describes them."""

import orjson
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import BaseModel

from colloquy.gateway.v1 import gateway_pb2 as pb
from services.bff import rendering, schemas
from services.bff.rendering import CHAT, INTERVIEW, Words

AT = Timestamp(seconds=1_700_000_000, nanos=1_000)
TURN = pb.Turn(
    session_id="s",
    turn_id="t",
    seq=2**62,
    reply_text="x",
    session_status=pb.SESSION_STATUS_COMPLETED,
    degraded=["bank", "judge"],
    timing=pb.Timing(budget_ms=1890, total_ms=0.1, stages=[pb.Timing.Stage(name="begin", duration_ms=0.1)]),
    usage=pb.Usage(prompt_tokens=1, completion_tokens=2, cost_nano_usd=3),
    created_at=AT,
)
PENDING = pb.PendingTurn(turn_id="t", request_id="r", text="x", state=pb.PendingTurn.STATE_RUNNING)
SESSIONS = [
    pb.Session(session_id="s", status=pb.SESSION_STATUS_OPEN, created_at=AT, max_turns=3, pending=PENDING),
    pb.Session(
        session_id="s",
        status=pb.SESSION_STATUS_COMPLETED,
        plan="p",
        candidate_name="Zoë",
        metadata={"b": "2", "a": "1"},
        created_at=AT,
        completed_at=AT,
    ),
]
MESSAGES = pb.ListMessagesResponse(
    messages=[
        pb.Message(seq=1, turn_id="t", role=role, text="x", created_at=AT)
        for role in (pb.Message.ROLE_CANDIDATE, pb.Message.ROLE_INTERVIEWER)
    ],
    next_page_token="n",
)


def check_described(document: bytes, model: type[BaseModel]) -> None:
    """What is rendered is what the model describes: every member, no other, of its type."""
    described = model.model_validate_json(document, strict=True)

    assert orjson.loads(document) == described.model_dump()


def test_a_turn_is_as_described() -> None:
    check_described(rendering.turn(TURN), schemas.Turn)


@pytest.mark.parametrize(
    ("words", "one", "many"),
    [(INTERVIEW, schemas.Interview, schemas.Interviews), (CHAT, schemas.Conversation, schemas.Conversations)],
    ids=["interview", "chat"],
)
def test_sessions_are_as_described(words: Words, one: type[BaseModel], many: type[BaseModel]) -> None:
    for session in SESSIONS:
        check_described(rendering.session(session, words), one)
    check_described(rendering.sessions(pb.ListSessionsResponse(sessions=SESSIONS), words), many)


def test_an_opened_interview_is_as_described() -> None:
    check_described(rendering.opened(SESSIONS[0], TURN, INTERVIEW), schemas.OpenedInterview)


def test_messages_are_as_described() -> None:
    check_described(rendering.messages(MESSAGES, INTERVIEW), schemas.InterviewMessages)
    check_described(rendering.messages(MESSAGES, CHAT), schemas.ChatMessages)


def test_equal_turns_are_equal_bytes_whatever_way_they_came() -> None:
    again = pb.Turn.FromString(TURN.SerializeToString())

    assert rendering.turn(again) == rendering.turn(TURN)


def test_pairs_come_in_one_order_whatever_order_they_were_sent_in() -> None:
    other = pb.Session(session_id="s", status=pb.SESSION_STATUS_OPEN, created_at=AT, metadata={"a": "1", "b": "2"})
    same = pb.Session(session_id="s", status=pb.SESSION_STATUS_OPEN, created_at=AT, metadata={"b": "2", "a": "1"})

    assert rendering.session(other, CHAT) == rendering.session(same, CHAT)


@pytest.mark.parametrize(
    ("nano_usd", "text"),
    [
        (0, "0.000000000"),
        (1, "0.000000001"),
        (123_456, "0.000123456"),
        (10**9, "1.000000000"),
        (12_345_678_900_000_001, "12345678.900000001"),
    ],
)
def test_money_is_exact_to_the_last_place(nano_usd: int, text: str) -> None:
    assert rendering.usd(nano_usd) == text


@pytest.mark.parametrize(
    ("seconds", "nanos", "text"),
    [
        (0, 0, "1970-01-01T00:00:00.000000Z"),
        (1_700_000_000, 999_999_999, "2023-11-14T22:13:20.999999Z"),
        (1_700_000_000, 1_000, "2023-11-14T22:13:20.000001Z"),
        (4_102_444_800, 5, "2100-01-01T00:00:00.000000Z"),
    ],
)
def test_a_time_is_rfc_3339_in_utc_with_microseconds(seconds: int, nanos: int, text: str) -> None:
    assert rendering.timestamp(Timestamp(seconds=seconds, nanos=nanos)) == text


@pytest.mark.parametrize("status", [it for it in pb.SessionStatus.values() if it])
def test_every_status_of_a_session_has_a_word(status: pb.SessionStatus.ValueType) -> None:
    assert orjson.loads(rendering.session(pb.Session(status=status), INTERVIEW))["status"]


@pytest.mark.parametrize("state", [it for it in pb.PendingTurn.State.values() if it])
def test_every_state_of_a_pending_turn_has_a_word(state: pb.PendingTurn.State.ValueType) -> None:
    session = pb.Session(status=pb.SESSION_STATUS_OPEN, pending=pb.PendingTurn(state=state))

    assert orjson.loads(rendering.session(session, INTERVIEW))["pending"]["state"]

"""Interviews over REST: what is asked of the gateway, and what its answers look like."""

import asyncio
import uuid

import pytest

from colloquy.gateway.v1 import gateway_pb2 as pb
from tests.rpc.bff_world import SESSION, TURN, World, a_session, a_turn, at, running_world, world

__all__ = ["running_world", "world"]

PATH = f"/api/v1/interviews/{SESSION}"
INTERVIEW: dict[str, object] = {
    "interview_id": SESSION,
    "session_id": SESSION,
    "status": "open",
    "plan": "backend-engineer",
    "candidate_name": None,
    "metadata": {},
    "turns": 3,
    "max_turns": 100,
    "created_at": "2023-11-14T22:13:20.000000Z",
    "completed_at": None,
    "pending": None,
}


async def test_an_interview_opens_with_its_first_message(world: World) -> None:
    key = str(uuid.uuid4())
    sent = {"plan": "backend-engineer", "candidate_name": "Zoë", "metadata": {"job": "17"}, "surprise": [1]}

    reply = await world.ask("POST", "/api/v1/interviews", json=sent, idempotency_key=key)

    assert reply.status == 201
    assert reply.json == INTERVIEW | {
        "message": {
            "seq": 1,
            "turn_id": TURN,
            "role": "interviewer",
            "text": "Welcome. What have you built?",
            "created_at": "2023-11-14T22:13:20.123456Z",
        }
    }
    assert world.gateway.heard[0].request == pb.StartSessionRequest(
        request_id=key,
        kind=pb.KIND_INTERVIEW,
        plan="backend-engineer",
        candidate_name="Zoë",
        metadata={"job": "17"},
    )


async def test_an_interview_can_be_opened_without_a_body_or_a_key(world: World) -> None:
    reply = await world.ask("POST", "/api/v1/interviews", idempotency_key="")

    assert reply.status == 201
    heard = world.gateway.heard[0].request
    assert heard == pb.StartSessionRequest(kind=pb.KIND_INTERVIEW, request_id=heard.request_id)
    assert uuid.UUID(heard.request_id)  # or a call that is made again on its way would open another one


async def test_an_opening_that_is_a_replay_says_so_in_a_header_only(world: World) -> None:
    first = await world.ask("POST", "/api/v1/interviews", json={})
    world.gateway.answers["StartSession"] = pb.StartSessionResponse(
        session=a_session(), opening=a_turn(seq=1, reply_text="Welcome. What have you built?"), replayed=True
    )

    again = await world.ask("POST", "/api/v1/interviews", json={})

    assert (again.status, again.body) == (first.status, first.body)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers


async def test_a_message_is_answered_with_its_turn(world: World) -> None:
    key = str(uuid.uuid4())

    reply = await world.ask(
        "POST", f"{PATH}/messages", json={"message_text": "I measure first.", "in_reply_to": 2}, idempotency_key=key
    )

    assert reply.status == 200
    assert reply.headers["Content-Type"] == "application/json"
    assert (
        reply.body
        == (
            f'{{"session_id":"{SESSION}","turn_id":"{TURN}","seq":3,"reply":{{"text":"And how would you find out?"}},'
            '"status":"completed","session_status":"open","degraded":[],"timing":{"budget_ms":1910,"total_ms":640.125,'
            '"stages":{"begin":3.25,"question":612.5}},"usage":{"prompt_tokens":812,"completion_tokens":44,'
            '"cost_usd":"0.000123456"},"created_at":"2023-11-14T22:13:20.123456Z"}'
        ).encode()
    )
    assert world.gateway.heard[0].request == pb.SubmitTurnRequest(
        session_id=SESSION, request_id=key, text="I measure first.", in_reply_to=2, kind=pb.KIND_INTERVIEW
    )


async def test_a_replayed_turn_has_the_same_bytes_and_says_so_in_a_header(world: World) -> None:
    first = await world.say()
    world.gateway.answers["SubmitTurn"] = pb.SubmitTurnResponse(turn=a_turn(), replayed=True)

    again = await world.say()

    assert again.body == first.body
    assert again.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers


@pytest.mark.parametrize(
    "text",
    [
        "👩‍👩‍👧‍👦" * 80,
        "مرحبا بالعالم ‏שלום",
        'Robert\'); DROP TABLE turns;--\n\t<script>alert("x")</script> {"a": null} \\u0000 \\ud800',
        "e\u0301 is not \u00e9",
        "𝒳" * 2000,
        " leading and trailing \r\n",
    ],
    ids=["families", "right to left", "markup", "not normalised", "astral", "space"],
)
async def test_a_text_travels_both_ways_unchanged(world: World, text: str) -> None:
    world.gateway.answers["SubmitTurn"] = pb.SubmitTurnResponse(turn=a_turn(reply_text=text))

    reply = await world.say(text)

    assert world.gateway.heard[0].request.text == text
    assert reply.json["reply"]["text"] == text


async def test_the_gateway_hears_who_asks_and_under_which_ids(world: World) -> None:
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

    reply = await world.say(x_correlation_id="support-4711", traceparent=traceparent)

    metadata = world.gateway.heard[0].metadata
    assert metadata["authorization"] == f"Bearer {world.token}"
    assert metadata["x-correlation-id"] == reply.headers["X-Correlation-ID"] == "support-4711"
    assert metadata["traceparent"].startswith("00-4bf92f3577b34da6a3ce929d0e0e4736-")


async def test_the_gateway_gets_less_time_than_the_client_waits(world: World) -> None:
    began = asyncio.get_running_loop().time()
    await world.say()
    took = asyncio.get_running_loop().time() - began

    assert 8.94 - took < world.gateway.heard[0].seconds_left < 8.95


async def test_an_interview_is_read(world: World) -> None:
    world.gateway.answers["GetSession"] = pb.GetSessionResponse(
        session=a_session(
            candidate_name="Zoë",
            metadata={"b": "2", "a": "1"},
            pending=pb.PendingTurn(turn_id=TURN, request_id=SESSION, text="wait", state=pb.PendingTurn.STATE_ABANDONED),
        )
    )

    reply = await world.ask("GET", PATH)

    assert reply.status == 200
    assert reply.json == INTERVIEW | {
        "candidate_name": "Zoë",
        "metadata": {"a": "1", "b": "2"},
        "pending": {"turn_id": TURN, "request_id": SESSION, "message_text": "wait", "state": "abandoned"},
    }
    assert list(reply.json["metadata"]) == ["a", "b"]
    assert world.gateway.heard[0].request == pb.GetSessionRequest(session_id=SESSION, kind=pb.KIND_INTERVIEW)


async def test_interviews_are_listed_page_by_page(world: World) -> None:
    reply = await world.ask("GET", "/api/v1/interviews?page_size=7&page_token=abc%3D")

    assert reply.json == {"interviews": [INTERVIEW], "next_page_token": "more"}
    assert world.gateway.heard[0].request == pb.ListSessionsRequest(
        kind=pb.KIND_INTERVIEW, page_size=7, page_token="abc="
    )


async def test_messages_are_listed_under_the_interviews_roles(world: World) -> None:
    reply = await world.ask("GET", f"{PATH}/messages")

    created_at = "2023-11-14T22:13:20.000000Z"
    assert reply.json == {
        "messages": [
            {"seq": 2, "turn_id": TURN, "role": "candidate", "text": "hello", "created_at": created_at},
            {"seq": 2, "turn_id": TURN, "role": "interviewer", "text": "hi", "created_at": created_at},
        ],
        "next_page_token": None,
    }
    assert world.gateway.heard[0].request == pb.ListMessagesRequest(session_id=SESSION, kind=pb.KIND_INTERVIEW)


@pytest.mark.parametrize("sent", [{"json": {}}, {"body": b"whatever"}, {}], ids=["empty object", "nonsense", "nothing"])
async def test_an_interview_is_ended_whatever_the_body(world: World, sent: dict[str, object]) -> None:
    reply = await world.ask("POST", f"{PATH}/end", **sent)  # type: ignore[arg-type]  # headers are strings elsewhere

    assert reply.status == 200
    assert reply.json == INTERVIEW | {"status": "completed", "completed_at": "2023-11-14T22:14:20.000000Z"}
    assert world.gateway.heard[0].request == pb.EndSessionRequest(session_id=SESSION, kind=pb.KIND_INTERVIEW)


@pytest.mark.parametrize("kind", [pb.KIND_INTERVIEW, pb.KIND_CHAT])
async def test_what_is_erased_has_no_body(world: World, kind: pb.Kind.ValueType) -> None:
    path = PATH if kind == pb.KIND_INTERVIEW else f"/api/v1/chat/{SESSION}"

    reply = await world.ask("DELETE", path)

    assert (reply.status, reply.body) == (204, b"")
    assert "Content-Type" not in reply.headers
    assert world.gateway.heard[0].request == pb.EraseSessionRequest(session_id=SESSION, kind=kind)


async def test_an_id_in_capitals_is_the_same_id(world: World) -> None:
    await world.ask("GET", f"/api/v1/interviews/{SESSION.upper()}")

    assert world.gateway.heard[0].request.session_id == SESSION


async def test_the_last_moment_of_a_microsecond_is_cut_not_rounded(world: World) -> None:
    world.gateway.answers["SubmitTurn"] = pb.SubmitTurnResponse(turn=a_turn(created_at=at(0, 999_999_999)))

    assert (await world.say()).json["created_at"] == "2023-11-14T22:13:20.999999Z"

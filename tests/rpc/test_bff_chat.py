"""Chat over REST: one route for old clients and new, conversations that begin by themselves."""

import asyncio
import uuid

import pytest

from colloquy.gateway.v1 import gateway_pb2 as pb
from libs.runtime.errors import FieldViolation, InvalidField
from tests.rpc.bff_world import SESSION, TURN, World, a_session, at, running_world, world

__all__ = ["running_world", "world"]

CHAT = "/api/v1/chat"
CONVERSATION = {
    "conversation_id": SESSION,
    "session_id": SESSION,
    "status": "open",
    "metadata": {},
    "turns": 3,
    "max_turns": 100,
    "created_at": "2023-11-14T22:13:20.000000Z",
    "completed_at": None,
    "pending": None,
}


def asked(world: World) -> list[str]:
    return [heard.method for heard in world.gateway.heard]


async def test_a_message_alone_begins_a_conversation_and_is_answered(world: World) -> None:
    reply = await world.ask("POST", CHAT, json={"message": "hello"}, idempotency_key="")

    assert reply.status == 200
    assert reply.json["session_id"] == SESSION
    assert reply.json["reply"] == {"text": "And how would you find out?"}
    assert asked(world) == ["StartSession", "SubmitTurn"]
    opened, said = (heard.request for heard in world.gateway.heard)
    assert uuid.UUID(opened.request_id)
    assert opened == pb.StartSessionRequest(request_id=opened.request_id, kind=pb.KIND_CHAT)
    assert said == pb.SubmitTurnRequest(
        session_id=SESSION, request_id=opened.request_id, text="hello", kind=pb.KIND_CHAT
    )


async def test_old_clients_that_send_no_key_begin_a_conversation_each_time(world: World) -> None:
    for _ in range(2):
        await world.ask("POST", CHAT, json={"message": "hello"}, idempotency_key="")

    first, _, second, _ = (heard.request.request_id for heard in world.gateway.heard)
    assert first != second


async def test_a_key_names_the_conversation_and_the_message(world: World) -> None:
    for _ in range(2):
        await world.ask("POST", CHAT, json={"message": "hello"}, idempotency_key=TURN)

    assert {heard.request.request_id for heard in world.gateway.heard} == {TURN}


async def test_a_conversation_goes_on_under_its_id(world: World) -> None:
    reply = await world.ask("POST", CHAT, json={"message": "and then?", "conversation_id": SESSION.upper()})

    assert reply.status == 200
    assert asked(world) == ["SubmitTurn"]
    assert world.gateway.heard[0].request.session_id == SESSION


async def test_a_null_id_is_no_id(world: World) -> None:
    await world.ask("POST", CHAT, json={"message": "hello", "conversation_id": None})

    assert asked(world) == ["StartSession", "SubmitTurn"]


@pytest.mark.parametrize(
    ("sent", "status", "reason"),
    [
        ({"message": "hello", "conversation_id": "7"}, 400, "MALFORMED"),
        ({"message": "hello", "conversation_id": 7}, 422, "INVALID_FIELD"),
        ({"message_text": "hello"}, 422, "INVALID_FIELD"),
        ({}, 422, "INVALID_FIELD"),
    ],
    ids=str,
)
async def test_what_is_not_a_chat_message_is_refused(
    world: World, sent: dict[str, object], status: int, reason: str
) -> None:
    reply = await world.ask("POST", CHAT, json=sent)

    assert (reply.status, reply.json["reason"]) == (status, reason)
    assert asked(world) == []


@pytest.mark.parametrize(
    "text",
    ["", " \n\t", "a\0b", "\u200b\u2060\ufeff", "x" * 2001, "e\u0301" * 2001, "\u0301" * 20_000],
    ids=["empty", "blank", "NUL", "unseen", "too long", "too long in NFC", "marks without end"],
)
async def test_a_message_that_would_be_refused_begins_no_conversation(world: World, text: str) -> None:
    reply = await world.ask("POST", CHAT, json={"message": text})

    assert (reply.status, reply.json["reason"]) == (422, "INVALID_FIELD")
    assert {it["field"] for it in reply.json["errors"]} == {"message"}
    assert asked(world) == []


@pytest.mark.parametrize("text", ["x" * 2000, "e\u0301" * 2000, "\u0e33" * 2000, "👍🏽", ".", "\u200bx", "ㅤ."])
async def test_a_message_at_the_limit_begins_one(world: World, text: str) -> None:
    assert (await world.ask("POST", CHAT, json={"message": text})).status == 200


async def test_a_field_at_fault_has_its_name_in_a_chat(world: World) -> None:
    world.gateway.answers["SubmitTurn"] = InvalidField([FieldViolation("text", "must not hold NUL")])

    reply = await world.ask("POST", CHAT, json={"message": "a\0b", "conversation_id": SESSION})

    assert reply.json["errors"] == [{"field": "message", "message": "must not hold NUL"}]


async def test_conversations_are_read_listed_and_shown_under_a_chats_names(world: World) -> None:
    chat = a_session(kind=pb.KIND_CHAT)
    chat.plan = ""
    world.gateway.answers["GetSession"] = pb.GetSessionResponse(session=chat)
    world.gateway.answers["ListSessions"] = pb.ListSessionsResponse(sessions=[chat])

    one = await world.ask("GET", f"{CHAT}/{SESSION}")
    page = await world.ask("GET", CHAT)
    said = await world.ask("GET", f"{CHAT}/{SESSION}/messages?page_size=200")

    assert one.json == CONVERSATION
    assert page.json == {"conversations": [CONVERSATION], "next_page_token": None}
    assert [message["role"] for message in said.json["messages"]] == ["user", "assistant"]
    assert {heard.request.kind for heard in world.gateway.heard} == {pb.KIND_CHAT}


async def test_a_chat_has_the_time_of_any_reply_unless_it_streams(world: World) -> None:
    began = asyncio.get_running_loop().time()
    await world.ask("POST", CHAT, json={"message": "hello", "conversation_id": SESSION})
    await world.ask("POST", CHAT, json={"message": "hello", "conversation_id": SESSION}, accept="text/event-stream")

    took = asyncio.get_running_loop().time() - began
    whole, streamed = world.gateway.heard
    assert 8.94 - took < whole.seconds_left < 8.95
    assert 14.94 - took < streamed.seconds_left < 15.0  # gRPC sends a time above ten seconds rounded up


async def test_opening_and_answering_share_one_budget(world: World) -> None:
    async def slowly(_: object) -> pb.StartSessionResponse:
        await asyncio.sleep(0.3)
        return pb.StartSessionResponse(session=a_session(kind=pb.KIND_CHAT))

    world.gateway.answers["StartSession"] = slowly

    await world.ask("POST", CHAT, json={"message": "hello"})

    assert world.gateway.heard[1].seconds_left < 8.94 - 0.3 + 0.01  # which gRPC may round up by


async def test_a_new_conversation_can_be_streamed(world: World) -> None:
    reply = await world.ask("POST", CHAT, json={"message": "hello"}, accept="text/event-stream")

    assert reply.status == 200
    assert reply.body.startswith(b"event: accepted\n")
    assert asked(world) == ["StartSession", "StreamTurn"]


async def test_a_conversation_that_is_closed_shows_when(world: World) -> None:
    chat = a_session(kind=pb.KIND_CHAT, status=pb.SESSION_STATUS_COMPLETED, completed_at=at(1_700_000_060, 1000))
    world.gateway.answers["GetSession"] = pb.GetSessionResponse(session=chat)

    reply = await world.ask("GET", f"{CHAT}/{SESSION}")

    assert (reply.json["status"], reply.json["completed_at"]) == ("completed", "2023-11-14T22:14:20.000001Z")

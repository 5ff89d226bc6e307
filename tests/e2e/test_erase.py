"""Erasing through both faces: afterwards there is nothing, and nothing brings it back."""

import uuid

import grpc
import pytest

from colloquy.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from libs.runtime import status
from tests.e2e.product import Caller, Product, eventually

ANSWER = "My name is Grace Hopper, and I would write a test that fails before I change anything."
GONE = "Grace"
TABLES = {
    "history": ("streams", "turns"),
    "session": ("sessions",),
    "assessment": ("interviews", "answers"),
    "llm": ("sessions", "calls"),
}


def said(product: Product, session_id: str) -> list[str]:
    """The tables that still hold something of what was said in a session."""
    return [
        f"{context}.{table}"
        for context, tables in TABLES.items()
        for table in tables
        for row in product.rows(context, f"SELECT t::text FROM {context}.{table} t WHERE session_id = %s", session_id)
        if GONE in row["t"] or GONE.encode().hex() in row["t"]
    ]


def tombstones(product: Product, session_id: str, *contexts: str) -> list[bool]:
    table = {"history": "streams", "session": "sessions", "assessment": "interviews", "llm": "sessions"}
    return [
        row["erased"]
        for context in contexts
        for row in product.rows(
            context, f"SELECT erased FROM {context}.{table[context]} WHERE session_id = %s", session_id
        )
    ]


async def a_chat(ada: Caller) -> str:
    """A conversation of one turn."""
    reply = await ada.request("POST", "/api/v1/chat", {"message": ANSWER})
    assert reply.status == 200, reply
    session_id: str = reply.json["session_id"]
    return session_id


async def test_an_owner_erases_a_chat_and_nothing_of_it_is_left(product: Product, ada: Caller) -> None:
    chat = await a_chat(ada)
    path = f"/api/v1/chat/{chat}"
    before = said(product, chat)

    erased = [await ada.request("DELETE", path) for _ in range(2)]

    assert "history.turns" in before
    assert [(reply.status, reply.body) for reply in erased] == [(204, b"")] * 2
    assert said(product, chat) == []
    assert tombstones(product, chat, "history", "session", "llm") == [True] * 3
    for gone in (path, f"{path}/messages"):
        after = await ada.request("GET", gone, X_Correlation_ID="same")
        absent = await ada.request("GET", gone.replace(chat, str(uuid.uuid4())), X_Correlation_ID="same")
        assert (after.status, after.body) == (404, absent.body)
    written = await ada.request("POST", "/api/v1/chat", {"message": "Hello?", "conversation_id": chat})
    assert written.status == 404
    assert (await ada.request("GET", "/api/v1/chat")).json["conversations"] == []


async def test_somebody_elses_chat_and_none_look_the_same_to_who_would_erase_them(
    product: Product, ada: Caller
) -> None:
    chat, eve = await a_chat(ada), product.candidate()

    theirs = await eve.request("DELETE", f"/api/v1/chat/{chat}", X_Correlation_ID="same")
    absent = await eve.request("DELETE", f"/api/v1/chat/{uuid.uuid4()}", X_Correlation_ID="same")

    assert (theirs.status, theirs.body) == (404, absent.body)
    assert (await ada.request("GET", f"/api/v1/chat/{chat}")).status == 200


async def test_an_interview_is_erased_by_an_operator_alone(product: Product, ada: Caller) -> None:
    interview = (await ada.start(candidate_name="Grace"))["interview_id"]
    assert (await ada.say(interview, ANSWER)).status == 200
    path = f"/api/v1/interviews/{interview}"
    operator = product.caller("olga", "operator")

    refused = [await who.request("DELETE", path) for who in (ada, product.caller("asa", "assessor"))]
    as_a_chat = await operator.request("DELETE", f"/api/v1/chat/{interview}")
    erased = [await operator.request("DELETE", path) for _ in range(2)]

    assert [(reply.status, reply.json["reason"]) for reply in refused] == [(403, "ROLE_MISSING")] * 2
    assert as_a_chat.status == 404
    assert [reply.status for reply in erased] == [204, 204]
    assert said(product, interview) == []
    assert tombstones(product, interview, "history", "session", "assessment", "llm") == [True] * 4
    assert [(await who.request("GET", path)).status for who in (ada, operator)] == [404, 404]


async def test_what_a_context_cannot_do_at_once_the_sweep_does(product: Product, ada: Caller) -> None:
    interview = (await ada.start(candidate_name="Grace"))["interview_id"]
    assert (await ada.say(interview, ANSWER)).status == 200
    operator = product.caller("olga", "operator")

    async with product.stopped(product.process("llm-gateway")):
        erased = await operator.request("DELETE", f"/api/v1/interviews/{interview}")

    async def finished() -> bool:
        unsettled = "SELECT 1 FROM history.streams WHERE acked_rev < rev AND session_id = %s"
        return not product.rows("history", unsettled, interview)

    await eventually(finished, seconds=30)
    assert erased.status == 204
    assert said(product, interview) == []
    assert tombstones(product, interview, "history", "session", "assessment", "llm") == [True] * 4


async def test_a_stream_whose_session_is_erased_ends_with_a_problem(product: Product, ada: Caller) -> None:
    interview = (await ada.start())["interview_id"]
    operator = product.caller("olga", "operator")
    await product.set_simulator(latency={"median_ms": 1000, "sigma": 0})
    told = []

    try:
        async for name, data in ada.stream(f"/api/v1/interviews/{interview}/messages", {"message_text": ANSWER}):
            told.append((name, data.get("reason")))
            if name == "accepted":
                await operator.request("DELETE", f"/api/v1/interviews/{interview}")
    finally:
        await product.set_simulator(latency={"median_ms": 30, "sigma": 0.2})

    assert (told[0], told[-1]) == (("accepted", None), ("failed", "NOT_FOUND"))
    assert "completed" not in dict(told)

    async def quiet() -> bool:
        return not said(product, interview)

    await eventually(quiet)


@pytest.mark.parametrize(
    ("kind", "role", "expected"),
    [
        (gateway_pb2.KIND_CHAT, "candidate", "OK"),
        (gateway_pb2.KIND_INTERVIEW, "candidate", "NOT_FOUND"),
        (gateway_pb2.KIND_CHAT, "operator", "OK"),
        (gateway_pb2.KIND_INTERVIEW, "operator", "OK"),
        (gateway_pb2.KIND_CHAT, "assessor", "ROLE_MISSING"),
    ],
)
async def test_over_grpc_a_kind_need_not_be_named(
    product: Product, kind: gateway_pb2.Kind.ValueType, role: str, expected: str
) -> None:
    owner = f"backend-{uuid.uuid4()}"
    asking = owner if role == "candidate" else "olga"
    signed = {
        name: (("authorization", f"Bearer {product.token(subject, *roles)}"),)
        for name, subject, roles in (("owner", owner, ["candidate"]), ("asking", asking, [role]))
    }
    async with grpc.aio.insecure_channel(product.gateway) as channel:
        stub = gateway_pb2_grpc.ConversationServiceStub(channel)
        started = await stub.StartSession(
            gateway_pb2.StartSessionRequest(kind=kind), metadata=signed["owner"], timeout=5
        )
        erase = gateway_pb2.EraseSessionRequest(session_id=started.session.session_id)

        heard = []
        for _ in range(2):
            try:
                await stub.EraseSession(erase, metadata=signed["asking"], timeout=5)
                heard.append("OK")
            except grpc.aio.AioRpcError as error:
                heard.append(status.decode(error).reason.value)

    assert heard == [expected] * 2

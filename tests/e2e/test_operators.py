"""What operators type: sessions that are stuck, repairs by hand on record, and a turn's whole life on one screen."""

import getpass
import json
import re
import uuid
from typing import Any

import grpc
import pytest

from colloquy.gateway.v1 import operations_pb2, operations_pb2_grpc
from tests.e2e.product import Caller, Product, eventually
from tests.e2e.test_commands import colloquy
from tests.ports import free_ports

ANSWER = "An index on user_id alone would still sort, a compound one reads in order."


async def chat(caller: Caller, conversation_id: str | None = None, **headers: Any) -> Any:
    body = {"message": ANSWER} | ({"conversation_id": conversation_id} if conversation_id else {})
    return await caller.request("POST", "/api/v1/chat", body, **headers)


async def told(product: Product, *arguments: str) -> str:
    """What a command that succeeds prints."""
    code, out, err = await colloquy(product.environment, *arguments)
    assert (code, err) == (0, ""), err
    return out


# A turn's life


async def test_a_turns_whole_life_is_on_one_screen_without_a_word_of_it(product: Product, ada: Caller) -> None:
    interview, key = await ada.start(), str(uuid.uuid4())
    session_id = interview["interview_id"]
    turn = (await ada.say(session_id, ANSWER, key)).json

    shown = await told(product, "turns", "show", session_id, turn["turn_id"])
    by_request = await told(product, "turns", "show", session_id, key)

    assert re.search(rf"^session    {session_id}  interview, open, .*2 turns, fence 2$", shown, re.M), shown
    assert re.search(rf"^turn       {turn['turn_id']}  request {key}$", shown, re.M), shown
    assert re.search(r"^state      COMMITTED as turn 2, on 1 turns, under fence 2$", shown, re.M), shown
    assert re.search(r"^committed  .*Z  \+\d+ ms$", shown, re.M), shown
    assert re.search(r"^timing     \d+ of \d+ ms: .*question \d+", shown, re.M), shown
    for purpose in ("judge", "question"):
        made = rf"^call       {purpose}  DONE, fence 1, .*\n  attempt  1\.1  SETTLED HTTP 200 .* for \d+ ms,"
        assert re.search(made, shown, re.M), shown
    assert shown.splitlines()[1:3] == by_request.splitlines()[1:3]
    for text in (ANSWER, turn["reply"]["text"], interview["message"]["text"]):
        assert text not in shown


async def test_a_turns_life_as_json_has_numbers_and_nulls(product: Product, ada: Caller) -> None:
    turn = (await chat(ada)).json

    life = json.loads(await told(product, "turns", "show", turn["session_id"], turn["turn_id"], "--json"))

    assert (life["stream"]["kind"], life["stream"]["last_seq"], life["stream"]["erased"]) == ("CHAT", 1, False)
    assert (life["turn"]["state"], life["turn"]["seq"], life["turn"]["fence"]) == ("COMMITTED", 1, 1)
    assert life["turn"]["committed_at"] == turn["created_at"]
    [call] = life["calls"]
    assert (call["purpose"], call["state"], len(call["attempts"])) == ("chat", "DONE", 1)
    assert life["repairs"] == []
    assert ANSWER not in json.dumps(life)


async def test_a_turn_that_is_not_there_is_one_line(product: Product) -> None:
    code, out, err = await colloquy(product.environment, "turns", "show", str(uuid.uuid4()), str(uuid.uuid4()))

    assert (code, out) == (1, "")
    assert re.fullmatch(r"colloquy: .+\n", err)


# Repairs


async def test_a_reset_lets_a_session_go_on_and_is_on_record(product: Product, ada: Caller) -> None:
    conversation_id = (await chat(ada)).json["session_id"]
    await product.set_simulator(faults={"hang": 1})  # longer than a command takes to start
    slow = await chat(ada, conversation_id)
    refused = await chat(ada, conversation_id)
    await product.set_simulator(latency={"median_ms": 30, "sigma": 0.2})

    shown = await told(product, "sessions", "reset", conversation_id, "--reason", "its gateway hangs")
    turn = await chat(ada, conversation_id)

    assert (slow.status, refused.status, turn.status) == (504, 409, 200)
    assert re.fullmatch(rf"{conversation_id}  reset by {getpass.getuser()}: fence 2 to 3, turn \S+ ended .*\n", shown)
    [row] = product.rows("history", "SELECT * FROM history.interventions WHERE session_id = %s", conversation_id)
    assert (row["action"], row["actor"], row["reason"]) == ("RESET", getpass.getuser(), "its gateway hangs")
    life = await told(product, "turns", "show", conversation_id, str(row["turn_id"]))
    assert re.search(r"^state      ABANDONED \(UNAVAILABLE\) on 1 turns, under fence 2$", life, re.M), life
    assert re.search(r"^repair     .*reset by .*\n           why: its gateway hangs$", life, re.M), life


async def test_a_session_is_completed_by_hand(product: Product, ada: Caller) -> None:
    session_id = (await ada.start())["interview_id"]

    shown = await told(product, "sessions", "complete", session_id, "--reason", "the candidate has left")
    again = await told(product, "sessions", "complete", session_id, "--reason", "to be sure")

    assert "closed after 1 turns" in shown
    assert "was closed already" in again
    interview = (await ada.request("GET", f"/api/v1/interviews/{session_id}")).json
    assert interview["status"] == "completed"

    async def folded() -> bool:
        query = "SELECT completed_at FROM session.sessions WHERE session_id = %s"
        return product.rows("session", query, session_id)[0]["completed_at"] is not None

    await eventually(folded)
    assert (await ada.say(session_id, ANSWER)).json["reason"] == "SESSION_CLOSED"


async def test_an_operator_with_a_token_from_elsewhere_needs_no_key_and_is_on_record_by_its_name(
    product: Product, ada: Caller
) -> None:
    session_id = (await ada.start())["interview_id"]
    held = {
        "COLLOQUY_GATEWAY_TARGET": product.gateway,
        "COLLOQUY_OPERATOR_TOKEN": product.token("night-shift", "operator"),
    }

    code, out, err = await colloquy(held, "sessions", "complete", session_id, "--reason", "the candidate has left")

    assert (code, err) == (0, "")
    assert "complete by night-shift: " in out


async def test_a_repair_of_what_is_not_there_is_one_line_and_leaves_none(product: Product) -> None:
    session_id = str(uuid.uuid4())

    code, out, err = await colloquy(product.environment, "sessions", "reset", session_id, "--reason", "why not")

    assert (code, out) == (1, "")
    assert re.fullmatch(r"colloquy: .+\n", err)
    assert product.rows("history", "SELECT * FROM history.interventions WHERE session_id = %s", session_id) == []


# Stuck


async def test_a_session_is_stuck_while_a_projection_does_not_answer_and_says_which(
    product: Product, ada: Caller
) -> None:
    async def stuck() -> dict[str, Any]:
        listed = json.loads(await told(product, "sessions", "stuck", "--older-than", "0.5", "--json"))
        return {session["session_id"]: session for session in listed}

    async with product.stopped(product.process("session")):
        session_id = (await ada.start())["interview_id"]

        async def listed() -> bool:
            return session_id in await stuck()

        await eventually(listed, 40)
        found = (await stuck())[session_id]
        screen = await told(product, "sessions", "stuck", "--older-than", "0")
        none = await told(product, "sessions", "stuck", "--older-than", "3600")

    async def settled() -> bool:
        return session_id not in await stuck()

    assert (found["lack"], found["kind"], found["owner_id"], found["last_seq"]) == ("FOLD", "INTERVIEW", ada.subject, 1)
    assert [(it["context"], it["reason"]) for it in found["behind"]] == [("session", "UNAVAILABLE")]
    assert found["age_ms"] >= 500
    assert re.search(rf"^{session_id}  .*interview  a projection is behind: session UNAVAILABLE$", screen, re.M), screen
    assert none == "0 stuck for more than 3600 s\n"
    await eventually(settled, 40)


# Who may, and how


@pytest.mark.parametrize("role", ["candidate", "assessor", "service"])
async def test_nobody_but_an_operator_may(product: Product, role: str) -> None:
    requests = {
        "ListStuckSessions": operations_pb2.ListStuckSessionsRequest(),
        "RepairSession": operations_pb2.RepairSessionRequest(session_id=str(uuid.uuid4()), repair_id=str(uuid.uuid4())),
        "GetTurnLife": operations_pb2.GetTurnLifeRequest(
            session_id=str(uuid.uuid4()), turn_or_request_id=str(uuid.uuid4())
        ),
    }
    async with grpc.aio.insecure_channel(product.gateway) as channel:
        stub = operations_pb2_grpc.OperationsServiceStub(channel)
        for name, request in requests.items():
            metadata = (("authorization", f"Bearer {product.token('mallory', role)}"),)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await getattr(stub, name)(request, metadata=metadata, timeout=10)
            with pytest.raises(grpc.aio.AioRpcError) as unknown:
                await getattr(stub, name)(request, timeout=10)

            assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED, name
            assert unknown.value.code() == grpc.StatusCode.UNAUTHENTICATED, name


async def test_a_gateway_that_is_not_there_is_said_at_once(product: Product) -> None:
    nowhere = {**product.environment, "COLLOQUY_GATEWAY_TARGET": f"127.0.0.1:{free_ports(1)[0]}"}

    code, out, err = await colloquy(nowhere, "sessions", "stuck")

    assert (code, out) == (1, "")
    assert re.fullmatch(r"colloquy: nothing answers at \S+: is `colloquy run` up\?\n", err)


@pytest.mark.parametrize(
    "arguments",
    [
        ["sessions"],
        ["sessions", "reset", str(uuid.UUID(int=1))],
        ["sessions", "complete", "nonsense", "--reason", "why"],
        ["sessions", "stuck", "--older-than", "-1"],
        ["turns", "show", str(uuid.UUID(int=1))],
    ],
    ids=" ".join,
)
async def test_what_is_typed_wrong_is_usage(product: Product, arguments: list[str]) -> None:
    code, out, err = await colloquy(product.environment, *arguments)

    assert (code, out) == (2, "")
    assert "usage: " in err
    assert "Traceback" not in err

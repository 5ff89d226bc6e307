"""The real gateway dies in mid-turn: every message gets its answer, whoever comes back for it, and if nobody does."""

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import pytest_asyncio

from colloquy.gateway.v1 import record_pb2
from tests.databases import Server
from tests.e2e.product import HELD, Caller, Product, Reply, eventually

ANSWER = (
    "I would put the write and the outgoing event into one transaction, and let a reader of the log send the event."
)
LEASE_SECONDS = 4
# How long things take is measured by the fault suite, on a machine of its own: these bound what never ends.
RESTART_SECONDS = 20  # the supervisor's pause, the imports, and the bff's channel
SWEPT_SECONDS = 30
QUIET_SECONDS = 30


@pytest_asyncio.fixture(scope="module")
async def pair(database_server: Server, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Product]:
    """A product with two gateways, in which faults can be had by name."""
    own = database_server.create()
    data = tmp_path_factory.mktemp("pair")
    async with Product(own, data, {"COLLOQUY_FAILPOINTS": ""}, two_gateways=True) as running:
        await running.set_simulator(latency={"median_ms": 30, "sigma": 0})
        yield running
    database_server.drop(own.name)


async def in_mid_turn(
    product: Product, ada: Caller, interviews: Sequence[str], keys: Sequence[str]
) -> "asyncio.Future[list[Reply]]":
    """A message to each interview, when the model has been asked for all that their turns want, or is being asked."""
    await product.set_simulator(latency={"median_ms": 900, "sigma": 0})
    asking = [asyncio.create_task(ada.say(one, ANSWER, key)) for one, key in zip(interviews, keys, strict=True)]

    async def asked() -> bool:
        return await calls_made(product, interviews) == {("judge", "question")}

    await eventually(asked)
    await product.set_simulator(latency={"median_ms": 30, "sigma": 0.2})
    return asyncio.gather(*asking)


def turns(product: Product, session_ids: Sequence[str]) -> Counter[tuple[int | None, str]]:
    """How many turns there are, by seq (None where there is none) and state."""
    query = "SELECT seq, state FROM history.turns WHERE session_id = ANY(%s::uuid[])"
    return Counter((row["seq"], row["state"]) for row in product.rows("history", query, list(session_ids)))


def committed_by(product: Product, session_ids: Sequence[str]) -> Counter[str]:
    """How the second turns came to be committed."""
    query = "SELECT record FROM history.turns WHERE seq = 2 AND session_id = ANY(%s::uuid[])"
    records = [row["record"] for row in product.rows("history", query, list(session_ids))]
    return Counter(record_pb2.TurnRecord.FromString(record).committed_by for record in records)


async def until_quiet(product: Product, session_ids: Sequence[str]) -> None:
    """Wait until nothing is left to be done for the sessions."""
    query = "SELECT session_id FROM history.streams WHERE acked_rev < rev AND session_id = ANY(%s::uuid[])"

    async def quiet() -> bool:
        return not product.rows("history", query, list(session_ids))

    await eventually(quiet, seconds=QUIET_SECONDS)


async def calls_made(product: Product, session_ids: Sequence[str]) -> set[tuple[str, ...]]:
    return {tuple(await product.model_calls(session_id)) for session_id in session_ids}


async def test_whoever_comes_back_gets_the_answer_once_the_lease_is_over(product: Product, ada: Caller) -> None:
    interviews = [(await ada.start())["interview_id"] for _ in range(6)]
    keys = [str(uuid.uuid4()) for _ in interviews]
    await product.arm("gateway", HELD)
    waiting = await in_mid_turn(product, ada, interviews, keys)

    product.kill("gateway")
    lost = await waiting

    async def answered(interview: str, key: str) -> Reply:
        async def came() -> bool:
            return (await ada.say(interview, ANSWER, key)).status == 200

        await eventually(came, seconds=LEASE_SECONDS + 2 + RESTART_SECONDS)
        return await ada.say(interview, ANSWER, key)

    replies = await asyncio.gather(*(answered(one, key) for one, key in zip(interviews, keys, strict=True)))
    assert {reply.status for reply in lost} <= {409, 503, 504}
    assert {reply.json["seq"] for reply in replies} == {2}
    assert turns(product, interviews) == {(1, "COMMITTED"): 6, (2, "COMMITTED"): 6}
    assert await calls_made(product, interviews) == {("judge", "question")}


async def test_if_nobody_comes_the_sweep_answers(product: Product, ada: Caller) -> None:
    interviews = [(await ada.start())["interview_id"] for _ in range(6)]
    await product.arm("gateway", HELD)
    waiting = await in_mid_turn(product, ada, interviews, [str(uuid.uuid4()) for _ in interviews])

    product.kill("gateway")

    async def swept() -> bool:
        return turns(product, interviews) == {(1, "COMMITTED"): 6, (2, "COMMITTED"): 6}

    await eventually(swept, seconds=SWEPT_SECONDS)
    await waiting
    assert committed_by(product, interviews) == {"repair": 6}
    assert await calls_made(product, interviews) == {("judge", "question")}
    await until_quiet(product, interviews)
    assert await product.metric("gateway", 'colloquy_turns_recovered_total{how="rolled_forward"}') == 6
    assert await product.metric("gateway", "colloquy_sweep_last_success_timestamp_seconds") > 0


async def test_though_the_model_hangs_too_the_sweep_answers(product: Product, ada: Caller) -> None:
    interview = (await ada.start())["interview_id"]
    await product.arm("gateway", HELD)
    await product.set_simulator(faults={"hang": 1})
    asking = asyncio.create_task(ada.say(interview, ANSWER))

    async def asked() -> bool:
        return "question" in await product.model_calls(interview)

    await eventually(asked)
    product.kill("gateway")

    async def swept() -> bool:
        return turns(product, [interview]) == {(1, "COMMITTED"): 1, (2, "COMMITTED"): 1}

    await eventually(swept, seconds=SWEPT_SECONDS)
    await product.set_simulator(latency={"median_ms": 30, "sigma": 0.2})
    await asking
    assert committed_by(product, [interview]) == {"repair": 1}
    (answered,) = [it for it in await ada.messages(interview) if (it["seq"], it["role"]) == (2, "interviewer")]
    planned = product.rows("history", "SELECT record FROM history.turns WHERE seq = 1 AND session_id = %s", interview)
    offered = record_pb2.TurnRecord.FromString(planned[0]["record"]).next_items
    assert answered["text"] in [item.wording for item in offered]


async def test_a_chat_that_nobody_comes_back_for_keeps_its_reply(product: Product, ada: Caller) -> None:
    await product.arm("gateway", HELD)
    await product.set_simulator(latency={"median_ms": 900, "sigma": 0})
    key = str(uuid.uuid4())
    asking = asyncio.create_task(ada.request("POST", "/api/v1/chat", {"message": "Hello?"}, key=key))

    def chats() -> list[dict[str, Any]]:
        query = "SELECT session_id::text FROM history.streams WHERE owner_id = %s"
        return product.rows("history", query, ada.subject)

    async def begun() -> bool:
        return [await product.model_calls(chat["session_id"]) for chat in chats()] == [["chat"]]

    await eventually(begun)
    await product.set_simulator(latency={"median_ms": 30, "sigma": 0.2})
    product.kill("gateway")
    await asking
    (chat,) = chats()
    # A chat's lease is 17 s; the ledger's clock is moved, not waited for.
    product.rows(
        "history",
        "UPDATE history.streams SET lease_until = clock_timestamp() WHERE session_id = %s RETURNING rev",
        chat["session_id"],
    )

    await until_quiet(product, [chat["session_id"]])

    assert turns(product, [chat["session_id"]]) == {(1, "COMMITTED"): 1}
    replayed = await ada.request("POST", "/api/v1/chat", {"message": "Hello?"}, key=key)
    assert (replayed.status, replayed.headers["Idempotency-Replayed"]) == (200, "true")
    assert await product.model_calls(chat["session_id"]) == ["chat"]


async def test_a_turn_that_runs_into_the_end_is_refused_and_replays_so(product: Product, ada: Caller) -> None:
    interview, key = (await ada.start())["interview_id"], str(uuid.uuid4())
    running = await in_mid_turn(product, ada, [interview], [key])

    ended = await ada.request("POST", f"/api/v1/interviews/{interview}/end")
    (refused,) = await running
    replayed = await ada.say(interview, ANSWER, key)

    assert (ended.status, ended.json["status"], ended.json["turns"]) == (200, "completed", 1)
    assert [(reply.status, reply.json["reason"]) for reply in (refused, replayed)] == [(409, "SESSION_CLOSED")] * 2
    await until_quiet(product, [interview])
    assert turns(product, [interview]) == {(1, "COMMITTED"): 1, (None, "FAILED"): 1}


async def test_what_was_ended_while_its_projections_were_down_is_completed_when_they_are_back(
    product: Product, ada: Caller
) -> None:
    interview = (await ada.start())["interview_id"]
    path = f"/api/v1/interviews/{interview}"

    async with product.stopped(product.process("session")), product.stopped(product.process("assessment")):
        ended = [await ada.request("POST", f"{path}/end") for _ in range(2)]
    await until_quiet(product, [interview])

    assert [(reply.status, reply.json["status"]) for reply in ended] == [(200, "completed")] * 2
    assert ended[0].body == ended[1].body
    query = "SELECT status, applied_seq FROM session.sessions WHERE session_id = %s"
    assert product.rows("session", query, interview) == [{"status": "completed", "applied_seq": 1}]


async def test_when_one_of_two_gateways_is_gone_the_other_sweeps(pair: Product) -> None:
    ada = pair.candidate()
    interviews = [(await ada.start())["interview_id"] for _ in range(8)]
    await pair.arm("gateway-2", HELD)
    waiting = await in_mid_turn(pair, ada, interviews, [str(uuid.uuid4()) for _ in interviews])

    async with pair.killed("gateway-2"):

        async def swept() -> bool:
            return turns(pair, interviews) == {(1, "COMMITTED"): 8, (2, "COMMITTED"): 8}

        await eventually(swept, seconds=SWEPT_SECONDS)
        await until_quiet(pair, interviews)
        again = await ada.say(interviews[0], "Shall we go on?")
    await waiting

    how = committed_by(pair, interviews)
    assert how["owner"] + how["repair"] == 8
    assert how["owner"] > 0
    assert how["repair"] > 0
    assert again.status == 200
    assert await calls_made(pair, interviews[1:]) == {("judge", "question")}


@pytest.mark.parametrize("point", ["gateway.history.open_stream.after", "gateway.assessment.start_interview.after"])
async def test_an_interview_whose_opening_was_never_said_is_opened_by_the_sweep(pair: Product, point: str) -> None:
    ada = pair.candidate()
    for gateway in ("gateway", "gateway-2"):
        await pair.arm(gateway, f"{point}=1*exit")

    reply = await ada.request("POST", "/api/v1/interviews", {"plan": "quick"}, key=str(uuid.uuid4()))

    async def opened() -> bool:
        listed = await ada.request("GET", "/api/v1/interviews")
        return listed.status == 200 and [entry["turns"] for entry in listed.json["interviews"]] == [1]

    await eventually(opened, seconds=SWEPT_SECONDS)
    (interview,) = (await ada.request("GET", "/api/v1/interviews")).json["interviews"]
    assert reply.status in (409, 503, 504)
    assert [message["seq"] for message in await ada.messages(interview["interview_id"])] == [1]
    assert (await ada.say(interview["interview_id"], ANSWER)).status == 200
    await until_quiet(pair, [interview["interview_id"]])

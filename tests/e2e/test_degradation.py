"""What a candidate gets when something behind the gateway is late, broken or gone."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator

import pytest_asyncio

from tests.e2e.product import HELD, Caller, Product, eventually

ANSWER = "Retries need an idempotency key: the server stores it with the result under a unique constraint."


@pytest_asyncio.fixture
async def simulator_restored(product: Product) -> AsyncIterator[None]:
    yield
    await product.set_simulator(latency={"median_ms": 30, "sigma": 0.2})


async def test_a_hanging_model_costs_the_wording_and_not_the_turn(
    product: Product, ada: Caller, simulator_restored: None
) -> None:
    interview = await ada.start()
    await product.set_simulator(faults={"hang": 1})

    began = time.monotonic()
    reply = await ada.say(interview["interview_id"], ANSWER)
    took = time.monotonic() - began

    assert reply.status == 200
    assert took < 2.0
    assert reply.json["degraded"] == ["bank"]
    await product.set_simulator(latency={"median_ms": 30, "sigma": 0.2})
    after = await ada.say(interview["interview_id"], ANSWER)
    assert (after.status, after.json["degraded"]) == (200, [])


async def test_a_late_score_is_paid_for_once_and_recorded_when_it_arrives(
    product: Product, ada: Caller, simulator_restored: None
) -> None:
    interview = await ada.start()
    await product.set_simulator(purposes={"judge": {"latency": {"median_ms": 2500, "sigma": 0}}})

    reply = await ada.say(interview["interview_id"], ANSWER)

    assert (reply.status, reply.json["degraded"]) == (200, [])

    async def scored() -> bool:
        rows = product.rows(
            "assessment", "SELECT state FROM assessment.answers WHERE session_id = %s", interview["interview_id"]
        )
        return [row["state"] for row in rows] == ["SCORED"]

    await eventually(scored)
    assert await product.model_calls(interview["interview_id"]) == ["judge", "question"]


async def test_a_caller_who_leaves_after_accepted_finds_the_turn_committed(product: Product, ada: Caller) -> None:
    interview = await ada.start()
    key = str(uuid.uuid4())
    path = f"/api/v1/interviews/{interview['interview_id']}/messages"

    async for event, _ in ada.stream(path, {"message_text": ANSWER}, key):
        assert event == "accepted"
        break

    async def committed() -> bool:
        return len(await ada.messages(interview["interview_id"])) == 3

    await eventually(committed)
    replayed = await ada.say(interview["interview_id"], ANSWER, key)
    assert replayed.status == 200
    assert replayed.headers["Idempotency-Replayed"] == "true"
    assert await product.model_calls(interview["interview_id"]) == ["judge", "question"]


async def test_without_assessment_the_next_item_comes_from_the_last_record(product: Product, ada: Caller) -> None:
    interview = await ada.start()
    process = product.process("assessment")

    async with product.stopped(process):
        reply = await ada.say(interview["interview_id"], ANSWER)

    assert reply.status == 200
    assert reply.json["degraded"][0] == "plan"


async def test_without_the_llm_gateway_the_item_is_asked_in_its_own_wording(product: Product, ada: Caller) -> None:
    interview = await ada.start()
    process = product.process("llm-gateway")

    async with product.stopped(process):
        began = time.monotonic()
        reply = await ada.say(interview["interview_id"], ANSWER)
        took = time.monotonic() - began

    assert (reply.status, reply.json["degraded"]) == (200, ["bank"])
    assert took < 2.0


async def test_without_session_nothing_is_noticed_and_it_folds_later(product: Product, ada: Caller) -> None:
    interview = await ada.start()
    process = product.process("session")

    async with product.stopped(process):
        reply = await ada.say(interview["interview_id"], ANSWER)
    again = await ada.say(interview["interview_id"], ANSWER)

    assert (reply.status, reply.json["degraded"]) == (200, [])
    assert again.status == 200

    async def folded() -> bool:
        rows = product.rows(
            "session", "SELECT applied_seq FROM session.sessions WHERE session_id = %s", interview["interview_id"]
        )
        return [row["applied_seq"] for row in rows] == [3]

    await eventually(folded)


async def test_a_gateway_killed_in_mid_turn_is_started_again_and_the_same_id_gets_its_answer(
    product: Product, ada: Caller, simulator_restored: None
) -> None:
    interview = await ada.start()
    key = str(uuid.uuid4())
    await product.arm("gateway", HELD)
    await product.set_simulator(latency={"median_ms": 800, "sigma": 0})
    asking = asyncio.create_task(ada.say(interview["interview_id"], ANSWER, key))

    async def called() -> bool:
        return "question" in await product.model_calls(interview["interview_id"])

    await eventually(called)
    product.kill("gateway")
    lost = await asking
    await eventually(product.is_reachable, seconds=30)
    began = time.monotonic()

    async def answered() -> bool:
        return (await ada.say(interview["interview_id"], ANSWER, key)).status == 200

    await eventually(answered, seconds=10)
    assert lost.status in (503, 504)
    assert time.monotonic() - began < 6.5  # lease (4 s), 2 s
    replies = [await ada.say(interview["interview_id"], ANSWER, key) for _ in range(2)]
    assert replies[0].body == replies[1].body
    assert sorted(set(await product.model_calls(interview["interview_id"]))) == ["judge", "question"]
    assert len(await product.model_calls(interview["interview_id"])) == 2


async def test_a_turn_left_behind_does_not_block_the_next_message(
    product: Product, ada: Caller, simulator_restored: None
) -> None:
    interview = await ada.start()
    await product.arm("gateway", HELD)
    await product.set_simulator(latency={"median_ms": 800, "sigma": 0})
    asking = asyncio.create_task(ada.say(interview["interview_id"], ANSWER))

    async def called() -> bool:
        return "question" in await product.model_calls(interview["interview_id"])

    await eventually(called)
    product.kill("gateway")
    await asking

    async def went_on() -> bool:
        return (await ada.say(interview["interview_id"], "May I go on?")).status == 200

    await eventually(went_on, seconds=30)
    assert [message["seq"] for message in await ada.messages(interview["interview_id"])] == [1, 2, 2, 3, 3]

"""An interview as a candidate's client sees it."""

import asyncio
import time
import uuid
from typing import Any

import pytest

from tests.e2e.product import Caller, Product, eventually

ANSWER = "I would measure first: EXPLAIN ANALYZE shows where the estimates are wrong, then I add the index that helps."


async def test_an_interview_opens_with_an_items_own_wording(product: Product, ada: Caller) -> None:
    interview = await ada.start(candidate_name="Ada")

    assert interview["status"] == "open"
    assert interview["interview_id"] == interview["session_id"]
    assert interview["turns"] == 1
    assert "Ada" in interview["message"]["text"]
    assert await product.model_calls(interview["interview_id"]) == []


async def test_an_answer_gets_the_next_question_inside_two_seconds(product: Product, ada: Caller) -> None:
    interview = await ada.start()

    began = time.monotonic()
    reply = await ada.say(interview["interview_id"], ANSWER)
    took = time.monotonic() - began

    assert reply.status == 200
    assert took < 2.0
    turn = reply.json
    assert (turn["seq"], turn["status"], turn["session_status"]) == (2, "completed", "open")
    assert turn["degraded"] == []
    assert turn["reply"]["text"].strip()
    assert turn["usage"]["prompt_tokens"] > 0
    assert set(turn["timing"]["stages"]) >= {"begin", "plan", "question", "judge"}
    assert await product.model_calls(interview["interview_id"]) == ["judge", "question"]


async def test_what_was_said_is_listed_in_order(ada: Caller) -> None:
    interview = await ada.start()
    turn = (await ada.say(interview["interview_id"], ANSWER)).json

    messages = await ada.messages(interview["interview_id"])

    assert [(message["seq"], message["role"]) for message in messages] == [
        (1, "interviewer"),
        (2, "candidate"),
        (2, "interviewer"),
    ]
    assert messages[1]["text"] == ANSWER
    assert messages[2]["text"] == turn["reply"]["text"]


async def test_the_interview_ends_by_itself_when_its_plan_is_done(product: Product, ada: Caller) -> None:
    interview = await ada.start(plan="quick")
    turns: list[dict[str, Any]] = []
    while not turns or turns[-1]["session_status"] == "open":
        reply = await ada.say(interview["interview_id"], ANSWER)
        assert reply.status == 200, reply
        turns.append(reply.json)

    after = await ada.say(interview["interview_id"], ANSWER)

    assert (after.status, after.json["reason"]) == (409, "SESSION_CLOSED")
    seen = (await ada.request("GET", f"/api/v1/interviews/{interview['interview_id']}")).json
    assert (seen["status"], seen["turns"]) == ("completed", len(turns) + 1)
    assert seen["completed_at"] is not None

    async def folded() -> bool:
        rows = product.rows(
            "session",
            "SELECT status, applied_seq FROM session.sessions WHERE session_id = %s",
            interview["interview_id"],
        )
        return [(row["status"], row["applied_seq"]) for row in rows] == [("completed", len(turns) + 1)]

    await eventually(folded)


async def test_every_answer_is_scored_as_evidence(product: Product, ada: Caller) -> None:
    interview = await ada.start(plan="quick")
    for _ in range(2):
        assert (await ada.say(interview["interview_id"], ANSWER)).status == 200

    async def scored() -> bool:
        rows = product.rows(
            "assessment",
            "SELECT seq, state, level FROM assessment.answers WHERE session_id = %s ORDER BY seq",
            interview["interview_id"],
        )
        return [(row["seq"], row["state"]) for row in rows] == [(2, "SCORED"), (3, "SCORED")]

    await eventually(scored)


async def test_a_hundred_identical_submissions_are_one_turn(product: Product, ada: Caller) -> None:
    interview = await ada.start()
    key = str(uuid.uuid4())

    replies = await asyncio.gather(*(ada.say(interview["interview_id"], ANSWER, key) for _ in range(100)))

    assert {reply.status for reply in replies} == {200}
    assert len({reply.body for reply in replies}) == 1
    assert sum("Idempotency-Replayed" not in reply.headers for reply in replies) == 1
    assert await product.model_calls(interview["interview_id"]) == ["judge", "question"]
    assert len(await ada.messages(interview["interview_id"])) == 3


async def test_a_turn_asked_for_again_as_a_stream_says_in_its_header_that_it_is_a_replay(ada: Caller) -> None:
    interview = await ada.start()
    key, body = str(uuid.uuid4()), {"message_text": ANSWER}
    path = f"/api/v1/interviews/{interview['interview_id']}/messages"

    first, again = [await ada.request("POST", path, body, key=key, accept="text/event-stream") for _ in range(2)]
    whole = await ada.request("POST", path, body, key=key)

    assert (first.status, again.status) == (200, 200)
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == whole.headers["Idempotency-Replayed"] == "true"
    assert [line for line in again.body.splitlines() if line.startswith(b"event: ")] == [
        b"event: accepted",
        b"event: completed",
    ]
    for streamed in (first, again):
        assert streamed.body.endswith(b"event: completed\ndata: " + whole.body + b"\n\n")


async def test_the_same_id_with_another_message_is_refused(ada: Caller) -> None:
    interview = await ada.start()
    key = str(uuid.uuid4())
    assert (await ada.say(interview["interview_id"], ANSWER, key)).status == 200

    reused = await ada.say(interview["interview_id"], "Something else.", key)

    assert (reused.status, reused.json["reason"]) == (422, "REQUEST_ID_REUSED")


async def test_creating_twice_with_one_id_is_one_interview(ada: Caller) -> None:
    key = str(uuid.uuid4())
    body = {"plan": "quick", "candidate_name": "Ada", "metadata": {"job": "17"}}

    replies = await asyncio.gather(*(ada.request("POST", "/api/v1/interviews", body, key=key) for _ in range(20)))
    other = await ada.request("POST", "/api/v1/interviews", {**body, "plan": "backend-engineer"}, key=key)

    assert {reply.status for reply in replies} == {201}
    assert len({reply.body for reply in replies}) == 1
    assert (other.status, other.json["reason"]) == (422, "REQUEST_ID_REUSED")


async def test_of_two_messages_at_once_one_commits_and_one_is_told_to_wait(ada: Caller, product: Product) -> None:
    interview = await ada.start()
    await product.set_simulator(latency={"median_ms": 1000, "sigma": 0})  # in which the other must have come

    try:
        replies = await asyncio.gather(*(ada.say(interview["interview_id"], f"{ANSWER} {n}") for n in range(2)))
    finally:
        await product.set_simulator(latency={"median_ms": 30, "sigma": 0.2})

    refused, answered = sorted(replies, key=lambda reply: reply.status, reverse=True)
    assert (answered.status, refused.status) == (200, 409)
    assert refused.json["reason"] == "TURN_IN_PROGRESS"
    assert int(refused.headers["Retry-After"]) >= 1


async def test_a_reply_to_an_old_question_is_a_conflict(ada: Caller) -> None:
    interview = await ada.start()
    assert (await ada.say(interview["interview_id"], ANSWER, in_reply_to=1)).status == 200

    stale = await ada.say(interview["interview_id"], ANSWER, in_reply_to=1)
    ahead = await ada.say(interview["interview_id"], ANSWER, in_reply_to=9)

    assert (stale.status, stale.json["reason"]) == (409, "CONFLICT")
    assert (ahead.status, ahead.json["reason"]) == (422, "INVALID_FIELD")


async def test_ending_an_interview_closes_it_and_replays_still_answer(ada: Caller) -> None:
    interview = await ada.start()
    key = str(uuid.uuid4())
    first = await ada.say(interview["interview_id"], ANSWER, key)

    ended = await ada.request("POST", f"/api/v1/interviews/{interview['interview_id']}/end")
    again = await ada.request("POST", f"/api/v1/interviews/{interview['interview_id']}/end")
    refused = await ada.say(interview["interview_id"], "One more thing.")
    replayed = await ada.say(interview["interview_id"], ANSWER, key)

    assert (ended.status, ended.json["status"]) == (200, "completed")
    assert again.json == ended.json
    assert (refused.status, refused.json["reason"]) == (409, "SESSION_CLOSED")
    assert replayed.body == first.body
    assert replayed.headers["Idempotency-Replayed"] == "true"


async def test_pages_of_messages_never_split_a_turn(ada: Caller) -> None:
    interview = await ada.start()
    for number in range(4):
        assert (await ada.say(interview["interview_id"], f"{ANSWER} {number}")).status == 200
    path = f"/api/v1/interviews/{interview['interview_id']}/messages"

    pages, token = [], ""
    while True:
        page = (await ada.request("GET", f"{path}?page_size=4&page_token={token}")).json
        pages.append(page["messages"])
        token = page["next_page_token"]
        if not token:
            break

    assert [[message["seq"] for message in page] for page in pages] == [[4, 4, 5, 5], [2, 2, 3, 3], [1]]


async def test_interviews_are_listed_newest_first_as_they_stand(ada: Caller) -> None:
    first, second = await ada.start(), await ada.start()
    assert (await ada.say(first["interview_id"], ANSWER)).status == 200

    listed = (await ada.request("GET", "/api/v1/interviews")).json["interviews"]

    assert [(entry["interview_id"], entry["turns"]) for entry in listed] == [
        (second["interview_id"], 1),
        (first["interview_id"], 2),
    ]


@pytest.mark.parametrize("path", ["", "/messages"])
async def test_somebody_elses_interview_and_none_look_the_same(product: Product, ada: Caller, path: str) -> None:
    interview = await ada.start()
    eve = product.candidate()

    theirs = await eve.request("GET", f"/api/v1/interviews/{interview['interview_id']}{path}", X_Correlation_ID="same")
    absent = await eve.request("GET", f"/api/v1/interviews/{uuid.uuid4()}{path}", X_Correlation_ID="same")

    assert theirs.status == absent.status == 404
    assert theirs.body == absent.body


async def test_writing_to_somebody_elses_interview_and_to_none_look_the_same(product: Product, ada: Caller) -> None:
    interview = await ada.start()
    eve = product.candidate()

    for path, body in (("/messages", {"message_text": ANSWER}), ("/end", None)):
        replies = [
            await eve.request(
                "POST", f"/api/v1/interviews/{target}{path}", body, key=str(uuid.uuid4()), X_Correlation_ID="same"
            )
            for target in (interview["interview_id"], str(uuid.uuid4()))
        ]
        assert [reply.status for reply in replies] == [404, 404]
        assert replies[0].body == replies[1].body

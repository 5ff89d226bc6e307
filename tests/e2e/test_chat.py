"""A chat as its user's client sees it, old clients included."""

import uuid

from tests.e2e.product import Caller, Product, eventually


async def test_an_old_client_without_id_or_key_gets_a_new_conversation_each_time(ada: Caller) -> None:
    replies = [await ada.request("POST", "/api/v1/chat", {"message": "Hello there."}) for _ in range(2)]

    assert [reply.status for reply in replies] == [200, 200]
    assert replies[0].json["reply"]["text"].strip()
    assert replies[0].json["session_id"] != replies[1].json["session_id"]


async def test_a_conversation_goes_on_under_its_id(product: Product, ada: Caller) -> None:
    first = (await ada.request("POST", "/api/v1/chat", {"message": "Hello there."})).json
    body = {"message": "And what about indexes?", "conversation_id": first["session_id"]}

    second = (await ada.request("POST", "/api/v1/chat", body)).json

    assert (first["seq"], second["seq"]) == (1, 2)
    listed = (await ada.request("GET", f"/api/v1/chat/{first['session_id']}/messages")).json["messages"]
    assert [message["role"] for message in listed] == ["user", "assistant", "user", "assistant"]
    assert await product.model_calls(first["session_id"]) == ["chat", "chat"]


async def test_one_key_is_one_new_conversation(ada: Caller) -> None:
    key = str(uuid.uuid4())

    replies = [await ada.request("POST", "/api/v1/chat", {"message": "Hello there."}, key=key) for _ in range(2)]

    assert replies[0].status == 200
    assert replies[0].body == replies[1].body


async def test_the_reply_streams_in(ada: Caller) -> None:
    told = [event async for event in ada.stream("/api/v1/chat", {"message": "Tell me about deadlocks."})]

    names = [name for name, _ in told]
    assert names[0] == "accepted"
    assert names[-1] == "completed"
    assert "".join(data["text"] for name, data in told if name == "delta").strip() == told[-1][1]["reply"]["text"]


async def test_a_failing_model_leaves_the_message_pending_and_the_same_key_answers_it(
    product: Product, ada: Caller
) -> None:
    first = (await ada.request("POST", "/api/v1/chat", {"message": "Hello there."})).json
    key = str(uuid.uuid4())
    body = {"message": "Is anybody there?", "conversation_id": first["session_id"]}
    await product.set_simulator(latency={"median_ms": 30, "sigma": 0}, faults={"500": 1})

    try:
        failed = await ada.request("POST", "/api/v1/chat", body, key=key)
    finally:
        await product.set_simulator(latency={"median_ms": 30, "sigma": 0.2})
    pending = (await ada.request("GET", f"/api/v1/chat/{first['session_id']}")).json["pending"]
    answered = await ada.request("POST", "/api/v1/chat", body, key=key)

    assert (failed.status, failed.json["reason"]) == (503, "UNAVAILABLE")
    assert int(failed.headers["Retry-After"]) >= 1
    assert (pending["request_id"], pending["message_text"]) == (key, "Is anybody there?")
    assert (answered.status, answered.json["seq"]) == (200, 2)


async def test_a_slow_model_ends_the_wait_after_two_seconds_and_not_the_turn(product: Product, ada: Caller) -> None:
    first = (await ada.request("POST", "/api/v1/chat", {"message": "Hello there."})).json
    key = str(uuid.uuid4())
    body = {"message": "Take your time.", "conversation_id": first["session_id"]}
    await product.set_simulator(latency={"median_ms": 3000, "sigma": 0})

    try:
        waited = await ada.request("POST", "/api/v1/chat", body, key=key)
    finally:
        await product.set_simulator(latency={"median_ms": 30, "sigma": 0.2})

    async def answered() -> bool:
        return (await ada.request("POST", "/api/v1/chat", body, key=key)).status == 200

    assert (waited.status, waited.json["reason"]) == (504, "DEADLINE_EXCEEDED")
    await eventually(answered)
    assert await product.model_calls(first["session_id"]) == ["chat", "chat"]


async def test_a_chat_is_no_interview(ada: Caller) -> None:
    chat = (await ada.request("POST", "/api/v1/chat", {"message": "Hello there."})).json

    as_interview = await ada.request("GET", f"/api/v1/interviews/{chat['session_id']}")

    assert as_interview.status == 404

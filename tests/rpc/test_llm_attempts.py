"""What a failing provider does to a call: what is tried again, what it is charged with, what the caller is told."""

import asyncio
from typing import Any

import pytest
from aiohttp import web

from colloquy.llm.v1 import llm_pb2 as pb
from libs.runtime.errors import InvalidField, Unavailable
from libs.tokens.counting import count_chat
from tests.databases import Database
from tests.ports import free_ports
from tests.rpc.llm_world import (
    COST,
    TEXT,
    ScriptedProvider,
    Step,
    World,
    a_prompt,
    a_request,
    completion,
    hangs,
    hangs_up,
    provider,
    refuses,
    running_world,
    says,
    shared_world,
    waits,
    world,
)

__all__ = ["provider", "shared_world", "world"]  # fixtures

PROMPT = a_prompt(json_schema="")
CEILING = (
    count_chat(
        [
            {"role": "system", "content": PROMPT.messages[0].content},
            {"role": "user", "content": PROMPT.messages[1].content},
        ]
    )
    * 150
    + PROMPT.max_output_tokens * 600
)


def ends(world: World, request: pb.GenerateRequest) -> list[tuple[Any, ...]]:
    """How the attempts ended: state, failure, HTTP status, cost."""
    return [(row["state"], row["error"], row["status"], row["cost_nano_usd"]) for row in world.attempts(request)]


OK = ("settled", None, 200, COST)


@pytest.mark.parametrize(
    ("first", "end"),
    [
        (refuses(429, "rate_limit_exceeded", retry_after_ms="50"), ("released", "rate_limited", 429, 0)),
        (refuses(503), ("released", "rate_limited", 503, 0)),
        (refuses(500), ("unknown", "server_error", 500, CEILING)),
        (says(b"<html>Bad gateway</html>", status=502), ("unknown", "server_error", 502, CEILING)),
        (hangs_up(), ("unknown", "broken", None, CEILING)),
        (hangs_up(b'{"choices": [{"mess'), ("unknown", "broken", None, CEILING)),
        (says(b'{"choices": [{"mess'), ("unknown", "broken", None, CEILING)),
        (says(completion("")), ("settled", "empty", 200, COST)),
    ],
    ids=["429", "503", "500", "502", "hangs up", "is cut off", "is no JSON", "is empty"],
)
async def test_what_may_pass_is_tried_once_more_and_both_attempts_are_in_the_ledger(
    world: World, first: Step, end: tuple[Any, ...]
) -> None:
    request = a_request(prompt=PROMPT)
    world.provider.script = [first]

    made = await world.generate(request, cap_ms=8_000)

    assert made.call.text == TEXT
    assert made.call.repeats == 0
    assert ends(world, request) == [end, OK]
    assert world.spent(request) == made.call.usage.cost_nano_usd == end[3] + COST


async def test_text_that_should_be_json_and_is_not_was_paid_for_and_is_asked_for_again(world: World) -> None:
    request = a_request(purpose="judge", prompt=a_prompt(json_schema='{"type": "object"}'))
    world.provider.script = [says(completion("Sure!")), says(completion('{"level": 2}'))]

    made = await world.generate(request)

    assert made.call.text == '{"level": 2}'
    assert ends(world, request) == [("settled", "not_json", 200, COST), OK]
    assert made.call.usage == pb.Usage(prompt_tokens=200, completion_tokens=20, cost_nano_usd=2 * COST)


async def test_what_fails_twice_without_a_bill_has_failed(world: World) -> None:
    request = a_request()
    world.provider.script = [refuses(503), refuses(429, message="secret", retry_after="30")]

    with pytest.raises(Unavailable) as raised:
        await world.generate(request)

    assert raised.value.retry_after_ms == 30_000
    assert "secret" not in raised.value.detail
    call = await world.get(request)
    assert (call.state, call.usage) == (pb.CALL_STATE_FAILED, pb.Usage())
    assert len(world.provider.received) == 2


async def test_what_failed_and_may_have_been_billed_is_unknown(world: World) -> None:
    request = a_request(prompt=PROMPT)
    world.provider.script = [refuses(500), refuses(503)]

    with pytest.raises(Unavailable):
        await world.generate(request)

    assert (await world.get(request)).state == pb.CALL_STATE_UNKNOWN
    assert world.spent(request) == CEILING


@pytest.mark.parametrize(
    "answer",
    [
        refuses(401, "invalid_api_key", "secret"),
        refuses(404, "model_not_found", "secret"),
        refuses(429, "insufficient_quota", "secret"),
        says(b"", status=307, headers={"Location": "/v1/elsewhere"}),
    ],
    ids=["a wrong key", "an unknown model", "no quota", "a redirect"],
)
async def test_what_would_fail_again_is_tried_once(world: World, answer: Step) -> None:
    request = a_request()
    world.provider.script = [answer]

    with pytest.raises(Unavailable) as raised:
        await world.generate(request)

    assert "secret" not in raised.value.detail
    assert len(world.provider.received) == 1
    assert [end[:2] for end in ends(world, request)] == [("released", "refused")]
    assert (await world.get(request)).state == pb.CALL_STATE_FAILED


@pytest.mark.parametrize(
    ("answer", "end"),
    [
        (refuses(400, "context_length_exceeded", "secret"), ("released", "context_length", 400, 0)),
        (refuses(400, "content_filter", "secret"), ("released", "content", 400, 0)),
        (says(completion(None, "content_filter")), ("settled", "content", 200, COST)),
    ],
    ids=["too long", "refused", "filtered"],
)
async def test_a_prompt_that_the_provider_refuses_is_the_callers_to_change(
    world: World, answer: Step, end: tuple[Any, ...]
) -> None:
    request = a_request()
    world.provider.script = [answer]

    with pytest.raises(InvalidField) as raised:
        await world.generate(request)

    assert [violation.field for violation in raised.value.violations] == ["prompt.messages"]
    assert "secret" not in str(raised.value.violations)
    assert ends(world, request) == [end]


async def test_a_wait_that_does_not_fit_is_not_waited_for(world: World) -> None:
    request = a_request()
    world.provider.script = [refuses(429, retry_after="9")]

    with pytest.raises(Unavailable) as raised:
        await world.generate(request, cap_ms=9_200)

    assert raised.value.retry_after_ms == 9_000
    assert len(world.provider.received) == 1


async def test_without_time_for_another_attempt_there_is_none(world: World) -> None:
    request, answer = a_request(), asyncio.Event()
    world.provider.script = [waits(answer, refuses(503))]

    await world.left_at_its_deadline(world.generate, request, 700)
    answer.set()
    call = await world.eventually(request, pb.CALL_STATE_FAILED)

    assert call.usage == pb.Usage()
    assert len(world.provider.received) == 1


async def test_somebody_who_joins_with_more_time_gets_the_second_attempt(world: World) -> None:
    request, answer = a_request(), asyncio.Event()
    world.provider.script = [waits(answer, refuses(503))]

    await world.left_at_its_deadline(world.generate, request, 700)
    patient = asyncio.create_task(world.generate(request))
    await world.wanted(request, 1_000)
    answer.set()

    assert (await patient).call.text == TEXT
    assert len(world.attempts(request)) == 2


async def test_a_call_that_failed_is_made_again_when_it_is_asked_for_again(world: World) -> None:
    request = a_request()
    world.provider.script = [refuses(401)]
    with pytest.raises(Unavailable):
        await world.generate(request)

    again = a_request(session_id=request.session_id, turn_id=request.turn_id, context=b"another item")
    made = await world.generate(again)

    assert not made.reused
    assert (made.call.repeats, made.call.context) == (1, b"another item")
    assert [row["fence"] for row in world.attempts(request)] == [1, 2]


async def test_a_provider_that_hangs_is_given_up_and_the_call_is_unknown(
    database: Database, provider: ScriptedProvider
) -> None:
    request = a_request(prompt=PROMPT)
    provider.script = [hangs()]
    async with running_world(database.dsns["llm"], provider, timeout_ms=400) as hasty:
        with pytest.raises(Unavailable):
            await hasty.generate(request)
    provider.script.clear()  # it may have been given up before it was sent
    async with running_world(database.dsns["llm"], provider) as world:
        call = await world.get(request)
        made = await world.generate(request)

    assert call.state == pb.CALL_STATE_UNKNOWN
    assert ends(world, request) == [("unknown", "timeout", None, CEILING), OK]
    assert made.call.repeats == 1


async def test_a_provider_that_cannot_be_reached_costs_nothing(database: Database) -> None:
    nobody = ScriptedProvider(f"http://127.0.0.1:{free_ports(1)[0]}/v1")
    request = a_request()
    async with running_world(database.dsns["llm"], nobody) as world:
        with pytest.raises(Unavailable):
            await world.generate(request)

    assert ends(world, request) == [("released", "unreachable", None, 0)] * 2
    assert world.spent(request) == 0


async def test_a_connection_that_was_closed_while_it_was_idle_costs_no_call(
    database: Database, provider: ScriptedProvider
) -> None:
    async def then_closes(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        asyncio.get_running_loop().call_later(0.02, request.transport.close)
        return web.json_response(completion())

    provider.script = [then_closes]
    async with running_world(database.dsns["llm"], provider) as world:
        await world.generate(a_request())
        request = a_request()
        made = await world.generate(request)

    assert made.call.text == TEXT
    assert ends(world, request)[-1] == OK

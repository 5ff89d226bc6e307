"""The call ledger's records over a real channel: what operators are told, what is forgotten when, what is made anew."""

import asyncio
import uuid
from typing import Any

import pytest

from colloquy.llm.v1 import llm_pb2 as pb
from libs.runtime import client
from libs.runtime.errors import InvalidField, Malformed, NotFound, Unavailable
from tests.conftest import FreshDatabase
from tests.rpc.llm_world import (
    CAP_MS,
    COST,
    TEXT,
    ScriptedProvider,
    World,
    a_request,
    chunk,
    completion,
    provider,
    refuses,
    repeats,
    running_world,
    says,
    shared_world,
    streams,
    waits,
    world,
)

__all__ = ["provider", "shared_world", "world"]  # fixtures

AGE = """
    UPDATE llm.calls
    SET dispatched_at = dispatched_at - interval '2 hours', finished_at = finished_at - interval '2 hours'
    WHERE session_id = %s
"""


async def erase(world: World, session_id: str) -> None:
    await client.call(world.stub.EraseSession, pb.EraseSessionRequest(session_id=session_id), CAP_MS)


async def clear(world: World, session_id: str, *turn_ids: str) -> None:
    request = pb.ClearResultsRequest(session_id=session_id, turn_ids=turn_ids)
    await client.call(world.stub.ClearResults, request, CAP_MS)


async def calls(world: World, request: pb.GenerateRequest) -> list[pb.CallEntry]:
    asked = pb.ListCallsRequest(session_id=request.session_id, turn_id=request.turn_id)
    return [*(await client.call(world.stub.ListCalls, asked, CAP_MS)).calls]


async def clearable(world: World, **fields: Any) -> pb.ListClearableResponse:
    wanted = pb.ListClearableRequest(**{"max_turns": 500, "min_age_ms": 3_600_000} | fields)
    return await client.call(world.stub.ListClearable, wanted, CAP_MS)


# Erasing


async def test_an_erased_session_has_no_calls_and_gets_none(world: World) -> None:
    made, never = a_request(), a_request()
    await world.generate(made)

    for request in (made, never, made):
        await erase(world, request.session_id)

    for request in (made, never):
        with pytest.raises(NotFound):
            await world.generate(request)
        with pytest.raises(NotFound):
            await world.stream(request)
        with pytest.raises(NotFound):
            await world.get(request)
    assert len(world.provider.received) == 1


async def test_a_call_that_ends_after_the_erase_is_paid_for_and_says_nothing(world: World) -> None:
    request, answer = a_request(), asyncio.Event()
    world.provider.script = [waits(answer, says(completion()))]
    asking = [asyncio.create_task(world.generate(request)) for _ in range(5)]
    await world.provider.arrived()

    await erase(world, request.session_id)
    answer.set()
    outcomes = await asyncio.gather(*asking, return_exceptions=True)

    assert {type(outcome) for outcome in outcomes} == {NotFound}
    [row] = world.calls(request)
    assert (row["state"], row["result"], row["context"], row["prompt_hash"]) == ("DONE", None, None, None)
    assert world.spent(request) == COST


async def test_a_stream_ends_with_its_session(world: World) -> None:
    request, answer = a_request(), asyncio.Event()
    world.provider.script = [streams(chunk("How"), answer, chunk(" so?"))]
    heard = list[object]()

    async def listen() -> None:
        async for event in world.events(request):
            heard.append(event)

    listening = asyncio.create_task(listen())
    await world.provider.arrived()
    await erase(world, request.session_id)
    answer.set()

    with pytest.raises(NotFound):
        await listening
    assert not [event for event in heard if isinstance(event, pb.GenerateResponse)]
    assert TEXT not in str(world.calls(request))


async def test_what_an_erased_sessions_calls_cost_is_still_told(world: World) -> None:
    request = a_request()
    await world.generate(request)

    await erase(world, request.session_id)

    [told] = await calls(world, request)
    assert (told.state, told.cleared, told.usage.cost_nano_usd) == (pb.CALL_STATE_DONE, True, COST)


# Telling


async def test_operators_are_told_how_each_attempt_of_a_turn_ended(world: World) -> None:
    request = a_request()
    judge = a_request(session_id=request.session_id, turn_id=request.turn_id, purpose="judge")
    world.provider.script = [refuses(503), says(completion())]
    await world.generate(request)
    world.provider.script = [refuses(401)]
    with pytest.raises(Unavailable):
        await world.generate(judge)

    told_judge, told = await calls(world, request)

    assert (told.purpose, told.state, told.fence, told.repeats, told.error) == (
        "question",
        pb.CALL_STATE_DONE,
        1,
        0,
        "",
    )
    assert (told.usage.cost_nano_usd, told.prompt_version, told.finish_reason) == (COST, "question/v1", "stop")
    assert [(it.fence, it.attempt, it.state, it.status, it.error) for it in told.attempts] == [
        (1, 1, pb.ATTEMPT_STATE_RELEASED, 503, "rate_limited"),
        (1, 2, pb.ATTEMPT_STATE_SETTLED, 200, ""),
    ]
    assert told.attempts[1].provider == "127.0.0.1"
    times = [told.dispatched_at, *(it.dispatched_at for it in told.attempts), told.finished_at]
    assert times == sorted(times, key=lambda stamp: stamp.ToNanoseconds())
    assert (told_judge.purpose, told_judge.state, told_judge.error) == ("judge", pb.CALL_STATE_FAILED, "refused")
    assert TEXT not in str([told, told_judge])


async def test_a_turn_without_calls_has_an_empty_list(world: World) -> None:
    assert await calls(world, a_request()) == []


@pytest.mark.parametrize("field", ["session_id", "turn_id"])
async def test_calls_of_what_is_no_turn_cannot_be_listed(world: World, field: str) -> None:
    with pytest.raises(Malformed):
        await calls(world, a_request(**{field: "7"}))


# Clearing


async def test_a_cleared_call_says_so_and_is_made_anew_when_it_is_asked_for(world: World) -> None:
    request = a_request(context=b"first")
    again = a_request(session_id=request.session_id, turn_id=request.turn_id, context=b"second")
    await world.generate(request)
    before = repeats("cleared")

    await clear(world, request.session_id, request.turn_id)
    cleared = await world.get(request)
    world.provider.script = [says(completion("Once more?"))]
    made = await world.generate(again)

    assert (cleared.state, cleared.cleared, cleared.text, cleared.context) == (pb.CALL_STATE_UNKNOWN, True, "", b"")
    assert cleared.usage.cost_nano_usd == COST
    assert (made.call.text, made.call.context, made.call.repeats, made.call.cleared) == (
        "Once more?",
        b"second",
        1,
        False,
    )
    assert world.spent(request) == 2 * COST
    assert repeats("cleared") - before == 1


async def test_a_call_under_way_is_not_cleared(world: World) -> None:
    request, answer = a_request(), asyncio.Event()
    world.provider.script = [waits(answer, says(completion()))]
    asking = asyncio.create_task(world.generate(request))
    await world.provider.arrived()

    await clear(world, request.session_id, request.turn_id)
    answer.set()

    made = await asking
    assert (made.call.text, made.call.context) == (TEXT, request.context)


async def test_turns_to_clear_are_named_page_by_page_until_they_are_cleared(
    fresh_database: FreshDatabase, provider: ScriptedProvider
) -> None:
    async with running_world(fresh_database().dsns["llm"], provider) as world:
        requests = [a_request() for _ in range(5)]
        for request in requests:
            await world.generate(request)
            world.execute(AGE, request)
        await world.generate(a_request())  # too young
        named, token = list[tuple[str, str]](), ""
        for _ in range(3):
            page = await clearable(world, max_turns=2, page_token=token)
            named += [(turn.session_id, turn.turn_id) for turn in page.turns]
            token = page.next_page_token
        for session_id, turn_id in named:
            await clear(world, session_id, turn_id)
        left = await clearable(world)

    assert token == ""
    assert named == [(request.session_id, request.turn_id) for request in requests]
    assert left == pb.ListClearableResponse()


@pytest.mark.parametrize(
    ("fields", "violated"),
    [
        ({"max_turns": 0}, ["max_turns"]),
        ({"max_turns": 501, "min_age_ms": -1}, ["max_turns", "min_age_ms"]),
        ({"page_token": "nonsense"}, ["page_token"]),
    ],
)
async def test_a_page_of_turns_to_clear_has_its_bounds(
    world: World, fields: dict[str, Any], violated: list[str]
) -> None:
    with pytest.raises(InvalidField) as refused:
        await clearable(world, **fields)

    assert [violation.field for violation in refused.value.violations] == violated


async def test_what_is_cleared_and_erased_is_named_by_ids_and_not_by_too_many(world: World) -> None:
    session_id = str(uuid.uuid4())

    with pytest.raises(InvalidField) as refused:
        await clear(world, session_id, *(str(uuid.uuid4()) for _ in range(501)))
    assert [violation.field for violation in refused.value.violations] == ["turn_ids"]
    with pytest.raises(Malformed):
        await clear(world, session_id, "7")
    with pytest.raises(Malformed):
        await clear(world, "7")
    with pytest.raises(Malformed):
        await erase(world, "7")

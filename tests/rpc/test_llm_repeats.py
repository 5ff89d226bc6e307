"""LlmService.Generate after a call that came to nothing: it is made anew, counted, and not more often than allowed."""

import asyncio

import pytest

from colloquy.llm.v1 import llm_pb2 as pb
from libs.runtime.errors import InvalidField, Unavailable
from tests.databases import Database
from tests.rpc.llm_world import (
    TEXT,
    ScriptedProvider,
    Step,
    World,
    a_request,
    provider,
    refuses,
    repeats,
    running_world,
    shared_world,
    world,
)

__all__ = ["provider", "shared_world", "world"]  # fixtures


def once_more(request: pb.GenerateRequest, max_repeats: int | None = None) -> pb.GenerateRequest:
    """The same call, with a bound on its repeats."""
    again = pb.GenerateRequest()
    again.CopyFrom(request)
    if max_repeats is not None:
        again.max_repeats = max_repeats
    return again


async def failed(world: World) -> pb.GenerateRequest:
    """A call that has failed once."""
    request = a_request()
    world.provider.script = [refuses(401)]
    with pytest.raises(Unavailable):
        await world.generate(request)
    return request


@pytest.mark.parametrize(
    ("refusals", "after"), [([refuses(401)], "failed"), ([refuses(500)] * 2, "unknown")], ids=["failed", "unknown"]
)
async def test_a_repeat_is_counted_by_what_the_call_had_come_to(world: World, refusals: list[Step], after: str) -> None:
    request, before = a_request(), repeats(after)
    world.provider.script = [*refusals]
    with pytest.raises(Unavailable):
        await world.generate(request)

    made = await world.generate(request)

    assert made.call.repeats == 1
    assert repeats(after) - before == 1


async def test_a_call_that_may_not_be_repeated_is_answered_as_it_stands(world: World) -> None:
    request = await failed(world)

    answer = await world.generate(once_more(request, 0))

    assert answer.reused
    assert (answer.call.state, answer.call.repeats, answer.call.text) == (pb.CALL_STATE_FAILED, 0, "")
    assert len(world.provider.received) == 1
    assert [*(await world.stream(once_more(request, 0)))] == [answer]


async def test_a_call_is_repeated_as_often_as_it_may_be_and_then_no_more(world: World) -> None:
    request = await failed(world)
    for _ in range(2):
        world.provider.script = [refuses(401)]
        with pytest.raises(Unavailable):
            await world.generate(once_more(request, 2))

    spent = await world.generate(once_more(request, 2))

    assert (spent.call.state, spent.call.repeats) == (pb.CALL_STATE_FAILED, 2)
    assert len(world.provider.received) == 3
    assert (await world.generate(request)).call.text == TEXT


async def test_a_bound_on_repeats_keeps_nobody_from_a_first_call(world: World) -> None:
    made = await world.generate(once_more(a_request(), 0))

    assert (made.reused, made.call.text) == (False, TEXT)


async def test_who_allows_repeats_is_not_answered_with_what_another_may_not_repeat(world: World) -> None:
    for _ in range(10):
        request = await failed(world)

        bound, free = await asyncio.gather(world.generate(once_more(request, 0)), world.generate(request))

        assert bound.call.state in (pb.CALL_STATE_FAILED, pb.CALL_STATE_DONE)
        assert free.call.text == TEXT


async def test_a_bound_holds_however_many_ask_of_however_many_processes(
    database: Database, provider: ScriptedProvider
) -> None:
    request = once_more(a_request(), 2)
    provider.script = [refuses(401)] * 1000
    dsn = database.dsns["llm"]
    async with running_world(dsn, provider) as one, running_world(dsn, provider) as other:
        for _ in range(6):
            asking = [worlds.generate(request) for worlds in (one, other) for _ in range(10)]
            await asyncio.gather(*asking, return_exceptions=True)
        call = await one.get(request)

    assert len(provider.received) == 3
    assert (call.state, call.repeats) == (pb.CALL_STATE_FAILED, 2)


async def test_a_bound_below_none_is_refused(world: World) -> None:
    with pytest.raises(InvalidField) as refused:
        await world.generate(once_more(a_request(), -1))

    assert [violation.field for violation in refused.value.violations] == ["max_repeats"]

"""LlmService.Generate over a real channel: one call, one payment, whoever asks and however often."""

import asyncio
from typing import Any

import psycopg
import pytest
from prometheus_client import REGISTRY

from colloquy.llm.v1 import llm_pb2 as pb
from libs.runtime import context
from libs.runtime.errors import (
    ColloquyError,
    DeadlineExceeded,
    InvalidField,
    Malformed,
    NotFound,
)
from services.llm_gateway import wire
from tests.conftest import FreshDatabase
from tests.rpc.llm_world import (
    COST,
    TEXT,
    ScriptedProvider,
    World,
    a_prompt,
    a_request,
    completion,
    provider,
    running_world,
    says,
    shared_world,
    waits,
    world,
)

__all__ = ["provider", "shared_world", "world"]  # fixtures

CANCEL_WAITING = """
    SELECT pg_cancel_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


async def test_a_call_comes_back_with_its_text_its_context_and_what_it_cost(world: World) -> None:
    request = a_request()

    made = await world.generate(request)

    assert not made.reused
    assert made.call.state == pb.CALL_STATE_DONE
    assert (made.call.text, made.call.context, made.call.finish_reason) == (TEXT, b"\x00item-7\xff", "stop")
    assert (made.call.prompt_version, made.call.model) == ("question/v1", "gpt-4o-mini-2024-07-18")
    assert made.call.usage == pb.Usage(prompt_tokens=100, completion_tokens=10, cost_nano_usd=COST)
    assert (made.call.repeats, made.call.lease_left_ms) == (0, 0)
    assert made.call == await world.get(request)
    assert world.spent(request) == COST


async def test_the_provider_is_told_what_was_asked_and_which_call_it_is(world: World) -> None:
    request = a_request(prompt=a_prompt(temperature=0.0, json_schema='{"type": "object"}'), purpose="judge")
    world.provider.script = [says(completion('{"level": 2}'))]

    await world.generate(request)

    (received,) = world.provider.received
    assert received.headers["Authorization"] == "Bearer sk-test"
    assert received.headers["X-Colloquy-Call"] == f"{request.session_id}/{request.turn_id}/judge"
    assert received.body == {
        "model": "gpt-4o-mini",
        "messages": [
            {"role": "system", "content": "You are an interviewer."},
            {"role": "user", "content": "I would read the query plan."},
        ],
        "max_tokens": 100,
        "temperature": 0.0,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "reply", "strict": True, "schema": {"type": "object"}},
        },
    }


async def test_asked_again_with_another_prompt_the_first_intent_answers(world: World) -> None:
    request = a_request()
    first = await world.generate(request)
    other = a_request(session_id=request.session_id, turn_id=request.turn_id, context=b"other", prompt=a_prompt())
    other.prompt.messages[1].content = "Something else."

    again = await world.generate(other)

    assert again.reused
    assert again.call == first.call
    assert len(world.provider.received) == 1
    assert world.spent(request) == COST


async def test_a_hundred_at_once_are_one_call(world: World) -> None:
    request, answer = a_request(), asyncio.Event()
    world.provider.script = [waits(answer, says(completion()))]

    asking = [asyncio.create_task(world.generate(request)) for _ in range(100)]
    await world.provider.arrived()
    answer.set()
    answers = await asyncio.gather(*asking)

    assert len(world.provider.received) == 1
    assert {one.call.SerializeToString(deterministic=True) for one in answers} == {
        (await world.get(request)).SerializeToString(deterministic=True)
    }
    assert [one.reused for one in answers].count(False) == 1
    assert world.spent(request) == COST


async def test_purposes_of_one_turn_are_calls_of_their_own(world: World) -> None:
    request = a_request()
    ids = {"session_id": request.session_id, "turn_id": request.turn_id}
    purposes = ("question", "judge", "prepared/sql-1", "prepared/sql-2")

    made = await asyncio.gather(*(world.generate(a_request(**ids, purpose=purpose)) for purpose in purposes))

    assert [one.call.purpose for one in made] == [*purposes]
    assert not any(one.reused for one in made)
    assert world.spent(request) == 4 * COST


async def test_a_callers_deadline_ends_the_wait_and_not_the_call(world: World) -> None:
    request, answer = a_request(), asyncio.Event()
    world.provider.script = [waits(answer, says(completion()))]

    await world.left_at_its_deadline(world.generate, request, 700)
    in_flight = await world.get(request)
    answer.set()
    late = await world.generate(request)

    assert in_flight.state == pb.CALL_STATE_INFLIGHT
    assert 5_000 < in_flight.lease_left_ms <= 12_000
    assert late.reused
    assert late.call.text == TEXT
    assert len(world.provider.received) == 1


async def test_a_caller_that_goes_away_leaves_the_call_to_finish(world: World) -> None:
    request, answer = a_request(), asyncio.Event()
    world.provider.script = [waits(answer, says(completion()))]

    asking = asyncio.create_task(world.generate(request))
    await world.provider.arrived()
    asking.cancel()
    answer.set()

    call = await world.eventually(request, pb.CALL_STATE_DONE)
    assert call.text == TEXT


async def test_after_its_deadline_nothing_is_written_and_nobody_is_called(world: World) -> None:
    request = a_request()

    with context.deadline(0), pytest.raises(DeadlineExceeded):
        await world.usecases.generate(wire.offer(request))

    assert world.calls(request) == []
    assert world.provider.received == []


async def test_a_request_that_breaks_rules_is_told_all_of_them_and_leaves_nothing(world: World) -> None:
    request = a_request(purpose="No", prompt=pb.Prompt(version="", max_output_tokens=0))

    with pytest.raises(InvalidField) as refused:
        await world.generate(request)

    assert {violation.field for violation in refused.value.violations} == {
        "purpose",
        "prompt.messages",
        "prompt.version",
        "prompt.max_output_tokens",
    }
    assert world.calls(request) == []


@pytest.mark.parametrize("field", ["session_id", "turn_id"])
async def test_an_id_that_is_none_is_malformed(world: World, field: str) -> None:
    with pytest.raises(Malformed):
        await world.generate(a_request(**{field: "7"}))


@pytest.mark.parametrize("purpose", ["question", "nonsense purpose", "a\0b", ""])
async def test_a_call_that_was_never_asked_for_is_not_found(world: World, purpose: str) -> None:
    with pytest.raises(NotFound):
        await world.get(a_request(purpose=purpose))


async def test_without_its_ledger_nobody_is_called(fresh_database: FreshDatabase, provider: ScriptedProvider) -> None:
    own = fresh_database()
    async with running_world(own.dsns["llm"], provider) as world:
        with psycopg.connect(own.owner_dsn, autocommit=True) as connection:
            connection.execute("DROP TABLE llm.attempts")

        with pytest.raises(ColloquyError) as raised:
            await world.generate(a_request())

    assert "attempts" not in raised.value.detail
    assert provider.received == []


async def test_a_result_is_recorded_as_soon_as_the_ledger_can_be_reached(
    fresh_database: FreshDatabase, provider: ScriptedProvider
) -> None:
    dsn, request, answer = fresh_database().dsns["llm"], a_request(), asyncio.Event()
    provider.script = [waits(answer, says(completion()))]
    async with running_world(dsn, provider) as world:
        asking = asyncio.create_task(world.generate(request))
        await provider.arrived()
        async with (
            await psycopg.AsyncConnection.connect(dsn) as holding,
            await psycopg.AsyncConnection.connect(dsn, autocommit=True) as other,
            asyncio.timeout(10),
        ):
            await holding.execute("LOCK TABLE llm.calls")
            answer.set()
            while not (await other.execute(CANCEL_WAITING)).rowcount:
                pass  # the round trip is the pause
        made = await asking

    assert made.call.text == TEXT
    assert len(provider.received) == 1


async def test_what_calls_take_and_cost_is_measured(world: World) -> None:
    def values() -> list[float]:
        by: dict[str, str] = {"provider": "127.0.0.1", "purpose": "prepared"}
        samples: list[tuple[str, dict[str, str]]] = [
            ("colloquy_llm_call_seconds_count", by | {"outcome": "done"}),
            ("colloquy_llm_tokens_total", by | {"direction": "prompt"}),
            ("colloquy_llm_tokens_total", by | {"direction": "completion"}),
            ("colloquy_llm_cost_usd_total", by),
        ]
        return [REGISTRY.get_sample_value(name, labels) or 0.0 for name, labels in samples]

    before = values()
    await world.generate(a_request(purpose="prepared/sql-1"))

    grown: list[Any] = [after - was for was, after in zip(before, values(), strict=True)]
    assert grown == pytest.approx([1, 100, 10, COST / 1e9])

"""llm-gateway and the model simulator, which know nothing of each other but the chat completions API."""

import asyncio
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator

import aiohttp
import orjson
import pytest

from colloquy.llm.v1 import llm_pb2 as pb
from libs.runtime.errors import InvalidField, Unavailable
from tests.databases import Database
from tests.rpc.llm_world import ScriptedProvider, World, a_prompt, a_request, running_world

SCHEMA = (
    '{"type": "object", "additionalProperties": false, "required": ["level"], '
    '"properties": {"level": {"type": "integer", "minimum": 0, "maximum": 3}}}'
)


@pytest.fixture(scope="module")
async def simulated(database: Database) -> AsyncIterator[World]:
    simulator = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.simulator", "--port", "0", "--latency-ms", "40"), stdout=PIPE
    )
    try:
        assert simulator.stdout is not None
        url: str = orjson.loads(await asyncio.wait_for(simulator.stdout.readline(), 20))["url"]
        async with running_world(database.dsns["llm"], ScriptedProvider(url)) as world:
            yield world
    finally:
        simulator.terminate()
        await simulator.communicate()


@pytest.fixture
async def faults(simulated: World) -> AsyncIterator[aiohttp.ClientSession]:
    """Where to say what goes wrong; afterwards nothing does."""
    async with aiohttp.ClientSession(simulated.provider.url.removesuffix("/v1")) as http:
        yield http
        await http.put("/simulator/settings", json={})


async def test_a_question_is_streamed_and_its_parts_are_its_text(simulated: World) -> None:
    prompt = a_prompt()
    prompt.messages[0].content = "You are an interviewer.\nITEM: How do you find a slow query?"

    *deltas, last = await simulated.stream(a_request(prompt=prompt))

    assert isinstance(last, pb.GenerateResponse)
    assert "".join(str(delta) for delta in deltas) == last.call.text
    assert "slow query" in last.call.text
    assert last.call.usage.completion_tokens > 5


async def test_a_judge_answers_by_its_schema_and_the_simulators_log_names_the_call(simulated: World) -> None:
    request = a_request(purpose="judge", prompt=a_prompt(json_schema=SCHEMA))

    made = await simulated.generate(request)

    assert 0 <= orjson.loads(made.call.text)["level"] <= 3
    async with (
        aiohttp.ClientSession() as http,
        http.get(simulated.provider.url.replace("/v1", "/simulator/calls")) as log,
    ):
        calls = (await log.json())["calls"]
    (logged,) = [one for one in calls if one["call"] == f"{request.session_id}/{request.turn_id}/judge"]
    assert logged["prompt_tokens"] == made.call.usage.prompt_tokens
    assert logged["completion_tokens"] == made.call.usage.completion_tokens


@pytest.mark.parametrize(
    ("fault", "state"),
    [
        ("429", pb.CALL_STATE_FAILED),
        ("500", pb.CALL_STATE_UNKNOWN),
        ("cut_stream", pb.CALL_STATE_UNKNOWN),
        ("malformed_json", pb.CALL_STATE_UNKNOWN),
        ("context_length_exceeded", pb.CALL_STATE_FAILED),
    ],
)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_every_fault_ends_in_its_state(
    simulated: World, faults: aiohttp.ClientSession, fault: str, state: pb.CallState.ValueType, streamed: bool
) -> None:
    request = a_request()
    await faults.put("/simulator/settings", json={"faults": {fault: 1}})

    ask = simulated.stream(request) if streamed else simulated.generate(request)
    with pytest.raises((Unavailable, InvalidField)) as raised:
        await ask

    assert isinstance(raised.value, InvalidField) == (fault == "context_length_exceeded")
    assert (await simulated.get(request)).state == state
    assert (simulated.spent(request) > 0) == (state == pb.CALL_STATE_UNKNOWN)


async def test_half_an_answer_is_no_judgement(simulated: World, faults: aiohttp.ClientSession) -> None:
    request = a_request(purpose="judge", prompt=a_prompt(json_schema=SCHEMA))
    await faults.put("/simulator/settings", json={"faults": {"truncated_output": 1}})

    with pytest.raises(Unavailable):
        await simulated.generate(request)

    assert [attempt["error"] for attempt in simulated.attempts(request)] == ["not_json", "not_json"]
    assert (await simulated.get(request)).state == pb.CALL_STATE_FAILED

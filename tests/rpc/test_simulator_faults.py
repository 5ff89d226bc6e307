"""Each fault of the simulator, as the real OpenAI SDK sees it, and the switch that tests of a live stack use."""

import asyncio
import time
from collections.abc import AsyncIterator

import aiohttp
import openai
import orjson
import pytest
from openai import AsyncOpenAI, DefaultAioHttpClient
from openai.types.chat import ChatCompletionMessageParam
from openai.types.shared_params import ResponseFormatJSONSchema

from services.simulator.json_schema import Json
from services.simulator.server import serving
from services.simulator.settings import Behaviour, Latency, Settings

MODEL = "gpt-4o-mini"
CHAT: list[ChatCompletionMessageParam] = [{"role": "user", "content": "How do I prepare a salary negotiation?"}]
LEVEL: ResponseFormatJSONSchema = {
    "type": "json_schema",
    "json_schema": {"name": "v", "schema": {"type": "object", "properties": {"level": {"type": "integer"}}}},
}


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with serving(Settings(behaviour=Behaviour(Latency(0)))) as url:
        yield url


@pytest.fixture
async def control(url: str) -> AsyncIterator[aiohttp.ClientSession]:
    """A session for the simulator's own routes."""
    async with aiohttp.ClientSession(url) as session:
        yield session


@pytest.fixture
async def client(url: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(
        api_key="any", base_url=f"{url}/v1", max_retries=0, timeout=5, http_client=DefaultAioHttpClient()
    ) as client:
        yield client


async def faulty(client: AsyncOpenAI, fault: str) -> str | None:
    completion = await client.chat.completions.create(
        model=MODEL, messages=CHAT, extra_headers={"X-Simulator-Fault": fault}
    )
    return completion.choices[0].message.content


async def faulty_stream(client: AsyncOpenAI, fault: str, received: list[str]) -> None:
    stream = await client.chat.completions.create(
        model=MODEL, messages=CHAT, stream=True, extra_headers={"X-Simulator-Fault": fault}
    )
    async for chunk in stream:
        received.append(chunk.choices[0].delta.content or "")  # noqa: PERF401  (kept when the stream breaks)


async def put(control: aiohttp.ClientSession, settings: Json) -> int:
    async with control.put("/simulator/settings", data=orjson.dumps(settings)) as reply:
        return reply.status


async def report(control: aiohttp.ClientSession) -> dict[str, list[dict[str, Json]]]:
    async with control.get("/simulator/calls") as reply:
        told: dict[str, list[dict[str, Json]]] = orjson.loads(await reply.read())
        return told


async def running_call(control: aiohttp.ClientSession) -> dict[str, Json]:
    """Return the call that runs once one does."""
    async with asyncio.timeout(5):
        while not (running := (await report(control))["running"]):
            pass  # the round trip is the pause
    return running[0]


async def last_call(control: aiohttp.ClientSession) -> dict[str, Json]:
    """Return the last call once it has ended: the server may notice the end after its caller has."""
    async with asyncio.timeout(5):
        told = await report(control)
        while told["running"] or not told["calls"]:
            told = await report(control)
    return told["calls"][-1]


async def test_429_names_the_time_to_wait(client: AsyncOpenAI, control: aiohttp.ClientSession) -> None:
    with pytest.raises(openai.RateLimitError) as refusal:
        await faulty(client, "429")

    assert refusal.value.response.headers["retry-after"] == "1"
    assert refusal.value.response.headers["retry-after-ms"] == "1000"
    assert refusal.value.code == "rate_limit_exceeded"
    assert (await last_call(control))["outcome"] == "refused"


async def test_500_is_a_server_error(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as failure:
        await faulty(client, "500")

    assert failure.value.type == "server_error"


async def test_a_prompt_that_is_too_long_is_refused_with_its_code(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="maximum context length") as refusal:
        await faulty(client, "context_length_exceeded")

    assert (refusal.value.code, refusal.value.param) == ("context_length_exceeded", "messages")


async def test_a_hanging_call_ends_with_its_callers_patience(
    client: AsyncOpenAI, control: aiohttp.ClientSession
) -> None:
    hanging = asyncio.create_task(
        client.chat.completions.create(
            model=MODEL, messages=CHAT, extra_headers={"X-Simulator-Fault": "hang", "X-Colloquy-Call": "h"}
        )
    )
    await running_call(control)
    await asyncio.sleep(0.05)
    hanging.cancel()

    call = await last_call(control)
    assert (call["call"], call["outcome"], call["status"]) == ("h", "abandoned", None)
    assert isinstance(call["duration_ms"], float)
    assert call["duration_ms"] >= 50


async def test_a_running_call_is_reported_before_it_ends(client: AsyncOpenAI, control: aiohttp.ClientSession) -> None:
    hanging = asyncio.create_task(faulty(client, "hang"))

    running = await running_call(control)

    assert (running["purpose"], running["fault"]) == ("chat", "hang")
    hanging.cancel()
    await last_call(control)


async def test_a_cut_stream_gives_half_and_then_a_connection_error(
    client: AsyncOpenAI, control: aiohttp.ClientSession
) -> None:
    received: list[str] = []

    with pytest.raises(openai.APIConnectionError):
        await faulty_stream(client, "cut_stream", received)

    assert (await last_call(control))["outcome"] == "broken"
    whole = (await client.chat.completions.create(model=MODEL, messages=CHAT)).choices[0].message.content or ""
    assert whole.startswith("".join(received))
    assert 5 < len("".join(received)) < len(whole)


async def test_a_cut_reply_is_a_connection_error_without_a_stream_too(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.APIConnectionError):
        await faulty(client, "cut_stream")


async def test_malformed_json_is_no_completion(client: AsyncOpenAI, control: aiohttp.ClientSession) -> None:
    with pytest.raises((openai.APIResponseValidationError, ValueError)):
        await faulty(client, "malformed_json")

    assert (await last_call(control))["outcome"] == "broken"


async def test_malformed_json_in_a_stream_comes_after_good_events(client: AsyncOpenAI) -> None:
    received: list[str] = []

    with pytest.raises(ValueError, match="Unterminated string"):
        await faulty_stream(client, "malformed_json", received)

    assert len(received) > 5


async def test_a_truncated_output_says_so_and_its_json_does_not_parse(client: AsyncOpenAI) -> None:
    completion = await client.chat.completions.create(
        model=MODEL,
        messages=CHAT,
        response_format=LEVEL,
        extra_headers={"X-Simulator-Fault": "truncated_output"},
    )

    assert completion.choices[0].finish_reason == "length"
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(completion.choices[0].message.content or "")


async def test_a_slow_stream_keeps_its_caller_waiting_from_piece_to_piece(client: AsyncOpenAI) -> None:
    started = time.monotonic()  # not when the first piece was read, which may be late

    stream = await client.chat.completions.create(
        model=MODEL, messages=CHAT, stream=True, extra_headers={"X-Simulator-Fault": "slow_stream"}
    )

    pieces = 0
    async for chunk in stream:
        pieces += bool(chunk.choices[0].delta.content)
        if pieces == 2:
            break
    waited = time.monotonic() - started
    await stream.close()

    assert waited > 0.3


async def test_hanging_can_be_switched_on_for_the_judge_alone_and_off_again(
    client: AsyncOpenAI, control: aiohttp.ClientSession
) -> None:
    judge = client.with_options(timeout=0.2).chat.completions

    assert await put(control, {"purposes": {"judge": {"faults": {"hang": 1}}}}) == 200
    with pytest.raises(openai.APITimeoutError):
        await judge.create(model=MODEL, messages=CHAT, response_format=LEVEL)
    assert (await client.chat.completions.create(model=MODEL, messages=CHAT)).choices

    assert await put(control, {}) == 200
    assert (await client.chat.completions.create(model=MODEL, messages=CHAT, response_format=LEVEL)).choices


async def test_latency_can_be_changed_while_it_runs(client: AsyncOpenAI, control: aiohttp.ClientSession) -> None:
    await put(control, {"latency": {"median_ms": 150, "sigma": 0}})
    started = time.monotonic()

    await client.chat.completions.create(model=MODEL, messages=CHAT)

    call = await last_call(control)
    assert isinstance(call["duration_ms"], float)
    assert 148 <= call["duration_ms"] <= (time.monotonic() - started) * 1000
    async with control.get("/simulator/settings") as reply:
        assert orjson.loads(await reply.read())["latency"] == {"median_ms": 150.0, "sigma": 0.0}


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"faults": {"explode": 1}}', b'{"faults": {"hang": 2}}'])
async def test_wrong_settings_are_refused_and_change_nothing(control: aiohttp.ClientSession, body: bytes) -> None:
    async with control.put("/simulator/settings", data=body) as reply:
        status, error = reply.status, orjson.loads(await reply.read())["error"]

    assert status == 400
    assert error["message"]
    async with control.get("/simulator/settings") as reply:
        assert orjson.loads(await reply.read())["faults"] == {}


@pytest.mark.parametrize("header", [{"X-Simulator-Fault": "explode"}, {"X-Simulator-Latency-Ms": "soon"}])
async def test_a_wrong_header_is_refused_by_name(client: AsyncOpenAI, header: dict[str, str]) -> None:
    with pytest.raises(openai.BadRequestError, match=next(iter(header))):
        await client.chat.completions.create(model=MODEL, messages=CHAT, extra_headers=header)


async def test_a_body_beyond_the_limit_is_refused_in_openais_shape(
    client: AsyncOpenAI, control: aiohttp.ClientSession
) -> None:
    with pytest.raises(openai.APIStatusError) as refusal:
        await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "x" * 2_000_000}])

    assert refusal.value.status_code == 413
    assert (await last_call(control))["outcome"] == "refused"

"""The simulator through the real OpenAI SDK: questions, judgements and chats, streamed or not."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Annotated

import aiohttp
import openai
import orjson
import pytest
from openai import AsyncOpenAI, DefaultAioHttpClient
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam
from pydantic import BaseModel, Field

from libs.tokens.counting import count
from services.simulator import delivery
from services.simulator.calls import Call
from services.simulator.server import serving
from services.simulator.settings import Behaviour, Latency, Settings

MODEL = "gpt-4o-mini"
ITEM = "How would you make a payment endpoint safe to retry?"
ANSWER = "I store an idempotency key under a unique constraint.\nA duplicate gets the first response back."
QUESTION: list[ChatCompletionMessageParam] = [
    {"role": "system", "content": f"You are an interviewer.\nITEM: {ITEM}\nAsk it."},
    {"role": "assistant", "content": "Tell me about a database that you ran."},
    {"role": "user", "content": "We partitioned the orders table and added a replica."},
]
JUDGEMENT: list[ChatCompletionMessageParam] = [
    {"role": "system", "content": "Score the answer."},
    {
        "role": "user",
        "content": (
            "LEVEL 1: Nothing usable.\nLEVEL 2: Names an idempotency key.\nLEVEL 3: Stores the key under a unique "
            f"constraint and returns the first response to a duplicate.\n<answer>\n{ANSWER}\n</answer>"
        ),
    },
]
CHAT: list[ChatCompletionMessageParam] = [{"role": "user", "content": "How do I prepare a salary negotiation?"}]


class Verdict(BaseModel):
    """The judge's schema."""

    level: Annotated[int, Field(ge=1, le=3)]
    quotes: list[str]
    rationale: str
    confidence: Annotated[float, Field(ge=0, le=1)]


def client_of(url: str) -> AsyncOpenAI:
    return AsyncOpenAI(
        api_key="any", base_url=f"{url}/v1", max_retries=0, timeout=10, http_client=DefaultAioHttpClient()
    )


@pytest.fixture(scope="module")
async def url() -> AsyncIterator[str]:
    async with serving(Settings(behaviour=Behaviour(Latency(0)))) as url:
        yield url


@pytest.fixture(scope="module")
async def client(url: str) -> AsyncIterator[AsyncOpenAI]:
    async with client_of(url) as client:
        yield client


async def content(client: AsyncOpenAI, messages: list[ChatCompletionMessageParam]) -> str:
    completion = await client.chat.completions.create(model=MODEL, messages=messages)
    assert completion.choices[0].message.content is not None
    return completion.choices[0].message.content


async def chunks(client: AsyncOpenAI, *, include_usage: bool = False) -> list[ChatCompletionChunk]:
    stream = await client.chat.completions.create(
        model=MODEL, messages=QUESTION, stream=True, stream_options={"include_usage": include_usage}
    )
    return [chunk async for chunk in stream]


def text_of(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


async def test_a_question_is_acknowledged_and_asked_in_the_items_wording(client: AsyncOpenAI) -> None:
    completion = await client.chat.completions.create(model=MODEL, messages=QUESTION)

    text = completion.choices[0].message.content
    assert text is not None
    assert text.endswith(ITEM)
    assert "replica" in text
    assert completion.choices[0].finish_reason == "stop"
    assert completion.model == MODEL
    assert completion.usage is not None
    assert completion.usage.completion_tokens == count(text)
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + count(text)


async def test_a_stream_has_the_same_text_in_many_chunks_and_ends_with_the_usage(client: AsyncOpenAI) -> None:
    received = await chunks(client, include_usage=True)

    assert text_of(received) == await content(client, QUESTION)
    assert len(received) > 10
    assert received[0].choices[0].delta.role == "assistant"
    assert received[-2].choices[0].finish_reason == "stop"
    assert received[-1].choices == []
    assert received[-1].usage is not None
    assert received[-1].usage.completion_tokens == count(text_of(received))
    assert len({chunk.id for chunk in received}) == 1


async def test_a_stream_has_no_usage_unless_it_is_asked_for(client: AsyncOpenAI) -> None:
    received = await chunks(client)

    assert all(chunk.usage is None and chunk.choices for chunk in received)


async def test_a_judgement_fits_the_schema_and_quotes_the_answer_exactly(client: AsyncOpenAI) -> None:
    completion = await client.chat.completions.parse(model=MODEL, messages=JUDGEMENT, response_format=Verdict)

    verdict = completion.choices[0].message.parsed
    assert verdict is not None
    assert verdict.level >= 2
    assert verdict.quotes
    assert all(quote in ANSWER for quote in verdict.quotes)


async def test_a_judgement_can_be_streamed(client: AsyncOpenAI) -> None:
    async with client.chat.completions.stream(model=MODEL, messages=JUDGEMENT, response_format=Verdict) as stream:
        completion = await stream.get_final_completion()

    assert completion.choices[0].message.parsed is not None


async def test_a_chat_gets_a_reply_on_its_topic(client: AsyncOpenAI) -> None:
    assert "negotiation" in (await content(client, CHAT)).lower()


async def test_texts_are_the_same_in_every_process_of_one_seed_and_differ_between_seeds(client: AsyncOpenAI) -> None:
    prompts = [QUESTION, CHAT]
    texts: list[list[str]] = []

    for seed in (0, 0, 1, 2, 3):
        async with serving(Settings(seed, Behaviour(Latency(0)))) as url, client_of(url) as fresh:
            texts.append([await content(fresh, prompt) for prompt in prompts])

    assert texts[0] == texts[1] == [await content(client, prompt) for prompt in prompts]
    assert len({text for text, _ in texts}) > 1


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
async def test_a_token_limit_ends_the_reply(client: AsyncOpenAI, limit: str) -> None:
    completion = await client.chat.completions.create(model=MODEL, messages=CHAT, extra_body={limit: 7})

    text = completion.choices[0].message.content
    assert text is not None
    assert completion.choices[0].finish_reason == "length"
    assert 1 <= count(text) <= 7
    assert (await content(client, CHAT)).startswith(text)


@pytest.fixture
def dues(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When the parts of replies were due that have been waited for, in milliseconds after their requests."""
    due: list[float] = []
    until = delivery._until

    async def noted(call: Call, due_ms: float) -> None:
        due.append(due_ms)
        await until(call, due_ms)

    monkeypatch.setattr(delivery, "_until", noted)
    return due


@pytest.mark.parametrize("stream", [True, False])
async def test_a_call_takes_the_latency_that_it_asks_for_streamed_or_not(
    client: AsyncOpenAI, dues: list[float], stream: bool
) -> None:
    started = time.monotonic()

    reply = await client.chat.completions.create(
        model=MODEL, messages=QUESTION, stream=stream, extra_headers={"X-Simulator-Latency-Ms": "200"}
    )
    if isinstance(reply, openai.AsyncStream):
        _ = [chunk async for chunk in reply]

    assert (time.monotonic() - started) * 1000 >= 195
    assert dues[-1] == pytest.approx(200)  # how much later it comes is the machine's affair


async def test_the_first_piece_of_a_stream_comes_while_the_others_are_not_due_yet(
    client: AsyncOpenAI, dues: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, until = asyncio.Event(), delivery._until

    async def held(call: Call, due_ms: float) -> None:
        if dues:
            await asyncio.wait_for(seen.wait(), 5)
        await until(call, due_ms)

    monkeypatch.setattr(delivery, "_until", held)
    started = time.monotonic()
    stream = await client.chat.completions.create(
        model=MODEL, messages=QUESTION, stream=True, extra_headers={"X-Simulator-Latency-Ms": "200"}
    )

    first = await anext(aiter(stream))
    assert (time.monotonic() - started) * 1000 >= 75
    assert dues == pytest.approx([80])
    seen.set()
    rest = [chunk async for chunk in stream]

    assert text_of([first, *rest]) == await content(client, QUESTION)
    assert dues[1] > 80


async def test_the_models_are_listed_and_any_other_is_served_too(client: AsyncOpenAI) -> None:
    listed = [model.id async for model in client.models.list()]

    completion = await client.chat.completions.create(model="llama-3.3-70b", messages=CHAT)

    assert MODEL in listed
    assert completion.model == "llama-3.3-70b"


async def test_a_bad_request_is_refused_in_openais_shape(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        await client.chat.completions.create(model=MODEL, messages=CHAT, n=2)

    assert (refusal.value.type, refusal.value.param, refusal.value.code) == (
        "invalid_request_error",
        "n",
        "unsupported_value",
    )


async def test_a_schema_beyond_the_simulator_is_refused_by_name(client: AsyncOpenAI) -> None:
    schema: dict[str, object] = {"type": "object", "properties": {"day": {"type": "string", "format": "date"}}}

    with pytest.raises(openai.BadRequestError, match="unsupported keywords: format") as refusal:
        await client.chat.completions.create(
            model=MODEL,
            messages=CHAT,
            response_format={"type": "json_schema", "json_schema": {"name": "day", "schema": schema}},
        )

    assert refusal.value.param == "response_format"


async def test_an_unknown_route_is_refused_in_openais_shape(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refusal:
        await client.embeddings.create(model=MODEL, input="x")

    assert refusal.value.type == "invalid_request_error"


async def test_every_call_is_reported_with_the_id_that_it_carried(url: str, client: AsyncOpenAI) -> None:
    async with aiohttp.ClientSession(url) as session:
        async with session.delete("/simulator/calls") as reply:
            assert reply.status == 204
        started = time.monotonic()
        await client.chat.completions.create(
            model=MODEL,
            messages=QUESTION,
            extra_headers={"X-Colloquy-Call": "s/t/question", "X-Simulator-Latency-Ms": "50"},
        )
        stream = await client.chat.completions.create(
            model=MODEL, messages=CHAT, stream=True, extra_headers={"X-Colloquy-Call": "s/t/chat"}
        )
        received = [chunk async for chunk in stream]
        async with session.get("/simulator/calls") as reply:
            report = orjson.loads(await reply.read())
        taken_ms = (time.monotonic() - started) * 1000
        async with session.get("/simulator/calls", params={"since": report["calls"][0]["number"]}) as reply:
            later = orjson.loads(await reply.read())

    first, second = report["calls"]
    assert (first["call"], first["purpose"], first["streamed"], first["outcome"]) == (
        "s/t/question",
        "question",
        False,
        "answered",
    )
    assert 50 <= first["duration_ms"] <= taken_ms
    assert (second["call"], second["purpose"], second["streamed"], second["status"]) == ("s/t/chat", "chat", True, 200)
    assert second["completion_tokens"] == count(text_of(received))
    assert later["calls"] == [second]
    assert report["running"] == []

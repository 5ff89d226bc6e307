"""One call, shared: its text as it comes to several listeners, its end, and their deadlines."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from libs.runtime import context
from libs.runtime.errors import DeadlineExceeded, NotFound
from services.llm_gateway.domain import (
    Call,
    CallKey,
    CallState,
    Fence,
    Message,
    Offer,
    Prompt,
    Purpose,
    Role,
    SessionId,
    TurnId,
    Usage,
)
from services.llm_gateway.flight import COALESCE_SECONDS, Flight

OFFER = Offer(
    CallKey(SessionId(uuid4()), TurnId(uuid4()), Purpose("question")),
    Prompt((Message(Role.USER, "Hello"),), "question/v1", 100),
    b"",
)


def done(text: str) -> Call:
    return Call(OFFER.key, Fence(1), 1, CallState.DONE, b"", text, Usage(), "stop", "question/v1", "m", 0, 0, 1)


async def collect(flight: Flight) -> list[str]:
    return [delta async for delta in flight.deltas()]


async def settle() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_the_first_piece_is_passed_on_at_once_and_the_next_ones_together() -> None:
    flight = Flight(OFFER, streamed=True)
    deltas = flight.deltas()

    flight.add("And ")
    first = await anext(deltas)
    for piece in ("how ", "would ", "you?"):
        flight.add(piece)
    shown_meanwhile = flight.text
    second = await anext(deltas)

    assert (first, shown_meanwhile, second) == ("And ", "And ", "how would you?")


async def test_pieces_wait_no_longer_than_they_have_to() -> None:
    flight, loop = Flight(OFFER, streamed=True), asyncio.get_running_loop()
    deltas = flight.deltas()

    started = loop.time()
    flight.add("a")
    await anext(deltas)
    flight.add("b")
    await anext(deltas)

    assert loop.time() - started >= COALESCE_SECONDS * 0.9


async def test_who_joins_late_gets_what_there_is_and_then_the_rest() -> None:
    flight = Flight(OFFER, streamed=True)
    early = asyncio.create_task(collect(flight))
    flight.add("And ")
    await settle()
    late = asyncio.create_task(collect(flight))
    await settle()

    flight.add("then?")
    flight.land(done("And then?"))

    assert await early == ["And ", "then?"]
    assert await late == ["And ", "then?"]


async def test_a_call_that_was_not_streamed_is_one_delta_at_its_end() -> None:
    flight = Flight(OFFER, streamed=False)
    listening = asyncio.create_task(collect(flight))
    await settle()

    flight.land(done("And then?"))

    assert await listening == ["And then?"]
    assert (await flight.call()).text == "And then?"


async def test_a_draft_that_was_overtaken_is_not_continued_with_another_text() -> None:
    flight = Flight(OFFER, streamed=True)
    flight.add("And ")
    await settle()

    flight.land(done("Tell me more."))

    assert await collect(flight) == ["And "]
    assert (await flight.call()).text == "Tell me more."


async def test_a_failure_ends_the_text_and_is_raised_to_all_who_wait() -> None:
    flight = Flight(OFFER, streamed=True)
    waiting = [asyncio.create_task(flight.call()) for _ in range(3)]
    await settle()

    flight.land(NotFound())

    assert await collect(flight) == []
    outcomes: list[Any] = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [NotFound] * 3


async def test_a_deadline_ends_the_wait_and_not_the_flight() -> None:
    flight = Flight(OFFER, streamed=True)

    with context.deadline(10), pytest.raises(DeadlineExceeded):
        await flight.call()
    with context.deadline(10), pytest.raises(DeadlineExceeded):
        await collect(flight)
    flight.land(done("Late."))

    assert (await flight.call()).text == "Late."


async def test_it_is_wanted_until_the_last_of_those_who_wait_gives_up() -> None:
    flight = Flight(OFFER, streamed=True)

    assert flight.wanted_ms < 0
    with context.deadline(5_000):
        flight.join()
    with context.deadline(1_000):
        flight.join()
    assert 4_000 < flight.wanted_ms <= 5_000
    flight.join()
    assert flight.wanted_ms == float("inf")

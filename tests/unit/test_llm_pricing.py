"""Costs are integers of nano-dollars; tokens are counted here where a provider does not say."""

import pytest

from libs.tokens.counting import count, count_chat
from services.llm_gateway.domain import Completion, Message, NanoUsd, Prompt, Role, Usage
from services.llm_gateway.pricing import PRICES, UNKNOWN_MODEL, Meter, Price, price_of

PROMPT = Prompt((Message(Role.SYSTEM, "You are an interviewer."), Message(Role.USER, "Hello")), "question/v1", 200)
AS_SENT = [{"role": "system", "content": "You are an interviewer."}, {"role": "user", "content": "Hello"}]


@pytest.mark.parametrize(
    ("model", "price"),
    [
        ("gpt-4o-mini", Price(150, 600)),
        ("gpt-4o", Price(2_500, 10_000)),
        ("gpt-4o-mini-2024-07-18", Price(150, 600)),
        ("simulator", Price(0, 0)),
        ("gpt-4o-mini-tts", UNKNOWN_MODEL),
        ("llama-3.3-70b", UNKNOWN_MODEL),
    ],
)
def test_a_snapshot_costs_what_its_model_costs_and_the_unknown_costs_most(model: str, price: Price) -> None:
    assert price_of(model) == price


def test_no_listed_model_costs_more_than_an_unknown_one() -> None:
    assert all(
        price.prompt <= UNKNOWN_MODEL.prompt and price.completion <= UNKNOWN_MODEL.completion
        for price in PRICES.values()
    )


def test_the_providers_own_counts_are_what_is_paid() -> None:
    usage = Meter("gpt-4o-mini").usage(Completion("Yes", "stop", "m", False, 1_000, 20), 900)

    assert usage == Usage(1_000, 20, NanoUsd(1_000 * 150 + 20 * 600))


def test_what_the_provider_does_not_count_is_counted_here() -> None:
    usage = Meter("gpt-4o-mini").usage(Completion("And how would you find out?", "stop", "m"), 900)

    replied = count("And how would you find out?")
    assert usage == Usage(900, replied, NanoUsd(900 * 150 + replied * 600))


def test_a_ceiling_is_the_prompt_and_all_the_reply_that_was_allowed() -> None:
    meter = Meter("gpt-4o-mini")

    assert meter.prompt_tokens(PROMPT) == count_chat(AS_SENT)
    assert meter.ceiling(40, PROMPT) == 40 * 150 + 200 * 600


def test_a_schema_is_part_of_the_prompt() -> None:
    schema = '{"type": "object", "properties": {"level": {"type": "integer"}}}'
    prompt = Prompt(PROMPT.messages, "judge/v1", 200, json_schema=schema)

    assert Meter("gpt-4o-mini").prompt_tokens(prompt) == count_chat(AS_SENT) + count(schema)


def test_a_remembered_count_is_the_same_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.llm_gateway.pricing._REMEMBERED", 3)
    meter = Meter("gpt-4o-mini")

    counts = [meter.prompt_tokens(PROMPT) for _ in range(4)]

    assert set(counts) == {count_chat(AS_SENT)}

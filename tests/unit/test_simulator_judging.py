"""The simulator's judge follows its documented rules, and quotes exactly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.simulator.judging import judge

RUBRIC = {
    1: "Cannot say how a retry is made safe.",
    2: "Names an idempotency key without saying where it is stored.",
    3: "Stores the key under a unique constraint in the same transaction.",
    4: "Also returns the first response on a duplicate, and expires keys.",
    5: "Weighs races between concurrent duplicates, partial failure and retention.",
}
THOROUGH = (
    "I would let the client send an idempotency key and store it under a unique constraint in the same transaction as "
    "the payment. A duplicate then hits the constraint and gets the first response back, which I store beside the key. "
    "Two concurrent duplicates race on the insert, so exactly one wins and the other waits. Keys expire after a day."
)
VAGUE = "I would retry the request a few times and hope that the payment went through."


def test_a_thorough_answer_reaches_the_highest_level_and_a_vague_one_does_not() -> None:
    assert judge(THOROUGH, RUBRIC).level == 5
    assert 1 <= judge(VAGUE, RUBRIC).level <= 2


@pytest.mark.parametrize(
    "answer", ["", "   ", "I don't know.", "No idea, sorry", "pass", "I have never used that 😬", "..."]
)
def test_no_answer_gets_the_lowest_level_with_confidence(answer: str) -> None:
    verdict = judge(answer, RUBRIC)

    assert verdict.level == 1
    assert verdict.confidence == 0.9


def test_hedging_lowers_the_level_of_the_same_answer() -> None:
    hedged = THOROUGH + " But I am not sure, I guess."

    assert judge(hedged, RUBRIC).level < judge(THOROUGH, RUBRIC).level


def test_repeating_one_word_does_not_earn_a_high_level() -> None:
    assert judge("transaction " * 160, RUBRIC).level <= 2


def test_quotes_are_the_sentences_that_meet_the_rubric() -> None:
    verdict = judge(f"Good question. {THOROUGH}", RUBRIC)

    assert verdict.quotes[0].startswith("I would let the client")
    assert len(verdict.quotes) == 2


def test_without_a_rubric_the_scale_is_0_to_4() -> None:
    assert judge("", {}).level == 0
    assert judge(THOROUGH, {}).level == 2


@given(st.text(max_size=600) | st.text(st.sampled_from("a .!?\n界😀"), min_size=150, max_size=400))
def test_any_quote_is_a_part_of_the_answer_and_any_level_one_of_the_rubric(answer: str) -> None:
    verdict = judge(answer, RUBRIC)

    assert verdict.level in RUBRIC
    assert 0.0 <= verdict.confidence <= 1.0
    assert all(quote and quote in answer and len(quote.encode()) <= 160 for quote in verdict.quotes)
    assert bool(verdict.quotes) == bool(answer.strip())

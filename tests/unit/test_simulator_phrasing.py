"""The simulator asks the item it was given and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.simulator import phrasing

ITEM = "How would you make a payment endpoint safe to retry?"
ANSWER = "We partitioned the orders table by month and moved the reports to a replica."


def test_a_question_acknowledges_the_answer_and_ends_with_the_item_as_it_was_given() -> None:
    text = phrasing.question(ITEM, ANSWER, seed=1)

    assert text.endswith(ITEM)
    assert "replica" in text or "reports" in text


@given(answer=st.text(max_size=300), seed=st.integers(0, 1000))
def test_nothing_but_the_item_is_asked(answer: str, seed: int) -> None:
    text = phrasing.question(ITEM, answer, seed)

    assert text.endswith(ITEM)
    assert "?" not in text.removesuffix(ITEM)


def test_the_same_seed_and_content_give_the_same_text_and_other_seeds_vary_it() -> None:
    texts = [phrasing.question(ITEM, ANSWER, seed) for seed in range(20)]

    assert texts == [phrasing.question(ITEM, ANSWER, seed) for seed in range(20)]
    assert len(set(texts)) > 5


@pytest.mark.parametrize(
    ("answer", "options"),
    [("", phrasing._OPENING), ("I don't know.", phrasing._REASSURING), ("It is so.", phrasing._PLAIN)],
)
def test_an_opening_a_non_answer_and_a_terse_answer_are_met_in_their_own_way(
    answer: str, options: tuple[str, ...]
) -> None:
    assert phrasing.question(ITEM, answer, seed=3).startswith(options)


def test_a_chat_reply_takes_up_the_topic() -> None:
    assert "negotiation" in phrasing.chat("How do I prepare a salary negotiation?", seed=1).lower()

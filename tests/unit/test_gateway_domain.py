"""The rules of a turn's composition."""

import uuid

import pytest

from libs.runtime.errors import InvalidField
from services.gateway.domain import (
    Choice,
    Degradation,
    Item,
    Opening,
    budget,
    choose,
    session_id_of,
    usable_reply,
)

A, B, C = (Item(name, "skill", f"What about {name}?") for name in "abc")


def test_the_first_item_is_asked_and_the_rest_are_kept_for_later() -> None:
    choice = choose((A, B, C), "Goodbye.", base_seq=3, max_turns=100)

    assert (choice.item, choice.alternatives, choice.final) == (A, (B, C), False)


def test_without_an_item_the_interview_closes_in_the_plans_words() -> None:
    choice = choose((), "Goodbye.", base_seq=3, max_turns=100)

    assert choice.final
    assert choice.own_wording() == "Goodbye."


def test_the_last_turn_there_is_room_for_closes_the_interview() -> None:
    choice = choose((A, B), "Goodbye.", base_seq=9, max_turns=10)

    assert choice.final


def test_a_taken_item_gives_way_to_the_next_and_at_last_to_the_closing() -> None:
    choice = Choice(A, (B,), "Goodbye.")

    asked = [choice.item, choice.without_its_item().item, choice.without_its_item().without_its_item().item]

    assert asked == [A, B, None]


def test_degradations_are_told_once_and_the_worst_first() -> None:
    choice = Choice(A, (), "").marked(Degradation.BANK).marked(Degradation.PLAN, Degradation.BANK)

    assert choice.degraded == (Degradation.PLAN, Degradation.BANK)


def test_an_unhurried_caller_gets_the_whole_budget() -> None:
    granted = budget(2000, None)

    assert (granted.total_ms, granted.model_ms, granted.plan_ms) == (2000, 1650, 600)


def test_a_callers_deadline_narrows_the_budget_and_leaves_time_for_the_way_back() -> None:
    assert budget(2000, 1050).total_ms == 1000
    assert budget(2000, 60_000).total_ms == 2000


def test_a_deadline_that_is_almost_over_grants_nothing_negative() -> None:
    granted = budget(2000, 20)

    assert (granted.total_ms, granted.model_ms, granted.plan_ms) == (0, 0, 0)


def test_one_owner_and_request_name_one_session() -> None:
    request_id = uuid.UUID("5f3a0c1e-8a44-4a53-9d0c-0d4e7f8a2b11")

    made = session_id_of("ada", request_id)

    assert made == session_id_of("ada", request_id)
    assert made != session_id_of("eve", request_id)
    assert (made.version, made.variant) == (8, uuid.RFC_4122)


def test_an_opening_names_every_field_that_breaks_a_rule() -> None:
    with pytest.raises(InvalidField) as caught:
        Opening("chat", "backend-engineer", "x" * 201, {str(n): "" for n in range(17)})

    assert [violation.field for violation in caught.value.violations] == ["plan", "candidate_name", "metadata"]


def test_metadata_holds_four_kilobytes_of_utf_8() -> None:
    Opening("interview", "", "", {"k": "é" * 2047})

    with pytest.raises(InvalidField):
        Opening("interview", "", "", {"k": "é" * 2048})


def test_the_same_wish_has_the_same_fingerprint_however_its_pairs_are_ordered() -> None:
    one = Opening("interview", "quick", "Ada", {"a": "1", "b": "2"})
    other = Opening("interview", "quick", "Ada", {"b": "2", "a": "1"})

    assert one.fingerprint() == other.fingerprint()
    assert one.fingerprint() != Opening("interview", "quick", "Ada", {"a": "1"}).fingerprint()


@pytest.mark.parametrize(
    ("text", "said"), [("  Hello. \n", "Hello."), ("a\0b", "ab"), (" \n", None), ("x" * 8001, None)]
)
def test_a_models_text_is_said_only_if_it_can_be(text: str, said: str | None) -> None:
    assert usable_reply(text) == said


def test_a_slow_ledger_does_not_cost_the_plan_its_chance() -> None:
    granted = budget(2000, None)

    assert [granted.plan_cap_ms(elapsed_ms) for elapsed_ms in (10, 500, 900)] == [590, 150, 150]

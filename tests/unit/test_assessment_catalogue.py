"""Plans on offer, pinned versions, estimates by skill and the first message."""

import pytest

from libs.runtime.errors import InvalidField
from services.assessment import bankfile
from services.assessment.bank import Bank
from services.assessment.catalogue import Catalogue
from services.assessment.domain import (
    Item,
    ItemId,
    Level,
    Logits,
    Plan,
    PlanName,
    Score,
    ScoredAnswer,
    SkillId,
    SkillQuota,
    opening_message,
)


def a_plan(name: str = "plan") -> Plan:
    return Plan(
        name=PlanName(name),
        quotas=(SkillQuota(SkillId("fire"), 1.0, 1, 1),),
        min_items=1,
        max_items=1,
        target_standard_error=0.5,
        opening="Hello. {question}",
        opening_with_name="Hello {name}. {question}",
        closing="Bye.",
    )


def an_item(name: str, skill: str, wording: str = "How hot is a wok?") -> Item:
    thresholds = (Logits(-1), Logits(0), Logits(1))
    return Item(ItemId(name), SkillId(skill), wording, 1.5, thresholds, ("0", "1", "2", "3"))


def a_bank(role: str, number: int, *plans: str) -> Bank:
    skills = {SkillId("fire"): "Fire", SkillId("knives"): "Knives"}
    items = [an_item("fire-wok", "fire"), an_item("knives-grip", "knives")]
    return Bank.of(role, number, skills, items, [a_plan(plan) for plan in plans])


def test_a_new_interview_gets_the_newest_bank_of_its_role() -> None:
    catalogue = Catalogue.of([a_bank("cook", 10, "dinner"), a_bank("cook", 9, "dinner")], PlanName("dinner"))

    bank, plan = catalogue.offered("dinner")

    assert (bank.version, plan.name) == ("cook/10", "dinner")


def test_no_plan_means_the_default_one() -> None:
    catalogue = Catalogue.of([a_bank("cook", 1, "dinner", "lunch")], PlanName("lunch"))

    assert catalogue.offered("")[1].name == "lunch"


def test_an_unknown_plan_is_refused_with_the_names_there_are() -> None:
    catalogue = Catalogue.of([a_bank("cook", 1, "dinner", "lunch")], PlanName("lunch"))

    with pytest.raises(InvalidField) as caught:
        catalogue.offered("brunch")

    [violation] = caught.value.violations
    assert (violation.field, violation.message) == ("plan", "must be one of dinner, lunch")


def test_a_running_interview_stays_with_the_version_it_pinned() -> None:
    catalogue = Catalogue.of([a_bank("cook", 1, "dinner"), a_bank("cook", 2, "supper")], PlanName("supper"))

    bank, plan = catalogue.pinned("cook/1", "dinner")

    assert (bank.version, plan.name) == ("cook/1", "dinner")
    with pytest.raises(InvalidField):
        catalogue.offered("dinner")


@pytest.mark.parametrize(("version", "plan", "field"), [("cook/3", "dinner", "bank_version"), ("cook/1", "x", "plan")])
def test_what_cannot_be_pinned_is_refused_by_field(version: str, plan: str, field: str) -> None:
    catalogue = Catalogue.of([a_bank("cook", 1, "dinner")], PlanName("dinner"))

    with pytest.raises(InvalidField) as caught:
        catalogue.pinned(version, plan)

    assert [violation.field for violation in caught.value.violations] == [field]


@pytest.mark.parametrize(
    ("banks", "message"),
    [
        ([a_bank("cook", 1, "dinner"), a_bank("cook", 1, "dinner")], "two banks have the version cook/1"),
        ([a_bank("baker", 1, "dinner"), a_bank("cook", 1, "dinner")], "baker/1 and cook/1 both have a plan dinner"),
        ([a_bank("cook", 1, "lunch")], "no bank has the default plan dinner"),
        ([], "no bank has the default plan dinner"),
    ],
)
def test_banks_that_contradict_each_other_make_no_catalogue(banks: list[Bank], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Catalogue.of(banks, PlanName("dinner"))


def test_the_shipped_banks_make_a_catalogue() -> None:
    catalogue = Catalogue.of(bankfile.read_banks())

    assert catalogue.offered("")[1].name == "backend-engineer"
    assert catalogue.offered("quick")[0].version == "backend-engineer/1"


def test_estimates_by_skill_rest_on_that_skills_answers_alone() -> None:
    bank = a_bank("cook", 1)
    answer = ScoredAnswer(ItemId("fire-wok"), Score(Level(3), 0.3))

    by_skill = bank.ability_by_skill([answer, ScoredAnswer(ItemId("gone"), Score(Level(0), 0.3))])

    assert by_skill[SkillId("fire")] == bank.ability([answer])
    assert by_skill[SkillId("fire")].theta > 0.5
    assert by_skill[SkillId("knives")].theta == pytest.approx(0, abs=1e-9)
    assert by_skill[SkillId("knives")].standard_error == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (None, "Hello. How hot is a wok?"),
        ("", "Hello. How hot is a wok?"),
        (" \u2003\n", "Hello. How hot is a wok?"),
        ("Ada", "Hello Ada. How hot is a wok?"),
        ("  Ada \n\tLovelace ", "Hello Ada Lovelace. How hot is a wok?"),
        ("{question}", "Hello {question}. How hot is a wok?"),
        ("{name}\\1", "Hello {name}\\1. How hot is a wok?"),
    ],
)
def test_the_opening_greets_and_asks_in_the_items_own_wording(name: str | None, expected: str) -> None:
    assert opening_message(a_plan(), an_item("fire-wok", "fire"), name) == expected


def test_the_shipped_openings_read_as_one_message() -> None:
    [bank] = bankfile.read_banks()

    for plan in bank.plans.values():
        for name in (None, "Ada"):
            message = opening_message(plan, bank.items[0], name)
            assert message.endswith(f" {bank.items[0].wording}")
            assert "{" not in message
            assert ("Ada" in message) == (name is not None)

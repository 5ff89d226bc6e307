"""What is asked next, and when an interview is done."""

import math
import random
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from services.assessment import bankfile
from services.assessment.ability import GRID, item_information, level_probabilities
from services.assessment.bank import Bank
from services.assessment.domain import (
    Ask,
    Decision,
    Done,
    DoneReason,
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
)
from services.assessment.selection import LOOKAHEAD, decide


def an_item(name: str, skill: str = "one", a: float = 1.5, centre: float = 0.0) -> Item:
    return Item(
        id=ItemId(name),
        skill=SkillId(skill),
        wording=f"{name}?",
        discrimination=a,
        thresholds=tuple(Logits(centre + offset) for offset in (-1, 0, 1)),
        rubric=("0", "1", "2", "3"),
    )


def a_plan(*quotas: tuple[str, int, int], max_items: int, min_items: int = 1, target: float = 0.05) -> Plan:
    return Plan(
        name=PlanName("plan"),
        quotas=tuple(SkillQuota(SkillId(skill), 1.0, least, most) for skill, least, most in quotas),
        min_items=min_items,
        max_items=max_items,
        target_standard_error=target,
        opening="{question}",
        opening_with_name="{name} {question}",
        closing="Bye.",
    )


def a_bank(*items: Item) -> Bank:
    return Bank.of("role", 1, {item.skill: item.skill for item in items}, items, [])


def named(decision: Decision) -> list[str]:
    assert isinstance(decision, Ask)
    return [item.id for item in decision.items]


def answers(bank: Bank, asked: Sequence[ItemId], level: int, standard_error: float = 0.3) -> list[ScoredAnswer]:
    return [ScoredAnswer(item, Score(Level(level), standard_error)) for item in asked if bank.item(item)]


def test_the_first_item_tells_most_about_an_average_candidate() -> None:
    bank = a_bank(an_item("easy", centre=-2), an_item("fitting"), an_item("hard", centre=2), an_item("blunt", a=0.6))

    decision = decide(bank, a_plan(("one", 0, 4), max_items=4), [], [])

    assert named(decision)[0] == "fitting"


@pytest.mark.parametrize(("level", "expected"), [(0, "easy"), (3, "hard")])
def test_the_next_item_follows_the_score(level: int, expected: str) -> None:
    bank = a_bank(an_item("easy", centre=-1.5), an_item("start", a=2.0), an_item("hard", centre=1.5))
    asked = [ItemId("start")]

    decision = decide(bank, a_plan(("one", 0, 3), max_items=3), asked, answers(bank, asked, level))

    assert named(decision)[0] == expected


def test_an_unscored_answer_changes_nothing_but_what_may_be_asked() -> None:
    bank = a_bank(an_item("a", a=2.0), an_item("b"), an_item("c", centre=1))

    decision = decide(bank, a_plan(("one", 0, 3), max_items=3), [ItemId("a")], [])

    assert decision.ability.answers == 0
    assert named(decision) == ["b", "c"]


def test_the_worth_of_an_item_is_its_information_averaged_over_the_posterior() -> None:
    bank = a_bank(*(an_item(f"item-{n}", a=1 + n / 10, centre=n - 2) for n in range(5)), an_item("asked"))
    asked = [ItemId("asked")]
    posterior = np.exp(-(GRID**2) / 2) * level_probabilities(1.5, (-1, 0, 1), GRID)[2]
    worth = {
        item.id: float((posterior * item_information(item.discrimination, item.thresholds, GRID)).sum())
        for item in bank.items
        if item.id not in asked
    }

    decision = decide(bank, a_plan(("one", 0, 6), max_items=6), asked, answers(bank, asked, 2, 0.01))

    assert named(decision) == sorted(worth, key=lambda name: -worth[name])


def test_equal_items_are_asked_in_the_order_of_their_ids() -> None:
    items = [an_item(name) for name in ("d", "b", "a", "c")]

    for order in permutations(items):
        assert named(decide(a_bank(*order), a_plan(("one", 0, 4), max_items=4), [], [])) == ["a", "b", "c", "d"]


def test_skills_below_their_minimum_come_first_in_the_plans_order() -> None:
    bank = a_bank(*(an_item(f"{skill}-{n}", skill, a) for skill, a in (("one", 3.0), ("two", 0.5)) for n in range(3)))
    plan = a_plan(("two", 2, 3), ("one", 1, 3), max_items=5)

    decision = decide(bank, plan, [], [])

    assert named(decision) == ["two-0", "two-1", "one-0", "one-1", "one-2"]


def test_beyond_the_minimum_worth_counts_by_weight_and_by_what_is_left_of_the_quota() -> None:
    bank = a_bank(*(an_item(f"{skill}-{n}", skill) for skill in ("one", "two") for n in range(4)))
    plan = a_plan(("one", 0, 4), ("two", 0, 4), max_items=8)
    heavy_two = replace(plan, quotas=(plan.quotas[0], replace(plan.quotas[1], weight=1.4)))

    assert named(decide(bank, plan, [], [])) == ["one-0", "two-0", "one-1", "two-1", "one-2"]
    assert named(decide(bank, heavy_two, [], [])) == ["two-0", "two-1", "one-0", "one-1", "two-2"]


def test_a_skill_at_its_maximum_is_left_alone() -> None:
    bank = a_bank(an_item("one-a", "one", 3.0), an_item("one-b", "one", 3.0), an_item("two-a", "two", 0.4))

    decision = decide(bank, a_plan(("one", 0, 1), ("two", 0, 1), max_items=2), [ItemId("one-a")], [])

    assert named(decision) == ["two-a"]


def test_items_of_skills_outside_the_plan_are_never_asked() -> None:
    bank = a_bank(an_item("in", "one", 0.5), an_item("out", "two", 3.0))

    assert named(decide(bank, a_plan(("one", 0, 1), max_items=1), [], [])) == ["in"]


def test_what_follows_the_head_is_what_would_be_asked_if_no_score_came_in() -> None:
    bank, plan = shipped("backend-engineer")
    asked: list[ItemId] = []
    foreseen = named(decide(bank, plan, asked, []))

    for expected in foreseen:
        head = named(decide(bank, plan, asked, []))[0]
        assert head == expected
        asked.append(ItemId(head))


def test_no_more_items_are_named_than_may_still_be_asked() -> None:
    bank = a_bank(*(an_item(f"item-{n}") for n in range(9)))
    plan = a_plan(("one", 0, 9), max_items=8)
    asked = [ItemId(f"item-{n}") for n in range(6)]

    assert len(named(decide(bank, plan, [], []))) == LOOKAHEAD
    assert len(named(decide(bank, plan, asked, []))) == 2


def test_the_interview_is_done_after_the_most_items() -> None:
    bank = a_bank(*(an_item(f"item-{n}") for n in range(4)))

    decision = decide(bank, a_plan(("one", 0, 4), max_items=2), [ItemId("item-0"), ItemId("item-1")], [])

    assert isinstance(decision, Done)
    assert decision.reason is DoneReason.MAX_ITEMS


def test_the_interview_is_done_once_the_estimate_is_precise_enough() -> None:
    bank = a_bank(*(an_item(f"item-{n}", a=3.0) for n in range(6)))
    plan = a_plan(("one", 0, 6), max_items=6, min_items=2, target=0.5)
    asked = [ItemId("item-0"), ItemId("item-1")]

    decision = decide(bank, plan, asked, answers(bank, asked, 2, 0.1))

    assert isinstance(decision, Done)
    assert decision.reason is DoneReason.PRECISION
    assert decision.ability.standard_error <= 0.5


@pytest.mark.parametrize(("min_items", "min_of_two"), [(3, 0), (2, 1)])
def test_precision_does_not_end_an_interview_below_its_minimums(min_items: int, min_of_two: int) -> None:
    bank = a_bank(*(an_item(f"item-{n}", a=3.0) for n in range(6)), an_item("other", "two"))
    plan = a_plan(("one", 0, 5), ("two", min_of_two, 1), max_items=6, min_items=min_items, target=0.9)
    asked = [ItemId("item-0"), ItemId("item-1")]

    assert isinstance(decide(bank, plan, asked, answers(bank, asked, 2, 0.1)), Ask)


def test_the_interview_is_done_when_nothing_is_left_to_ask() -> None:
    bank = a_bank(an_item("a"), an_item("b"))

    decision = decide(bank, a_plan(("one", 0, 5), max_items=5), [ItemId("a"), ItemId("b")], [])

    assert isinstance(decision, Done)
    assert decision.reason is DoneReason.EXHAUSTED


def test_an_item_that_the_bank_no_longer_has_counts_towards_the_total_only() -> None:
    bank = a_bank(an_item("a"), an_item("b"))
    plan = a_plan(("one", 1, 2), max_items=2)
    gone = ItemId("gone")

    assert named(decide(bank, plan, [gone], [ScoredAnswer(gone, Score(Level(3), 0.2))])) == ["a"]
    assert isinstance(decide(bank, plan, [gone, ItemId("a")], []), Done)


def test_the_order_of_what_was_asked_and_scored_does_not_matter() -> None:
    bank, plan = shipped("backend-engineer")
    asked = [item.id for item in bank.items[::11]]
    scores = [ScoredAnswer(item, Score(Level(n % 4), 0.4 + n / 10)) for n, item in enumerate(asked)]

    assert decide(bank, plan, asked, scores) == decide(bank, plan, asked[::-1], scores[::-1])


@pytest.mark.parametrize("name", ["backend-engineer", "quick"])
def test_simulated_interviews_keep_their_plan_and_end(name: str) -> None:
    bank, plan = shipped(name)
    rng = random.Random(7)

    for theta in (-3.0, -1.0, 0.0, 1.0, 3.0):
        asked, done = interview(bank, plan, theta, rng)

        assert plan.min_items <= len(asked) <= plan.max_items
        assert len(set(asked)) == len(asked)
        assert done.reason in {DoneReason.MAX_ITEMS, DoneReason.PRECISION}
        skills = Counter(item.skill for item_id in asked if (item := bank.item(item_id)) is not None)
        for quota in plan.quotas:
            assert quota.min_items <= skills[quota.skill] <= quota.max_items


def test_simulated_candidates_are_estimated_as_well_as_the_standard_error_claims() -> None:
    bank, plan = shipped("backend-engineer")
    rng = random.Random(20)
    thetas = [rng.gauss(0, 1) for _ in range(300)]

    estimates = [interview(bank, plan, theta, rng)[1].ability for theta in thetas]

    errors = [(estimate.theta - theta) for estimate, theta in zip(estimates, thetas, strict=True)]
    claimed = statistics.fmean(estimate.standard_error**2 for estimate in estimates) ** 0.5
    assert abs(statistics.fmean(errors)) < 0.1
    assert statistics.fmean(error**2 for error in errors) ** 0.5 == pytest.approx(claimed, rel=0.15)
    assert statistics.correlation(thetas, [estimate.theta for estimate in estimates]) > 0.85


def shipped(name: str) -> tuple[Bank, Plan]:
    [bank] = bankfile.read_banks()
    return bank, bank.plans[PlanName(name)]


def interview(bank: Bank, plan: Plan, theta: float, rng: random.Random) -> tuple[list[ItemId], Done]:
    """Play one interview with a candidate of that ability and a judge who errs as its standard error says."""
    asked: list[ItemId] = []
    scores: list[ScoredAnswer] = []
    while True:
        decision = decide(bank, plan, asked, scores)
        if isinstance(decision, Done):
            return asked, decision
        item = decision.items[0]
        curve = level_probabilities(item.discrimination, item.thresholds, np.array([theta]))[:, 0]
        true = rng.choices(range(len(item.rubric)), curve.tolist())[0]
        scatter = [math.exp(-((reported - true) ** 2) / (2 * 0.5**2)) for reported in range(len(item.rubric))]
        reported = rng.choices(range(len(item.rubric)), scatter)[0]
        asked.append(item.id)
        scores.append(ScoredAnswer(item.id, Score(Level(reported), 0.5)))

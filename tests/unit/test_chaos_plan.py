"""What a seed plans, and what there is to be planned."""

from collections import Counter

import pytest

from libs.failpoints.catalogue import POINTS
from tests.chaos.faults import Kind, deck
from tests.chaos.plan import Planned, plan
from tests.chaos.topology import LINKS, PROCESSES

DECK = deck(POINTS.values())


def test_the_same_seed_plans_the_same_faults() -> None:
    assert plan(7, 1000, DECK) == plan(7, 1000, DECK)


def test_another_seed_plans_others() -> None:
    assert plan(7, 1000, DECK) != plan(8, 1000, DECK)


@pytest.mark.parametrize("seed", range(20))
def test_a_thousand_turns_see_every_fault(seed: int) -> None:
    dealt = Counter(it.fault for it in plan(seed, 1000, DECK))

    assert all(dealt[fault] >= count for fault, count in Counter(DECK).items())


def test_no_fault_is_dealt_twice_before_all_have_been() -> None:
    dealt = [it.fault for it in plan(1, 5 * 2 * len(DECK), DECK)]

    assert Counter(dealt[: len(DECK)]) == Counter(dealt[len(DECK) :]) == Counter(DECK)


def test_few_faults_are_dealt_as_often_as_many() -> None:
    assert len(plan(1, 1000, DECK[:3])) == len(plan(1, 1000, DECK))


def test_faults_are_numbered_and_due_in_their_order_while_turns_are_left() -> None:
    planned = plan(3, 1000, DECK)

    assert [it.number for it in planned] == list(range(1, len(planned) + 1))
    assert [it.at_turn for it in planned] == sorted(it.at_turn for it in planned)
    assert planned[0].at_turn > 0
    assert planned[-1].at_turn < 1000


@pytest.mark.parametrize(
    ("kind", "lasts"),
    [(Kind.PAUSE, True), (Kind.HALF_OPEN, True), (Kind.PROVIDER, True), (Kind.KILL, False), (Kind.END, False)],
)
def test_what_does_not_end_by_itself_has_a_length(kind: Kind, lasts: bool) -> None:
    assert all((it.seconds > 0) == lasts for it in _planned(kind))


def test_a_pause_outlasts_an_interviews_lease() -> None:
    assert all(it.seconds > 4.0 for it in _planned(Kind.PAUSE))


def test_only_a_delay_has_a_delay() -> None:
    assert all(it.delay_ms > 0 for it in _planned(Kind.DELAY))
    assert all(it.delay_ms == 0 for it in _planned(Kind.RESET))


def test_every_process_is_killed_and_every_link_fails_in_each_way() -> None:
    assert {it.target for it in DECK if it.kind is Kind.KILL} == {it.name for it in PROCESSES}
    for kind in (Kind.DELAY, Kind.RESET, Kind.HALF_OPEN):
        assert {it.target for it in DECK if it.kind is kind} == {it.name for it in LINKS}


def test_every_failpoint_ends_one_process_of_its_service() -> None:
    exits = [it for it in DECK if it.kind is Kind.EXIT]

    assert [it.point for it in exits] == list(POINTS)
    for exit_, point in zip(exits, POINTS.values(), strict=True):
        assert exit_.target in {it.name for it in PROCESSES if it.service == point.service}


def _planned(kind: Kind) -> list[Planned]:
    return [it for seed in range(5) for it in plan(seed, 1000, DECK) if it.fault.kind is kind]

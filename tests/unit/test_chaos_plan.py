"""What a seed plans, and what there is to be planned."""

import pytest

from tests.chaos.faults import Kind, deck
from tests.chaos.plan import Planned, plan
from tests.chaos.topology import LINKS, PROCESSES, Point

POINTS = [Point("history.commit.after", "history"), Point("gateway.commit.before", "gateway")]
DECK = deck(POINTS)


def test_the_same_seed_plans_the_same_faults() -> None:
    assert plan(7, 1000, DECK) == plan(7, 1000, DECK)


def test_another_seed_plans_others() -> None:
    assert plan(7, 1000, DECK) != plan(8, 1000, DECK)


@pytest.mark.parametrize("seed", range(20))
def test_a_thousand_turns_see_every_fault(seed: int) -> None:
    dealt = [it.fault for it in plan(seed, 1000, DECK)]

    assert sorted(map(repr, dealt)) == sorted(map(repr, DECK))


def test_five_thousand_turns_see_every_fault_five_times() -> None:
    dealt = [it.fault for it in plan(1, 5000, DECK)]

    assert sorted(map(repr, dealt)) == sorted(map(repr, DECK * 5))


def test_fewer_turns_see_a_part_of_them() -> None:
    dealt = [it.fault for it in plan(1, 100, DECK)]

    assert len(dealt) == -(-len(DECK) // 10)
    assert set(dealt) < set(DECK)


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

    assert [it.point for it in exits] == [it.name for it in POINTS]
    assert [it.target.partition("-")[0] for it in exits] == ["history", "gateway"]


def _planned(kind: Kind) -> list[Planned]:
    return [it for seed in range(5) for it in plan(seed, 1000, DECK) if it.fault.kind is kind]

"""The crash table's plan, the orders for random errors, and what is promised with a number."""

import pytest

from libs.failpoints import grammar
from libs.failpoints.catalogue import POINTS, STEPS
from tests.chaos.crash_table import ROWS, crash_plan
from tests.chaos.faults import Fault, Kind
from tests.chaos.figures import Figure, worst
from tests.chaos.random_errors import orders
from tests.chaos.topology import PROCESSES

FAULTS = [fault for faults in ROWS.values() for fault in faults]


def test_each_row_of_the_crash_table_comes_as_often_as_asked_for() -> None:
    parts = [it.part for it in crash_plan(1, times=20)]

    assert {row: parts.count(row) for row in ROWS} == dict.fromkeys(ROWS, 20)


def test_all_that_a_row_stands_for_takes_turns() -> None:
    assert {it.fault for it in crash_plan(1, times=4)} == set(FAULTS)


@pytest.mark.parametrize("fault", [it for it in FAULTS if it.kind is Kind.EXIT], ids=lambda it: str(it.name))
def test_a_crash_at_a_failpoint_is_of_a_process_that_has_it(fault: Fault) -> None:
    [service] = {it.service for it in PROCESSES if it.name == fault.target}

    assert POINTS[fault.point].service == service


def test_errors_strike_at_both_points_of_every_step_with_half_the_share() -> None:
    actions = grammar.read(orders(STEPS, 10))

    assert actions.keys() == POINTS.keys()
    assert {str(action) for action in actions.values()} == {"5%error"}


def test_the_longest_time_counts() -> None:
    assert worst("answered", [1.0, 4.0, 2.0], 5.0) == Figure("answered", 4.0, 5.0, "s")


def test_a_promise_is_broken_by_one_that_never_ended_and_by_having_measured_nothing() -> None:
    assert not worst("answered", [1.0, None], 5.0).kept
    assert not worst("answered", [], 5.0).kept

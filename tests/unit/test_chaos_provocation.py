"""Which failpoints are provoked, and how."""

import pytest

from libs.failpoints.catalogue import POINTS
from tests.chaos.provocation import _BY_STEP, Provocation, provocations


@pytest.mark.parametrize("step", _BY_STEP)
def test_what_is_provoked_is_a_failpoint(step: str) -> None:
    assert {f"{step}.before", f"{step}.after"} <= POINTS.keys()


def test_what_erases_is_provoked_by_an_erase() -> None:
    assert provocations("history.erase.after") == [Provocation.ERASE]


def test_what_every_turn_passes_is_left_to_the_load() -> None:
    assert provocations("history.commit.before") == ()

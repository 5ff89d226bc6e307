"""When the gateway takes a projection for settled."""

import pytest

from colloquy.history.v1 import history_pb2
from services.gateway.projections import Folded, Outcome, run_of

HERE, ELSEWHERE = b"h" * 32, b"e" * 32
HEAD = history_pb2.Head(session_id="session", last_seq=6, head_digest=HERE)


@pytest.mark.parametrize("outcome", [Outcome.OK, Outcome.DUPLICATE])
def test_a_projection_holds_a_run_that_ends_with_its_digest(outcome: Outcome) -> None:
    assert Folded(outcome, 6, False, HERE).holds(run_of(HEAD))


@pytest.mark.parametrize("outcome", [Outcome.OK, Outcome.DUPLICATE])
def test_as_many_turns_of_another_ledger_are_not_the_runs(outcome: Outcome) -> None:
    assert not Folded(outcome, 6, True, ELSEWHERE).holds(run_of(HEAD))


def test_a_sealed_run_is_held_once_the_projection_is_closed() -> None:
    sealed = run_of(history_pb2.Head(session_id="session", last_seq=6, head_digest=HERE, sealed=True))

    assert not Folded(Outcome.DUPLICATE, 6, False, HERE).holds(sealed)
    assert Folded(Outcome.OK, 6, True, HERE).holds(sealed)


@pytest.mark.parametrize("outcome", [Outcome.GAP, Outcome.ABSENT, Outcome.DIVERGED, Outcome.ERASED])
def test_nothing_is_held_that_was_not_folded(outcome: Outcome) -> None:
    assert not Folded(outcome, 6, True, HERE).holds(run_of(HEAD))


def test_what_a_later_write_leaves_ends_where_that_found_the_ledger() -> None:
    turn = history_pb2.Turn(seq=7, digest=ELSEWHERE)
    later = run_of(history_pb2.Head(session_id="session", last_seq=7, head_digest=ELSEWHERE, rev=2), [turn])
    run = run_of(HEAD)

    run.extend(later)

    assert Folded(Outcome.OK, 7, False, ELSEWHERE).holds(run)
    assert not Folded(Outcome.DUPLICATE, 6, False, HERE).holds(run)

"""Each invariant of the model sees what it is for, and the search that relies on them finds what is near first."""

from typing import NamedTuple

import pytest

from tests.prove.model import invariants
from tests.prove.model.calls import Call
from tests.prove.model.ledger import ABANDONED, COMMITTED, FAILED, RUNNING, Reply, Turn
from tests.prove.model.projections import Projection
from tests.prove.model.protocol import Protocol
from tests.prove.model.rules import Rules, Scope
from tests.prove.model.search import Counterexample, Searched, search
from tests.prove.model.world import World, beginning

ASKS_1 = Reply(1, 1, phrased=True, final=False)
ASKS_2 = Reply(2, 2, phrased=True, final=False)
FIRST, SECOND = Turn(COMMITTED, 0, 1, "", ASKS_1), Turn(COMMITTED, 1, 2, "", ASKS_2)
SCOPE = Scope("AB", half_made=False)
EMPTY = beginning(SCOPE)


class Count(NamedTuple):
    """A state of the model below."""

    number: int


def holding(*turns: Turn, last_seq: int) -> World:
    """A quiet session with these turns, whatever they are, and projections that have folded them."""
    folded = Projection("OPEN", tuple(request for request, turn in enumerate(turns) if turn.state == COMMITTED))
    stream = EMPTY.stream._replace(last_seq=last_seq)
    return EMPTY._replace(stream=stream, turns=turns, directory=folded, evidence=folded)


SOUND = holding(FIRST, SECOND, last_seq=2)
GIVEN_BACK = holding(FIRST, Turn(ABANDONED), last_seq=1)
ERASED = SOUND.stream._replace(erased=True, sealed=True)
BROKEN = {
    "I1": [
        holding(FIRST, Turn(), last_seq=2),
        holding(FIRST, SECOND._replace(base=0, seq=1), last_seq=1),
    ],
    "I2": [
        SOUND._replace(directory=Projection("OPEN", (1,))),
        SOUND._replace(evidence=Projection("OPEN", (0, 1), completed=True)),
    ],
    "I3": [
        SOUND._replace(witness=EMPTY.witness._replace(told=(FIRST._replace(reply=ASKS_2), None))),
        GIVEN_BACK._replace(stream=GIVEN_BACK.stream._replace(sealed=True)),
    ],
    "I4": [holding(FIRST, SECOND._replace(base=0), last_seq=2)],
    "I6": [
        holding(FIRST, Turn(RUNNING, 1), last_seq=1),
        holding(FIRST, Turn(FAILED, 1, reason="CONFLICT"), last_seq=1),
    ],
    "I8": [
        SOUND._replace(witness=EMPTY.witness._replace(closed_at=1)),
        SOUND._replace(stream=ERASED),
        EMPTY._replace(calls=(Call("DONE", result=1), Call()), witness=EMPTY.witness._replace(wiped=("llm",))),
    ],
    "question": [
        holding(FIRST._replace(reply=Reply(1, 2, phrased=True, final=False)), Turn(), last_seq=1),
        holding(FIRST, SECOND._replace(reply=ASKS_1), last_seq=2),
    ],
}


@pytest.mark.parametrize("world", [SOUND, GIVEN_BACK])
def test_a_sound_session_breaks_none(world: World) -> None:
    assert invariants.broken(world) is None


@pytest.mark.parametrize(("name", "world"), [(name, world) for name, worlds in BROKEN.items() for world in worlds])
def test_an_invariant_sees_what_it_is_for(name: str, world: World) -> None:
    found = invariants.broken(world)

    assert found is not None
    assert invariants.name(found) == name


@pytest.mark.parametrize("wrong", ["I5: a call was made twice", "lease: a claim was ended"])
def test_what_a_step_has_noted_is_seen(wrong: str) -> None:
    assert invariants.broken(SOUND.noting(wrong)) == wrong


def test_a_state_that_the_sweep_would_leave_as_it_is_breaks_i7_or_i2() -> None:
    protocol, idle = Protocol(SCOPE), Protocol(SCOPE, Rules(sweep_makes_what_is_absent=False))
    half_made = SOUND._replace(directory=Projection())
    behind = SOUND._replace(directory=Projection("OPEN"), stream=SOUND.stream._replace(acked_rev=1))

    assert protocol.recovery.broken(SOUND) is None
    assert protocol.recovery.broken(half_made) is None
    assert invariants.name(idle.recovery.broken(half_made) or "") == "I7"
    assert invariants.name(protocol.recovery.broken(behind) or "") == "I2"


class Counter:
    """Counts by ones and twos; ten is zero again."""

    def __init__(self, wrong: int | None) -> None:
        self.wrong = wrong

    def initial(self) -> Count:
        return Count(0)

    def steps(self, state: Count) -> list[tuple[str, Count]]:
        return [("one", Count(state.number + 1)), ("two", Count(state.number + 2))]

    def canonical(self, state: Count) -> Count:
        return Count(state.number % 10)

    def broken(self, state: Count) -> str | None:
        return "wrong" if state.number == self.wrong else None


def test_a_search_visits_every_state_once() -> None:
    found = search(Counter(None))

    assert isinstance(found, Searched)
    assert (found.states, found.steps, found.depth, found.whole) == (10, 20, 5, True)


def test_a_search_that_is_cut_short_says_so() -> None:
    found = search(Counter(9), max_states=5)

    assert isinstance(found, Searched)
    assert not found.whole


def test_a_counterexample_is_shortest_and_told_in_the_models_own_numbers() -> None:
    found = search(Counter(5))

    assert isinstance(found, Counterexample)
    assert sorted(label for label, _ in found.path) == ["one", "two", "two"]
    assert found.path[-1][1] == Count(5)

"""The turn protocol, searched within small bounds: `make prove` searches larger ones.

Nothing here depends on time or chance. A failure prints a shortest way to what is broken.
"""

import pytest

from tests.prove.model.invariants import name
from tests.prove.model.protocol import Protocol
from tests.prove.model.rules import Rules, Scope
from tests.prove.model.search import Counterexample, Searched, search
from tests.prove.model.world import World
from tests.prove.mutants import MUTANTS, SECOND_LINES, Mutant, SecondLine
from tests.prove.scopes import SMALL

FAR_ENOUGH = 6_000
"""States within which a second line of defence is not missed; `make prove` searches them all."""


def searched(scope: Scope, rules: Rules, max_states: int | None = None) -> Searched | Counterexample[World]:
    return search(Protocol(scope, rules), max_states)


@pytest.mark.parametrize("scope", SMALL, ids=str)
def test_every_invariant_holds_in_every_state(scope: Scope) -> None:
    found = searched(scope, Rules())

    assert isinstance(found, Searched), str(found)
    assert found.whole


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_without_a_demand_an_invariant_breaks(mutant: Mutant) -> None:
    found = searched(mutant.scope, mutant.rules)

    assert isinstance(found, Counterexample), "the demand seems not to be needed"
    assert name(found.broken) == mutant.breaks, str(found)


@pytest.mark.parametrize("line", SECOND_LINES, ids=lambda line: line.name)
def test_a_second_line_of_defence_is_needed_only_without_the_first(line: SecondLine) -> None:
    alone = searched(line.scope, line.rules, FAR_ENOUGH)
    both = searched(line.scope, line.neither)

    assert isinstance(alone, Searched), str(alone)
    assert isinstance(both, Counterexample), "neither line seems to be needed"
    assert name(both.broken) == line.breaks, str(both)


def test_worlds_that_are_renamed_alike_have_the_same_future() -> None:
    """The search walks on renamed worlds alone; walking in true numbers and renaming afterwards finds the same."""
    protocol = Protocol(Scope("AA", flights=2, faults=2, half_made=False))
    true, renamed = {protocol.initial()}, {protocol.initial()}

    for _ in range(7):
        true = {after for world in true for _, after in protocol.steps(world)}
        renamed = {protocol.canonical(after) for world in renamed for _, after in protocol.steps(world)}

        assert {protocol.canonical(world) for world in true} == renamed

"""`make prove`: search the turn protocol in large worlds, and show what each of its demands prevents.

Exit codes: 0 all as it should be, 1 not, and then the shortest way to what is broken is printed.
"""

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from tests.prove.model.invariants import name
from tests.prove.model.protocol import Protocol
from tests.prove.model.rules import Scope
from tests.prove.model.search import Counterexample, Searched, search
from tests.prove.model.world import World
from tests.prove.mutants import MUTANTS, SECOND_LINES, Mutant, SecondLine
from tests.prove.scopes import LARGE, SMALL

PROCESSES = 2  # a million states need 0.2 GB


@dataclass(frozen=True, slots=True)
class Proof:
    """A line of the table, what else there is to tell, and whether all is as it should be."""

    line: str
    told: str = ""
    right: bool = True


def main() -> int:
    """Prove all there is, and return the exit code."""
    with ProcessPoolExecutor(PROCESSES) as pool:
        proofs = [
            *_table("Every invariant holds in every state of", pool.map(holds, (*LARGE, *SMALL))),
            *_table("Without one demand, the shortest way to what then breaks", pool.map(caught, MUTANTS)),
            *_table("Second lines of defence", pool.map(second, SECOND_LINES)),
        ]
    wrong = sum(not proof.right for proof in proofs)
    print(f"\n{wrong} of {len(proofs)} are not as they should be" if wrong else f"\nall {len(proofs)} hold")
    return 1 if wrong else 0


def holds(scope: Scope) -> Proof:
    """The protocol as it is."""
    protocol = Protocol(scope)
    found = search(protocol)
    if isinstance(found, Counterexample):
        return Proof(f"{scope}: {name(found.broken)} BROKEN", str(found), right=False)
    rest = f"the sweep and the clock bring rest within {protocol.recovery.longest} steps"
    return Proof(f"{_figures(found)}  {scope}; {rest}")


def caught(mutant: Mutant) -> Proof:
    """A mutant of it."""
    found = search(Protocol(mutant.scope, mutant.rules))
    if isinstance(found, Searched):
        return Proof(f"{mutant.name}: NOT CAUGHT in {found.states:,} states", right=False)
    return Proof(f"{mutant.name}: {_broken(found)}", str(found), right=name(found.broken) == mutant.breaks)


def second(line: SecondLine) -> Proof:
    """A second line of defence, alone and together with its first."""
    alone, neither = search(Protocol(line.scope, line.rules)), search(Protocol(line.scope, line.neither))
    if isinstance(alone, Counterexample):
        return Proof(f"{line.name}: a FIRST line: {_broken(alone)}", str(alone), right=False)
    if isinstance(neither, Searched):
        return Proof(f"{line.name}: NOT NEEDED in {neither.states:,} states", right=False)
    found = f"without it all holds in {alone.states:,} states, because {line.first_line}; without that too: "
    return Proof(f"{line.name}: {found}{_broken(neither)}", str(neither), right=name(neither.broken) == line.breaks)


def _table(title: str, proofs: Iterator[Proof]) -> Sequence[Proof]:
    """Print proofs as they come."""
    print(f"\n{title}\n", flush=True)
    shown = []
    for proof in proofs:
        print(proof.line + (f"\n{proof.told}\n" if proof.told else ""), flush=True)
        shown.append(proof)
    return shown


def _figures(found: Searched) -> str:
    return f"{found.states:>9,} states {found.steps:>10,} steps  depth {found.depth:>2} {found.seconds:>6.1f} s"


def _broken(found: Counterexample[World]) -> str:
    return f"{name(found.broken)} in {len(found.path)} steps, among {found.searched.states:,} states"


if __name__ == "__main__":
    sys.exit(main())

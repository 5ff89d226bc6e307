"""The protocol with demands taken away: what each of them prevents, and which are second lines of defence.

A scope is the smallest in which the difference shows, so that the search which finds it is short.
"""

from dataclasses import dataclass
from typing import Final

from tests.prove.model.rules import COMMIT_DEMANDS, Rules, Scope

_CHAT: Final = Scope("AB", interview=False, half_made=False, faults=0, ends=False, erases=False)
_BANK: Final = Scope("AB", flights=0, half_made=False, faults=0, ends=False, erases=False)
"""Interviews in the items' own wording: no model can be reached."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A demand that nothing else makes up for: without it this invariant breaks, within this scope."""

    name: str
    rules: Rules
    breaks: str
    scope: Scope


@dataclass(frozen=True, slots=True)
class SecondLine:
    """A demand that is not missed (`rules`) as long as its first line holds: without either this invariant breaks."""

    name: str
    rules: Rules
    first_line: str
    neither: Rules
    breaks: str
    scope: Scope


MUTANTS: Final = (
    Mutant(
        "a takeover does not bump the fence",
        Rules(takeover_bumps_fence=False),
        "lease",
        Scope("AA", interview=False, half_made=False, faults=0, ends=False, erases=False),
    ),
    Mutant("End does not seal", Rules(end_seals=False), "I8", Scope("A", flights=0, faults=0, erases=False)),
    Mutant(
        "the base is read again at the commit",
        Rules(base_is_fixed=False),
        "I4",
        Scope("AB", flights=0, half_made=False, faults=1, ends=False, erases=False),
    ),
    Mutant(
        "model calls are not remembered",
        Rules(calls_are_remembered=False),
        "I5",
        Scope("A", faults=0, half_made=False, ends=False, erases=False),
    ),
    Mutant(
        "the context is not stored with the intent",
        Rules(context_comes_with_call=False),
        "question",
        Scope("A", faults=0, half_made=False, ends=False, erases=False),
    ),
    Mutant("an expired turn is displaced by another id", Rules(same_id_takes_over=False), "I6", _BANK),
    Mutant("streams are acknowledged before they are folded", Rules(folds_come_first=False), "I2", _BANK),
    Mutant(
        "Erase leaves no tombstone",
        Rules(erase_leaves_tombstone=False),
        "I8",
        Scope("A", faults=0, ends=False),
    ),
    Mutant("BeginTurn does not compare the rev under the lock", Rules(rev_is_compared=False), "lease", _BANK),
    Mutant(
        "the last commit leaves what was given back",
        Rules(last_commit_fails_given_back=False),
        "I3",
        Scope("ABC", items=1, flights=0, half_made=False, faults=0, ends=False, erases=False, resets=True),
    ),
    Mutant("ReleaseTurn does not compare the fence", Rules(release_checks_fence=False), "lease", _CHAT),
    Mutant(
        "a repeated call keeps its fence",
        Rules(repeat_bumps_fence=False),
        "question",
        Scope("A", flights=2, half_made=False, faults=1, ends=False, erases=False),
    ),
    Mutant(
        "an acknowledgement does not compare the rev",
        Rules(ack_checks_rev=False),
        "I2",
        Scope("A", flights=0, half_made=False, faults=0, ends=False, erases=False),
    ),
    Mutant(
        "the sweep does not finish what is half-made",
        Rules(sweep_makes_what_is_absent=False),
        "I7",
        Scope("A", flights=0, faults=0, ends=False, erases=False),
    ),
)


def _committing(*demands: str) -> Rules:
    return Rules(commit_demands=frozenset(demands))


SECOND_LINES: Final = (
    SecondLine(
        "the fence in CommitTurn",
        _committing("active", "running", "base", "open"),
        "the turn is the active one, which only a RUNNING turn is",
        _committing("base", "open"),
        "lease",
        _CHAT,
    ),
    SecondLine(
        "the base in CommitTurn, and CHECK (seq = base_seq + 1)",
        _committing("active", "running", "fence", "open"),
        "a turn whose base was built upon is not taken over: it FAILED(CONFLICT)",
        Rules(base_is_fixed=False),
        "I4",
        Scope("AB", flights=0, half_made=False, faults=1, ends=False, erases=False),
    ),
    SecondLine(
        "NOT sealed in CommitTurn, and the fence that a seal bumps",
        Rules(seal_bumps_fence=False, commit_demands=COMMIT_DEMANDS - {"open"}),
        "a seal leaves no turn active and none RUNNING",
        Rules(seal_bumps_fence=False, commit_demands=frozenset({"fence", "base"})),
        "I8",
        Scope("A", flights=0, half_made=False, faults=1, erases=False),
    ),
    SecondLine(
        "UNIQUE(item_asked)",
        Rules(items_are_unique=False),
        "a plan is used only at the turn's base",
        Rules(items_are_unique=False, plan_is_at_base=False),
        "question",
        _BANK,
    ),
)

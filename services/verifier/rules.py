"""The invariants of the turn protocol, as rules over the rows of one session.

A rule is a small function of what was read: no clock, no database. Most hold at every moment. Those that hold once the
session is settled (acked_rev = rev) say that the others have caught up with the ledger.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from services.verifier import calls, erasure, ledger, projections
from services.verifier.rows import Orphan, Session, SessionId


class Invariant(StrEnum):
    """As the turn protocol names them; CHAIN is its digest chain."""

    I1 = "I1"
    I2 = "I2"
    I3 = "I3"
    I4 = "I4"
    I5 = "I5"
    I6 = "I6"
    I7 = "I7"
    I8 = "I8"
    CHAIN = "chain"


@dataclass(frozen=True, slots=True)
class Violation:
    """What is broken; `what` names ids and numbers, never what somebody said."""

    invariant: Invariant
    session_id: SessionId
    rule: str
    what: str


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that must hold; `broken` yields a sentence for each violation."""

    invariant: Invariant
    broken: Callable[[Session], Iterator[str]]
    once_settled: bool = False

    @property
    def name(self) -> str:
        return self.broken.__name__


RULES: Final[Sequence[Rule]] = (
    Rule(Invariant.I1, ledger.numbers_are_dense),
    Rule(Invariant.I2, projections.the_directory_stands_on_the_ledger),
    Rule(Invariant.I2, projections.the_directory_counts_what_it_folded),
    Rule(Invariant.I2, projections.the_directory_describes_the_stream),
    Rule(Invariant.I2, projections.the_directory_completes_with_the_end),
    Rule(Invariant.I2, projections.once_settled_the_directory_has_all, once_settled=True),
    Rule(Invariant.I2, projections.the_evidence_stands_on_the_ledger),
    Rule(Invariant.I2, projections.the_evidence_is_what_it_folded),
    Rule(Invariant.I2, projections.the_evidence_measures_with_what_was_pinned),
    Rule(Invariant.I2, projections.the_evidence_completes_with_the_end),
    Rule(Invariant.I2, projections.an_answer_is_to_the_item_of_its_turn),
    Rule(Invariant.I2, projections.an_answer_is_scored_once),
    Rule(Invariant.I2, projections.a_chat_is_not_assessed),
    Rule(Invariant.I2, projections.once_settled_the_evidence_has_all, once_settled=True),
    Rule(Invariant.I3, ledger.a_request_has_one_turn),
    Rule(Invariant.I3, ledger.a_request_keeps_its_fingerprint),
    Rule(Invariant.I3, ledger.a_failure_has_a_reason),
    Rule(Invariant.I4, ledger.a_turn_follows_its_base),
    Rule(Invariant.I4, ledger.fences_grow),
    Rule(Invariant.I4, ledger.one_turn_is_claimed),
    Rule(Invariant.I4, ledger.an_answer_is_to_what_was_asked),
    Rule(Invariant.I5, calls.a_purpose_has_one_call),
    Rule(Invariant.I5, calls.repeats_are_counted),
    Rule(Invariant.I5, calls.a_repeat_follows_a_failure),
    Rule(Invariant.I5, calls.a_call_stands_where_its_attempts_do),
    Rule(Invariant.I5, calls.money_adds_up),
    Rule(Invariant.I5, calls.a_turn_shows_what_was_spent),
    Rule(Invariant.I6, ledger.accepted_messages_are_kept),
    Rule(Invariant.I6, ledger.committed_replies_are_kept),
    Rule(Invariant.I6, ledger.turns_known_elsewhere_are_kept),
    Rule(Invariant.I7, ledger.what_is_settled_is_idle),
    Rule(Invariant.I8, ledger.nothing_follows_the_end),
    Rule(Invariant.I8, ledger.an_erased_stream_is_empty),
    Rule(Invariant.I8, erasure.only_what_the_ledger_erased_is_erased),
    Rule(Invariant.I8, erasure.a_tombstone_has_nothing_under_it),
    Rule(Invariant.I8, erasure.once_settled_it_is_erased_everywhere, once_settled=True),
    Rule(Invariant.CHAIN, ledger.the_chain_holds),
)


def violations(found: Session | Orphan) -> list[Violation]:
    """Everything that is broken in one session. It may be under way, and is stale only if somebody says it is quiet."""
    if isinstance(found, Orphan):
        what = f"{', '.join(found.contexts)} knows the session, the ledger does not"
        return [Violation(Invariant.I6, found.session_id, "a_session_is_in_the_ledger", what)]
    return [
        Violation(rule.invariant, found.session_id, rule.name, what)
        for rule in RULES
        if found.stream.settled or not rule.once_settled
        for what in rule.broken(found)
    ]

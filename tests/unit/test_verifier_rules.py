"""The verifier's rules: each finds what it is for, and nothing where all is well."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import pytest

from services.verifier.rows import Answer, Orphan, Session, Usage
from services.verifier.rules import RULES, Invariant, Violation, violations
from tests.unit import verifier_rows as rows
from tests.unit.verifier_rows import (
    HEALTHY,
    JUDGE,
    QUESTION,
    SESSION,
    at,
    attempt,
    behind,
    call,
    chat,
    ended,
    erased,
    interview,
    opened,
    repeated,
    turn,
    turn_id,
    under_way,
)

Break = Callable[[Session], Session]


def head(**changes: Any) -> Break:
    return lambda session: replace(session, stream=replace(session.stream, **changes))


def entry(**changes: Any) -> Break:
    return lambda session: replace(session, entry=replace(session.entry, **changes))  # type: ignore[type-var]


def evidence(**changes: Any) -> Break:
    return lambda session: replace(session, interview=replace(session.interview, **changes))  # type: ignore[type-var]


def account(**changes: Any) -> Break:
    return lambda session: replace(session, account=replace(session.account, **changes))  # type: ignore[type-var]


def changed(table: str, wanted: Callable[[Any], bool], **changes: Any) -> Break:
    """Change rows without anybody's noticing: no digest and no sum is computed again."""

    def apply(session: Session) -> Session:
        rows: Any = {table: [replace(it, **changes) if wanted(it) else it for it in getattr(session, table)]}
        return replace(session, **rows)

    return apply


def one_turn(number: int, **changes: Any) -> Break:
    return changed("turns", lambda it: it.turn_id == turn_id(number), **changes)


def one_answer(number: int, **changes: Any) -> Break:
    return changed("answers", lambda it: it.turn_id == turn_id(number), **changes)


def one_call(number: int, purpose: str, **changes: Any) -> Break:
    return changed("calls", is_call(number, purpose), **changes)


def one_attempt(number: int, purpose: str, fence: int, nth: int, **changes: Any) -> Break:
    is_its = is_call(number, purpose)
    return changed("attempts", lambda it: is_its(it) and (it.fence, it.attempt) == (fence, nth), **changes)


def is_call(number: int, purpose: str) -> Callable[[Any], bool]:
    return lambda it: (it.turn_id, it.purpose) == (turn_id(number), purpose)


def rechained(*breaks: Break) -> Break:
    """A change by somebody who computed the whole chain again, in every context."""

    def apply(session: Session) -> Session:
        session = both(*breaks)(session)
        turns, digest = rows.chained(session.turns)
        return both(head(head_digest=digest), entry(head_digest=digest), evidence(head_digest=digest))(
            replace(session, turns=turns)
        )

    return apply


def without(number: int, purpose: str) -> Break:
    """A call that is not there, nor are its attempts, and nobody paid for it."""

    def apply(session: Session) -> Session:
        its = is_call(number, purpose)
        left = both(fewer("calls", its), fewer("attempts", its))(session)
        return account(spent_nano_usd=sum(it.usage.cost_nano_usd for it in left.calls))(left)

    return apply


def more(**rows_by_table: Sequence[Any]) -> Break:
    def apply(session: Session) -> Session:
        with_them: Any = {table: [*getattr(session, table), *rows] for table, rows in rows_by_table.items()}
        return replace(session, **with_them)

    return apply


def fewer(table: str, unwanted: Callable[[Any], bool]) -> Break:
    def apply(session: Session) -> Session:
        left: Any = {table: [it for it in getattr(session, table) if not unwanted(it)]}
        return replace(session, **left)

    return apply


def both(*breaks: Break) -> Break:
    def apply(session: Session) -> Session:
        for one in breaks:
            session = one(session)
        return session

    return apply


def record_of(number: int, more_used: Usage) -> Break:
    """A turn whose record shows more than it used."""
    return one_turn(number, usage=QUESTION + JUDGE + more_used)


def told(more_used: Usage) -> Break:
    """A directory that has folded such a record."""

    def apply(session: Session) -> Session:
        assert session.entry
        return entry(usage=session.entry.usage + more_used)(session)

    return apply


def having(**fields: Any) -> Break:
    return lambda session: replace(session, **fields)


@dataclass(frozen=True)
class Case:
    """A break of a healthy session: the rule that is there to find it, and those that cannot help finding it too."""

    rule: str
    what: str
    of: Callable[[], Session]
    broken_by: Break
    also: frozenset[str]


def case(rule: str, what: str, of: Callable[[], Session], broken_by: Break, *also: str) -> Case:
    return Case(rule, what, of, broken_by, frozenset(also))


CASES = [
    case(
        "numbers_are_dense",
        "a turn in the middle is gone",
        interview,
        fewer("turns", lambda it: it.turn_id == turn_id(2)),
        "the_chain_holds",
        "turns_known_elsewhere_are_kept",
        "the_directory_counts_what_it_folded",
        "the_evidence_is_what_it_folded",
    ),
    case(
        "numbers_are_dense",
        "the head counts one turn more",
        interview,
        head(last_seq=4),
        "once_settled_the_directory_has_all",
        "once_settled_the_evidence_has_all",
    ),
    case("numbers_are_dense", "a turn that runs has a number", under_way, one_turn(4, seq=4)),
    case(
        "the_directory_stands_on_the_ledger",
        "it has folded another ledger",
        interview,
        entry(head_digest=bytes(32)),
    ),
    case(
        "the_directory_stands_on_the_ledger",
        "it is ahead of the ledger",
        under_way,
        entry(applied_seq=4),
    ),
    case(
        "the_directory_stands_on_the_ledger",
        "it has folded nothing, and has another digest 0",
        behind,
        both(having(entry=interview().entry), entry(applied_seq=0, head_digest=bytes(32), usage=Usage())),
    ),
    case("the_directory_counts_what_it_folded", "a turn is counted twice", interview, entry(usage=Usage(450, 90, 1))),
    case(
        "the_directory_counts_what_it_folded",
        "a record cannot be read",
        interview,
        one_turn(3, usage=None),
    ),
    *(
        case("the_directory_describes_the_stream", f"another {field}", interview, entry(**{field: value}))
        for field, value in {
            "owner_id": "mallory",
            "tenant_id": "another",
            "kind": "chat",
            "max_turns": 21,
            "created_at": at(1),
            "plan": None,
            "versions": {},
            "candidate_name": "Eve",
            "metadata": {},
        }.items()
    ),
    case("the_directory_describes_the_stream", "the facts cannot be read", interview, head(facts=None)),
    case(
        "the_directory_completes_with_the_end",
        "an open session is completed",
        under_way,
        entry(status="completed"),
    ),
    case(
        "the_directory_completes_with_the_end",
        "it is completed before the last turn is folded",
        ended,
        both(
            head(acked_rev=11),
            entry(applied_seq=2, head_digest=interview().turns[1].digest, usage=Usage(150, 30, 40_500)),
        ),
    ),
    case("the_directory_completes_with_the_end", "at another time", ended, entry(completed_at=at(251))),
    case("once_settled_the_directory_has_all", "it has no entry", chat, having(entry=None)),
    case(
        "once_settled_the_directory_has_all",
        "it lags",
        interview,
        entry(applied_seq=2, head_digest=interview().turns[1].digest, usage=Usage(150, 30, 40_500)),
    ),
    case("once_settled_the_directory_has_all", "it is open", ended, entry(status="open", completed_at=None)),
    case(
        "the_evidence_stands_on_the_ledger", "it has folded another ledger", interview, evidence(head_digest=bytes(32))
    ),
    case("the_evidence_is_what_it_folded", "it knows another item as asked", interview, evidence(asked=["item-1"] * 3)),
    case(
        "the_evidence_is_what_it_folded",
        "an answer is missing",
        interview,
        fewer("answers", lambda it: it.turn_id == turn_id(2)),
    ),
    case("the_evidence_is_what_it_folded", "an answer has another number", interview, one_answer(2, seq=3)),
    case("the_evidence_is_what_it_folded", "an answer has a number too early", behind, one_answer(3, seq=3)),
    case("the_evidence_measures_with_what_was_pinned", "another bank", interview, evidence(bank_version="other/2")),
    case("the_evidence_measures_with_what_was_pinned", "another plan", interview, evidence(plan="other")),
    case("the_evidence_completes_with_the_end", "an open one is completed", under_way, evidence(completed=True)),
    case("an_answer_is_to_the_item_of_its_turn", "a score of another item", under_way, one_answer(4, item_id="item-9")),
    case("an_answer_is_scored_once", "there are two", under_way, more(answers=[under_way().answers[-1]])),
    case("an_answer_is_scored_once", "nobody judged it", interview, without(2, "judge"), "a_turn_shows_what_was_spent"),
    case(
        "an_answer_is_scored_once",
        "its only judge call failed",
        under_way,
        both(
            one_call(4, "judge", state="FAILED", has_result=False),
            one_attempt(4, "judge", 1, 1, failed=True),
        ),
    ),
    case(
        "a_chat_is_not_assessed",
        "it has an interview",
        chat,
        having(interview=interview().interview),
        "the_evidence_stands_on_the_ledger",
        "the_evidence_is_what_it_folded",
        "the_evidence_measures_with_what_was_pinned",
    ),
    case("once_settled_the_evidence_has_all", "there is no interview", interview, having(interview=None, answers=())),
    case("once_settled_the_evidence_has_all", "it is open", ended, evidence(completed=False)),
    case("a_request_has_one_turn", "two turns", under_way, one_turn(4, request_id=UUID(int=1001))),
    case("a_request_keeps_its_fingerprint", "a turn has lost it", interview, one_turn(2, has_fingerprint=False)),
    case("a_request_keeps_its_fingerprint", "the stream has lost it", chat, head(has_fingerprint=False)),
    case("a_failure_has_a_reason", "none", ended, one_turn(40, reason=None)),
    case(
        "a_turn_follows_its_base",
        "a turn was made on an older base",
        interview,
        one_turn(3, base_seq=1),
        "an_answer_is_to_what_was_asked",
    ),
    case(
        "a_turn_follows_its_base",
        "a turn was given up on a base that is not there",
        ended,
        one_turn(30, base_seq=7),
    ),
    case(
        "fences_grow", "a later turn has the lower fence", interview, both(one_turn(2, fence=3), one_turn(3, fence=2))
    ),
    case("fences_grow", "two turns have one fence", ended, one_turn(30, fence=6)),
    case("fences_grow", "a turn is ahead of the head", ended, one_turn(30, fence=8)),
    case("one_turn_is_claimed", "the head names none", under_way, head(active_turn=None)),
    case("one_turn_is_claimed", "the head names another", under_way, head(active_turn=turn_id(3))),
    case(
        "one_turn_is_claimed",
        "a second one runs",
        under_way,
        more(turns=[turn(4, "RUNNING", turn_id=turn_id(5), fence=0, request_id=UUID(int=9))]),
    ),
    case("one_turn_is_claimed", "under another fence", under_way, one_turn(4, fence=0)),
    case(
        "an_answer_is_to_what_was_asked",
        "it answers something else",
        under_way,
        both(one_turn(4, item_answered="item-7"), one_answer(4, item_id="item-7")),
    ),
    case(
        "an_answer_is_to_what_was_asked",
        "an item is asked twice",
        interview,
        both(one_turn(3, item_asked="item-1"), evidence(asked=["item-1", "item-2", "item-1"])),
    ),
    case("a_purpose_has_one_call", "two", interview, more(calls=[call(2, "judge", Usage())]), "money_adds_up"),
    case("a_purpose_has_one_call", "attempts alone", interview, more(attempts=[attempt(3, "judge/2", Usage())])),
    case("a_purpose_has_one_call", "no account", interview, having(account=None)),
    case("repeats_are_counted", "a repeat is not", repeated, one_call(3, "question", repeats=1)),
    case(
        "repeats_are_counted",
        "an attempt is missing",
        repeated,
        fewer("attempts", lambda it: it.state == "released"),
    ),
    case("repeats_are_counted", "the call counts another attempt", interview, one_call(2, "judge", attempt=2)),
    case(
        "a_repeat_follows_a_failure",
        "a result was there",
        repeated,
        one_attempt(3, "question", 3, 1, dispatched_at=at(190)),
    ),
    case(
        "a_call_stands_where_its_attempts_do",
        "DONE without a result",
        interview,
        one_attempt(3, "question", 1, 1, failed=True),
    ),
    case(
        "a_call_stands_where_its_attempts_do",
        "FAILED with a result",
        interview,
        one_call(3, "question", state="FAILED"),
    ),
    case(
        "a_call_stands_where_its_attempts_do",
        "INFLIGHT when nothing is under way",
        interview,
        one_call(3, "question", state="INFLIGHT"),
    ),
    case("money_adds_up", "the account has spent more", interview, account(spent_nano_usd=1)),
    case(
        "money_adds_up",
        "a call cost more than its attempts",
        interview,
        both(one_call(2, "judge", usage=Usage(50, 10, 13_501)), account(spent_nano_usd=81_001)),
    ),
    case("a_turn_shows_what_was_spent", "it shows what nobody paid", interview, without(3, "question")),
    *(
        case("a_turn_shows_what_was_spent", f"more {what}", under_way, both(record_of(3, more_used), told(more_used)))
        for what, more_used in {
            "of the prompt": Usage(1, 0, 0),
            "of the reply": Usage(0, 1, 0),
            "money": Usage(0, 0, 1),
        }.items()
    ),
    case("accepted_messages_are_kept", "a message that runs is gone", under_way, one_turn(4, user_text=None)),
    case(
        "accepted_messages_are_kept",
        "an abandoned one is gone",
        behind,
        more(turns=[turn(4, "ABANDONED", fence=0, user_text=None)]),
    ),
    case("accepted_messages_are_kept", "a committed one is gone", interview, rechained(one_turn(2, user_text=None))),
    case("committed_replies_are_kept", "a reply is gone", interview, rechained(one_turn(2, reply_text=None))),
    case("committed_replies_are_kept", "a record is gone", interview, rechained(one_turn(2, record=None))),
    case(
        "turns_known_elsewhere_are_kept",
        "an answer has no turn",
        under_way,
        more(answers=[Answer(turn_id(7), None, "item-7", "PENDING", False)]),
    ),
    case(
        "turns_known_elsewhere_are_kept",
        "a call has no turn",
        interview,
        more(calls=[call(7, "judge", Usage())], attempts=[attempt(7, "judge", Usage())]),
    ),
    case("what_is_settled_is_idle", "a turn is under way", under_way, head(acked_rev=8)),
    case("what_is_settled_is_idle", "a rev that never was", under_way, head(acked_rev=9)),
    case("nothing_follows_the_end", "a commit", ended, one_turn(3, committed_at=at(251))),
    case("nothing_follows_the_end", "a message", ended, one_turn(30, begun_at=at(251))),
    case("nothing_follows_the_end", "a turn runs", ended, one_turn(40, state="RUNNING"), "one_turn_is_claimed"),
    case(
        "nothing_follows_the_end",
        "the head holds a claim",
        ended,
        head(active_turn=turn_id(40)),
        "one_turn_is_claimed",
        "what_is_settled_is_idle",
    ),
    case("nothing_follows_the_end", "erased and not sealed", erased, head(sealed=False, sealed_at=None)),
    case("nothing_follows_the_end", "sealed at no time", behind, head(sealed=True)),
    case("an_erased_stream_is_empty", "the salt is there", erased, head(salt=bytes(32)), "the_chain_holds"),
    case("an_erased_stream_is_empty", "personal facts are there", erased, head(has_personal_facts=True)),
    case("an_erased_stream_is_empty", "the fingerprint is there", erased, head(has_fingerprint=True)),
    *(
        case("an_erased_stream_is_empty", f"a turn has its {field}", erased, one_turn(2, **{field: value}))
        for field, value in {"user_text": "a", "reply_text": "b", "record": b"c", "has_fingerprint": True}.items()
    ),
    case(
        "only_what_the_ledger_erased_is_erased",
        "the directory is",
        interview,
        entry(erased=True, owner_id=None, candidate_name=None, metadata=None),
    ),
    case(
        "only_what_the_ledger_erased_is_erased",
        "the evidence is",
        interview,
        both(evidence(erased=True), fewer("answers", lambda _: True)),
    ),
    case(
        "only_what_the_ledger_erased_is_erased",
        "the account is",
        chat,
        both(
            account(erased=True),
            changed("calls", lambda _: True, has_context=False, has_result=False, has_prompt_hash=False),
        ),
    ),
    *(
        case("a_tombstone_has_nothing_under_it", f"session has the {field}", erased, entry(**{field: value}))
        for field, value in {"owner_id": "ada", "candidate_name": "Ada", "metadata": {"team": "blue"}}.items()
    ),
    case("a_tombstone_has_nothing_under_it", "quotes", erased, one_answer(2, has_words=True)),
    *(
        case("a_tombstone_has_nothing_under_it", f"llm {field}", erased, one_call(2, "judge", **{field: True}))
        for field in ("has_context", "has_result", "has_prompt_hash")
    ),
    case("once_settled_it_is_erased_everywhere", "the directory is not", erased, having(entry=ended().entry)),
    case("once_settled_it_is_erased_everywhere", "there is no interview", erased, having(interview=None)),
    case("once_settled_it_is_erased_everywhere", "the account is not", erased, account(erased=False)),
    case("the_chain_holds", "a message was changed", interview, one_turn(2, user_text="another")),
    case("the_chain_holds", "a reply was changed", interview, one_turn(2, reply_text="another")),
    case("the_chain_holds", "a record was changed", interview, one_turn(2, record=b"another")),
    case("the_chain_holds", "the head is another", interview, head(head_digest=bytes(32))),
    case("the_chain_holds", "a content digest of an erased turn was changed", erased, one_turn(2, content=bytes(32))),
    case("the_chain_holds", "a content digest is gone", interview, one_turn(2, content=None)),
    case("the_chain_holds", "a content digest of an erased turn is gone", erased, one_turn(2, content=None)),
    case(
        "the_chain_holds",
        "a committed turn has no number",
        erased,
        one_turn(1, seq=None),
        "numbers_are_dense",
    ),
    case("the_chain_holds", "the salt is gone", interview, head(salt=None)),
]


@pytest.mark.parametrize("healthy", HEALTHY, ids=lambda healthy: healthy.__name__)
def test_nothing_is_wrong_with_a_healthy_session(healthy: Callable[[], Session]) -> None:
    assert violations(healthy()) == []


@pytest.mark.parametrize("broken", CASES, ids=lambda broken: f"{broken.rule}: {broken.what}")
def test_a_rule_finds_what_is_broken_and_no_other_does_without_need(broken: Case) -> None:
    found = violations(broken.broken_by(broken.of()))

    assert {violation.rule for violation in found} == {broken.rule, *broken.also}


def test_every_rule_has_been_seen_to_fail() -> None:
    assert {rule.name for rule in RULES} == {case.rule for case in CASES}


def test_every_invariant_has_a_rule_or_needs_a_quiet_system() -> None:
    assert {rule.invariant for rule in RULES} == set(Invariant)


def test_a_violation_says_what_and_never_what_was_said() -> None:
    for broken in CASES:
        for violation in violations(broken.broken_by(broken.of())):
            assert violation.session_id == SESSION
            assert not any(word in violation.what for word in ("answer 2", "question 2", "Ada", "Eve", "mallory"))


def test_numbers_are_named_as_a_person_would() -> None:
    def said(of: Session) -> list[str]:
        return [it.what for it in violations(of) if it.rule == "numbers_are_dense"]

    assert said(fewer("turns", lambda it: it.seq == 2)(interview(5))) == [
        "committed are 1, 3 to 5, and the head says that the last is 5"
    ]
    assert said(head(last_seq=1)(opened())) == ["committed are none, and the head says that the last is 1"]


def test_a_session_that_the_ledger_has_never_heard_of_is_lost() -> None:
    assert violations(Orphan(SESSION, ["session", "llm"])) == [
        Violation(
            Invariant.I6, SESSION, "a_session_is_in_the_ledger", "session, llm knows the session, the ledger does not"
        )
    ]

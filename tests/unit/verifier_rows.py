"""Sessions as rows, healthy ones of every shape, for the tests of the verifier's rules to break."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from services.verifier.chain import content_of, first_digest, next_digest
from services.verifier.rows import (
    Account,
    Answer,
    Attempt,
    Call,
    Entry,
    Facts,
    Interview,
    Purpose,
    Session,
    SessionId,
    Stream,
    Turn,
    TurnId,
    Usage,
)

SESSION = SessionId(UUID("01234567-89ab-8def-8123-456789abcdef"))
OPENED_BY = UUID(int=1000)
SALT = b"\x5a" * 32
START = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)
FACTS = Facts("backend-engineer", {"bank": "backend-engineer/1", "question": "question/v1"}, "Ada", {"team": "blue"})
QUESTION, JUDGE = Usage(100, 20, 27_000), Usage(50, 10, 13_500)
CEILING = Usage(0, 0, 75_000)


def turn_id(number: int) -> TurnId:
    return TurnId(UUID(int=number))


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def turn(number: int, state: str = "COMMITTED", **changes: Any) -> Turn:
    """Turn `number` of an interview: made on base number - 1, and answering what that one asked."""
    fields: dict[str, Any] = {
        "turn_id": turn_id(number),
        "request_id": UUID(int=1000 + number - 1),
        "has_fingerprint": True,
        "state": state,
        "reason": "CONFLICT" if state == "FAILED" else None,
        "fence": number,
        "base_seq": number - 1,
        "seq": None,
        "user_text": f"answer {number}" if number > 1 else None,
        "reply_text": None,
        "item_answered": f"item-{number - 1}" if number > 1 else None,
        "item_asked": None,
        "record": None,
        "content": None,
        "digest": None,
        "begun_at": at(60 * number),
        "committed_at": None,
        "usage": None,
    }
    if state == "COMMITTED":
        fields |= {
            "seq": number,
            "reply_text": f"question {number}",
            "item_asked": f"item-{number}",
            "record": b"record",
            "committed_at": at(60 * number + 1),
            "usage": QUESTION + JUDGE if number > 1 else Usage(),
        }
    return Turn(**fields | changes)


def chained(turns: Sequence[Turn]) -> tuple[list[Turn], bytes]:
    """The turns with the digests that they must have, and the head's."""
    digest, made = first_digest(SESSION), []
    for one in turns:
        if one.seq is not None:
            content = content_of(SALT, one.user_text, one.reply_text, one.record)
            digest = next_digest(digest, SESSION, one.turn_id, one.seq, content)
            one = replace(one, content=content, digest=digest)
        made.append(one)
    return made, digest


def call(number: int, purpose: str, used: Usage, **changes: Any) -> Call:
    fields: dict[str, Any] = {
        "turn_id": turn_id(number),
        "purpose": Purpose(purpose),
        "state": "DONE",
        "fence": 1,
        "attempt": 1,
        "repeats": 0,
        "has_context": True,
        "has_result": True,
        "has_prompt_hash": True,
        "usage": used,
    }
    return Call(**fields | changes)


def attempt(number: int, purpose: str, used: Usage, **changes: Any) -> Attempt:
    fields: dict[str, Any] = {
        "turn_id": turn_id(number),
        "purpose": Purpose(purpose),
        "fence": 1,
        "attempt": 1,
        "state": "settled",
        "failed": False,
        "dispatched_at": at(60 * number),
        "finished_at": at(60 * number + 0.5),
        "usage": used,
    }
    return Attempt(**fields | changes)


def interview(turns: int = 3) -> Session:
    """An interview of an opening and answers, all of it settled."""
    made, digest = chained([turn(number) for number in range(1, turns + 1)])
    answers = [Answer(it.turn_id, it.seq, it.item_answered or "", "SCORED", True) for it in made[1:]]
    numbers = range(2, turns + 1)
    calls = [call(number, purpose, used) for number in numbers for purpose, used in _USED]
    attempts = [attempt(number, purpose, used) for number in numbers for purpose, used in _USED]
    used = sum((it.usage for it in made if it.usage), Usage())
    return Session(
        Stream(
            session_id=SESSION,
            owner_id="ada",
            tenant_id=None,
            kind="interview",
            request_id=OPENED_BY,
            has_fingerprint=True,
            has_personal_facts=True,
            max_turns=20,
            last_seq=turns,
            fence=turns,
            rev=2 * turns + 1,
            acked_rev=2 * turns + 1,
            active_turn=None,
            lease_until=None,
            changed_at=at(60 * turns + 1),
            sealed=False,
            sealed_at=None,
            erased=False,
            salt=SALT,
            head_digest=digest,
            created_at=START,
            read_at=at(60 * turns + 5),
            facts=FACTS,
        ),
        made,
        Entry(
            owner_id="ada",
            tenant_id=None,
            kind="interview",
            status="open",
            applied_seq=turns,
            head_digest=digest,
            plan=FACTS.plan,
            versions=FACTS.versions,
            candidate_name="Ada",
            metadata={"team": "blue"},
            max_turns=20,
            created_at=START,
            completed_at=None,
            erased=False,
            usage=used,
        ),
        Interview(
            FACTS.plan, FACTS.versions["bank"], turns, digest, [it.item_asked or "" for it in made], False, False
        ),
        answers,
        Account(False, used.cost_nano_usd),
        calls,
        attempts,
    )


def chat() -> Session:
    """A chat of two turns, settled."""
    made, digest = chained(
        [
            turn(number, user_text="hello", item_answered=None, item_asked=None, usage=QUESTION, request_id=request)
            for number, request in ((1, UUID(int=2001)), (2, UUID(int=2002)))
        ]
    )
    talked, facts = interview(2), Facts("", {"chat": "chat/v1"}, "", {})
    assert talked.entry
    stream = replace(talked.stream, kind="chat", request_id=None, facts=facts, head_digest=digest)
    described: Any = {"kind": "chat", "plan": None, "versions": facts.versions, "candidate_name": None, "metadata": {}}
    return Session(
        stream,
        made,
        replace(talked.entry, **described, head_digest=digest, usage=QUESTION + QUESTION),
        None,
        (),
        Account(False, 2 * QUESTION.cost_nano_usd),
        [call(number, "chat", QUESTION) for number in (1, 2)],
        [attempt(number, "chat", QUESTION) for number in (1, 2)],
    )


def under_way() -> Session:
    """An interview whose fourth turn runs: its score is there before its number, its question is being phrased."""
    session = interview()
    stream = replace(
        session.stream,
        fence=4,
        rev=8,
        active_turn=turn_id(4),
        lease_until=at(244),
        changed_at=at(240),
        read_at=at(241),
    )
    assert session.account
    return replace(
        session,
        stream=stream,
        turns=[*session.turns, turn(4, "RUNNING")],
        answers=[*session.answers, Answer(turn_id(4), None, "item-3", "SCORED", True)],
        account=Account(False, session.account.spent_nano_usd + CEILING.cost_nano_usd + JUDGE.cost_nano_usd),
        calls=[
            *session.calls,
            call(4, "question", CEILING, state="INFLIGHT", has_result=False),
            call(4, "judge", JUDGE),
        ],
        attempts=[
            *session.attempts,
            attempt(4, "question", CEILING, state="dispatched", finished_at=None),
            attempt(4, "judge", JUDGE),
        ],
    )


def behind() -> Session:
    """An interview whose last turn is committed and not folded yet; its session has no entry at all."""
    session = interview()
    assert session.interview
    return replace(
        session,
        stream=replace(session.stream, acked_rev=5),
        entry=None,
        interview=replace(
            session.interview, applied_seq=2, head_digest=session.turns[1].digest, asked=["item-1", "item-2"]
        ),
        answers=[session.answers[0], replace(session.answers[1], seq=None)],
    )


def ended() -> Session:
    """An interview that somebody ended while its fourth turn ran. An earlier message failed: that need not be kept."""
    session = interview()
    assert session.entry
    assert session.interview
    sealed_at = at(250)
    stream = replace(session.stream, fence=7, rev=12, acked_rev=12, sealed=True, sealed_at=sealed_at)
    failed = turn(4, "FAILED", fence=6, reason="SESSION_CLOSED", turn_id=turn_id(40))
    superseded = turn(3, "FAILED", fence=5, turn_id=turn_id(30), request_id=UUID(int=3000), user_text=None)
    return replace(
        session,
        stream=stream,
        turns=[*session.turns, failed, superseded],
        entry=replace(session.entry, status="completed", completed_at=sealed_at),
        interview=replace(session.interview, completed=True),
    )


def repeated() -> Session:
    """An interview in which a call was lost and made again, and then once more long after its result was cleared."""
    session = interview()
    assert session.account
    later = at(10_000)
    tries = [
        attempt(3, "question", CEILING, fence=1, state="unknown", failed=True),
        attempt(3, "question", Usage(), fence=2, attempt=1, state="released", failed=True),
        attempt(3, "question", QUESTION, fence=2, attempt=2),
        attempt(3, "question", CEILING, fence=3, state="dispatched", dispatched_at=later, finished_at=None),
    ]
    made_again = call(
        3, "question", QUESTION + CEILING + CEILING, state="INFLIGHT", fence=3, repeats=2, has_result=False
    )
    return replace(
        session,
        account=Account(False, session.account.spent_nano_usd + 2 * CEILING.cost_nano_usd),
        calls=[made_again if _is(it, 3, "question") else it for it in session.calls],
        attempts=[*(it for it in session.attempts if not _is(it, 3, "question")), *tries],
    )


def erased() -> Session:
    """What an erase leaves of an interview that had ended."""
    session = ended()
    assert session.entry
    assert session.interview
    assert session.account
    assert session.stream.facts
    return replace(
        session,
        stream=replace(
            session.stream,
            erased=True,
            salt=None,
            has_fingerprint=False,
            has_personal_facts=False,
            facts=replace(session.stream.facts, candidate_name="", metadata={}),
        ),
        turns=[_emptied(it) for it in session.turns],
        entry=replace(session.entry, erased=True, owner_id=None, candidate_name=None, metadata=None),
        interview=replace(session.interview, erased=True),
        answers=[replace(it, has_words=False) for it in session.answers],
        account=replace(session.account, erased=True),
        calls=[replace(it, has_context=False, has_result=False, has_prompt_hash=False) for it in session.calls],
    )


def opened() -> Session:
    """A chat in which nothing has been said."""
    session = chat()
    assert session.entry
    digest = first_digest(SESSION)
    return Session(
        replace(session.stream, last_seq=0, fence=0, rev=1, acked_rev=1, head_digest=digest),
        entry=replace(session.entry, applied_seq=0, head_digest=digest, usage=Usage()),
    )


def erased_chat() -> Session:
    """What an erase leaves of a chat: the assessment never heard of it."""
    session, emptied = chat(), erased()
    return replace(
        session,
        stream=replace(emptied.stream, kind="chat", last_seq=2, head_digest=session.stream.head_digest),
        turns=[_emptied(it) for it in session.turns],
        entry=emptied.entry,
        account=Account(True, 2 * QUESTION.cost_nano_usd),
        calls=[replace(it, has_context=False, has_result=False, has_prompt_hash=False) for it in session.calls],
    )


def erased_half_made() -> Session:
    """What an erase leaves of an interview that only the ledger had: its own tombstone, and bare ones elsewhere."""
    session = erased()
    assert session.entry
    bare: dict[str, Any] = {
        "kind": None,
        "status": "open",
        "plan": None,
        "versions": {},
        "max_turns": None,
        "completed_at": None,
    }
    bare |= {"tenant_id": None, "applied_seq": 0, "head_digest": None, "usage": Usage()}
    opening = replace(turn(1, "FAILED", reason="SESSION_CLOSED"), has_fingerprint=False)
    return Session(
        replace(session.stream, last_seq=0, fence=2, head_digest=first_digest(SESSION)),
        [opening],
        replace(session.entry, **bare),
        Interview(None, None, 0, None, [], False, True),
        account=Account(True, 0),
    )


HEALTHY: Sequence[Callable[[], Session]] = (
    opened,
    interview,
    chat,
    under_way,
    behind,
    ended,
    repeated,
    erased,
    erased_chat,
    erased_half_made,
)

_USED = (("question", QUESTION), ("judge", JUDGE))


def _emptied(it: Turn) -> Turn:
    return replace(it, has_fingerprint=False, user_text=None, reply_text=None, record=None, usage=None)


def _is(it: Call | Attempt, number: int, purpose: str) -> bool:
    return (it.turn_id, it.purpose) == (turn_id(number), purpose)

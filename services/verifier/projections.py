"""What the projections must be: folds of a prefix of the ledger, and of all of it once the session is settled (I2).

Each function yields a sentence for each violation, without a word that anybody said. An erased stream has no records
left to fold, so what was folded of them cannot be checked; where a projection stands can, since the chain stays.
"""

from collections.abc import Iterator, Sequence

from services.verifier.chain import first_digest
from services.verifier.rows import Session, Usage


def the_directory_stands_on_the_ledger(session: Session) -> Iterator[str]:
    """The entry's digest is the ledger's where the entry stands."""
    if session.entry and not session.entry.erased:
        yield from _position(session, "session", session.entry.applied_seq, session.entry.head_digest)


def the_directory_counts_what_it_folded(session: Session) -> Iterator[str]:
    """The totals are the sums of the records' usage."""
    entry = session.entry
    if entry is None or session.stream.erased:
        return
    used = [turn.usage for turn in session.folded(entry.applied_seq)]
    unreadable = used.count(None)
    if unreadable:
        yield f"{unreadable} records cannot be read"
        return
    expected = sum((one for one in used if one), Usage())
    if entry.usage != expected:
        yield f"session has folded {entry.usage}, the records say {expected}"


def the_directory_describes_the_stream(session: Session) -> Iterator[str]:
    """The entry has the owner, kind, limits and facts that the stream was opened with."""
    stream, entry, facts = session.stream, session.entry, session.stream.facts
    if facts is None:
        yield "the facts of the stream cannot be read"
        return
    if entry is None or entry.erased:
        return
    pairs = {
        "owner_id": (entry.owner_id, stream.owner_id),
        "tenant_id": (entry.tenant_id or "", stream.tenant_id or ""),
        "kind": (entry.kind, stream.kind),
        "max_turns": (entry.max_turns, stream.max_turns),
        "created_at": (entry.created_at, stream.created_at),
        "plan": (entry.plan or "", facts.plan),
        "versions": (entry.versions, facts.versions),
    }
    if not stream.erased:
        pairs["candidate_name"] = (entry.candidate_name or "", facts.candidate_name)
        pairs["metadata"] = (entry.metadata or {}, facts.metadata)
    if wrong := [name for name, (has, opened_with) in pairs.items() if has != opened_with]:
        yield f"session has another {', '.join(wrong)} than the stream was opened with"


def the_directory_completes_with_the_end(session: Session) -> Iterator[str]:
    """An entry is completed once all of a sealed ledger is folded, not before; its time is the seal's."""
    stream, entry = session.stream, session.entry
    if entry is None or entry.erased or entry.status != "completed":
        return
    yield from _completed(session, "session", entry.applied_seq)
    if entry.completed_at != stream.sealed_at:
        yield f"session was completed at {entry.completed_at}, the stream was sealed at {stream.sealed_at}"


def the_evidence_stands_on_the_ledger(session: Session) -> Iterator[str]:
    """The interview's digest is the ledger's where the interview stands."""
    if session.interview and not session.interview.erased:
        yield from _position(session, "assessment", session.interview.applied_seq, session.interview.head_digest)


def the_evidence_is_what_it_folded(session: Session) -> Iterator[str]:
    """What was asked, and which answers have a number, is what the folded turns say."""
    interview = session.interview
    if interview is None or interview.erased:
        return
    folded = session.folded(interview.applied_seq)
    asked = [turn.item_asked for turn in folded if turn.item_asked]
    if list(interview.asked) != asked:
        yield f"assessment has asked {_items(interview.asked)}, the folded turns {_items(asked)}"
    expected = {(turn.turn_id, turn.seq, turn.item_answered) for turn in folded if turn.item_answered}
    found = {(answer.turn_id, answer.seq, answer.item_id) for answer in session.answers if answer.seq is not None}
    for turn_id, seq, item in sorted(expected - found):
        yield f"assessment lacks the answer to {item} in number {seq}, turn {turn_id}"
    for turn_id, seq, item in sorted(found - expected):
        yield f"assessment has an answer to {item} as number {seq}, turn {turn_id}, which is not folded so"


def an_answer_is_to_the_item_of_its_turn(session: Session) -> Iterator[str]:
    """Also one that has a score and no number yet."""
    items = {turn.turn_id: turn.item_answered for turn in session.turns}
    for answer in session.answers:
        if answer.turn_id in items and answer.item_id != items[answer.turn_id]:
            yield f"assessment has turn {answer.turn_id} answer {answer.item_id}, the ledger {items[answer.turn_id]}"


def the_evidence_measures_with_what_was_pinned(session: Session) -> Iterator[str]:
    """The interview has the plan and the bank that the stream was opened with."""
    interview, facts = session.interview, session.stream.facts
    if interview is None or interview.erased or facts is None:
        return
    if (interview.plan, interview.bank_version) != (facts.plan, facts.versions.get("bank")):
        yield "assessment has another plan or bank than the stream was opened with"


def the_evidence_completes_with_the_end(session: Session) -> Iterator[str]:
    """As for the directory."""
    if session.interview and session.interview.completed and not session.interview.erased:
        yield from _completed(session, "assessment", session.interview.applied_seq)


def an_answer_is_scored_once(session: Session) -> Iterator[str]:
    """An answer is one row, and a score comes from a judge call that succeeded."""
    judged = {
        call.turn_id
        for call in session.calls
        # One that was repeated may have succeeded before: its result was cleared.
        if call.purpose.partition("/")[0] == "judge" and (call.state == "DONE" or call.repeats)
    }
    seen = set()
    for answer in session.answers:
        if answer.turn_id in seen:
            yield f"turn {answer.turn_id} has two answers"
        seen.add(answer.turn_id)
        if answer.state == "SCORED" and answer.turn_id not in judged:
            yield f"the answer of turn {answer.turn_id} has a score, and no judge call has succeeded"


def a_chat_is_not_assessed(session: Session) -> Iterator[str]:
    """Of a chat the assessment knows nothing."""
    if not session.is_interview and (session.interview or session.answers):
        yield "assessment holds rows of a chat"


def once_settled_the_directory_has_all(session: Session) -> Iterator[str]:
    """The entry stands at the last turn, completed exactly if the stream is sealed."""
    if session.stream.erased:
        return
    if session.entry is None:
        yield "session has no entry"
    elif not session.entry.erased:
        completed = session.entry.status == "completed"
        yield from _whole(session, "session", session.entry.applied_seq, completed=completed)


def once_settled_the_evidence_has_all(session: Session) -> Iterator[str]:
    """As for the directory; an interview alone has evidence."""
    if session.stream.erased or not session.is_interview:
        return
    if session.interview is None:
        yield "assessment has no interview"
    elif not session.interview.erased:
        completed = session.interview.completed
        yield from _whole(session, "assessment", session.interview.applied_seq, completed=completed)


def _position(session: Session, context: str, applied_seq: int, digest: bytes | None) -> Iterator[str]:
    turn = session.ledger.get(applied_seq)
    if applied_seq == 0:
        expected: bytes | None = first_digest(session.session_id)
    elif turn is None:
        yield f"{context} stands at {applied_seq}, which the ledger has not"
        return
    else:
        expected = turn.digest
    if digest != expected:
        yield f"{context} stands at {applied_seq} with another digest than the ledger's"


def _completed(session: Session, context: str, applied_seq: int) -> Iterator[str]:
    stream = session.stream
    if not stream.sealed or applied_seq != stream.last_seq:
        sealed = "sealed" if stream.sealed else "open"
        yield f"{context} is completed at {applied_seq}, and the ledger is {sealed} at {stream.last_seq}"


def _whole(session: Session, context: str, applied_seq: int, *, completed: bool) -> Iterator[str]:
    stream = session.stream
    if applied_seq != stream.last_seq:
        yield f"{context} stands at {applied_seq} of {stream.last_seq}"
    if completed != stream.sealed:
        yield f"{context} is {'completed' if completed else 'open'}, the stream {'sealed' if stream.sealed else 'open'}"


def _items(items: Sequence[str]) -> str:
    return ", ".join(items) or "nothing"

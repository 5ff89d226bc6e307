"""What must hold within the ledger: I1, I3, I4, I6, I7, I8 and the chain. `rules` says which is which.

Each function yields a sentence for each violation, without a word that anybody said.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from services.verifier.chain import content_of, first_digest, next_digest
from services.verifier.rows import ABANDONED, COMMITTED, FAILED, RUNNING, Session, Turn


def numbers_are_dense(session: Session) -> Iterator[str]:
    """The committed turns are numbered 1 to last_seq."""
    numbers, last = [turn.seq for turn in session.committed], session.stream.last_seq
    if numbers != list(range(1, last + 1)):
        yield f"committed are {_listed(numbers)}, and the head says that the last is {last}"
    for turn in session.turns:
        if (turn.state == COMMITTED) != (turn.seq is not None):
            yield f"turn {turn.turn_id} is {turn.state} with the number {turn.seq}"


def a_request_has_one_turn(session: Session) -> Iterator[str]:
    """One request id, one row: hence one reply or one failure."""
    for request_id, count in Counter(turn.request_id for turn in session.turns).items():
        if count > 1:
            yield f"request {request_id} has {count} turns"


def a_request_keeps_its_fingerprint(session: Session) -> Iterator[str]:
    """Until an erase: without it another request under the same id would get this one's reply."""
    if session.stream.erased:
        return
    if not session.stream.has_fingerprint:
        yield "the stream has no fingerprint"
    for turn in session.turns:
        if not turn.has_fingerprint:
            yield f"turn {turn.turn_id} has no fingerprint"


def a_failure_has_a_reason(session: Session) -> Iterator[str]:
    """The reason is all that a failed turn answers with, and it answers the same every time."""
    for turn in session.turns:
        if turn.state == FAILED and not turn.reason:
            yield f"turn {turn.turn_id} failed without a reason"


def a_turn_follows_its_base(session: Session) -> Iterator[str]:
    """A committed turn is the next after its base, and no turn has a base that the ledger has not reached."""
    for turn in session.turns:
        if turn.seq is not None and turn.seq != turn.base_seq + 1:
            yield f"turn {turn.turn_id} was made on base {turn.base_seq} and is number {turn.seq}"
        if not 0 <= turn.base_seq <= session.stream.last_seq:
            yield f"turn {turn.turn_id} was made on base {turn.base_seq}, past the last number"


def fences_grow(session: Session) -> Iterator[str]:
    """Each claim has a fence of its own, later turns have higher ones, and the head's is the highest."""
    for fence, count in Counter(turn.fence for turn in session.turns).items():
        if count > 1:
            yield f"{count} turns were claimed under fence {fence}"
    for before, after in pairwise(session.committed):
        if after.fence <= before.fence:
            yield f"number {after.seq} was committed under fence {after.fence}, {before.seq} under {before.fence}"
    for turn in session.turns:
        if turn.fence > session.stream.fence:
            yield f"turn {turn.turn_id} has fence {turn.fence}, the head {session.stream.fence}"


def one_turn_is_claimed(session: Session) -> Iterator[str]:
    """What runs is the turn that the head names, under the head's fence and on the head's number."""
    stream = session.stream
    running = [turn for turn in session.turns if turn.state == RUNNING]
    if [turn.turn_id for turn in running] != ([stream.active_turn] if stream.active_turn else []):
        yield f"{len(running)} turns are RUNNING, and the head names {stream.active_turn or 'none'}"
    for turn in running:
        if (turn.fence, turn.base_seq) != (stream.fence, stream.last_seq):
            yield (
                f"turn {turn.turn_id} is RUNNING under fence {turn.fence} on base {turn.base_seq}, "
                f"the head has fence {stream.fence} and last number {stream.last_seq}"
            )


def an_answer_is_to_what_was_asked(session: Session) -> Iterator[str]:
    """A turn answers the item that the turn before it asked, and nothing is asked twice."""
    for turn in session.turns:
        base = session.ledger.get(turn.base_seq)
        asked = base.item_asked if base else None
        if (base or turn.base_seq == 0) and turn.item_answered != asked:
            yield f"turn {turn.turn_id} answers {turn.item_answered}, but number {turn.base_seq} asked {asked}"
    for item, count in Counter(turn.item_asked for turn in session.turns if turn.item_asked).items():
        if count > 1:
            yield f"{item} was asked {count} times"


def accepted_messages_are_kept(session: Session) -> Iterator[str]:
    """A message stays while it is pending and once it is committed. An opening has none."""
    if session.stream.erased:
        return
    for turn in session.turns:
        if turn.state in {RUNNING, ABANDONED, COMMITTED} and turn.user_text is None and not _is_opening(session, turn):
            yield f"turn {turn.turn_id} is {turn.state} and has no message"


def committed_replies_are_kept(session: Session) -> Iterator[str]:
    """A committed turn has a reply and a record, and when it was committed."""
    for turn in session.committed:
        kept = (turn.reply_text, turn.record) if not session.stream.erased else ()
        if None in (*kept, turn.committed_at):
            yield f"number {turn.seq} has lost its reply, its record or its time"


def turns_known_elsewhere_are_kept(session: Session) -> Iterator[str]:
    """Whatever was assessed or sent to a model belongs to a turn that the ledger has: it was there before."""
    known = {turn.turn_id for turn in session.turns}
    for turn_id in sorted({answer.turn_id for answer in session.answers} - known):
        yield f"assessment has an answer of turn {turn_id}, which the ledger has not"
    elsewhere = {it.turn_id for it in session.calls} | {it.turn_id for it in session.attempts}
    for turn_id in sorted(elsewhere - known):
        yield f"llm has calls of turn {turn_id}, which the ledger has not"


def what_is_settled_is_idle(session: Session) -> Iterator[str]:
    """Acknowledged is a rev that the head has had, and one at which no turn was under way."""
    stream = session.stream
    if stream.acked_rev > stream.rev:
        yield f"rev {stream.acked_rev} is acknowledged, the head is at {stream.rev}"
    if stream.settled and stream.active_turn:
        yield f"all is acknowledged while turn {stream.active_turn} is under way"


def nothing_follows_the_end(session: Session) -> Iterator[str]:
    """Once a stream is sealed no turn begins, runs or commits; the one that seals it commits with the seal.

    By the database's clock: if that was ever set back, by so much, it shows here.
    """
    stream = session.stream
    if stream.sealed != (stream.sealed_at is not None) or (stream.erased and not stream.sealed):
        yield "it is half sealed"
    if stream.sealed and stream.active_turn:
        yield f"it is sealed while turn {stream.active_turn} is under way"
    if stream.sealed_at is None:
        return
    for turn in session.turns:
        if turn.state == RUNNING:
            yield f"turn {turn.turn_id} is RUNNING"
        if turn.committed_at is not None and turn.committed_at > stream.sealed_at:
            yield f"number {turn.seq} was committed at {turn.committed_at}, after the end at {stream.sealed_at}"
        if turn.begun_at > stream.sealed_at:
            yield f"turn {turn.turn_id} was begun at {turn.begun_at}, after the end at {stream.sealed_at}"


def an_erased_stream_is_empty(session: Session) -> Iterator[str]:
    """Of an erased stream no text, no record, no fingerprint, no salt and nothing personal is left."""
    stream = session.stream
    if not stream.erased:
        return
    if stream.salt is not None or stream.has_personal_facts or stream.has_fingerprint:
        yield "the erased stream has a salt, personal facts or a fingerprint"
    for turn in session.turns:
        if turn.has_fingerprint or any(it is not None for it in (turn.user_text, turn.reply_text, turn.record)):
            yield f"turn {turn.turn_id} of the erased stream has a text, a record or a fingerprint"


def the_chain_holds(session: Session) -> Iterator[str]:
    """Every digest follows from the one before and the turn's content, and the content from what the turn says.

    Of an erased stream the content digests are all that is left to compute with. What follows a broken link is not
    reported: it is broken for the same reason.
    """
    stream, digest = session.stream, first_digest(session.session_id)
    if not stream.erased and stream.salt is None:
        yield "the salt is gone"
        return
    for turn in session.committed:
        if turn.seq is None or turn.content is None:
            yield f"turn {turn.turn_id} has no number or no content digest"
            return
        if stream.salt is not None and turn.content != content_of(
            stream.salt, turn.user_text, turn.reply_text, turn.record
        ):
            yield f"number {turn.seq} does not say what its content digest says"
            return
        digest = next_digest(digest, session.session_id, turn.turn_id, turn.seq, turn.content)
        if turn.digest != digest:
            yield f"the digest of number {turn.seq} does not follow"
            return
    if stream.head_digest != digest:
        yield f"the head's digest is not that of number {len(session.committed)}"


def _is_opening(session: Session, turn: Turn) -> bool:
    """The first turn of an interview, under the request that opened it."""
    return session.is_interview and turn.base_seq == 0 and turn.request_id == session.stream.request_id


def _listed(numbers: list[int | None]) -> str:
    """Numbers as a person would write them: `1 to 3, 5`."""
    if not numbers:
        return "none"
    runs: list[list[int | None]] = []
    for number in numbers:
        if runs and number is not None and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)

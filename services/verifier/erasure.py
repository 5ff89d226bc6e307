"""What an erase leaves in the contexts beside the ledger: tombstones, with nothing personal under them (I8).

The ledger is erased first, so a tombstone elsewhere without one there is an erase that nobody asked for. Each function
yields a sentence for each violation.
"""

from collections.abc import Iterator

from services.verifier.rows import Session


def only_what_the_ledger_erased_is_erased(session: Session) -> Iterator[str]:
    """A context has a tombstone only where the ledger has one."""
    if session.stream.erased:
        return
    if erased := [context for context, tombstone in _tombstones(session).items() if tombstone]:
        yield f"{', '.join(erased)} is erased, the ledger is not"


def a_tombstone_has_nothing_under_it(session: Session) -> Iterator[str]:
    """Nobody's name, no quotes, nothing that was sent to a model or came back, nor a hash of it to test a guess by."""
    entry = session.entry
    if entry and entry.erased and any(it is not None for it in (entry.owner_id, entry.candidate_name, entry.metadata)):
        yield "session has an owner, a name or metadata in a tombstone"
    if session.interview and session.interview.erased and any(answer.has_words for answer in session.answers):
        yield "assessment has quotes or a rationale under a tombstone"
    kept = any(it.has_context or it.has_result or it.has_prompt_hash for it in session.calls)
    if session.account and session.account.erased and kept:
        yield "llm has a context, a result or a prompt's hash under a tombstone"


def once_settled_it_is_erased_everywhere(session: Session) -> Iterator[str]:
    """An erase is acknowledged when every context has its tombstone, made where there was no row."""
    if not session.stream.erased:
        return
    for context, tombstone in _tombstones(session).items():
        if not tombstone and (context != "assessment" or session.is_interview):
            yield f"{context} has no tombstone"


def _tombstones(session: Session) -> dict[str, bool]:
    return {
        "session": session.entry is not None and session.entry.erased,
        "assessment": session.interview is not None and session.interview.erased,
        "llm": session.account is not None and session.account.erased,
    }

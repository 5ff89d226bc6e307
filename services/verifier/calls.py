"""What must hold of model calls and what they cost (I5), from the rows of one snapshot of the call ledger.

Each function yields a sentence for each violation, without a word that anybody said.
"""

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from services.verifier.rows import Session, TurnId, Usage

CLEARED_AFTER: Final = timedelta(hours=1)
"""How long a result is kept at least after its turn has ended: whoever asks after that pays again."""


def a_purpose_has_one_call(session: Session) -> Iterator[str]:
    """One call for each turn and purpose, with an account that it is charged to; and no attempt without its call."""
    for name, count in Counter(call.name for call in session.calls).items():
        if count > 1:
            yield f"{name} has {count} calls"
    if session.calls and session.account is None:
        yield "there are calls and no account"
    known = {(call.turn_id, call.purpose) for call in session.calls}
    for turn_id, purpose in sorted({(it.turn_id, it.purpose) for it in session.attempts} - known):
        yield f"{turn_id}/{purpose} has attempts and no call"


def repeats_are_counted(session: Session) -> Iterator[str]:
    """A call's fence counts its intents, its repeats all but the first; each intent has its attempts, from 1 on."""
    for call, attempts in session.calls_made:
        if call.fence != call.repeats + 1:
            yield f"{call.name} has fence {call.fence} and {call.repeats} repeats"
        found = [(it.fence, it.attempt) for it in attempts]
        last = dict(found)  # the last attempt under each fence
        dense = [(fence, attempt) for fence in range(1, call.fence + 1) for attempt in range(1, last.get(fence, 1) + 1)]
        if found != dense or last.get(call.fence) != call.attempt:
            listed = ", ".join(f"{fence}.{attempt}" for fence, attempt in found) or "none"
            yield f"{call.name} stands at attempt {call.fence}.{call.attempt}, its attempts are {listed}"


def a_repeat_follows_a_failure(session: Session) -> Iterator[str]:
    """A call is made again only where it FAILED or its end is UNKNOWN: where no attempt gave a result.

    One that nobody ended, `dispatched` under an older fence, is unknown. A result that was cleared is, too.
    """
    for call, attempts in session.calls_made:
        for given in (it for it in attempts if it.fence < call.fence and it.gave_a_result):
            kept_until = (given.finished_at or given.dispatched_at) + CLEARED_AFTER
            if any(it.dispatched_at < kept_until for it in attempts if it.fence > given.fence):
                yield f"{call.name} was made again after attempt {given.fence}.{given.attempt} had given a result"


def a_call_stands_where_its_attempts_do(session: Session) -> Iterator[str]:
    """INFLIGHT while an attempt is under way, DONE where one gave a result, else FAILED or UNKNOWN."""
    for call, attempts in session.calls_made:
        current = [it for it in attempts if it.fence == call.fence]
        under_way = any(it.state == "dispatched" for it in current)
        given = any(it.gave_a_result for it in current)
        agrees = {"INFLIGHT": under_way, "DONE": given}.get(call.state, not under_way and not given)
        if not agrees:
            states = ", ".join(it.state + (" (failed)" if it.failed else "") for it in current) or "none"
            yield f"{call.name} is {call.state}, its attempts under fence {call.fence} are: {states}"


def money_adds_up(session: Session) -> Iterator[str]:
    """A call used what its attempts used, and the account has spent what its calls cost."""
    for call, attempts in session.calls_made:
        expected = sum((it.usage for it in attempts), Usage())
        if call.usage != expected:
            yield f"{call.name} has used {call.usage}, its attempts {expected}"
    if session.account is not None:
        cost = sum(call.usage.cost_nano_usd for call in session.calls)
        if session.account.spent_nano_usd != cost:
            yield f"{session.account.spent_nano_usd} nano-USD are spent, the calls cost {cost}"


def a_turn_shows_what_was_spent(session: Session) -> Iterator[str]:
    """No record shows more than the calls of its turn have used; calls that end later, or unknown, are not in it."""
    spent: dict[TurnId, Usage] = {}
    for call in session.calls:
        spent[call.turn_id] = spent.get(call.turn_id, Usage()) + call.usage
    for turn in session.committed:
        shown, used = turn.usage or Usage(), spent.get(turn.turn_id, Usage())
        if (
            shown.prompt_tokens > used.prompt_tokens
            or shown.completion_tokens > used.completion_tokens
            or shown.cost_nano_usd > used.cost_nano_usd
        ):
            yield f"number {turn.seq} shows {shown}, its calls have used {used}"

"""`llm-gateway` as values: the ledger of model calls, and the provider calls under way.

A call is what a turn asks of a model; the model phrases the item that it is given. UNKNOWN is a call that is INFLIGHT
and whose lease has run out, or DONE and cleared, as in `services/llm_gateway/statements.py`.
"""

from typing import NamedTuple

from tests.prove.model.rules import PROTOCOL, Rules


class Call(NamedTuple):
    """The call of one turn. `context` is the item that it was made for, `result` the item that its text asks; 0 is
    nothing."""

    state: str = "ABSENT"
    fence: int = 0
    live: bool = False
    context: int = 0
    result: int = 0

    @property
    def may_be_made(self) -> bool:
        """Whether nobody has made it, it FAILED, or it is UNKNOWN."""
        unknown = (self.state == "INFLIGHT" and not self.live) or (self.state == "DONE" and not self.result)
        return unknown or self.state in ("ABSENT", "FAILED")


class Flight(NamedTuple):
    """A provider call under way, detached from whoever asked for it; it ends with words that ask its item."""

    request: int
    fence: int
    item: int


def intend(call: Call, request: int, item: int, rules: Rules = PROTOCOL) -> tuple[Call, Flight]:
    """Write an intent and dispatch it; the caller has seen that it may be made."""
    fence = call.fence + (1 if rules.repeat_bumps_fence or call.state == "ABSENT" else 0)
    return Call("INFLIGHT", fence, True, item, 0), Flight(request, fence, item)


def finish(call: Call, flight: Flight, *, gave_words: bool, erased: bool) -> Call:
    """Record how a flight ended: WHERE state = 'INFLIGHT' AND fence = :fence. Under a tombstone no words are kept."""
    if call.state != "INFLIGHT" or call.fence != flight.fence:
        return call
    if not gave_words:
        return call._replace(state="FAILED", live=False)
    return call._replace(state="DONE", live=False, result=0 if erased else flight.item)

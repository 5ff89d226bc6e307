"""What must hold in every state: the protocol's invariants by their names, and two that its prose demands.

lease: a claim whose lease runs ends by the answer to its turn, by its holder, or by End and Erase.
question: what a candidate reads asks the item that the record says, and no item is asked twice.

I5 and `lease` are about steps; `World` notes them as they are broken. I7 is in `recovery`.
"""

from collections.abc import Callable, Iterator
from typing import Final

from tests.prove.model.ledger import ABANDONED, ABSENT, COMMITTED, FAILED, RUNNING
from tests.prove.model.world import World

NAMES: Final = ("I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8", "lease", "question")


def name(found: str) -> str:
    """Which invariant a sentence of `broken` is about."""
    return found.partition(":")[0]


def broken(world: World) -> str | None:
    """What does not hold, None if all does."""
    return next((found for check in _CHECKS for found in check(world)), None)


def _noted(world: World) -> Iterator[str]:
    if world.witness.wrong:
        yield world.witness.wrong


def _dense(world: World) -> Iterator[str]:
    seqs = sorted(turn.seq for turn in world.turns if turn.state == COMMITTED)
    if seqs != list(range(1, world.stream.last_seq + 1)):
        yield f"I1: the committed turns have seqs {seqs}, last_seq is {world.stream.last_seq}"


def _projected(world: World) -> Iterator[str]:
    chain = world.ledger.chain()
    for name, projection in (("session", world.directory), ("assessment", world.evidence)):
        if projection.folded != chain[: len(projection.folded)]:
            yield f"I2: {name} has folded what is no prefix of the ledger"
        if projection.completed and not (world.stream.sealed and projection.folded == chain):
            yield f"I2: {name} has completed a session that is not over"


def _answered_once(world: World) -> Iterator[str]:
    for turn, told in zip(world.turns, world.witness.told, strict=True):
        if told and told != turn and not world.stream.erased:
            yield "I3: a client was told what the ledger does not say"
    if world.stream.sealed and any(turn.state == ABANDONED for turn in world.turns):
        yield "I3: a turn that was given back can have no answer, and has not FAILED"


def _on_its_base(world: World) -> Iterator[str]:
    for turn in world.turns:
        if turn.state == COMMITTED and turn.seq != turn.base + 1:
            yield f"I4: a turn made on {turn.base} turns is committed as {turn.seq}"


def _kept(world: World) -> Iterator[str]:
    """I6: what was accepted is pending, which only the active turn and those given back are, or listed, or was failed
    for a reason that can never change."""
    stream = world.stream
    for request, turn in enumerate(world.turns):
        if turn.state == RUNNING and stream.active != request:
            yield "I6: a message that was accepted runs, and is not the active turn"
        if turn.state == FAILED and not (stream.sealed or _for_good(turn.reason, turn.base < stream.last_seq)):
            yield f"I6: a message that was accepted is FAILED({turn.reason}) without cause"
        if turn.state in (ABSENT, ABANDONED) and stream.active == request:
            yield "I6: a turn holds the claim and does not run"


def _for_good(reason: str, built_upon: bool) -> bool:
    return reason == "INVALID_FIELD" or (reason == "CONFLICT" and built_upon)


def _closed(world: World) -> Iterator[str]:
    stream, witness = world.stream, world.witness
    if witness.closed_at >= 0 and stream.last_seq != witness.closed_at:
        yield "I8: a turn was committed after End or Erase"
    if stream.erased and any(turn.reply for turn in world.turns):
        yield "I8: words have come back after Erase, in history"
    content = {
        "session": world.directory.state == "OPEN",
        "assessment": world.evidence.state == "OPEN",
        "llm": any(call.context or call.result for call in world.calls),
    }
    for context in witness.wiped:
        if content[context]:
            yield f"I8: content has come back after Erase, in {context}"


def _question(world: World) -> Iterator[str]:
    replies = [turn.reply for turn in world.turns if turn.reply]
    for reply in replies:
        if reply.asks != reply.item:
            yield f"question: the candidate reads item {reply.asks}, the record says {reply.item}"
    items = [reply.item for reply in replies if reply.item]
    if len(set(items)) < len(items):
        yield "question: an item was asked twice"


_CHECKS: tuple[Callable[[World], Iterator[str]], ...] = (
    _noted,
    _dense,
    _projected,
    _answered_once,
    _on_its_base,
    _kept,
    _closed,
    _question,
)

"""`session` and `assessment` as values: how much of the ledger each has folded, by the real rule of `libs.folding`."""

from functools import cache
from hashlib import sha256
from typing import Final, NamedTuple
from uuid import UUID

from colloquy.history.v1 import history_pb2
from libs.folding.runs import Digest, Fold, Outcome, Position, Run, first_digest, fold
from services.gateway.projections import Folded
from services.gateway.projections import Outcome as Told
from services.gateway.projections import Run as Offered

NONE: Final = "NONE"
"""The state of a projection that a session of its kind has not."""
_SESSION: Final = UUID(int=7)


class Projection(NamedTuple):
    """What a projection holds: the requests of the turns that it has folded, and whether that is all there will be.

    `state` is ABSENT, OPEN or ERASED, the tombstone; or NONE.
    """

    state: str = "ABSENT"
    folded: tuple[int, ...] = ()
    completed: bool = False


class Link(NamedTuple):
    """A committed turn as its place in the chain."""

    seq: int
    previous_digest: Digest
    digest: Digest


def apply(projection: Projection, chain: tuple[int, ...], first: int, *, sealed: bool) -> tuple[str, Projection]:
    """ApplyTurns with the turns of a ledger from seq `first` to its end: the outcome, and what the projection then is.

    The ledger is `chain`, as somebody read it, sealed or not.
    """
    if projection.state != "OPEN":
        return projection.state, projection
    folded = _fold(projection.folded, projection.completed, chain, first, sealed)
    if folded.outcome is not Outcome.OK:
        return folded.outcome.value, projection
    news = tuple(chain[link.seq - 1] for link in folded.news)
    kept = () if folded.refolded else projection.folded
    return "OK", Projection("OPEN", kept + news, folded.position.completed)


def bring(projection: Projection, chain: tuple[int, ...], *, sealed: bool = False) -> tuple[str, Projection]:
    """Make a projection, where it is absent, and bring it to the end of a ledger as somebody read it; as `apply`."""
    standing = Projection("OPEN") if projection.state == "ABSENT" else projection
    return apply(standing, chain, min(len(standing.folded), len(chain)) + 1, sealed=sealed)


def catch_up(projection: Projection, chain: tuple[int, ...], *, sealed: bool) -> tuple[str, Projection]:
    """Offer the last turn of a ledger, which shows whether the projection follows it, then what is missing before that;
    as `apply`."""
    outcome, brought = apply(projection, chain, max(1, len(chain)), sealed=sealed)
    if outcome == "GAP":
        return apply(projection, chain, len(projection.folded) + 1, sealed=sealed)
    return outcome, brought


def holds(outcome: str, projection: Projection, last_seq: int, *, sealed: bool) -> bool:
    """Whether the projection stands where a run ended, closed if that was sealed. That run had its last turn: where it
    was folded, or had been, the digest there is the ledger's."""
    there = len(projection.folded) >= last_seq
    return there and stands(outcome, projection, projection.folded[:last_seq], sealed=sealed)


def stands(outcome: str, projection: Projection, chain: tuple[int, ...], *, sealed: bool) -> bool:
    """Whether it stands at the end of a ledger as somebody read it, whatever it was offered: by the gateway's rule."""
    return outcome != NONE and _stands(Told[outcome], projection.folded, projection.completed, chain, sealed)


@cache
def _stands(outcome: Told, folded: tuple[int, ...], completed: bool, chain: tuple[int, ...], sealed: bool) -> bool:
    run = Offered("", history_pb2.KIND_UNSPECIFIED, len(chain), _digest(chain), 0, sealed, None)
    return Folded(outcome, len(folded), completed, _digest(folded)).holds(run)


@cache
def _fold(folded: tuple[int, ...], completed: bool, chain: tuple[int, ...], first: int, sealed: bool) -> Fold[Link]:
    position = Position(len(folded), _digest(folded), completed)
    links = tuple(Link(seq, _digest(chain[: seq - 1]), _digest(chain[:seq])) for seq in range(first, len(chain) + 1))
    return fold(position, Run(_SESSION, links, len(chain), sealed))


@cache
def _digest(chain: tuple[int, ...]) -> Digest:
    if not chain:
        return first_digest(_SESSION)
    return Digest(sha256(_digest(chain[:-1]) + bytes(chain[-1:])).digest())

"""The model's ledger and the real one behind the same calls, so that one can be held to the other.

An answer is a tuple: a word of the protocol, and what the caller learns with it.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar
from uuid import UUID, uuid4

from psycopg.rows import DictRow

from libs.runtime.errors import ColloquyError
from services.history.admission import InProgress, OtherTurn, Replay
from services.history.commands import NewStream, NewTurn, Release
from services.history.commands import Reply as Commit
from services.history.domain import ClaimId, Fence, RequestId, Rev, SessionId, TurnId, TurnState
from services.history.domain import Turn as StoredTurn
from services.history.interventions import Action, InterventionId, NewIntervention
from services.history.usecases import Begun, Owner
from tests.db.history_world import ALICE, Connection, World, interview, message, owner
from tests.prove.model import ledger
from tests.prove.model.ledger import NOBODY, Ledger, Reply, Stream, Turn

MAX_TURNS: Final = 2
REQUESTS: Final = range(4)
Answer = tuple[object, ...]
_T = TypeVar("_T")


@dataclass(slots=True)
class Reference:
    """The model, one RPC at a time; `opening` is the request that opened an interview."""

    ledger: Ledger
    max_turns: int = MAX_TURNS
    opening: int = NOBODY

    def begin(self, request: int, claim: int) -> Answer:
        """BeginTurn, both of its statements; OpenStream, if it is sent again."""
        before = self.ledger
        rev, active = before.stream.rev, before.stream.active
        decision = ledger.decide(before, request, claim, self.max_turns)
        written: Ledger | None = before
        match decision:
            case "Claim":
                written = ledger.claim(before, request, rev, claim)
            case "TakeOver":
                written = ledger.take_over(before, request, rev, claim)
            case "Supersede":
                written = ledger.supersede(before, request, rev)
        assert written is not None
        self.ledger = written
        match decision:
            case "Claim" | "TakeOver" | "Hold":
                return "OWNER", request, written.stream.fence, written.stream.last_seq
            case "Replay" | "Supersede":
                return "REPLAY", written.turns[request]
            case "InProgress" | "OtherTurn":
                # Who opened the session is not to repair what came before the opening.
                told = "InProgress" if request == self.opening else decision
                return told, active, before.stream.live
            case refused:
                return (refused,)

    def commit(self, request: int, fence: int, reply: Reply) -> Answer:
        """CommitTurn."""
        outcome, self.ledger = ledger.commit(self.ledger, request, fence, reply)
        if outcome in ("NOT_FOUND", "ITEM_ALREADY_ASKED"):
            return (outcome,)
        return outcome, self.ledger.turns[request], self.ledger.stream.sealed

    def release(self, request: int, fence: int, state: str, reason: str) -> Answer:
        """ReleaseTurn."""
        released = ledger.release(self.ledger, request, fence, state, reason)
        if released is None and self.ledger.stream.erased:
            return ("NOT_FOUND",)
        self.ledger = released or self.ledger
        return ("RELEASED", released is not None)

    def seal(self) -> Answer:
        """SealStream."""
        if self.ledger.stream.erased:
            return ("NOT_FOUND",)
        self.ledger = ledger.seal(self.ledger)
        return "SEALED", self.ledger.stream.rev

    def erase(self) -> Answer:
        """EraseStream."""
        self.ledger = ledger.erase(self.ledger)
        return "ERASED", self.ledger.stream.rev

    def reset(self) -> Answer:
        """InterveneStream(RESET)."""
        if self.ledger.stream.erased:
            return ("NOT_FOUND",)
        if self.ledger.stream.active == self.opening != NOBODY:
            return ("INVALID_FIELD",)
        self.ledger = ledger.reset(self.ledger)
        return "RESET", self.ledger.stream.rev

    def acknowledge(self, rev: int) -> Answer:
        """AcknowledgeStreams."""
        stream = self.ledger.stream
        self.ledger = ledger.acknowledge(self.ledger, rev)
        return "ACKNOWLEDGED", stream.rev == rev and stream.active == NOBODY

    def expire(self) -> None:
        """The lease of the claim that is held runs out."""
        self.ledger = self.ledger._replace(stream=self.ledger.stream._replace(live=False))


@dataclass(slots=True)
class Real:
    """One stream of the real ledger; its requests and claims are numbered as in the model."""

    world: World
    connection: Connection
    session_id: SessionId
    opening: NewStream | None = None
    turn_ids: dict[int, TurnId] = field(default_factory=dict)
    _requests: dict[int, RequestId] = field(default_factory=dict)
    _claims: dict[int, ClaimId] = field(default_factory=dict)

    def message(self, request: int, claim: int) -> NewTurn:
        """A sending of a request under a claim id."""
        request_id = self._requests.setdefault(request, RequestId(uuid4()))
        claim_id = self._claims.setdefault(claim, ClaimId(uuid4()))
        return message(self.session_id, f"message {request}", request_id=request_id, claim_id=claim_id)

    @classmethod
    async def opened_by(
        cls, world: World, connection: Connection, request: int, claim: int, **changes: object
    ) -> "Real":
        """An interview whose opening is being answered."""
        new = interview(**changes)
        made = cls(world, connection, new.session_id, new)
        made._requests[request], made._claims[claim] = new.request_id, new.claim_id
        made.turn_ids[request] = owner(await world.history.open_stream(new)).turn_id
        return made

    async def begin(self, request: int, claim: int) -> Answer:
        """BeginTurn; OpenStream where the request is the one that opened an interview."""
        return await _refusable(self._begin(request, claim))

    async def commit(self, request: int, fence: int, reply: Reply) -> Answer:
        """CommitTurn."""
        return await _refusable(self._commit(request, fence, reply))

    async def release(self, request: int, fence: int, state: str, reason: str) -> Answer:
        """ReleaseTurn."""
        release = Release(TurnState(state), reason)
        released = self.world.history.release_turn(self.session_id, self.turn_ids[request], Fence(fence), release)
        return await _refusable(_learning("RELEASED", released, bool))

    async def seal(self) -> Answer:
        """SealStream."""
        sealed = self.world.history.seal_stream(self.session_id, ALICE)
        return await _refusable(_learning("SEALED", sealed, lambda head: head.rev))

    async def erase(self) -> Answer:
        """EraseStream."""
        erased = self.world.history.erase_stream(self.session_id, ALICE)
        return await _refusable(_learning("ERASED", erased, lambda head: head.rev))

    async def reset(self) -> Answer:
        """InterveneStream(RESET)."""
        repair = NewIntervention(self.session_id, InterventionId(uuid4()), Action.RESET, "operator", "why not")
        made = self.world.operations.intervene(repair)
        return await _refusable(_learning("RESET", made, lambda done: done[0].rev))

    async def acknowledge(self, rev: int) -> Answer:
        """AcknowledgeStreams."""
        acknowledged = self.world.history.acknowledge_streams([(self.session_id, Rev(rev))])
        return await _refusable(_learning("ACKNOWLEDGED", acknowledged, lambda number: number == 1))

    async def expire(self) -> None:
        """The lease of the claim that is held has run out, by the database's clock."""
        await self.connection.execute(
            "UPDATE history.streams SET lease_until = lease_until - interval '2 hours' WHERE session_id = %s",
            [self.session_id],
        )

    async def read(self) -> Ledger:
        """The tables, as the model would have them."""
        cursor = await self.connection.execute(
            "SELECT *, lease_until > clock_timestamp() AS live FROM history.streams WHERE session_id = %s",
            [self.session_id],
        )
        [stream] = await cursor.fetchall()
        cursor = await self.connection.execute("SELECT * FROM history.turns WHERE session_id = %s", [self.session_id])
        rows = {row["request_id"]: row for row in await cursor.fetchall()}
        turns = tuple(_turn(rows.get(self._requests.get(request))) for request in REQUESTS)
        return Ledger(
            Stream(
                stream["last_seq"],
                stream["fence"],
                stream["rev"],
                stream["acked_rev"],
                self._number(stream["active_turn"]),
                next((number for number, it in self._claims.items() if it == stream["claim_id"]), 0),
                bool(stream["live"]),
                stream["sealed"],
                stream["erased"],
            ),
            turns,
        )

    async def _begin(self, request: int, claim: int) -> Answer:
        match await self._sent(request, claim):
            case Owner() as held:
                self.turn_ids[request] = held.turn_id
                return "OWNER", request, held.head.fence, held.head.last_seq
            case Replay(turn):
                return "REPLAY", stored(turn)
            case (InProgress() | OtherTurn()) as busy:
                return type(busy).__name__, self._number(busy.turn.turn_id), busy.lease_left_ms > 0

    async def _sent(self, request: int, claim: int) -> Begun:
        new = self.message(request, claim)
        if self.opening is None or self.opening.request_id != new.request_id:
            return await self.world.history.begin_turn(new)
        opened = await self.world.history.open_stream(replace(self.opening, claim_id=new.claim_id))
        assert opened.opening is not None
        return opened.opening

    async def _commit(self, request: int, fence: int, reply: Reply) -> Answer:
        said = Commit(repr(tuple(reply)), b"record", f"item-{reply.item}" if reply.item else "", reply.final)
        turn_id = self.turn_ids[request]
        result = await self.world.history.commit_turn(self.session_id, turn_id, Fence(fence), said)
        return (result.outcome, stored(result.turn), result.sealed) if result.turn else (result.outcome,)

    def _number(self, turn_id: UUID | None) -> int:
        return next((number for number, it in self.turn_ids.items() if it == turn_id), NOBODY)


def comparable(ledger: Ledger) -> Ledger:
    """Without the claim that nobody holds any more: the tables forget it, the model does not."""
    return ledger if ledger.stream.active != NOBODY else ledger._replace(stream=ledger.stream._replace(claim=0))


def stored(turn: StoredTurn) -> Turn:
    """A turn of the ledger's, as the model's."""
    return Turn(turn.state.value, turn.base_seq, turn.seq, turn.reason, _reply(turn.reply_text, turn.item_asked))


def _turn(row: DictRow | None) -> Turn:
    if row is None:
        return Turn()
    said = _reply(row["reply_text"] or "", row["item_asked"] or "")
    return Turn(row["state"], row["base_seq"], row["seq"] or 0, row["reason"] or "", said)


def _reply(text: str, item_asked: str) -> Reply | None:
    """The reply that was committed with this text, and asks this item."""
    if not text:
        return None
    asks, item, phrased, final = (part == "True" if part in ("True", "False") else int(part) for part in _parts(text))
    assert item_asked == (f"item-{item}" if item else "")
    return Reply(asks, item, bool(phrased), bool(final))


def _parts(text: str) -> list[str]:
    return text.strip("()").split(", ")


async def _learning(word: str, result: Awaitable[_T], learnt: Callable[[_T], object]) -> Answer:
    return word, learnt(await result)


async def _refusable(answer: Awaitable[Answer]) -> Answer:
    try:
        return await answer
    except ColloquyError as refusal:
        return (refusal.reason.value,)

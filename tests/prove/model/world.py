"""All that there is at one moment: the rows of four contexts, who is in the middle of what, what was promised."""

from functools import cache
from typing import NamedTuple

from tests.prove.model import ledger
from tests.prove.model.calls import Call, Flight
from tests.prove.model.ledger import NOBODY, Ledger, Reply, Stream, Turn
from tests.prove.model.projections import Projection
from tests.prove.model.rules import Scope


class Message(NamedTuple):
    """One sending of a request, in the hands of a gateway. `at` is the step that comes next.

    `claim` is the claim id it was sent with, `fence` that of the claim it got, `rev` the head's as BeginTurn read it or
    as its own commit made it. `choice` is the item to be asked.
    """

    request: int
    at: str = "begin"
    claim: int = 0
    fence: int = 0
    rev: int = 0
    choice: int = 0
    reply: Reply | None = None


class Sweep(NamedTuple):
    """A replica that repairs: the head as it read it, what it is about to do, and the contexts it has yet to erase."""

    at: str = "rest"
    turn: int = NOBODY
    fence: int = 0
    rev: int = 0
    chain: tuple[int, ...] = ()
    sealed: bool = False
    reply: Reply | None = None
    to_erase: tuple[str, ...] = ()


class Late(NamedTuple):
    """A CommitTurn (`reply`) or a ReleaseTurn that its sender has given up, and the network has not."""

    request: int
    claim: int
    fence: int
    reply: Reply | None


class Witness(NamedTuple):
    """What has happened, as those outside know it; nothing in the system reads it.

    told: for each request what its clients were told, a committed or FAILED turn.
    closed_at: how long the ledger was when End or Erase came, -1 before.
    wiped: which contexts Erase has reached: session, assessment, llm.
    wrong: what a step has done that no later state would show.
    """

    told: tuple[Turn | None, ...]
    closed_at: int = -1
    wiped: tuple[str, ...] = ()
    wrong: str = ""


class World(NamedTuple):
    """A state of the model."""

    stream: Stream
    turns: tuple[Turn, ...]
    calls: tuple[Call, ...]
    flights: tuple[Flight, ...]
    llm_erased: bool
    directory: Projection
    evidence: Projection
    messages: tuple[Message, ...]
    sweeps: tuple[Sweep, ...]
    late: tuple[Late, ...]
    faults_left: int
    witness: Witness

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.stream, self.turns)

    def write(self, after: Ledger, claim: int = 0) -> "World":
        """With the ledger after a transaction, and the witness of what it did to a claim that somebody held.

        A lease ends early by the answer to its turn, by End and Erase, or by its holder, who shows its claim.
        """
        before, stream, witness = self.stream, after.stream, self.witness
        ended = before.live and (stream.active, stream.claim) != (before.active, before.claim)
        answered = after.turns[before.active].state == ledger.COMMITTED
        if ended and not answered and not stream.sealed and claim != before.claim:
            witness = witness._replace(wrong="lease: a claim was ended that its holder still had")
        return self._replace(stream=stream, turns=after.turns, witness=witness)

    def noting(self, wrong: str) -> "World":
        """With a witness of what should not have happened."""
        return self._replace(witness=self.witness._replace(wrong=wrong))

    def with_message(self, index: int, message: Message) -> "World":
        """With another state of one sending."""
        return self._replace(messages=(*self.messages[:index], message, *self.messages[index + 1 :]))

    def with_sweep(self, index: int, sweep: Sweep) -> "World":
        """With another state of one replica."""
        return self._replace(sweeps=(*self.sweeps[:index], sweep, *self.sweeps[index + 1 :]))

    def with_call(self, request: int, call: Call) -> "World":
        """With another call of one turn."""
        return self._replace(calls=(*self.calls[:request], call, *self.calls[request + 1 :]))


def beginning(scope: Scope) -> World:
    """A session that has just been opened, its projections perhaps not, and the messages that will be sent."""
    opened = ledger.opened(scope.requests)
    projection = Projection() if scope.half_made else Projection("OPEN")
    return World(
        stream=opened.stream,
        turns=opened.turns,
        calls=(Call(),) * scope.requests,
        flights=(),
        llm_erased=False,
        directory=projection,
        evidence=projection if scope.interview else Projection("NONE"),
        messages=tuple(Message("ABC".index(name)) for name in scope.messages),
        sweeps=(Sweep(),) * scope.sweeps,
        late=(),
        faults_left=-1 if scope.faults is None else scope.faults,
        witness=Witness((None,) * scope.requests),
    )


def canonical(world: World) -> World:
    """The same world in the smallest numbers.

    Fences, revs and claims only grow, and are compared for nothing but equality with the present one: so what an actor
    holds is either the present one, here 1, or one that will never be it again, 0. Two worlds that agree after this
    renaming have the same future. Actors of one kind are interchangeable: they stand in one order.
    """
    stream = world.stream
    fence, rev, claim = stream.fence, stream.rev, stream.claim if stream.active != NOBODY else -1
    calls, flights = _calls_and_flights(world.calls, world.flights)
    return World(
        _stream(stream),
        world.turns,
        calls,
        flights,
        world.llm_erased,
        world.directory,
        world.evidence,
        _messages(world.messages, fence, rev, claim),
        _sweeps(world.sweeps, fence, rev),
        _late(world.late, fence, claim),
        world.faults_left,
        world.witness,
    )


# A world is made of few different parts, so each is renamed once.


@cache
def _stream(stream: Stream) -> Stream:
    held = int(stream.active != NOBODY)
    return stream._replace(fence=1, rev=1, acked_rev=int(stream.acked_rev == stream.rev), claim=held)


@cache
def _calls_and_flights(
    calls: tuple[Call, ...], flights: tuple[Flight, ...]
) -> tuple[tuple[Call, ...], tuple[Flight, ...]]:
    """A flight under an older fence will change nothing any more: it is none."""
    current = [it._replace(fence=1) for it in flights if it.fence == calls[it.request].fence]
    return tuple([call._replace(fence=1) for call in calls]), tuple(sorted(current))


@cache
def _messages(messages: tuple[Message, ...], fence: int, rev: int, claim: int) -> tuple[Message, ...]:
    renamed = [
        it._replace(claim=int(it.claim == claim), fence=int(it.fence == fence), rev=int(it.rev == rev))
        for it in messages
    ]
    return tuple(sorted(renamed, key=_order))


@cache
def _sweeps(sweeps: tuple[Sweep, ...], fence: int, rev: int) -> tuple[Sweep, ...]:
    renamed = [it._replace(fence=int(it.fence == fence), rev=int(it.rev == rev)) for it in sweeps]
    return tuple(sorted(renamed, key=_order))


@cache
def _late(late: tuple[Late, ...], fence: int, claim: int) -> tuple[Late, ...]:
    renamed = [it._replace(claim=int(it.claim == claim), fence=int(it.fence == fence)) for it in late]
    return tuple(sorted(renamed, key=_order))


def _order(actor: Message | Sweep | Late) -> tuple[object, ...]:
    return tuple([() if part is None else part for part in actor])

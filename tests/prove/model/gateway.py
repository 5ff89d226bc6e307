"""What a gateway does with a message: begin, choose, ask, commit, settle. Reads beside "The steps" of the protocol.

Each move is one RPC that took effect and was heard of; a move that is not made yet is a pause, however long. What may
go wrong with the same RPCs stands apart, in `_FAULTS`: a reply that is lost, a failure, the death of the gateway.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from tests.prove.model import calls, ledger, projections
from tests.prove.model.composition import Composition
from tests.prove.model.ledger import Ledger, Reply
from tests.prove.model.world import Late, Message, World

Move = tuple[str, Message, World]
"""What happened, what the gateway does next about its message, and the world but for that."""
NAMES: Final = "ABCDEFGH"


@dataclass(frozen=True, slots=True)
class Gateway(Composition):
    """Any gateway, with any of the messages."""

    def steps(self, world: World) -> Iterator[tuple[str, World]]:
        """What may come next, if all goes well."""
        for index, message in enumerate(world.messages):
            for label, following, after in _MOVES[message.at](self, world, message):
                yield f"{NAMES[message.request]}: {label}", after.with_message(index, following)

    def faults(self, world: World) -> Iterator[tuple[str, World]]:
        """What may go wrong next. A client whose gateway dies sends its message again, whenever it likes."""
        for index, message in enumerate(world.messages):
            for fault in _FAULTS.get(message.at, (Gateway._dies,)):
                for label, following, after in fault(self, world, message):
                    yield f"{NAMES[message.request]}: {label}", after.with_message(index, following)

    # 1: BeginTurn reads in one statement, and writes in the next what it has decided

    def _begin(self, world: World, message: Message) -> Iterator[Move]:
        decision = ledger.decide(world.ledger, message.request, message.claim, self.scope.max_turns, self.rules)
        label = f"BeginTurn reads: {decision}"
        match decision:
            case "InProgress" | "OtherTurn":
                return  # it asks again in a moment; the sweep stands for the repair inline as well
            case "Replay":
                yield label, _over(message), _told(world, message)
            case "Hold":
                yield label, message._replace(at="choose", fence=world.stream.fence), world
            case "Claim" | "TakeOver" | "Supersede":
                yield label, message._replace(at=decision, rev=world.stream.rev), world
            case _:
                yield label, _over(message), world

    def _claim(self, world: World, message: Message) -> Iterator[Move]:
        write = ledger.claim if message.at == "Claim" else ledger.take_over
        claim = world.stream.claim + 1
        after = write(world.ledger, message.request, message.rev, claim, self.rules)
        if after is None:
            yield "BeginTurn finds that the stream has moved on", _again(message), world
        else:
            fence = after.stream.fence
            yield (
                f"BeginTurn writes: OWNER under fence {fence}",
                Message(message.request, "choose", claim, fence),
                world.write(after),
            )

    def _supersede(self, world: World, message: Message) -> Iterator[Move]:
        after = ledger.supersede(world.ledger, message.request, message.rev, self.rules)
        if after is None:
            yield "BeginTurn finds that the stream has moved on", _again(message), world
        else:
            yield "BeginTurn writes: FAILED(CONFLICT)", _over(message), _told(world.write(after), message)

    def _claims_unheard(self, world: World, message: Message) -> Iterator[Move]:
        """The gateway asks again with the same claim id."""
        for label, owner, after in self._claim(world, message):
            if owner.at == "choose":
                yield f"{label}, unheard", Message(message.request, "begin", owner.claim), after

    # 2: GetPlan at the base

    def _choose(self, world: World, message: Message) -> Iterator[Move]:
        for label, reply, choice, after in self.choices(world, message.request):
            yield label, _saying(message, reply) if reply else message._replace(at="ask", choice=choice), after

    def _chooses_in_vain(self, world: World, message: Message) -> Iterator[Move]:
        yield "no plan, and no record to fall back on", message._replace(at="give back"), world

    # 3: Generate

    def _ask(self, world: World, message: Message) -> Iterator[Move]:
        call, waiting = world.calls[message.request], message._replace(at="wait")
        if world.llm_erased:
            yield "Generate: NOT_FOUND", self._without_words(message), world
        elif not call.may_be_made and self.rules.calls_are_remembered:
            yield f"Generate finds the call {call.state}", waiting, world
        elif not self.scope.flights:
            yield "Generate: UNAVAILABLE", self._without_words(message), world
        else:
            intent, flight = calls.intend(call, message.request, message.choice, self.rules)
            flights = (*world.flights, flight)
            if sum((it.request, it.fence) == (flight.request, flight.fence) for it in flights) > self.scope.flights:
                return
            after = world.with_call(message.request, intent)._replace(flights=flights)
            if not call.may_be_made:
                after = after.noting("I5: a call was made that was under way or done")
            yield f"Generate writes an intent for item {message.choice}", waiting, after

    def _wait(self, world: World, message: Message) -> Iterator[Move]:
        call = world.calls[message.request]
        if call.state == "DONE" and call.result:
            reply = self.phrased(call, message.choice)
            yield f"Generate: words that ask item {call.result}", _saying(message, reply), world
        elif call.may_be_made:
            yield "Generate: the call gave nothing", message._replace(at="ask"), world
        yield "the model is late", self._without_words(message), world

    def _refused(self, world: World, message: Message) -> Iterator[Move]:
        if not self.scope.interview:
            yield "Generate: the provider refuses the message", message._replace(at="refuse", choice=0), world

    # 4: CommitTurn, or ReleaseTurn where there is nothing to commit

    def _commit(self, world: World, message: Message) -> Iterator[Move]:
        outcome, after, reply = self._committed(world, message)
        label = f"CommitTurn of item {reply.item} under fence {message.fence}: {outcome}"
        match outcome:
            case "COMMITTED":
                settling = Message(message.request, self.after("commit"), rev=after.stream.rev, reply=reply)
                yield label, settling, _told(world.write(after, message.claim), message)
            case "ITEM_ALREADY_ASKED":
                for other in self.other_words(world, message.request, reply.item):
                    yield label, message._replace(reply=other), world
            case "NOT_FOUND":
                yield label, _over(message), world
            case _ if world.turns[message.request].state in (ledger.COMMITTED, ledger.FAILED):
                yield label, _over(message), _told(world, message)
            case _:
                yield label, _again(message), world

    def _commits_unheard(self, world: World, message: Message) -> Iterator[Move]:
        outcome, after, _ = self._committed(world, message)
        if outcome == "COMMITTED":
            yield "CommitTurn: COMMITTED, unheard", message, world.write(after, message.claim)

    def _commit_is_stuck(self, world: World, message: Message) -> Iterator[Move]:
        """The lease ends before the ledger has answered, and the turn is given back; the commit may still arrive."""
        if len(world.late) < self.scope.late:
            late = Late(message.request, message.claim, message.fence, message.reply)
            given_up = message._replace(at="give back", reply=None)
            yield "CommitTurn is stuck in the network", given_up, world._replace(late=(*world.late, late))

    def _give_back(self, world: World, message: Message) -> Iterator[Move]:
        after = self._released(world, message, ledger.ABANDONED, "UNAVAILABLE")
        outcome = "not held any more" if after is None else "ABANDONED"
        yield f"ReleaseTurn under fence {message.fence}: {outcome}", _again(message), after or world

    def _release_is_stuck(self, world: World, message: Message) -> Iterator[Move]:
        if len(world.late) < self.scope.late:
            late = Late(message.request, message.claim, message.fence, None)
            yield "ReleaseTurn is stuck in the network", _again(message), world._replace(late=(*world.late, late))

    def _refuse(self, world: World, message: Message) -> Iterator[Move]:
        after = self._released(world, message, ledger.FAILED, "INVALID_FIELD")
        if after is None:
            yield "ReleaseTurn: not held any more", _again(message), world
        else:
            yield "ReleaseTurn: FAILED(INVALID_FIELD)", _over(message), _told(after, message)

    # 5: nobody waits for this: the projections fold the turn, and the ledger hears that they did

    def _fold_session(self, world: World, message: Message) -> Iterator[Move]:
        outcome, directory, held = _folded(world, message, world.directory)
        yield f"session folds it: {outcome}", self._settles(message, held), world._replace(directory=directory)

    def _fold_evidence(self, world: World, message: Message) -> Iterator[Move]:
        outcome, evidence, held = _folded(world, message, world.evidence)
        yield f"assessment folds it: {outcome}", self._settles(message, held), world._replace(evidence=evidence)

    def _acknowledge(self, world: World, message: Message) -> Iterator[Move]:
        after = ledger.acknowledge(world.ledger, message.rev, self.rules)
        yield "AcknowledgeStreams", self._settles(message), world.write(after)

    def _settles(self, message: Message, held: bool = True) -> Message:
        """What a projection does not hold is left to the sweep."""
        following = self.after(message.at) if held else "over"
        return _over(message) if following == "over" else message._replace(at=following)

    # what these have in common

    def _rest(self, world: World, message: Message) -> Iterator[Move]:
        yield from ()

    def _dies(self, world: World, message: Message) -> Iterator[Move]:
        yield "its gateway dies", _again(message), world

    def _without_words(self, message: Message) -> Message:
        """What becomes of a message that no model has answered."""
        if self.scope.interview:
            return _saying(message, self.own_words(message.choice))
        return message._replace(at="give back", choice=0)

    def _committed(self, world: World, message: Message) -> tuple[str, Ledger, Reply]:
        assert message.reply is not None
        return *ledger.commit(world.ledger, message.request, message.fence, message.reply, self.rules), message.reply

    def _released(self, world: World, message: Message, state: str, reason: str) -> World | None:
        after = ledger.release(world.ledger, message.request, message.fence, state, reason, self.rules)
        return after and world.write(after, message.claim)


def _again(message: Message) -> Message:
    """As it was before it was sent for the first time."""
    return Message(message.request)


def _saying(message: Message, reply: Reply) -> Message:
    return message._replace(at="commit", choice=0, reply=reply)


def _over(message: Message) -> Message:
    return Message(message.request, "over")


def _told(world: World, message: Message) -> World:
    """The client is told what the ledger says of its request."""
    said, heard = world.turns[message.request], world.witness.told[message.request]
    if heard not in (None, said):
        return world.noting("I3: one request was told two things")
    known = (*world.witness.told[: message.request], said, *world.witness.told[message.request + 1 :])
    return world._replace(witness=world.witness._replace(told=known))


def _folded(
    world: World, message: Message, projection: projections.Projection
) -> tuple[str, projections.Projection, bool]:
    """The outcome of folding the message's own turn, the projection after it, and whether it stands there now.

    The gateway has the turn since it was committed, whatever has become of the ledger meanwhile.
    """
    assert message.reply is not None
    seq, sealed = world.turns[message.request].seq, message.reply.final
    outcome, after = projections.apply(projection, world.ledger.chain()[:seq], seq, sealed=sealed)
    return outcome, after, projections.holds(outcome, after, seq, sealed=sealed)


_Moves = Callable[[Gateway, World, Message], Iterator[Move]]
_MOVES: Final[dict[str, _Moves]] = {
    "begin": Gateway._begin,
    "Claim": Gateway._claim,
    "TakeOver": Gateway._claim,
    "Supersede": Gateway._supersede,
    "choose": Gateway._choose,
    "ask": Gateway._ask,
    "wait": Gateway._wait,
    "commit": Gateway._commit,
    "give back": Gateway._give_back,
    "refuse": Gateway._refuse,
    "fold session": Gateway._fold_session,
    "fold evidence": Gateway._fold_evidence,
    "acknowledge": Gateway._acknowledge,
    "over": Gateway._rest,
}
_FAULTS: Final[dict[str, tuple[_Moves, ...]]] = {
    "begin": (),
    "Claim": (Gateway._dies, Gateway._claims_unheard),
    "TakeOver": (Gateway._dies, Gateway._claims_unheard),
    "choose": (Gateway._dies, Gateway._chooses_in_vain),
    "wait": (Gateway._dies, Gateway._refused),
    "commit": (Gateway._dies, Gateway._commits_unheard, Gateway._commit_is_stuck),
    "give back": (Gateway._dies, Gateway._release_is_stuck),
    "over": (),
}

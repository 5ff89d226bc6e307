"""The whole model: every step that anybody may take next, from any state."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.prove.model import calls, invariants, ledger
from tests.prove.model.gateway import NAMES, Gateway
from tests.prove.model.recovery import Recovery
from tests.prove.model.repair import Repair
from tests.prove.model.rules import PROTOCOL, Rules, Scope
from tests.prove.model.world import World, beginning, canonical


@dataclass(frozen=True, slots=True)
class Protocol:
    """The protocol under some rules, within a scope."""

    scope: Scope
    rules: Rules = PROTOCOL
    gateway: Gateway = field(init=False)
    repair: Repair = field(init=False)
    recovery: Recovery = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "gateway", Gateway(self.scope, self.rules))
        object.__setattr__(self, "repair", Repair(self.scope, self.rules))
        object.__setattr__(self, "recovery", Recovery(self.repair))

    def initial(self) -> World:
        """Where a session begins."""
        return canonical(beginning(self.scope))

    def canonical(self, world: World) -> World:
        """A world in the smallest numbers."""
        return canonical(world)

    def broken(self, world: World) -> str | None:
        """Which invariant does not hold."""
        return invariants.broken(world) or self.recovery.broken(world)

    def steps(self, world: World) -> Iterator[tuple[str, World]]:
        """Every step, in the numbers of `world`."""
        yield from self.gateway.steps(world)
        yield from self.repair.steps(world)
        yield from self.models(world)
        yield from time_passes(world)
        yield from self._people(world)
        if world.faults_left:
            left = world._replace(faults_left=max(world.faults_left - 1, -1))
            yield from self.gateway.faults(left)
            yield from self.repair.faults(left)
            yield from self._flights_die(left)
        yield from self._network(world)

    def models(self, world: World) -> Iterator[tuple[str, World]]:
        """A provider call ends, with words or without; the process that made it records that."""
        for flight, landed in _landing(world):
            call = world.calls[flight.request]
            for gave_words in (True, False):
                after = calls.finish(call, flight, gave_words=gave_words, erased=world.llm_erased)
                words = f"words that ask item {flight.item}" if gave_words else "no words"
                yield f"{NAMES[flight.request]}: the model has {words}", landed.with_call(flight.request, after)

    def _flights_die(self, world: World) -> Iterator[tuple[str, World]]:
        for flight, landed in _landing(world):
            yield f"{NAMES[flight.request]}: the llm-gateway dies in its call", landed

    def _people(self, world: World) -> Iterator[tuple[str, World]]:
        if self.scope.ends and world.witness.closed_at < 0:
            ended = world.write(ledger.seal(world.ledger, self.rules))
            yield "End", _closed(ended)
        if self.scope.erases and not world.stream.erased:
            erased = world.write(ledger.erase(world.ledger, self.rules))
            yield "Erase", _closed(erased)
        if self.scope.resets and world.stream.active != ledger.NOBODY:
            # An operator takes the claim from its holder on purpose: the lease is no promise against that.
            yield "an operator resets it", world.write(ledger.reset(world.ledger), world.stream.claim)

    def _network(self, world: World) -> Iterator[tuple[str, World]]:
        for index, late in enumerate(world.late):
            rest = world._replace(late=(*world.late[:index], *world.late[index + 1 :]))
            if late.reply:
                outcome, after = ledger.commit(world.ledger, late.request, late.fence, late.reply, self.rules)
                label = f"CommitTurn arrives under fence {late.fence}: {outcome}"
            else:
                released = ledger.release(
                    world.ledger, late.request, late.fence, ledger.ABANDONED, "UNAVAILABLE", self.rules
                )
                after, label = released or world.ledger, f"ReleaseTurn arrives under fence {late.fence}"
            yield f"{NAMES[late.request]}: a late {label}", rest.write(after, late.claim)


def time_passes(world: World) -> Iterator[tuple[str, World]]:
    """A lease runs out, of a turn or of a model call, by the database's clock."""
    if world.stream.live:
        yield "the lease runs out", world._replace(stream=world.stream._replace(live=False))
    for request, call in enumerate(world.calls):
        if call.live:
            yield (
                f"{NAMES[request]}: the lease of its call runs out",
                world.with_call(request, call._replace(live=False)),
            )


def _closed(world: World) -> World:
    """Nothing may be committed from now on."""
    return world._replace(witness=world.witness._replace(closed_at=world.stream.last_seq))


def _landing(world: World) -> Iterator[tuple[calls.Flight, World]]:
    for index, flight in enumerate(world.flights):
        yield flight, world._replace(flights=(*world.flights[:index], *world.flights[index + 1 :]))

"""The sweep, which any replica may run, and which stands for the repair inline as well: what nobody else will finish.

It reads one head whose `acked_rev` is below its `rev`, and does what that head lacks. Between any two of its RPCs
anything may happen.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from tests.prove.model import ledger, projections
from tests.prove.model.composition import Composition
from tests.prove.model.ledger import NOBODY
from tests.prove.model.projections import Projection
from tests.prove.model.world import Sweep, World

Move = tuple[str, Sweep, World]
"""What happened, what the replica does next, and the world but for that."""
REST: Final = Sweep()


def contexts(world: World) -> tuple[str, ...]:
    """Which contexts beside history hold something of a session."""
    return ("session", "llm") if world.evidence.state == "NONE" else ("session", "assessment", "llm")


@dataclass(frozen=True, slots=True)
class Repair(Composition):
    """Any replica's sweep."""

    def steps(self, world: World) -> Iterator[tuple[str, World]]:
        """What may come next."""
        for index, sweep in enumerate(world.sweeps):
            for label, following, after in _MOVES[sweep.at](self, world, sweep):
                yield f"sweep: {label}", after.with_sweep(index, following)

    def faults(self, world: World) -> Iterator[tuple[str, World]]:
        """A replica may die between two of its RPCs. A reply that it does not hear is no different."""
        for index, sweep in enumerate(world.sweeps):
            if sweep != REST:
                yield "sweep: its gateway dies", world.with_sweep(index, REST)
            if sweep.at == "repair" and self.scope.interview:
                for label, following, after in self._own_words(world, sweep):
                    yield f"sweep: GetCall is not answered; {label}", after.with_sweep(index, following)

    def _read(self, world: World, _: Sweep) -> Iterator[Move]:
        """ListUnsettled: the head, the active turn with what is left of its lease, and the fence to repair it under."""
        stream = world.stream
        if stream.acked_rev == stream.rev:
            return
        seen = Sweep("", stream.active, stream.fence, stream.rev, world.ledger.chain(), stream.sealed)
        if stream.erased:
            yield "finds it erased", seen._replace(at="erase", to_erase=contexts(world)), world
        elif stream.active == NOBODY:
            yield "finds it unsettled", seen._replace(at=self.after("rest")), world
        elif not stream.live:
            yield f"finds a turn expired under fence {stream.fence}", seen._replace(at="repair"), world

    def _repair(self, world: World, sweep: Sweep) -> Iterator[Move]:
        """Roll forward what a model has said; else the item's own wording, and a chat's turn is given back."""
        call = world.calls[sweep.turn]
        if call.state == "INFLIGHT" and call.live and not world.llm_erased:
            yield "its call is under way", REST, world
        elif call.state == "DONE" and call.result and not world.llm_erased:
            for choice in self._contexts(world, sweep):
                said = sweep._replace(at="commit", reply=self.phrased(call, choice))
                yield f"GetCall: words that ask item {call.result}", said, world
        elif not self.scope.interview:
            yield "nothing to roll forward", sweep._replace(at="give back"), world
        else:
            yield from self._own_words(world, sweep)

    def _own_words(self, world: World, sweep: Sweep) -> Iterator[Move]:
        for label, reply, item, after in self.choices(world, sweep.turn):
            yield label, sweep._replace(at="commit", reply=reply or self.own_words(item)), after

    def _contexts(self, world: World, sweep: Sweep) -> list[int]:
        """What the words may be taken to ask by a repair that is not told: what a plan offers now."""
        if self.rules.context_comes_with_call or not self.scope.interview:
            return [0]
        return [item for _, _, item, _ in self.choices(world, sweep.turn)]

    def _commit(self, world: World, sweep: Sweep) -> Iterator[Move]:
        assert sweep.reply is not None
        outcome, after = ledger.commit(world.ledger, sweep.turn, sweep.fence, sweep.reply, self.rules)
        label = f"CommitTurn of item {sweep.reply.item} under fence {sweep.fence}: {outcome}"
        if outcome == "ITEM_ALREADY_ASKED":
            for other in self.other_words(world, sweep.turn, sweep.reply.item):
                yield label, sweep._replace(reply=other), world
        else:
            yield label, REST, world.write(after)

    def _give_back(self, world: World, sweep: Sweep) -> Iterator[Move]:
        after = ledger.release(world.ledger, sweep.turn, sweep.fence, ledger.ABANDONED, "UNAVAILABLE", self.rules)
        outcome = "not held any more" if after is None else "ABANDONED"
        yield f"ReleaseTurn: {outcome}", REST, world.write(after) if after else world

    def _fold_session(self, world: World, sweep: Sweep) -> Iterator[Move]:
        for label, held, directory in self._bring(world, world.directory, sweep):
            yield f"session: {label}", self._settles(sweep) if held else sweep, world._replace(directory=directory)

    def _fold_evidence(self, world: World, sweep: Sweep) -> Iterator[Move]:
        for label, held, evidence in self._bring(world, world.evidence, sweep):
            yield f"assessment: {label}", self._settles(sweep) if held else sweep, world._replace(evidence=evidence)

    def _acknowledge(self, world: World, sweep: Sweep) -> Iterator[Move]:
        after = ledger.acknowledge(world.ledger, sweep.rev, self.rules)
        yield "AcknowledgeStreams", REST if world.stream.erased else self._settles(sweep), world.write(after)

    def _settles(self, sweep: Sweep) -> Sweep:
        following = self.after(sweep.at)
        return REST if following == "over" else sweep._replace(at=following)

    def _bring(self, world: World, projection: Projection, sweep: Sweep) -> Iterator[tuple[str, bool, Projection]]:
        """Bring a projection to where the head was read, or further; make it first from the facts, where it is absent.

        A run without turns asks where it stands. One that is not at the end of what was read lacks something, or is
        newer than that: the ledger is read again.
        """
        if projection.state == "ERASED":
            yield "ERASED", True, projection
        elif projection.state == "ABSENT":
            if self.rules.sweep_makes_what_is_absent:
                yield "made from the facts", False, Projection("OPEN")
        else:
            chain, sealed = sweep.chain, sweep.sealed
            outcome, brought = projections.apply(projection, chain, len(chain) + 1, sealed=sealed)
            held = projections.stands(outcome, brought, chain, sealed=sealed)
            if not held:
                chain, sealed = world.ledger.chain(), world.stream.sealed
                outcome, brought = projections.catch_up(brought, chain, sealed=sealed)
                held = projections.stands(outcome, brought, chain, sealed=sealed)
            yield f"folded to {len(brought.folded)}", held, brought

    def _erase(self, world: World, sweep: Sweep) -> Iterator[Move]:
        """In any order. Content goes, and a tombstone stays, also where no row was."""
        tombstone = Projection("ERASED" if self.rules.erase_leaves_tombstone else "ABSENT")
        for context in sweep.to_erase:
            match context:
                case "session":
                    after = world._replace(directory=tombstone)
                case "assessment":
                    after = world._replace(evidence=tombstone)
                case _:
                    cleared = tuple([call._replace(context=0, result=0) for call in world.calls])
                    after = world._replace(calls=cleared, llm_erased=self.rules.erase_leaves_tombstone)
            wiped = tuple(it for it in contexts(world) if it in world.witness.wiped or it == context)
            left = tuple(it for it in sweep.to_erase if it != context)
            yield (
                f"erases it in {context}",
                sweep._replace(at="erase" if left else "acknowledge", to_erase=left),
                after._replace(witness=after.witness._replace(wiped=wiped)),
            )


_Moves = Callable[[Repair, World, Sweep], Iterator[Move]]
_MOVES: Final[dict[str, _Moves]] = {
    "rest": Repair._read,
    "repair": Repair._repair,
    "commit": Repair._commit,
    "give back": Repair._give_back,
    "fold session": Repair._fold_session,
    "fold evidence": Repair._fold_evidence,
    "erase": Repair._erase,
    "acknowledge": Repair._acknowledge,
}

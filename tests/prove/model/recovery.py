"""I7: once faults stop, everything becomes quiet. Whoever was in the middle of something may stay silent for ever: the
clock and the sweep are enough, whatever they find and whichever replica comes first."""

from dataclasses import dataclass, field
from typing import NamedTuple

from tests.prove.model.ledger import NOBODY
from tests.prove.model.projections import Projection
from tests.prove.model.repair import Repair, contexts
from tests.prove.model.world import World, canonical


class Stuck(NamedTuple):
    """A way on which the session does not come to rest as it should, and what is wrong at its end."""

    wrong: str
    way: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "; ".join([self.wrong, *(f"then {label}" for label in self.way)])


@dataclass(slots=True)
class Recovery:
    """Follows every way in which the sweep may go on from a state, and remembers where it leads.

    `longest` is the number of steps of the longest of these ways.
    """

    repair: Repair
    longest: int = 0
    _known: dict[World, int | Stuck] = field(default_factory=dict)

    def broken(self, world: World) -> str | None:
        """Why a state may never become quiet, or not whole; None if it will."""
        found = self._follow(canonical(_left_alone(world)), ())
        if isinstance(found, Stuck):
            return str(found)
        self.longest = max(self.longest, found)
        return None

    def _follow(self, world: World, since: tuple[World, ...]) -> int | Stuck:
        """How many steps at most until all is quiet."""
        if world in since:
            return Stuck("I7: the sweep can go round in a circle")
        if world not in self._known:
            self._known[world] = self._try(world, since)
        return self._known[world]

    def _try(self, world: World, since: tuple[World, ...]) -> int | Stuck:
        following = {canonical(after): label for label, after in self.repair.steps(world)}
        if not following:
            wrong = _lacking(world)
            return Stuck(wrong) if wrong else 0
        steps = 0
        for after, label in following.items():
            found = self._follow(after, (*since, world))
            if isinstance(found, Stuck):
                return Stuck(found.wrong, (label, *found.way))
            steps = max(steps, found + 1)
        return steps


def _left_alone(world: World) -> World:
    """Everybody but the sweeps has fallen silent, every lease has run out, and nobody sends anything any more."""
    return world._replace(
        stream=world.stream._replace(live=False),
        calls=tuple([call._replace(live=False) for call in world.calls]),
        flights=(),
        messages=(),
        late=(),
        witness=world.witness._replace(told=(), closed_at=-1, wrong=""),
        faults_left=0,
    )


def _lacking(world: World) -> str | None:
    """What a state in which the sweep rests is lacking."""
    stream = world.stream
    if stream.active != NOBODY or stream.acked_rev != stream.rev:
        return "I7: the sweep rests, and the session is not quiet"
    if stream.erased:
        return None if world.witness.wiped == contexts(world) else "I7: the session is quiet, and not erased everywhere"
    whole = Projection("OPEN", world.ledger.chain(), stream.sealed)
    for name, projection in (("session", world.directory), ("assessment", world.evidence)):
        if projection not in (whole, Projection("NONE")):
            return f"I2: the session is quiet, and {name} is not the fold of its ledger"
    return None

"""What owners and repairs put into a reply."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import permutations

from services.gateway import domain
from tests.prove.model.calls import Call
from tests.prove.model.ledger import Reply
from tests.prove.model.projections import Projection, bring
from tests.prove.model.rules import Rules, Scope
from tests.prove.model.world import World

ANYTHING = 1
"""What a chat's call is made for: a chat has no items."""
CLOSING = Reply(0, 0, phrased=False, final=True)


@dataclass(frozen=True, slots=True)
class Composition:
    """The parts of a reply, under these rules."""

    scope: Scope
    rules: Rules

    def after(self, at: str) -> str:
        """What comes after a step of settling; "over" after the last."""
        folds = ["fold session", "fold evidence"] if self.scope.interview else ["fold session"]
        steps = [*folds, "acknowledge"] if self.rules.folds_come_first else ["acknowledge", *folds]
        return [*steps, "over"][steps.index(at) + 1 if at in steps else 0]

    def choices(self, world: World, request: int) -> Iterator[tuple[str, Reply | None, int, World]]:
        """What may be asked on the base of a turn: a reply where no model is needed, else an item; and the world after
        GetPlan."""
        if not self.scope.interview:
            yield "a chat has nothing to choose", None, ANYTHING, world
            return
        base, evidence = world.turns[request].base, world.evidence
        if self.rules.plan_is_at_base:
            evidence, asked = self._planned_from(world, base), world.ledger.asked(base)
        else:
            asked = world.ledger.asked(len(evidence.folded))
        for item in self._firsts(asked, base):
            label = f"GetPlan offers item {item}" if item else "GetPlan: nothing left to ask"
            yield label, None if item else CLOSING, item, world._replace(evidence=evidence)

    def _planned_from(self, world: World, base: int) -> Projection:
        """The evidence after GetPlan, which counts the base's last turn without folding it. Where more is missing it is
        repaired, and where there is none it is made."""
        evidence = world.evidence
        lacks = len(evidence.folded) + 1 < base
        return bring(evidence, world.ledger.chain()[:base])[1] if lacks or evidence.state == "ABSENT" else evidence

    def other_words(self, world: World, request: int, taken: int) -> Iterator[Reply]:
        """What may be said instead of asking an item that turned out to be asked already."""
        base = world.turns[request].base
        for item in self._firsts(world.ledger.asked(base) | {taken}, base):
            yield self.own_words(item) if item else CLOSING

    def phrased(self, call: Call, choice: int) -> Reply:
        """What a DONE call says, with the item that it was made for."""
        if not self.scope.interview:
            return Reply(0, 0, phrased=True, final=False)
        item = call.context if self.rules.context_comes_with_call else choice
        return Reply(call.result, item, phrased=True, final=False)

    def own_words(self, item: int) -> Reply:
        """An item in its own wording."""
        return Reply(item, item, phrased=False, final=False)

    def _firsts(self, asked: frozenset[int], base: int) -> list[int]:
        return _firsts(asked, base, self.scope.items, self.scope.max_turns)


@cache
def _firsts(asked: frozenset[int], base: int, items: int, max_turns: int) -> list[int]:
    """What a plan may put first, 0 for nothing: any item that was not asked, for late scores change their order."""
    left = [domain.Item(str(item), "", "") for item in range(1, items + 1) if item not in asked]
    chosen = [domain.choose(order, "", base_seq=base, max_turns=max_turns) for order in permutations(left)]
    return sorted({int(choice.item.item_id) if choice.item else 0 for choice in chosen})

"""The item bank of one role: its items, its plans, and the items' curves, computed once.

A bank is immutable; `bankfile` reads and checks one. Estimates per skill are made here because only the bank knows
which item belongs to which skill.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from services.assessment.ability import Belief, Curves
from services.assessment.domain import Ability, BankVersion, Item, ItemId, Plan, PlanName, ScoredAnswer, SkillId


@dataclass(frozen=True, slots=True, eq=False)
class Bank:
    """Items sorted by id, so that the position of an item in any table of the bank also settles ties."""

    role: str
    number: int
    """Counts the versions of this role's bank, from 1."""
    skills: Mapping[SkillId, str]
    """The title of each skill."""
    items: tuple[Item, ...]
    plans: Mapping[PlanName, Plan]
    curves: Curves
    rows_by_skill: Mapping[SkillId, tuple[int, ...]]

    @classmethod
    def of(
        cls,
        role: str,
        number: int,
        skills: Mapping[SkillId, str],
        items: Iterable[Item],
        plans: Iterable[Plan],
    ) -> "Bank":
        """Build a bank from parts that have been checked, and tabulate its items."""
        ordered = tuple(sorted(items, key=lambda item: item.id))
        rows = {skill: tuple(row for row, item in enumerate(ordered) if item.skill == skill) for skill in skills}
        return cls(
            role=role,
            number=number,
            skills=MappingProxyType(dict(skills)),
            items=ordered,
            plans=MappingProxyType({plan.name: plan for plan in plans}),
            curves=Curves.of(ordered),
            rows_by_skill=MappingProxyType(rows),
        )

    @property
    def version(self) -> BankVersion:
        """What an interview pins."""
        return BankVersion(f"{self.role}/{self.number}")

    def item(self, item_id: ItemId) -> Item | None:
        """The item of that id, or None where this version of the bank has none."""
        row = self.curves.rows.get(item_id)
        return None if row is None else self.items[row]

    def ability(self, scored: Iterable[ScoredAnswer]) -> Ability:
        """The overall ability: one trait behind the answers to all skills."""
        return Belief.given(self.curves, scored).ability()

    def ability_by_skill(self, scored: Sequence[ScoredAnswer]) -> dict[SkillId, Ability]:
        """Each skill's ability from the answers to its own items alone, from the same prior.

        Nothing is borrowed from other skills: with one or two answers the standard error stays wide, and says so.
        """
        by_skill: dict[SkillId, list[ScoredAnswer]] = {skill: [] for skill in self.skills}
        for answer in scored:
            item = self.item(answer.item)
            if item is not None:
                by_skill[item.skill].append(answer)
        return {skill: self.ability(answers) for skill, answers in by_skill.items()}

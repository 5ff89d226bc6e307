"""The nouns of assessment: items, plans, scores and decisions.

Values only. Nothing here reads a file, a clock or a database, and nothing here knows how an ability is estimated
(`ability`) or how the next item is chosen (`selection`).
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NewType

ItemId = NewType("ItemId", str)
SkillId = NewType("SkillId", str)
PlanName = NewType("PlanName", str)
BankVersion = NewType("BankVersion", str)
"""A bank's role and number, as "backend-engineer/1": what an interview pins."""
Level = NewType("Level", int)
"""A rubric level, 0 for the weakest; the highest is `Item.top_level`."""
Logits = NewType("Logits", float)
"""A position on the ability scale: standard normal among candidates, without the 1.7 of the normal metric."""


@dataclass(frozen=True, slots=True)
class Item:
    """One interview question, calibrated as a graded response item (Samejima 1969).

    `thresholds` has one entry fewer than `rubric`, strictly rising: at an ability of `thresholds[k - 1]` half of the
    candidates reach level k or better. `discrimination` says how sharply. `rubric[k]` is the behaviour that level k
    shows.
    """

    id: ItemId
    skill: SkillId
    wording: str
    discrimination: float
    thresholds: tuple[Logits, ...]
    rubric: tuple[str, ...]

    @property
    def top_level(self) -> Level:
        """The highest level of the rubric."""
        return Level(len(self.rubric) - 1)

    @property
    def difficulty(self) -> Logits:
        """The mean of the thresholds: where on the ability scale this item tells most."""
        return Logits(math.fsum(self.thresholds) / len(self.thresholds))


@dataclass(frozen=True, slots=True)
class SkillQuota:
    """How much of an interview one skill gets: at least `min_items`, at most `max_items`, beyond the minimum by
    `weight`."""

    skill: SkillId
    weight: float
    min_items: int
    max_items: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What one kind of interview covers, when it is over, and how it begins and ends.

    `quotas` stand in the order in which the skills are opened. The interview is over after `max_items`, or from
    `min_items` on once the posterior standard error of the overall ability is at most `target_standard_error` (logits).
    `opening` holds `{question}` once, `opening_with_name` holds `{question}` and `{name}` once each.
    """

    name: PlanName
    quotas: tuple[SkillQuota, ...]
    min_items: int
    max_items: int
    target_standard_error: float
    opening: str
    opening_with_name: str
    closing: str


@dataclass(frozen=True, slots=True)
class Score:
    """The level that a judge reported for an answer, and how far such a report scatters around the true level.

    `standard_error` is in levels and above 0. Raises ValueError for anything that cannot be such a pair.
    """

    level: Level
    standard_error: float

    def __post_init__(self) -> None:
        if self.level < 0:
            raise ValueError("a level is not negative")
        if not (math.isfinite(self.standard_error) and self.standard_error > 0):
            raise ValueError("the standard error of a score is a positive number of levels")


@dataclass(frozen=True, slots=True)
class ScoredAnswer:
    """One piece of evidence: the answer to `item` was scored. Answers not scored yet are simply absent."""

    item: ItemId
    score: Score


@dataclass(frozen=True, slots=True)
class Ability:
    """An estimate: the posterior's mean and standard deviation, in logits, and how many scored answers it rests on."""

    theta: Logits
    standard_error: float
    answers: int


class DoneReason(StrEnum):
    """Why an interview asks nothing more."""

    MAX_ITEMS = "max_items"
    PRECISION = "precision"
    EXHAUSTED = "exhausted"


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask `items[0]`; the rest is what would follow it, in order, if no further score came in."""

    items: tuple[Item, ...]
    ability: Ability


@dataclass(frozen=True, slots=True)
class Done:
    """Ask nothing more; the next message is the plan's closing."""

    reason: DoneReason
    ability: Ability


Decision = Ask | Done


def opening_message(plan: Plan, item: Item, candidate_name: str | None) -> str:
    """The interviewer's first message: the plan's greeting around the first item's own wording.

    White space in the name is folded to single blanks; a blank name counts as none. A name that looks like a
    placeholder stays a name: the greeting is filled in one pass.
    """
    name = " ".join((candidate_name or "").split())
    template = plan.opening_with_name if name else plan.opening
    return _fill(template, {"{question}": item.wording, "{name}": name})


def _fill(template: str, slots: Mapping[str, str]) -> str:
    return re.sub(r"\{question\}|\{name\}", lambda match: slots[match[0]], template)

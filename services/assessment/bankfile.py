"""Item banks as YAML files: read, checked whole, and turned into `Bank`s.

Whoever edits a bank gets every violated rule at once, each with its path in the file. A bank that was read is valid;
nothing is checked again later.
"""

import math
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import cast

import yaml

from services.assessment.bank import Bank
from services.assessment.domain import Item, ItemId, Logits, Plan, PlanName, SkillId, SkillQuota

BANKS = Path(__file__).parent / "bank"
"""The banks that are shipped."""

RUBRIC_SIZES = (4, 5)
MAX_WORDING_CHARS = 400
MAX_ANCHOR_CHARS = 400
MAX_FRAME_CHARS = 1_000
# Beyond these the graded response model is numerically fine but no interview question is like that: a mistake.
DISCRIMINATIONS = (0.3, 3.0)
THRESHOLDS = (-4.0, 4.0)

_SLUG = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_PLACEHOLDER = re.compile(r"\{[^{}]*\}")


class BankFileError(ValueError):
    """A bank breaks its rules; `violations` are lines of `path: what is wrong`, in the order of the file."""

    def __init__(self, source: str, violations: tuple[str, ...]) -> None:
        super().__init__("\n  ".join([f"{source} is not a valid item bank:", *violations]))
        self.violations = violations


def read_banks(directory: Path = BANKS) -> tuple[Bank, ...]:
    """Every bank in a directory. Raises BankFileError for the first file that breaks a rule, with all that it
    breaks."""
    return tuple(read_bank(path.read_text(encoding="utf-8"), path.name) for path in sorted(directory.glob("*.yaml")))


def read_bank(text: str, source: str) -> Bank:
    """Read one bank. `source` names it in errors. Raises BankFileError with all that is wrong."""
    try:
        document: object = yaml.load(text, Loader=_StrictLoader)  # noqa: S506 (a SafeLoader)
    except yaml.YAMLError as error:
        raise BankFileError(source, (f"not YAML: {error}",)) from error
    check = _Check()
    root = _Node(check, "", document)
    fields = root.fields("version", "role", "skills", "plans", "items")
    role, number = fields["role"].slug(), fields["version"].integer(1, 999)
    skills = {SkillId(name): node.text(80) for name, node in fields["skills"].entries()}
    items = [_item(node, skills.keys()) for node in fields["items"].elements()]
    fields["items"].unique([item.id for item in items], "id")
    fields["items"].unique([item.wording for item in items], "wording")
    plans = [_plan(node, skills.keys(), items) for node in fields["plans"].elements()]
    fields["plans"].unique([plan.name for plan in plans], "name")
    if check.violations:
        raise BankFileError(source, tuple(check.violations))
    return Bank.of(role, number, skills, items, plans)


def _item(node: "_Node", skills: Collection[SkillId]) -> Item:
    fields = node.fields("id", "skill", "wording", "discrimination", "thresholds", "rubric")
    rubric = tuple(anchor.text(MAX_ANCHOR_CHARS) for anchor in fields["rubric"].elements())
    if len(rubric) not in RUBRIC_SIZES:
        fields["rubric"].violated(f"has {len(rubric)} levels instead of 4 or 5")
    fields["rubric"].unique(rubric, "anchor")
    thresholds = tuple(Logits(edge.number(*THRESHOLDS)) for edge in fields["thresholds"].elements())
    if len(thresholds) != len(rubric) - 1:
        fields["thresholds"].violated(f"has {len(thresholds)} entries for a rubric of {len(rubric)} levels")
    if any(right <= left for left, right in pairwise(thresholds)):
        fields["thresholds"].violated("does not rise strictly")
    return Item(
        id=ItemId(fields["id"].slug()),
        skill=SkillId(fields["skill"].one_of(skills)),
        wording=fields["wording"].text(MAX_WORDING_CHARS, placeholders=()),
        discrimination=fields["discrimination"].number(*DISCRIMINATIONS),
        thresholds=thresholds,
        rubric=rubric,
    )


def _plan(node: "_Node", skills: Collection[SkillId], items: list[Item]) -> Plan:
    fields = node.fields(
        "name", "skills", "min_items", "max_items", "target_standard_error", "opening", "opening_with_name", "closing"
    )
    quotas = tuple(_quota(quota, skills, items) for quota in fields["skills"].elements())
    fields["skills"].unique([quota.skill for quota in quotas], "skill")
    max_items = fields["max_items"].integer(1, 50)
    least, most = sum(quota.min_items for quota in quotas), sum(quota.max_items for quota in quotas)
    if not least <= max_items <= most:
        fields["max_items"].violated(f"is not within what the skills allow together, {least} to {most}")
    return Plan(
        name=PlanName(fields["name"].slug()),
        quotas=quotas,
        min_items=fields["min_items"].integer(1, max(max_items, 1)),
        max_items=max_items,
        target_standard_error=fields["target_standard_error"].number(0.05, 1.0),
        opening=fields["opening"].text(MAX_FRAME_CHARS, placeholders=("{question}",)),
        opening_with_name=fields["opening_with_name"].text(MAX_FRAME_CHARS, placeholders=("{name}", "{question}")),
        closing=fields["closing"].text(MAX_FRAME_CHARS, placeholders=()),
    )


def _quota(node: "_Node", skills: Collection[SkillId], items: list[Item]) -> SkillQuota:
    fields = node.fields("skill", "weight", "min_items", "max_items")
    skill = SkillId(fields["skill"].one_of(skills))
    stock = sum(item.skill == skill for item in items)
    max_items = fields["max_items"].integer(1, stock)
    return SkillQuota(
        skill=skill,
        weight=fields["weight"].number(0.01, 100.0),
        min_items=fields["min_items"].integer(0, max(max_items, 0)),
        max_items=max_items,
    )


@dataclass(slots=True)
class _Check:
    violations: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Node:
    """A place in the document. What is wrong there is noted, and something of the right type is returned, so that the
    reading goes on and the rest is checked too."""

    check: _Check
    path: str
    value: object

    def violated(self, what: str) -> None:
        self.check.violations.append(f"{self.path or 'the document'}: {what}")

    def fields(self, *names: str) -> dict[str, "_Node"]:
        """The fields of a mapping that must have exactly these; a missing one is reported once and reads as None."""
        if not isinstance(self.value, dict):
            self.violated("is not a mapping")
        given: dict[object, object] = self.value if isinstance(self.value, dict) else {}
        for name in given.keys() - set(names):
            self.violated(f"has an unknown field {name!r}")
        return {name: self._child(f".{name}", given.get(name)) for name in names}

    def entries(self) -> Iterator[tuple[str, "_Node"]]:
        if not isinstance(self.value, dict) or not self.value:
            self.violated("is not a mapping with entries")
            return
        for name, value in self.value.items():
            if not (isinstance(name, str) and _SLUG.fullmatch(name)):
                self.violated(f"the name {name!r} is not of lower-case words joined by hyphens")
            else:
                yield name, self._child(f".{name}", value)

    def elements(self) -> Iterator["_Node"]:
        if not isinstance(self.value, list) or not self.value:
            self.violated("is not a list with entries")
            return
        for position, value in enumerate(self.value):
            yield self._child(f"[{position}]", value)

    def text(self, max_chars: int, placeholders: tuple[str, ...] | None = None) -> str:
        """One line of text. With `placeholders`, exactly these in braces, once each."""
        if not isinstance(self.value, str) or not self.value.strip():
            self.violated("is not a text")
            return ""
        if len(self.value) > max_chars:
            self.violated(f"is longer than {max_chars} characters")
        if not self.value.isprintable() or self.value != self.value.strip():
            self.violated("is not one line without surrounding blanks")
        if placeholders is not None and sorted(_PLACEHOLDER.findall(self.value)) != sorted(placeholders):
            self.violated(f"does not hold exactly {' and '.join(placeholders) or 'no placeholder'}")
        return self.value

    def slug(self) -> str:
        if not (isinstance(self.value, str) and _SLUG.fullmatch(self.value)):
            self.violated("is not of lower-case words joined by hyphens")
        return str(self.value)

    def one_of(self, names: Collection[str]) -> str:
        if self.value not in names:
            self.violated(f"{self.value!r} is not one of {', '.join(sorted(names))}")
        return str(self.value)

    def number(self, least: float, most: float) -> float:
        if type(self.value) not in (int, float) or not least <= cast(float, self.value) <= most:
            self.violated(f"is not a number from {least} to {most}")
            return math.nan
        return float(cast(float, self.value))

    def integer(self, least: int, most: int) -> int:
        if type(self.value) is not int or not least <= self.value <= most:
            self.violated(f"is not a whole number from {least} to {most}")
        return self.value if type(self.value) is int else 0

    def unique(self, values: Collection[str], noun: str) -> None:
        seen: set[str] = set()
        for value in values:
            if value in seen and value:
                self.violated(f"the {noun} {value!r} occurs twice")
            seen.add(value)

    def _child(self, step: str, value: object) -> "_Node":
        return _Node(self.check, f"{self.path}{step}".lstrip("."), value)


class _StrictLoader(yaml.SafeLoader):
    """YAML's safe subset, in which a key given twice is an error instead of the last one winning."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        construct = cast(Callable[[yaml.Node, bool], object], self.construct_object)
        keys = [construct(key, deep) for key, _ in node.value]
        for position, key in enumerate(keys):
            if key in keys[:position]:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} occurs twice", node.start_mark)
        return cast(dict[object, object], super().construct_mapping(node, deep=deep))

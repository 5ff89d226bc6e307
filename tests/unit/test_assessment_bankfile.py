"""Reading an item bank: the shipped one is good, and a bad one is told everything at once."""

import copy
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import pytest
import yaml

from services.assessment.bankfile import BANKS, BankFileError, read_bank, read_banks
from services.assessment.domain import PlanName

Yaml: TypeAlias = "dict[str, Yaml] | list[Yaml] | str | int | float | None"

VALID = """
role: cook
version: 2
skills: {knives: Knives, fire: Fire}
plans:
  - name: dinner
    min_items: 1
    max_items: 2
    target_standard_error: 0.5
    skills:
      - {skill: knives, weight: 1, min_items: 1, max_items: 1}
      - {skill: fire, weight: 2.5, min_items: 0, max_items: 1}
    opening: "Hello. {question}"
    opening_with_name: "Hello {name}. {question}"
    closing: Goodbye.
items:
  - id: knives-sharpen
    skill: knives
    discrimination: 1.2
    thresholds: [-1, 0, 1.5]
    wording: How do you sharpen a knife?
    rubric: [no idea, a stone, an angle, a strop]
  - id: fire-control
    skill: fire
    discrimination: 0.9
    thresholds: [-1.5, -0.5, 0.5, 1.5]
    wording: How hot is a wok?
    rubric: [cold, warm, hot, very hot, it depends]
"""


def violations(text: str) -> tuple[str, ...]:
    with pytest.raises(BankFileError) as caught:
        read_bank(text, "cook.yaml")
    return caught.value.violations


def changed(path: str, value: Yaml) -> str:
    """The valid file with one place of it set to a value."""
    document = copy.deepcopy(yaml.safe_load(VALID))
    node = document
    *steps, last = [int(step) if step.isdigit() else step for step in path.split("/")]
    for step in steps:
        node = node[step]
    node[last] = value
    return yaml.safe_dump(document)


def test_a_valid_file_becomes_a_bank() -> None:
    bank = read_bank(VALID, "cook.yaml")

    assert bank.version == "cook/2"
    assert bank.skills == {"knives": "Knives", "fire": "Fire"}
    assert [item.id for item in bank.items] == ["fire-control", "knives-sharpen"]
    plan = bank.plans[PlanName("dinner")]
    assert [(quota.skill, quota.weight) for quota in plan.quotas] == [("knives", 1.0), ("fire", 2.5)]
    item = bank.items[1]
    assert item.thresholds == (-1.0, 0.0, 1.5)
    assert item.top_level == 3
    assert item.difficulty == pytest.approx(0.5 / 3)


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("role", "The Cook", "role: is not of lower-case words joined by hyphens"),
        ("version", 0, "version: is not a whole number from 1 to 999"),
        ("version", True, "version: is not a whole number from 1 to 999"),
        ("skills", {}, "skills: is not a mapping with entries"),
        ("skills/knives", "", "skills.knives: is not a text"),
        ("colour", "red", "the document: has an unknown field 'colour'"),
        ("items", [], "items: is not a list with entries"),
        ("items/0", "a question", "items[0]: is not a mapping"),
        ("items/0/id", None, "items[0].id: is not of lower-case words joined by hyphens"),
        ("items/0/id", "fire-control", "items: the id 'fire-control' occurs twice"),
        ("items/0/wording", "How hot is a wok?", "items: the wording 'How hot is a wok?' occurs twice"),
        ("items/0/skill", "water", "items[0].skill: 'water' is not one of fire, knives"),
        ("items/0/discrimination", 0, "items[0].discrimination: is not a number from 0.3 to 3.0"),
        ("items/0/discrimination", True, "items[0].discrimination: is not a number from 0.3 to 3.0"),
        ("items/0/discrimination", float("nan"), "items[0].discrimination: is not a number from 0.3 to 3.0"),
        ("items/0/thresholds", [-1, 1, 1], "items[0].thresholds: does not rise strictly"),
        ("items/0/thresholds", [-1, 1], "items[0].thresholds: has 2 entries for a rubric of 4 levels"),
        ("items/0/thresholds", [-1, 0, 9], "items[0].thresholds[2]: is not a number from -4.0 to 4.0"),
        ("items/0/rubric", ["a", "b", "c"], "items[0].rubric: has 3 levels instead of 4 or 5"),
        ("items/0/rubric/1", "no idea", "items[0].rubric: the anchor 'no idea' occurs twice"),
        ("items/0/rubric/1", 7, "items[0].rubric[1]: is not a text"),
        ("items/0/wording", "Two\nlines?", "items[0].wording: is not one line without surrounding blanks"),
        ("items/0/wording", "x" * 401, "items[0].wording: is longer than 400 characters"),
        ("items/0/wording", "Your {name}?", "items[0].wording: does not hold exactly no placeholder"),
        ("plans/0/name", "Dinner!", "plans[0].name: is not of lower-case words joined by hyphens"),
        ("plans/0/max_items", 3, "plans[0].max_items: is not within what the skills allow together, 1 to 2"),
        ("plans/0/min_items", 3, "plans[0].min_items: is not a whole number from 1 to 2"),
        ("plans/0/target_standard_error", 0, "plans[0].target_standard_error: is not a number from 0.05 to 1.0"),
        ("plans/0/opening", "Hello.", "plans[0].opening: does not hold exactly {question}"),
        ("plans/0/opening", "{question} {question}", "plans[0].opening: does not hold exactly {question}"),
        ("plans/0/opening_with_name", "{question}", "plans[0].opening_with_name: does not hold exactly {name} and"),
        ("plans/0/closing", " ", "plans[0].closing: is not a text"),
        ("plans/0/skills/0/skill", "water", "plans[0].skills[0].skill: 'water' is not one of fire, knives"),
        ("plans/0/skills/1/skill", "knives", "plans[0].skills: the skill 'knives' occurs twice"),
        ("plans/0/skills/0/weight", 0, "plans[0].skills[0].weight: is not a number from 0.01 to 100.0"),
        ("plans/0/skills/0/max_items", 2, "plans[0].skills[0].max_items: is not a whole number from 1 to 1"),
        ("plans/0/skills/0/min_items", 2, "plans[0].skills[0].min_items: is not a whole number from 0 to 1"),
    ],
)
def test_a_broken_rule_is_reported_with_its_path(path: str, value: Yaml, expected: str) -> None:
    assert any(line.startswith(expected) for line in violations(changed(path, value)))


def test_every_broken_rule_is_reported_at_once() -> None:
    text = VALID.replace("discrimination: 1.2", "discrimination: 12").replace("closing: Goodbye.", "closing: ''")
    text = text.replace("skill: fire\n", "skill: ice\n")

    assert violations(text) == (
        "items[0].discrimination: is not a number from 0.3 to 3.0",
        "items[1].skill: 'ice' is not one of fire, knives",
        "plans[0].skills[1].max_items: is not a whole number from 1 to 0",
        "plans[0].closing: is not a text",
    )


def test_the_error_names_the_file_and_lists_the_violations() -> None:
    with pytest.raises(BankFileError, match=r"cook\.yaml is not a valid item bank:\n  version: is not"):
        read_bank(VALID.replace("version: 2", "version: two"), "cook.yaml")


@pytest.mark.parametrize("text", ["", "- 1", "cook", "null", "3"])
def test_what_is_not_a_mapping_is_not_a_bank(text: str) -> None:
    assert violations(text)[0] == "the document: is not a mapping"


@pytest.mark.parametrize("text", ["role: [", "role: !!python/object/apply:os.getcwd []", "role: cook\nrole: baker"])
def test_what_is_not_safe_yaml_with_unique_keys_is_refused(text: str) -> None:
    [violation] = violations(text)

    assert violation.startswith("not YAML: ")


def test_every_file_of_a_directory_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(VALID, encoding="utf-8")
    (tmp_path / "b.yaml").write_text(VALID.replace("version: 2", "version: 3"), encoding="utf-8")
    (tmp_path / "notes.txt").write_text("not a bank", encoding="utf-8")

    assert [bank.version for bank in read_banks(tmp_path)] == ["cook/2", "cook/3"]


def test_the_shipped_bank_covers_each_skill_from_easy_to_hard() -> None:
    [bank] = read_banks()

    assert len(bank.skills) >= 5
    assert len(bank.items) >= 45
    for skill in bank.skills:
        difficulties = sorted(item.difficulty for item in bank.items if item.skill == skill)
        assert len(difficulties) >= 8
        assert difficulties[0] <= -1.5
        assert difficulties[-1] >= 1.5
        gaps = [right - left for left, right in pairwise(difficulties)]
        assert max(gaps) <= 1.1


def test_the_shipped_questions_can_be_asked_as_they_stand() -> None:
    [bank] = read_banks()

    for item in bank.items:
        assert "?" in item.wording
        assert item.wording[0].isupper()
        assert item.wording.endswith(("?", "."))
        assert len(item.wording.split()) <= 50
        assert item.id.startswith(f"{item.skill}-")


def test_the_shipped_rubrics_describe_each_level_in_a_sentence() -> None:
    [bank] = read_banks()

    for item in bank.items:
        for anchor in item.rubric:
            assert len(anchor.split()) >= 5
            assert anchor.endswith(".")


def test_both_plans_are_shipped() -> None:
    [bank] = read_banks(BANKS)

    assert set(bank.plans) == {"backend-engineer", "quick"}
    assert [quota.skill for quota in bank.plans[PlanName("backend-engineer")].quotas] == list(bank.skills)

"""Prompt files are immutable once released, and a template is filled literally."""

import hashlib
import json

import pytest

from libs.prompts import rendering
from libs.prompts.templates import PROMPTS, Template, parameters, template

MANIFEST = PROMPTS / "MANIFEST.sha256"


def manifest() -> dict[str, str]:
    lines = MANIFEST.read_text(encoding="ascii").splitlines()
    return {path: digest for digest, path in (line.split("  ") for line in lines)}


def test_every_prompt_file_is_the_one_that_was_released() -> None:
    files = {path.relative_to(PROMPTS).as_posix(): path for path in PROMPTS.glob("*/v*/*")}

    actual = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}

    assert actual == manifest(), "a released prompt never changes: make a new version, and list its files"


@pytest.mark.parametrize("version", [rendering.QUESTION, rendering.JUDGE, rendering.CHAT])
def test_every_version_in_use_was_released(version: str) -> None:
    assert f"{version}/system.txt" in manifest()
    assert f"{version}/parameters.json" in manifest()


@pytest.mark.parametrize("name", [name for name in manifest() if name.endswith(".json")])
def test_parameters_can_be_sent_to_a_model(name: str) -> None:
    called_with = parameters(name.removesuffix("/parameters.json"))

    assert 1 <= called_with.max_output_tokens <= 4096
    assert called_with.temperature is None or 0 <= called_with.temperature <= 2
    assert json.loads((PROMPTS / name).read_text(encoding="utf-8")).keys() == {"max_output_tokens", "temperature"}


@pytest.mark.parametrize("name", [name for name in manifest() if name.endswith(".txt")])
def test_prompt_texts_are_plain_lines_without_carriage_returns_or_trailing_blanks(name: str) -> None:
    lines = (PROMPTS / name).read_bytes().decode().split("\n")

    assert lines[-1] == ""
    assert all(line == line.rstrip() and (line.isprintable()) for line in lines)


def test_a_template_puts_values_into_its_slots() -> None:
    assert Template.of("a {{x}} b {{y}}{{x}}\n").fill({"x": "1", "y": "2"}) == "a 1 b 21"


def test_what_looks_like_a_slot_in_a_value_stays_text() -> None:
    assert Template.of("{{x}} {{y}}").fill({"x": "{{y}}", "y": "\\1 {x}"}) == "{{y}} \\1 {x}"


def test_a_slot_without_a_value_is_an_error() -> None:
    with pytest.raises(KeyError):
        Template.of("{{x}}").fill({})


def test_a_template_is_read_once() -> None:
    assert template(rendering.JUDGE, "user") is template(rendering.JUDGE, "user")

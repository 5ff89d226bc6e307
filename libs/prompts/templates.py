"""Prompt files: where they lie, and how one is read and filled.

`<purpose>/<version>/` holds one text per message and `parameters.json`, what the model is called with. Released files
never change, because a turn's record names the version that made it: a better prompt is a new version beside the old
one. `MANIFEST.sha256` lists every file (`sha256sum -c MANIFEST.sha256`), and a test holds the files to it.
"""

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PROMPTS = Path(__file__).parent

_SLOT = re.compile(r"\{\{([a-z_]+)\}\}")


@dataclass(frozen=True, slots=True)
class Template:
    """A text with `{{name}}` slots, split once: literal pieces at even positions, slot names at odd ones."""

    pieces: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> "Template":
        """Split a text; one line end at its end belongs to the file, not to the prompt."""
        return cls(tuple(_SLOT.split(text.removesuffix("\n"))))

    def fill(self, values: Mapping[str, str]) -> str:
        """Put values into the slots. A value is text: slots that it seems to contain stay as they are."""
        filled = list(self.pieces)
        filled[1::2] = [values[name] for name in self.pieces[1::2]]
        return "".join(filled)


@dataclass(frozen=True, slots=True)
class Parameters:
    """What the model is called with; a temperature of None leaves it to the model."""

    max_output_tokens: int
    temperature: float | None


@functools.cache
def template(version: str, message: str) -> Template:
    """The template of one message of a prompt version, as ("judge/v1", "user"); read once per process."""
    return Template.of((PROMPTS / version / f"{message}.txt").read_text(encoding="utf-8"))


@functools.cache
def parameters(version: str) -> Parameters:
    """The parameters of a prompt version; read once per process."""
    return Parameters(**json.loads((PROMPTS / version / "parameters.json").read_bytes()))

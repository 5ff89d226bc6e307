"""From values to the finished messages of a model call.

What people wrote, and what a model wrote before, is data: it is put where the prompt says that it is data, and it
cannot close its own quotation, add a line that the prompt would read as its own, or open a slot of a template.
"""

import functools
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypedDict

from libs.prompts.templates import parameters, template

QUESTION = "question/v1"
JUDGE = "judge/v1"
CHAT = "chat/v1"

MAX_NAME_CHARS = 80

Speaker: TypeAlias = Literal["interviewer", "candidate", "assistant", "user"]
"""Who said a message of the window: the words of an interview, or those of a chat."""

_ROLES: Mapping[Speaker, Literal["assistant", "user"]] = {
    "interviewer": "assistant",
    "candidate": "user",
    "assistant": "assistant",
    "user": "user",
}
_ANSWER_TAG = re.compile(r"<(?=\s*(?:/\s*)?answer\b)", re.IGNORECASE)


class Message(TypedDict):
    """One chat message, as every OpenAI-compatible API takes it."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Rendered:
    """A finished prompt and what identifies it.

    `version` is the label of the files it was made from; `json_schema` is the JSON text of the schema that the reply
    must satisfy, empty for free text.
    """

    messages: tuple[Message, ...]
    version: str
    max_output_tokens: int
    temperature: float | None
    json_schema: str = ""


def render_question(
    item_wording: str,
    window: Iterable[tuple[Speaker, str]],
    candidate_message: str,
    candidate_name: str | None = None,
) -> Rendered:
    """The call that phrases the next question: one given item, fitted to the conversation.

    Args:
        item_wording: the item's own wording; folded to one line, which the system message ends with as `ITEM: ...`.
        window: the messages before the candidate's, oldest first.
        candidate_message: what the candidate just said.
        candidate_name: folded to one line of at most 80 characters.
    """
    name = _line(candidate_name or "")[:MAX_NAME_CHARS].rstrip() or "not given"
    system = template(QUESTION, "system").fill({"candidate": name, "item": _line(item_wording)})
    return _rendered(QUESTION, [_system(system), *_conversation(window), _user(candidate_message)])


def render_judge(question: str, rubric: Sequence[str], answer: str) -> Rendered:
    """The call that scores one answer.

    Args:
        question: the question as the candidate read it; folded to one line.
        rubric: the anchors, level 0 first.
        answer: the candidate's message; the judge reads `shown_answer(answer)`.
    """
    user = template(JUDGE, "user").fill(
        {
            "question": _without_answer_tags(_line(question)),
            "rubric": "\n".join(f"LEVEL {level}: {_line(anchor)}" for level, anchor in enumerate(rubric)),
            "answer": shown_answer(answer),
        }
    )
    system = template(JUDGE, "system").fill({})
    return _rendered(JUDGE, [_system(system), _user(user)], _schema_text(len(rubric)))


def render_chat(window: Iterable[tuple[Speaker, str]], message: str) -> Rendered:
    """The call that answers one message of a chat; `window` is what was said before, oldest first."""
    system = template(CHAT, "system").fill({})
    return _rendered(CHAT, [_system(system), *_conversation(window), _user(message)])


def shown_answer(answer: str) -> str:
    """An answer as the judge reads it: in NFC, and unable to end the passage that holds it.

    The `<` of anything like an `<answer>` or `</answer>` tag becomes `‹`, one character for one: position i here is
    position i of the answer's NFC form, so a quote of this text can be traced back to what was written.
    """
    return _without_answer_tags(unicodedata.normalize("NFC", answer))


def judge_schema(levels: int) -> dict[str, object]:
    """The JSON schema of a verdict for a rubric of that many levels, to be enforced strictly.

    Only what every provider's strict mode takes: an enumeration of levels, but no bounds on numbers or lengths, which
    several refuse with an error; whoever reads the verdict checks those. Models write the fields in this order: the
    evidence comes before the level that it is to carry.
    """
    properties: dict[str, object] = {
        "quotes": {"type": "array", "items": {"type": "string"}, "description": "One to three, verbatim."},
        "rationale": {"type": "string", "description": "At most 60 words."},
        "level": {"type": "integer", "enum": list(range(levels))},
        "confidence": {"type": "number", "description": "From 0 to 1."},
    }
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


@functools.cache
def _schema_text(levels: int) -> str:
    return json.dumps(judge_schema(levels), separators=(",", ":"))


def _rendered(version: str, messages: list[Message], json_schema: str = "") -> Rendered:
    called_with = parameters(version)
    return Rendered(
        messages=tuple(messages),
        version=version,
        max_output_tokens=called_with.max_output_tokens,
        temperature=called_with.temperature,
        json_schema=json_schema,
    )


def _conversation(window: Iterable[tuple[Speaker, str]]) -> list[Message]:
    return [{"role": _ROLES[speaker], "content": text} for speaker, text in window]


def _system(content: str) -> Message:
    return {"role": "system", "content": content}


def _user(content: str) -> Message:
    return {"role": "user", "content": content}


def _line(text: str) -> str:
    return " ".join(text.split())


def _without_answer_tags(text: str) -> str:
    return _ANSWER_TAG.sub("‹", text)

"""Reads a chat completion request, and finds in its prompt what the simulator understands.

What a prompt must contain for a meaningful reply (anything else is answered as a chat):

- A question to phrase: a system (or developer) message has a line `ITEM: <wording>`.
- An answer to judge: `response_format` asks for a JSON schema, and the last user message has the answer between the
  lines `<answer>` and `</answer>` (the first and the last such line, so that an answer containing them stays whole).
  The rubric is lines `LEVEL <n>: <anchor>`, in any message but not inside the answer.

Sampling parameters (`temperature`, `seed` ...) are accepted and ignored; what would change the shape of the reply and
is not built (`n` above 1, `response_format` `json_object`) is refused.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import orjson

from services.simulator.json_schema import Json

_ITEM = re.compile(r"^ITEM:[ \t]*(\S.*?)[ \t\r]*$", re.MULTILINE)
_ANSWER = re.compile(r"^<answer>[ \t\r]*\n(.*)^</answer>[ \t\r]*$", re.MULTILINE | re.DOTALL)
_LEVEL = re.compile(r"^LEVEL (-?\d{1,3}):[ \t]*(.*?)[ \t\r]*$", re.MULTILINE)


class BadRequest(Exception):  # noqa: N818  (named as the API names it)
    """A request that OpenAI's API would refuse with 400 `invalid_request_error`."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code


class Purpose(StrEnum):
    """What a call is for, told from its content."""

    QUESTION = "question"
    JUDGE = "judge"
    CHAT = "chat"


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the prompt; content parts are joined, only their text counts."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """The part of a request that decides what is replied, and how it is sent."""

    model: str
    messages: tuple[Message, ...]
    stream: bool = False
    include_usage: bool = False
    max_tokens: int | None = None
    schema: Mapping[str, Json] | None = None

    @property
    def purpose(self) -> Purpose:
        """A schema makes a judge call, an item a question, all else is a chat."""
        if self.schema is not None:
            return Purpose.JUDGE
        return Purpose.CHAT if self.item is None else Purpose.QUESTION

    @property
    def item(self) -> str | None:
        """The wording of the question to be asked."""
        for message in self.messages:
            if message.role in {"system", "developer"} and (found := _ITEM.search(message.content)):
                return found[1]
        return None

    @property
    def answer(self) -> str:
        """What the candidate said last: the fenced part of the last user message, else all of it, else nothing."""
        text = self._last_user_content
        fenced = _ANSWER.search(text)
        return fenced[1].removesuffix("\n") if fenced else text

    @property
    def rubric(self) -> dict[int, str]:
        """The anchors by level, lowest first; what an answer claims to be a level is not one."""
        texts = [_ANSWER.sub("", message.content) for message in self.messages]
        return dict(sorted((int(level), anchor) for text in texts for level, anchor in _LEVEL.findall(text)))

    @property
    def _last_user_content(self) -> str:
        return next((message.content for message in reversed(self.messages) if message.role == "user"), "")


def parse(body: bytes) -> ChatRequest:
    """Read the body of `POST /v1/chat/completions`.

    Raises:
        BadRequest: the body is not JSON, or a field that matters here has another type.
    """
    try:
        fields: Json = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest("We could not parse the JSON body of your request.") from error
    if not isinstance(fields, dict):
        raise BadRequest("The request body must be a JSON object.")
    if fields.get("n") not in {None, 1}:
        raise BadRequest("The simulator makes one choice: 'n' must be 1.", "n", "unsupported_value")
    options = fields.get("stream_options")
    return ChatRequest(
        model=_model(fields.get("model")),
        messages=_messages(fields.get("messages")),
        stream=fields.get("stream") is True,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
        max_tokens=_max_tokens(fields),
        schema=_schema(fields.get("response_format")),
    )


def _model(model: Json) -> str:
    if not isinstance(model, str) or not model:
        raise BadRequest("you must provide a model parameter", "model")
    return model


def _messages(messages: Json) -> tuple[Message, ...]:
    if not isinstance(messages, list) or not messages:
        raise BadRequest("'messages' must be a non-empty array.", "messages")
    return tuple(_message(message, at) for at, message in enumerate(messages))


def _message(message: Json, at: int) -> Message:
    if not isinstance(message, dict) or not isinstance(role := message.get("role"), str):
        raise BadRequest(f"'messages[{at}]' must be an object with a role.", f"messages[{at}]")
    match message.get("content"):
        case str(text):
            return Message(role, text)
        case None if role == "assistant":
            return Message(role, "")
        case list(parts):
            return Message(role, "".join(_part(part, at) for part in parts))
        case _:
            raise BadRequest(f"'messages[{at}].content' must be text.", f"messages[{at}].content")


def _part(part: Json, at: int) -> str:
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(text := part.get("text"), str):
        return text
    raise BadRequest("The simulator reads content parts of type 'text' only.", f"messages[{at}].content")


def _max_tokens(fields: Mapping[str, Json]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        match fields.get(name):
            case None:
                continue
            case int(limit) if limit >= 1 and not isinstance(limit, bool):
                return limit
            case _:
                raise BadRequest(f"'{name}' must be an integer above 0.", name, "integer_below_min_value")
    return None


def _schema(response_format: Json) -> Mapping[str, Json] | None:
    match response_format:
        case None | {"type": "text"}:
            return None
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            return schema
        case _:
            message = "The simulator supports 'response_format' of type 'text' and 'json_schema' with a schema."
            raise BadRequest(message, "response_format")

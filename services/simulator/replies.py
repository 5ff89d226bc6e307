"""Composes the text of a reply, and the completion around it."""

import itertools
import time

import orjson

from services.simulator import judging, phrasing, usage
from services.simulator.chat_request import BadRequest, ChatRequest
from services.simulator.json_schema import SchemaError, generate
from services.simulator.wire import Completion, pieces

_numbers = itertools.count(1)


def complete(request: ChatRequest, seed: int, *, truncated: bool) -> Completion:
    """Return the completion of `request`; `truncated` has the model stop half-way through the text.

    Raises:
        BadRequest: the response format's schema cannot be satisfied.
    """
    text, finish_reason = compose(request, seed), "stop"
    tokens = usage.completion_tokens(text, request.model)
    if truncated or (request.max_tokens is not None and tokens > request.max_tokens):
        text = text[: len(text) // 2] if truncated else _within(text, request.max_tokens or tokens, request.model)
        finish_reason, tokens = "length", usage.completion_tokens(text, request.model)
    return Completion(
        number=next(_numbers),
        created=int(time.time()),
        model=request.model,
        text=text,
        finish_reason=finish_reason,
        prompt_tokens=usage.prompt_tokens(request),
        completion_tokens=tokens,
    )


def compose(request: ChatRequest, seed: int) -> str:
    """Return what is replied to `request`: a function of its content and the seed.

    Raises:
        BadRequest: the response format's schema cannot be satisfied.
    """
    if request.schema is not None:
        verdict = judging.judge(request.answer, request.rubric)
        try:
            return orjson.dumps(generate(request.schema, verdict.named())).decode()
        except SchemaError as error:
            raise BadRequest(f"Invalid schema for response_format: {error}", "response_format") from error
    if request.item is not None:
        return phrasing.question(request.item, request.answer, seed)
    return phrasing.chat(request.answer, seed)


def _within(text: str, max_tokens: int, model: str) -> str:
    """Return the longest beginning, in whole pieces, of at most `max_tokens` tokens; a piece alone may have more."""
    beginning = ""
    for piece in pieces(text):
        if beginning and usage.completion_tokens(beginning + piece, model) > max_tokens:
            break
        beginning += piece
    return beginning

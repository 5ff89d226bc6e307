"""Counts tokens exactly, at a fraction of the cost of encoding every prompt.

Prompts are made of lines that come again: templates, rubrics, the earlier messages of a conversation. Both encodings
begin a new piece where a line end is followed by neither white space nor a slash, so the counts of such lines
add up to that of the whole text; each line is counted once and remembered.
"""

import functools
import re

from libs.tokens.counting import count, count_chat, encoding_for
from libs.tokens.ranks import EncodingName
from services.simulator.chat_request import ChatRequest

_PIECE_STARTS = re.compile(r"(?<=\n)(?=[^\s/])")

_count_line = functools.lru_cache(maxsize=16_384)(count)


def prompt_tokens(request: ChatRequest) -> int:
    """Return the tokens of the messages, chat format included."""
    messages = ({"role": message.role, "content": message.content} for message in request.messages)
    return count_chat(messages, encoding_for(request.model), count_by_line)


def completion_tokens(text: str, model: str) -> int:
    """Return the tokens of a reply."""
    return count_by_line(text, encoding_for(model))


def count_by_line(text: str, encoding: EncodingName) -> int:
    """Return the same as `count`."""
    return sum(_count_line(line, encoding) for line in _PIECE_STARTS.split(text))

"""Counts tokens the way OpenAI's models do, without a network.

Counts are estimates for every provider but OpenAI: budgets and context windows need a number before the call, the
provider's `usage` is the truth after it. A text is data here: `<|endoftext|>` counts as the seven tokens that its
characters make.
"""

from collections.abc import Callable, Iterable, Mapping

import tiktoken

from libs.tokens import ranks
from libs.tokens.ranks import EncodingName

DEFAULT_ENCODING: EncodingName = "o200k_base"
"""What models unknown to tiktoken are counted with: that of every OpenAI chat model since gpt-4o."""

# tiktoken's encodings that differ from one of ours in special tokens only, which are not counted as such here.
_SAME_RANKS: Mapping[str, EncodingName] = {
    "o200k_base": "o200k_base",
    "o200k_harmony": "o200k_base",
    "cl100k_base": "cl100k_base",
}

# The chat format around each message, `<|start|>{role}<|message|>{content}<|end|>`, and the primed reply
# `<|start|>assistant<|message|>`; exact for plain messages from gpt-3.5-turbo-0613 to gpt-4o, "an estimate, not a
# timeless guarantee" after that. Source: openai-cookbook, How_to_count_tokens_with_tiktoken.ipynb, section 6.
_TOKENS_PER_MESSAGE = 3
_TOKENS_PER_NAME = 1
_TOKENS_OF_PRIMED_REPLY = 3

# The splitting regex overflows its stack, a Rust panic that no `except Exception` sees, on runs of white space of some
# hundred thousand code points. Inputs here are hundreds of times smaller; the slice makes it impossible.
_MAX_SLICE = 32_768


def count(text: str, encoding: EncodingName = DEFAULT_ENCODING) -> int:
    """Return the number of tokens of `text`.

    Linear in the length also for repetitive input: 2,000 code points of one letter, of spaces, of emoji or of
    CJK take 0.1 to 0.4 ms, prose 0.05 ms (measured; a test holds the line). Beyond 32,768 code points the text is
    counted in slices, which may add a token or two per slice. A lone surrogate counts as U+FFFD.

    Raises:
        RankFileError: the shipped rank file is missing or damaged.
    """
    encode = ranks.load(encoding).encode_ordinary
    if len(text) <= _MAX_SLICE:
        return len(encode(text))
    return sum(len(encode(text[at : at + _MAX_SLICE])) for at in range(0, len(text), _MAX_SLICE))


def count_chat(
    messages: Iterable[Mapping[str, str]],
    encoding: EncodingName = DEFAULT_ENCODING,
    counter: Callable[[str, EncodingName], int] = count,
) -> int:
    """Return the prompt tokens of a chat completion request without tools or images.

    Args:
        messages: `role`, `content` and, where there is one, `name`: the values are counted, other keys too.
        encoding: that of the model, from `encoding_for`.
        counter: counts one text; whoever sees the same texts again may pass one that remembers.

    Raises:
        RankFileError: the shipped rank file is missing or damaged.
    """
    total = _TOKENS_OF_PRIMED_REPLY
    for message in messages:
        total += _TOKENS_PER_MESSAGE + sum(counter(value, encoding) for value in message.values())
        if "name" in message:
            total += _TOKENS_PER_NAME
    return total


def encoding_for(model: str) -> EncodingName:
    """Return the encoding that counts for `model`: tiktoken's where it is one of ours, else `DEFAULT_ENCODING`."""
    try:
        name = tiktoken.encoding_name_for_model(model)
    except KeyError:
        return DEFAULT_ENCODING
    return _SAME_RANKS.get(name, DEFAULT_ENCODING)


def warm(*encodings: EncodingName) -> None:
    """Load the encodings (the default one if none is named) at start-up, so that no request waits for it.

    Raises:
        RankFileError: a shipped rank file is missing or damaged.
    """
    for name in encodings or (DEFAULT_ENCODING,):
        ranks.load(name)

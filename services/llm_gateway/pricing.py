"""What a model costs, and how many tokens a prompt has before any provider has counted them.

Providers' list prices; discounts (cached prompt tokens, batches) are not known here, so a cost may be too high and is
never too low. All of it is integer arithmetic: a US dollar per million tokens is 1,000 nano-dollars per token.
"""

import re
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from libs.tokens.counting import count, count_chat, encoding_for
from libs.tokens.ranks import EncodingName
from services.llm_gateway.domain import Completion, NanoUsd, Prompt, Usage

# The date of a snapshot: gpt-4o-mini-2024-07-18 costs what gpt-4o-mini costs.
_SNAPSHOT = re.compile(r"-\d{4}-\d{2}-\d{2}\Z")


@dataclass(frozen=True, slots=True)
class Price:
    """Nano-dollars per token, of the prompt and of the reply."""

    prompt: int
    completion: int


PRICES: Final = {
    "gpt-4o-mini": Price(150, 600),
    "gpt-4o": Price(2_500, 10_000),
    "simulator": Price(0, 0),
}
UNKNOWN_MODEL: Final = Price(30_000, 60_000)
"""What an unlisted model is taken to cost: gpt-4's list price, above that of any model fast enough for a turn. A ledger
that is too high is noticed; one that is too low is not."""
_REMEMBERED: Final = 16_384


def price_of(model: str) -> Price:
    """The list price of `model` or of the model it is a snapshot of."""
    return PRICES.get(_SNAPSHOT.sub("", model), UNKNOWN_MODEL)


class Meter:
    """Counts and prices the calls of one model.

    Most messages of a prompt were in the conversation's last one too, so their counts are remembered: by digest, for
    what people said must not outlive its erasure here.
    """

    def __init__(self, model: str) -> None:
        self._price = price_of(model)
        self._encoding = encoding_for(model)
        self._counts: dict[bytes, int] = {}

    def prompt_tokens(self, prompt: Prompt) -> int:
        """An estimate of what the provider will count; a schema is part of the prompt."""
        messages = ({"role": message.role or "", "content": message.content} for message in prompt.messages)
        return count_chat(messages, self._encoding, self._count) + self._count(prompt.json_schema, self._encoding)

    def ceiling(self, prompt_tokens: int, prompt: Prompt) -> NanoUsd:
        """What an attempt costs at most, if it was counted right."""
        return self._cost(prompt_tokens, prompt.max_output_tokens)

    def usage(self, completion: Completion, counted_prompt_tokens: int) -> Usage:
        """The provider's own counts, ours where it gave none."""
        prompt_tokens, completion_tokens = completion.prompt_tokens, completion.completion_tokens
        if prompt_tokens is None:
            prompt_tokens = counted_prompt_tokens
        if completion_tokens is None:
            completion_tokens = count(completion.text, self._encoding)
        return Usage(prompt_tokens, completion_tokens, self._cost(prompt_tokens, completion_tokens))

    def _count(self, text: str, encoding: EncodingName) -> int:
        digest = blake2b(text.encode(), digest_size=16).digest()
        known = self._counts.get(digest)
        if known is None:
            if len(self._counts) == _REMEMBERED:
                self._counts.clear()
            known = self._counts[digest] = count(text, encoding)
        return known

    def _cost(self, prompt_tokens: int, completion_tokens: int) -> NanoUsd:
        return NanoUsd(prompt_tokens * self._price.prompt + completion_tokens * self._price.completion)

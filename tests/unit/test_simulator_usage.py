"""Remembered line by line, token counts are those of the whole text; the log of calls forgets the oldest."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from libs.tokens.counting import count, count_chat
from libs.tokens.ranks import EncodingName
from services.simulator.calls import CallLog
from services.simulator.chat_request import ChatRequest, Message
from services.simulator.usage import count_by_line, prompt_tokens

TROUBLE = st.text(st.sampled_from("ab 1/.'\t\n\r\u0301\x1c\x85\u2028é😀界"), max_size=60)


@pytest.mark.parametrize("encoding", ["o200k_base", "cl100k_base"])
@given(text=TROUBLE | st.text(max_size=100))
@example(text="a.\n/b")
@example(text="a\n \n\nb\n")
@settings(max_examples=300, deadline=None)
def test_the_lines_counts_add_up_to_that_of_the_text(encoding: EncodingName, text: str) -> None:
    assert count_by_line(text, encoding) == count(text, encoding)


def test_prompt_tokens_are_those_of_the_chat_format() -> None:
    request = ChatRequest("gpt-4", (Message("system", "Be\nbrief."), Message("user", "Hello there!")))

    tokens = prompt_tokens(request)

    messages = [{"role": "system", "content": "Be\nbrief."}, {"role": "user", "content": "Hello there!"}]
    assert tokens == count_chat(messages, "cl100k_base")


def test_the_log_of_calls_forgets_the_oldest_and_says_how_many() -> None:
    log = CallLog(capacity=3)
    for at in range(5):
        log.end(log.begin(f"call {at}"))
    log.begin("still running")

    def told(since: int) -> tuple[list[object], object]:
        report = log.report(since)
        assert isinstance(report, dict)
        assert isinstance(report["calls"], list)
        return [call["call"] for call in report["calls"] if isinstance(call, dict)], report["forgotten"]

    assert told(0) == (["call 2", "call 3", "call 4"], 2)
    assert told(4) == (["call 4"], 0)
    assert told(5) == ([], 0)
    assert told(99) == ([], 0)

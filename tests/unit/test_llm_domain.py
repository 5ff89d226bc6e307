"""What may be offered, what a completion is worth, and what a caller is told."""

from uuid import uuid4

import pytest

from libs.runtime.errors import InvalidField, Unavailable
from services.llm_gateway.domain import (
    MAX_CONTEXT_BYTES,
    MAX_OUTPUT_TOKENS,
    MAX_TEXT_CHARS,
    CallKey,
    Completion,
    Failure,
    Message,
    Offer,
    Prompt,
    Purpose,
    Role,
    SessionId,
    TurnId,
    error_of,
    flaw_of,
)

HELLO = (Message(Role.USER, "Hello"),)
PROMPT = Prompt(HELLO, "question/v1", 100)
JSON_PROMPT = Prompt(HELLO, "judge/v1", 100, json_schema='{"type": "object"}')


def key(purpose: str = "question") -> CallKey:
    return CallKey(SessionId(uuid4()), TurnId(uuid4()), Purpose(purpose))


def refused_fields(call: CallKey, prompt: Prompt, context: bytes = b"") -> list[str]:
    with pytest.raises(InvalidField) as refused:
        Offer(call, prompt, context)
    return [violation.field for violation in refused.value.violations]


@pytest.mark.parametrize("purpose", ["question", "judge", "chat", "prepared/sql-index.01", "a" * 100])
def test_a_purpose_is_a_word_and_perhaps_an_item(purpose: str) -> None:
    assert Offer(key(purpose), PROMPT, b"").key.purpose == purpose


@pytest.mark.parametrize(
    "purpose", ["", "Question", "prepared/", "prepared/a b", "question\n", "prepared/é", "a\0", "a" * 101]
)
def test_a_purpose_that_could_not_travel_in_a_header_is_refused(purpose: str) -> None:
    assert refused_fields(key(purpose), PROMPT) == ["purpose"]


def test_the_item_of_a_purpose_is_left_out_of_its_kind() -> None:
    assert key("prepared/sql-index").kind == "prepared"
    assert key("judge").kind == "judge"


def test_every_broken_rule_is_named_at_once() -> None:
    prompt = Prompt((Message(None, "?"), *HELLO), "two words", 0, 2.1, "[]")

    assert refused_fields(key(""), prompt, b"." * (MAX_CONTEXT_BYTES + 1)) == [
        "purpose",
        "context",
        "prompt.messages[0].role",
        "prompt.version",
        "prompt.max_output_tokens",
        "prompt.temperature",
        "prompt.json_schema",
    ]


@pytest.mark.parametrize(
    ("prompt", "field"),
    [
        (Prompt((), "question/v1", 100), "prompt.messages"),
        (Prompt(HELLO, "", 100), "prompt.version"),
        (Prompt(HELLO, "question/v1", MAX_OUTPUT_TOKENS + 1), "prompt.max_output_tokens"),
        (Prompt(HELLO, "question/v1", 100, float("nan")), "prompt.temperature"),
        (Prompt(HELLO, "question/v1", 100, json_schema="{"), "prompt.json_schema"),
        (Prompt(HELLO, "question/v1", 100, json_schema="[" * 100_000), "prompt.json_schema"),
    ],
)
def test_a_prompt_that_no_provider_would_take_is_refused(prompt: Prompt, field: str) -> None:
    assert refused_fields(key(), prompt) == [field]


def test_text_is_a_result_whatever_made_it_stop() -> None:
    for reason in ("stop", "length", "content_filter"):
        assert flaw_of(Completion("What then?", reason, "m"), PROMPT) is None


@pytest.mark.parametrize("text", ["", " \n\t", "x" * (MAX_TEXT_CHARS + 1)])
def test_no_text_and_far_too_much_are_no_result(text: str) -> None:
    assert flaw_of(Completion(text, "stop", "m"), PROMPT) is Failure.EMPTY


def test_a_model_that_declines_is_told_from_one_that_says_nothing() -> None:
    assert flaw_of(Completion("", "stop", "m", declined=True), PROMPT) is Failure.CONTENT
    assert flaw_of(Completion("", "content_filter", "m"), PROMPT) is Failure.CONTENT


@pytest.mark.parametrize("text", ["{", "Sure! {}", '{"level": 2', "[" * 100_000])
def test_where_a_schema_was_given_the_text_must_be_json(text: str) -> None:
    assert flaw_of(Completion(text, "stop", "m"), JSON_PROMPT) is Failure.NOT_JSON
    assert flaw_of(Completion(text, "stop", "m"), PROMPT) is None


def test_whether_json_makes_sense_is_for_the_caller_to_judge() -> None:
    assert flaw_of(Completion("[]", "stop", "m"), JSON_PROMPT) is None


@pytest.mark.parametrize("failure", [Failure.CONTEXT_LENGTH, Failure.CONTENT])
def test_a_prompt_that_is_refused_for_what_it_says_is_the_callers_to_change(failure: Failure) -> None:
    error = error_of(failure)

    assert isinstance(error, InvalidField)
    assert [violation.field for violation in error.violations] == ["prompt.messages"]


@pytest.mark.parametrize("failure", [it for it in Failure if it not in {Failure.CONTEXT_LENGTH, Failure.CONTENT}])
def test_every_other_failure_may_be_asked_again(failure: Failure) -> None:
    error = error_of(failure, retry_after_ms=2_500)

    assert isinstance(error, Unavailable)
    assert error.retry_after_ms == 2_500
    assert error_of(failure).retry_after_ms == Unavailable.default_retry_after_ms

"""What providers answer, as documented and otherwise, and what it means for a call."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx2
import openai
import orjson
import pytest

from services.llm_gateway.domain import Completion, Failure
from services.llm_gateway.replies import ProviderError, Reply, refusal


def whole(**fields: Any) -> Completion:
    return whole_of(orjson.dumps(fields))


def whole_of(body: bytes) -> Completion:
    reply = Reply()
    reply.read(body, "message")
    return reply.completion()


def choice(content: Any = "Hello", **fields: Any) -> list[dict[str, Any]]:
    return [{"message": {"content": content}, "finish_reason": "stop"} | fields]


def status(code: int, body: Any = None, headers: dict[str, str] | None = None) -> ProviderError:
    request = httpx2.Request("POST", "http://provider/v1/chat/completions")
    response = httpx2.Response(code, json=body, headers=headers, request=request)
    client = openai.AsyncOpenAI(api_key="sk-test", base_url="http://provider/v1")
    return refusal(client._make_status_error_from_response(response))


def error(**fields: Any) -> dict[str, Any]:
    return {"error": {"message": "secret text of the provider", "type": "some_error", "code": None} | fields}


def test_a_completion_is_read() -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 2}

    assert whole(model="m-1", choices=choice(), usage=usage) == Completion("Hello", "stop", "m-1", False, 9, 2)


@pytest.mark.parametrize(
    "usage", [None, {}, [], {"prompt_tokens": "9"}, {"prompt_tokens": -1}, {"prompt_tokens": True}]
)
def test_counts_that_are_none_count_as_absent(usage: Any) -> None:
    completion = whole(model=7, choices=choice(), usage=usage)

    assert (completion.model, completion.prompt_tokens, completion.completion_tokens) == ("", None, None)


def test_a_refusal_of_the_model_is_one_whatever_else_it_says() -> None:
    assert whole(choices=[{"message": {"content": None, "refusal": "I can't."}, "finish_reason": "stop"}]).declined


def test_text_that_the_ledger_could_not_hold_is_mended() -> None:
    assert whole(choices=choice("a\0b")).text == "a\ufffdb"


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'"text"', b'{"choices": []}', b"{}", b'{"a": "\\ud83d"}'])
def test_what_is_no_completion_is_a_broken_one(body: bytes) -> None:
    with pytest.raises(ProviderError) as raised:
        whole_of(body)

    assert raised.value.failure is Failure.BROKEN


def test_a_stream_is_read_piece_by_piece_and_its_last_words_count() -> None:
    reply = Reply()
    chunks: list[dict[str, Any]] = [
        {"model": "m-1", "choices": [{"delta": {"role": "assistant", "content": ""}}], "usage": None},
        {"choices": [{"delta": {"content": "And "}, "finish_reason": None}]},
        {"choices": [{"delta": {"content": "then?"}}]},
        {"choices": [{"delta": {}, "finish_reason": "length"}]},
        {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}},
    ]

    texts = [reply.read(orjson.dumps(one), "delta") for one in chunks]

    assert texts == ["", "And ", "then?", "", ""]
    assert reply.completion() == Completion("And then?", "length", "m-1", False, 9, 2)


def test_a_stream_that_ends_without_a_reason_was_cut_unless_it_says_that_it_is_done() -> None:
    reply = Reply()
    reply.read(b'{"choices": [{"delta": {"content": "And"}}]}', "delta")

    with pytest.raises(ProviderError) as raised:
        reply.completion()
    reply.end()

    assert raised.value.failure is Failure.BROKEN
    assert reply.completion().finish_reason == "stop"


def test_an_error_in_place_of_a_completion_may_have_been_billed() -> None:
    with pytest.raises(ProviderError) as raised:
        Reply().read(orjson.dumps(error()), "delta")

    assert raised.value.failure is Failure.SERVER_ERROR
    assert raised.value.failure.may_be_billed


@pytest.mark.parametrize(
    ("code", "body", "failure"),
    [
        (429, error(code="rate_limit_exceeded"), Failure.RATE_LIMITED),
        (429, error(code="insufficient_quota"), Failure.REFUSED),
        (503, "<html>", Failure.RATE_LIMITED),
        (500, error(), Failure.SERVER_ERROR),
        (502, None, Failure.SERVER_ERROR),
        (504, None, Failure.SERVER_ERROR),
        (408, None, Failure.SERVER_ERROR),
        (400, error(code="context_length_exceeded"), Failure.CONTEXT_LENGTH),
        (400, error(message="This model's maximum context length is 8192 tokens.", code=400), Failure.CONTEXT_LENGTH),
        (400, error(type="exceed_context_size_error"), Failure.CONTEXT_LENGTH),
        (413, None, Failure.CONTEXT_LENGTH),
        (400, error(code="content_filter"), Failure.CONTENT),
        (400, error(code="invalid_prompt"), Failure.CONTENT),
        (400, error(), Failure.REFUSED),
        (401, error(code="invalid_api_key"), Failure.REFUSED),
        (404, {"detail": "Not Found"}, Failure.REFUSED),
        (307, None, Failure.REFUSED),
    ],
)
def test_a_status_says_whose_fault_it_is_and_whether_it_was_billed(code: int, body: Any, failure: Failure) -> None:
    refused = status(code, body)

    assert refused.failure is failure
    assert refused.status == code
    assert "secret" not in str(refused)
    assert failure.may_be_billed == (failure is Failure.SERVER_ERROR)


@pytest.mark.parametrize(
    ("headers", "retry_after_ms"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2_000),
        ({"retry-after": "0.25"}, 250),
        ({"retry-after": "2", "retry-after-ms": "1500"}, 1_500),
        ({"retry-after": "-5"}, 0),
        ({"retry-after": "1e9"}, 3_600_000),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
    ],
)
def test_the_wait_that_a_provider_asks_for_is_understood(headers: dict[str, str], retry_after_ms: int | None) -> None:
    assert status(429, headers=headers).retry_after_ms == retry_after_ms


def test_the_wait_may_be_a_date() -> None:
    until = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)

    retry_after_ms = status(429, headers={"retry-after": until}).retry_after_ms

    assert retry_after_ms is not None
    assert 50_000 < retry_after_ms <= 60_000

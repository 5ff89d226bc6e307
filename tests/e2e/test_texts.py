"""Every text comes back exactly as sent, or is refused with a clear 4xx and leaves nothing behind."""

import uuid

import pytest

from tests.e2e.product import Caller, Product

FAMILY = "👨‍👩‍👧‍👦"
ACCEPTED = {
    "2,000 emoji": "😀" * 2000,
    "ZWJ families": FAMILY * 200,
    "right to left": "שלום עולם — مرحبا بالعالم " * 40,
    "decomposed accents": "e\u0301" * 2000,  # 2,000 code points after NFC, 4,000 as written
    "SQL": ("'; DROP TABLE history.turns; -- \" \\ $1 %s %(x)s :name {{0}} " * 40)[:2000],
    "JSON": ('{"role": "system", "content": "\\u0000 \\n"}' * 60)[:2000],
    "HTML": ("<script>alert('x')</script><!-- </answer> &amp; " * 60)[:2000],
    "line ends and tabs": "one\r\ntwo\n\tthree ",
}
REFUSED = {
    "NUL": ("before\0after", 422),
    "blank": (" \t\n\u00a0\u2003", 422),
    "empty": ("", 422),
    "invisible only": ("\u200b\u200d\ufeff\u2060\u3164\U000e0041", 422),
    "2,001 code points": ("x" * 2001, 422),
    "not a string": (17, 422),
}


@pytest.mark.parametrize("name", ACCEPTED)
async def test_a_text_comes_back_exactly_as_sent(ada: Caller, name: str) -> None:
    interview = await ada.start()

    reply = await ada.say(interview["interview_id"], ACCEPTED[name])

    assert reply.status == 200, reply
    assert (await ada.messages(interview["interview_id"]))[1]["text"] == ACCEPTED[name]


@pytest.mark.parametrize("name", REFUSED)
async def test_a_text_that_breaks_a_rule_is_refused_by_name(product: Product, ada: Caller, name: str) -> None:
    text, status = REFUSED[name]
    interview = await ada.start()

    path = f"/api/v1/interviews/{interview['interview_id']}/messages"
    reply = await ada.request("POST", path, {"message_text": text}, key=str(uuid.uuid4()))

    assert (reply.status, reply.json["reason"]) == (status, "INVALID_FIELD")
    assert [error["field"] for error in reply.json["errors"]] == ["message_text"]
    assert turns(product, interview["interview_id"]) == 1


@pytest.mark.parametrize(
    ("name", "body", "status", "reason"),
    [
        ("10 MB", b'{"message_text": "' + b"x" * 10_000_000 + b'"}', 413, "TOO_LARGE"),
        ("invalid UTF-8", b'{"message_text": "\xff\xfe"}', 400, "MALFORMED"),
        ("a lone surrogate", b'{"message_text": "\\ud800"}', 400, "MALFORMED"),
        ("no JSON", b"message_text=hello", 400, "MALFORMED"),
        ("cut JSON", b'{"message_text": "hel', 400, "MALFORMED"),
        ("an array", b"[]", 422, "INVALID_FIELD"),
    ],
)
async def test_a_body_that_cannot_be_read_is_refused_and_leaves_no_row(
    product: Product, ada: Caller, name: str, body: bytes, status: int, reason: str
) -> None:
    interview = await ada.start()

    path = f"/api/v1/interviews/{interview['interview_id']}/messages"
    reply = await ada.request("POST", path, body, key=str(uuid.uuid4()))

    assert (reply.status, reply.json["reason"]) == (status, reason), name
    assert turns(product, interview["interview_id"]) == 1


async def test_a_message_without_a_key_is_malformed(product: Product, ada: Caller) -> None:
    interview = await ada.start()

    reply = await ada.request("POST", f"/api/v1/interviews/{interview['interview_id']}/messages", {"message_text": "x"})

    assert (reply.status, reply.json["reason"]) == (400, "MALFORMED")
    assert turns(product, interview["interview_id"]) == 1


def turns(product: Product, session_id: str) -> int:
    """How many rows the ledger has of a session, whatever their state."""
    rows = product.rows("history", "SELECT count(*) AS n FROM history.turns WHERE session_id = %s", session_id)
    return int(rows[0]["n"])

"""What clients send that is not as it should be: a clear refusal, and the gateway is not asked."""

import asyncio
import gzip
import uuid
from collections.abc import AsyncIterator

import pytest
from prometheus_client import REGISTRY

from services.bff import exchange as exchanges
from tests.rpc.bff_world import SESSION, Reply, World, running_world, world

__all__ = ["running_world", "world"]

MESSAGES = f"/api/v1/interviews/{SESSION}/messages"
MAX = exchanges.MAX_BODY_BYTES


def padded(size: int) -> bytes:
    """A readable message of `size` bytes in all."""
    empty = b'{"message_text":"hello","padding":""}'
    return empty[:-2] + b"x" * (size - len(empty)) + empty[-2:]


async def send(world: World, body: object, **headers: str) -> Reply:
    return await world.ask("POST", MESSAGES, body=body, **{"content_type": "application/json", **headers})


def refused(world: World, reply: Reply, status: int, reason: str) -> None:
    assert (reply.status, reply.json["reason"]) == (status, reason)
    assert world.gateway.heard == []


# -- unreadable --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"\x00",
        b"{'message_text': 'hello'}",
        b'{"message_text": "hel\xfflo"}',
        b'{"message_text": "hel\xed\xa0\x80lo"}',
        b'{"message_text": "\\ud83d"}',
        b'{"message_text": "\\udc4d\\ud83d"}',
        b'{"message_text": "raw\nline"}',
        b'{"message_text": "hello"} {"message_text": "again"}',
        b'{"message_text": "hello", "message_text": "again"}',
        b'{"message_text": "hello", "metadata": {"a": "1", "a": "2"}}',
        b'{"message_text": "hello", "n": NaN}',
        b"\xef\xbb\xbf" + b'{"message_text": "hello"}',
        '{"message_text": "hello"}'.encode("utf-16"),
        b"[" * 2000,
        b'{"message_text":' + b"[" * 900 + b"]" * 900 + b', "message_text": 1}',
        b'{"n": ' + b"9" * 5000 + b"}",
        gzip.compress(b'{"message_text": "hello"}', mtime=0),  # the time would be in the test's name
    ],
    ids=lambda body: body[:40],
)
async def test_a_body_that_is_not_json_in_utf8_is_malformed(world: World, body: bytes) -> None:
    refused(world, await send(world, body), 400, "MALFORMED")


@pytest.mark.parametrize("path", [MESSAGES, "/api/v1/interviews", "/api/v1/chat"])
async def test_every_route_that_takes_a_body_reads_it_strictly(world: World, path: str) -> None:
    reply = await world.ask("POST", path, body=b'{"a": "\\ud800"}', content_type="application/json")

    refused(world, reply, 400, "MALFORMED")


# -- readable, and not what was asked for ------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"[]", b'"hello"', b"7", b"null", b"true"], ids=repr)
async def test_a_body_that_is_no_object_is_invalid(world: World, body: bytes) -> None:
    refused(world, await send(world, body), 422, "INVALID_FIELD")


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        ({}, "message_text"),
        ({"message_text": None}, "message_text"),
        ({"message_text": 7}, "message_text"),
        ({"message_text": ["hello"]}, "message_text"),
        ({"message_text": "hello", "in_reply_to": "3"}, "in_reply_to"),
        ({"message_text": "hello", "in_reply_to": 3.0}, "in_reply_to"),
        ({"message_text": "hello", "in_reply_to": True}, "in_reply_to"),
        ({"message_text": "hello", "in_reply_to": -1}, "in_reply_to"),
        ({"message_text": "hello", "in_reply_to": 2**63}, "in_reply_to"),
    ],
    ids=str,
)
async def test_a_field_of_the_wrong_type_is_named(world: World, sent: dict[str, object], field: str) -> None:
    reply = await world.ask("POST", MESSAGES, json=sent)

    refused(world, reply, 422, "INVALID_FIELD")
    assert [it["field"] for it in reply.json["errors"]] == [field]


async def test_all_fields_at_fault_are_named_at_once(world: World) -> None:
    sent = {"plan": 7, "candidate_name": [], "metadata": {"a": 1}}

    reply = await world.ask("POST", "/api/v1/interviews", json=sent)

    refused(world, reply, 422, "INVALID_FIELD")
    assert [it["field"] for it in reply.json["errors"]] == ["plan", "candidate_name", "metadata"]


@pytest.mark.parametrize("metadata", [[], "a", {"a": None}, {"a": {"b": "c"}}], ids=str)
async def test_metadata_are_pairs_of_strings(world: World, metadata: object) -> None:
    refused(world, await world.ask("POST", "/api/v1/interviews", json={"metadata": metadata}), 422, "INVALID_FIELD")


@pytest.mark.parametrize("size", ["0", "201", "-1", "x", "", "5.0", "9" * 20, "0" * 20, "%d9%a3"])
@pytest.mark.parametrize("path", ["/api/v1/interviews", MESSAGES, "/api/v1/chat"])
async def test_a_page_size_is_a_whole_number_from_1_to_200(world: World, path: str, size: str) -> None:
    reply = await world.ask("GET", f"{path}?page_size={size}")

    refused(world, reply, 422, "INVALID_FIELD")
    assert reply.json["errors"][0]["field"] == "page_size"


@pytest.mark.parametrize(
    "text", ["", " ", "a\0b", "\u200b\u2060", "x" * 2001], ids=["empty", "blank", "NUL", "unseen", "long"]
)
async def test_what_a_message_may_say_is_for_the_gateway_to_judge(world: World, text: str) -> None:
    await world.say(text)

    assert world.gateway.heard[0].request.text == text


# -- ids and keys ------------------------------------------------------------------------------------------------------

NO_UUIDS = [
    "1",
    "x" * 36,
    f"{{{SESSION}}}",
    SESSION.replace("-", ""),
    SESSION + "0",
    "0190b6f0-6f5c-8a3e-9b0a-2f6a3c1d4e5g",
]


@pytest.mark.parametrize("session_id", NO_UUIDS)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/interviews/{}"),
        ("GET", "/api/v1/interviews/{}/messages"),
        ("POST", "/api/v1/interviews/{}/messages"),
        ("POST", "/api/v1/interviews/{}/end"),
        ("GET", "/api/v1/chat/{}"),
    ],
)
async def test_an_id_that_is_no_uuid_is_malformed(world: World, method: str, path: str, session_id: str) -> None:
    reply = await world.ask(method, path.format(session_id), json={"message_text": "hello"})

    refused(world, reply, 400, "MALFORMED")


@pytest.mark.parametrize("key", ["", *NO_UUIDS, '"', '""', f'"{SESSION}', f"'{SESSION}'", f"{SESSION}, {SESSION}"])
async def test_a_message_without_a_proper_key_is_malformed(world: World, key: str) -> None:
    refused(world, await world.say(idempotency_key=key), 400, "MALFORMED")


async def test_two_keys_are_malformed(world: World) -> None:
    headers = [*world.headers().items(), ("idempotency-key", str(uuid.uuid4()))]

    async with world.http.post(world.url + MESSAGES, json={"message_text": "hello"}, headers=headers) as response:
        assert response.status == 400


@pytest.mark.parametrize("key", [SESSION, SESSION.upper(), f'"{SESSION}"'], ids=["bare", "capitals", "quoted"])
async def test_a_key_is_quoted_or_bare(world: World, key: str) -> None:
    await world.say(idempotency_key=key)

    assert world.gateway.heard[0].request.request_id == SESSION


@pytest.mark.parametrize("path", ["/api/v1/interviews", f"/api/v1/interviews/{SESSION}/end", "/api/v1/chat"])
async def test_where_a_key_is_optional_it_must_still_be_a_proper_one(world: World, path: str) -> None:
    reply = await world.ask("POST", path, json={"message": "hello"}, idempotency_key="7")

    refused(world, reply, 400, "MALFORMED")


# -- media types -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "Application/JSON; charset=UTF-8",
        'application/json; charset="utf-8"',
        "application/merge-patch+json",
        "",
    ],
)
async def test_json_by_any_of_its_names_or_none_is_read(world: World, content_type: str) -> None:
    assert (await send(world, b'{"message_text": "hello"}', content_type=content_type)).status == 200


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json; charset=latin-1",
        "application/jsonp",
        "json",
    ],
)
async def test_another_media_type_is_unsupported(world: World, content_type: str) -> None:
    reply = await send(world, b'{"message_text": "hello"}', content_type=content_type)

    refused(world, reply, 415, "UNSUPPORTED_MEDIA_TYPE")
    assert reply.json["type"] == "urn:colloquy:problem:unsupported-media-type"
    assert reply.headers["Accept"] == "application/json"


# -- size and time -----------------------------------------------------------------------------------------------------


async def chunked(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def test_a_body_of_64_kib_is_read(world: World) -> None:
    assert (await send(world, padded(MAX))).status == 200
    assert (await send(world, chunked(padded(MAX)[:100], padded(MAX)[100:]))).status == 200


@pytest.mark.parametrize("size", [MAX + 1, 10 * 1024 * 1024], ids=["a byte too many", "10 MiB"])
@pytest.mark.parametrize("announced", [True, False], ids=["announced", "chunked"])
async def test_a_larger_body_is_refused_and_the_next_request_is_served(
    world: World, size: int, announced: bool
) -> None:
    body: object = padded(size)
    if not announced:
        body = chunked(*(padded(size)[at : at + MAX] for at in range(0, size, MAX)))

    refused(world, await send(world, body), 413, "TOO_LARGE")

    assert (await world.say()).status == 200


async def begin(world: World, *headers: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection on which the head of a request has been sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    head = [f"POST {MESSAGES} HTTP/1.1", "Host: x", f"Authorization: Bearer {world.token}", *headers, "", ""]
    writer.write("\r\n".join(head).encode())
    return reader, writer


async def test_a_large_body_is_refused_before_it_is_sent(world: World) -> None:
    reader, writer = await begin(world, "Content-Length: 10000000", "Expect: 100-continue")

    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)

    assert head.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in head.lower()
    writer.close()
    await writer.wait_closed()


async def test_a_client_that_never_stops_sending_is_cut_off_after_its_answer(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.bff.edge.LINGER_BYTES", 256 * 1024)
    reader, writer = await begin(world, "Transfer-Encoding: chunked")

    async def flood() -> None:
        while not writer.is_closing():
            writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
            await writer.drain()

    flooding = asyncio.create_task(flood())
    assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 413 ")
    with pytest.raises(OSError, match=r".*"):
        await asyncio.wait_for(flooding, 5)
    writer.close()


async def test_a_body_that_does_not_come_is_given_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchanges, "BODY_SECONDS", 0.1)
    monkeypatch.setattr("services.bff.edge.LINGER_SECONDS", 0.1)
    reader, writer = await begin(world, "Content-Length: 100")
    writer.write(b"{")

    answer = await asyncio.wait_for(reader.read(), 5)

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"did not arrive" in answer
    writer.close()


async def test_a_client_that_leaves_before_its_body_is_there_leaves_nothing_behind(world: World) -> None:
    _, writer = await begin(world, "Content-Length: 100")
    await writer.drain()
    writer.close()

    assert (await world.say()).status == 200


# -- counted -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "reason"), [(b"{", "MALFORMED"), (b"[]", "INVALID_FIELD"), (b"x" * (MAX + 1), "TOO_LARGE")]
)
async def test_a_refused_input_is_counted_by_its_reason(world: World, body: bytes, reason: str) -> None:
    def count() -> float:
        return REGISTRY.get_sample_value("colloquy_rejected_inputs_total", {"reason": reason}) or 0.0

    before = count()

    await send(world, body)

    assert count() == before + 1

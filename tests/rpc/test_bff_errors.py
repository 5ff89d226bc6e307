"""Every failure is a problem document with its status, its reason and its headers, and tells nothing else."""

import asyncio

import pytest
from multidict import CIMultiDict
from prometheus_client import REGISTRY

from colloquy.gateway.v1 import gateway_pb2 as pb
from libs.identity.actor import Role
from libs.identity.keys import generate_keypair
from libs.runtime import server as runtime_server
from libs.runtime.errors import (
    ColloquyError,
    Conflict,
    DeadlineExceeded,
    FieldViolation,
    Internal,
    InvalidField,
    Malformed,
    NotFound,
    RateLimited,
    RequestIdReused,
    RoleMissing,
    SessionClosed,
    SessionLimit,
    TooLarge,
    TurnInProgress,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from services.bff.unparsed import Protocol
from tests.rpc.bff_world import (
    HURRIED,
    PAGE_ORIGIN,
    SESSION,
    Reply,
    World,
    a_session,
    a_token,
    a_world,
    running_world,
    time_awake,
    until,
    world,
)

__all__ = ["running_world", "world"]

PATH = f"/api/v1/interviews/{SESSION}"

TABLE: list[tuple[ColloquyError, int, str, str | None]] = [
    (Malformed(), 400, "malformed", None),
    (InvalidField([FieldViolation("text", "must not hold NUL")]), 422, "invalid-field", None),
    (RequestIdReused(), 422, "request-id-reused", None),
    (Unauthenticated(), 401, "unauthenticated", None),
    (RoleMissing(), 403, "role-missing", None),
    (NotFound(), 404, "not-found", None),
    (TurnInProgress(1200), 409, "turn-in-progress", "2"),
    (SessionClosed(), 409, "session-closed", None),
    (Conflict(), 409, "conflict", None),
    (SessionLimit(), 409, "session-limit", None),
    (TooLarge(), 413, "too-large", None),
    (RateLimited(3000), 429, "rate-limited", "3"),
    (RateLimited(1), 429, "rate-limited", "1"),
    (Internal(), 500, "internal", None),
    (Unimplemented(), 501, "unimplemented", None),
    (Unavailable(), 503, "unavailable", "1"),
    (DeadlineExceeded(), 504, "deadline-exceeded", "1"),
]


def check_problem(reply: Reply, status: int, word: str) -> None:
    assert (reply.status, reply.headers["Content-Type"]) == (status, "application/problem+json")
    assert reply.headers["Cache-Control"] == "no-store"
    document = reply.json
    assert document["type"] == f"urn:colloquy:problem:{word}"
    assert document["status"] == status
    assert document["reason"] == word.upper().replace("-", "_")
    assert document["correlation_id"] == reply.headers["X-Correlation-ID"]
    assert document["title"]
    assert document["detail"]


@pytest.mark.parametrize(("error", "status", "word", "retry_after"), TABLE, ids=lambda it: str(it)[:24])
async def test_an_error_of_the_gateway_has_its_row_in_the_table(
    world: World, error: ColloquyError, status: int, word: str, retry_after: str | None
) -> None:
    world.gateway.answers["SubmitTurn"] = error

    reply = await world.say()

    check_problem(reply, status, word)
    assert reply.headers.get("Retry-After") == retry_after
    assert reply.headers.get("WWW-Authenticate") == ("Bearer" if status == 401 else None)
    assert reply.json.get("retry_after_ms") == error.retry_after_ms
    assert [it["field"] for it in reply.json.get("errors", [])] == ["message_text" for _ in error.violations]


async def test_a_field_at_fault_has_its_name_in_rest(world: World) -> None:
    violations = [FieldViolation("text", "is too long"), FieldViolation("in_reply_to", "is not there yet")]
    world.gateway.answers["SubmitTurn"] = InvalidField(violations)

    reply = await world.say()

    assert reply.json["errors"] == [
        {"field": "message_text", "message": "is too long"},
        {"field": "in_reply_to", "message": "is not there yet"},
    ]


async def test_the_text_of_an_unexpected_failure_reaches_nobody(world: World) -> None:
    world.gateway.answers["SubmitTurn"] = RuntimeError("password=hunter2 at /srv/secret.py")

    reply = await world.say()

    check_problem(reply, 500, "internal")
    assert b"hunter2" not in reply.body


async def test_a_failure_of_our_own_is_an_internal_error_and_nothing_more(world: World) -> None:
    world.gateway.answers["SubmitTurn"] = pb.SubmitTurnResponse(turn=pb.Turn(reply_text="in no status that we know"))

    reply = await world.say()

    check_problem(reply, 500, "internal")
    assert b"KeyError" not in reply.body


async def test_a_gateway_that_hangs_costs_the_client_less_than_its_budget() -> None:
    async def hang(_: object) -> None:
        await asyncio.Event().wait()

    async with a_world(HURRIED) as hurried, time_awake() as passed:
        hurried.gateway.answers["SubmitTurn"] = hang
        reply = await hurried.say()

        assert passed() < 1.5  # 1.0 on a machine of its own
    check_problem(reply, 504, "deadline-exceeded")
    assert reply.headers["Retry-After"] == "1"


async def test_while_the_gateway_does_not_serve_calls_are_unavailable_and_readiness_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runtime_server, "READINESS_PERIOD_SECONDS", 3600)  # or it would say that it serves again
    async with a_world() as lonely:
        lonely.behind.health.set(False)
        await until(lambda: not lonely.probes.ready)

        check_problem(await lonely.ask("GET", "/readyz"), 503, "unavailable")
        check_problem(await lonely.say(), 503, "unavailable")
        assert (await lonely.ask("GET", "/livez")).status == 200

        lonely.behind.health.set(True)
        await until(lambda: lonely.probes.ready)
        assert (await lonely.say()).status == 200


# -- absent ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "rpc"),
    [
        ("GET", PATH, "GetSession"),
        ("GET", f"{PATH}/messages", "ListMessages"),
        ("POST", f"{PATH}/messages", "SubmitTurn"),
        ("POST", f"{PATH}/end", "EndSession"),
        ("GET", f"/api/v1/chat/{SESSION}", "GetSession"),
        ("GET", f"/api/v1/chat/{SESSION}/messages", "ListMessages"),
    ],
)
@pytest.mark.parametrize("error", [NotFound(), NotFound("Interview 17 belongs to Bob.")], ids=["plain", "talkative"])
async def test_every_404_is_the_same_but_for_the_correlation_id(
    world: World, method: str, path: str, rpc: str, error: ColloquyError
) -> None:
    world.gateway.answers[rpc] = error
    body = {"message_text": "hello"} if method == "POST" else None

    absent = await world.ask(method, path, json=body, x_correlation_id="the-same")
    nowhere = await world.ask("GET", "/no/such/route", x_correlation_id="the-same")

    check_problem(absent, 404, "not-found")
    assert absent.body == nowhere.body


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/ops",
        "/api",
        "/api/v1/interviews/",
        f"{PATH}/",
        f"{PATH}/report",
        f"{PATH}/messages/1",
        "/api/v2/interviews",
        "/%ff%00",
        "/api/v1/interviews/%2e%2e/%2e%2e",
    ],
)
async def test_a_route_that_nobody_has_is_not_found_with_or_without_a_token(world: World, path: str) -> None:
    check_problem(await world.ask("GET", path), 404, "not-found")
    check_problem(await world.ask("GET", path, authorization=""), 404, "not-found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/api/v1/interviews", "GET, HEAD, POST"),
        ("PUT", f"{PATH}/messages", "GET, HEAD, POST"),
        ("POST", PATH, "DELETE, GET, HEAD"),
        ("GET", f"{PATH}/end", "POST"),
        ("POST", f"/api/v1/chat/{SESSION}", "DELETE, GET, HEAD"),
        ("PATCH", "/api/v1/chat", "GET, HEAD, POST"),
        ("OPTIONS", PATH, "DELETE, GET, HEAD"),
        ("POST", "/readyz", "GET, HEAD"),
        ("PROPFIND", "/livez", "GET, HEAD"),
    ],
)
async def test_another_method_is_refused_with_the_ones_that_there_are(
    world: World, method: str, path: str, allowed: str
) -> None:
    reply = await world.ask(method, path)

    check_problem(reply, 405, "method-not-allowed")
    assert reply.headers["Allow"] == allowed


async def test_head_answers_as_get_without_a_body(world: World) -> None:
    got, headed = await world.ask("GET", PATH), await world.ask("HEAD", PATH)

    assert (headed.status, headed.body) == (200, b"")
    assert headed.headers["Content-Length"] == got.headers["Content-Length"] == str(len(got.body))


# -- what is no HTTP ---------------------------------------------------------------------------------------------------

NO_REQUESTS = {
    "an unknown method": b"FOO /nope HTTP/1.1\r\nHost: x\r\n\r\n",
    "an endless path": b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "a broken header": b"POST /api/v1/chat HTTP/1.1\r\nHost: x\r\nContent-Length: abc\r\n\r\n",
    "a broken body": b"POST /api/v1/chat HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nno chunk\r\n",
    "another protocol": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
}


async def exchange(world: World, *sent: bytes) -> bytes:
    """What comes back on one connection until the server closes it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    for piece in sent:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0.05)  # for the pieces to arrive one by one
    received = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return received


def reply_of(received: bytes) -> Reply:
    """A response as it came over the connection, which it ends."""
    head, _, body = received.partition(b"\r\n\r\n")
    status, *fields = head.decode("latin-1").split("\r\n")
    headers = CIMultiDict[str]()
    for name, _, value in (field.partition(": ") for field in fields):
        headers.add(name, value)
    assert headers["Connection"] == "close"
    assert headers["Content-Length"] == str(len(body))
    return Reply(int(status.split()[1]), headers, body)


@pytest.mark.parametrize("sent", NO_REQUESTS.values(), ids=NO_REQUESTS)
async def test_what_is_no_http_is_a_problem_too_and_counted(world: World, sent: bytes) -> None:
    def count() -> float:
        return REGISTRY.get_sample_value("colloquy_rejected_inputs_total", {"reason": "MALFORMED"}) or 0.0

    before = count()

    reply = reply_of(await exchange(world, sent))

    check_problem(reply, 400, "malformed")
    assert count() == before + 1


async def test_a_correlation_id_that_could_still_be_read_is_returned(world: World) -> None:
    sent = b"GET / HTTP/1.1\r\nX-Correlation-ID: support-4711\r\nContent-Length: abc\r\n\r\n"

    reply = reply_of(await exchange(world, sent))

    assert reply.headers["X-Correlation-ID"] == reply.json["correlation_id"] == "support-4711"


async def test_who_goes_on_sending_what_is_no_http_still_gets_the_problem(world: World) -> None:
    reply = reply_of(await exchange(world, b"FOO /nope HTTP/1.1\r\n", *[b"x" * 10_000] * 5))

    check_problem(reply, 400, "malformed")


async def test_what_is_no_http_does_not_end_up_in_the_response_before_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = asyncio.Event()
    refuse = Protocol.send_400_response

    def seen(protocol: Protocol, message: str) -> None:
        refuse(protocol, message)
        refused.set()

    async def answer(_: object) -> pb.GetSessionResponse:
        await refused.wait()
        return pb.GetSessionResponse(session=a_session())

    monkeypatch.setattr(Protocol, "send_400_response", seen)
    world.gateway.answers["GetSession"] = answer
    head = [f"GET {PATH} HTTP/1.1", "Host: x", f"Authorization: Bearer {world.token}", "", ""]

    reply = reply_of(await exchange(world, "\r\n".join(head).encode(), b"FOO /nope HTTP/1.1\r\n\r\n"))

    assert (reply.status, reply.json["session_id"]) == (200, SESSION)


# -- who asks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer not-a-token",
        "Basic YWxpY2U6c2VjcmV0",
        f"Bearer {a_token(Role.CANDIDATE, pair=generate_keypair())}",
        "Bearer \xfc",
    ],
    ids=["none", "empty", "no JWT", "basic", "another key", "not ASCII"],
)
async def test_without_a_valid_token_the_gateway_is_not_asked(world: World, authorization: str) -> None:
    reply = await world.ask("POST", f"{PATH}/messages", body=b"nonsense", authorization=authorization)

    check_problem(reply, 401, "unauthenticated")
    assert reply.headers["WWW-Authenticate"] == "Bearer"
    assert world.gateway.heard == []


async def test_probes_and_documents_ask_for_no_token(world: World) -> None:
    for path in ("/livez", "/readyz", "/openapi.json", "/docs"):
        assert (await world.ask("GET", path, authorization="")).status == 200


# -- common headers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("correlation_id", ["support-4711", "a" * 128, "0190b6f0-6f5c-8a3e-9b0a-2f6a3c1d4e5f"])
async def test_a_correlation_id_is_taken_and_returned(world: World, correlation_id: str) -> None:
    for path in (PATH, "/livez", "/no/such/route"):
        reply = await world.ask("GET", path, x_correlation_id=correlation_id)
        assert reply.headers["X-Correlation-ID"] == correlation_id


@pytest.mark.parametrize("correlation_id", ["a" * 129, "é", "a\tb"])
async def test_a_correlation_id_that_could_spoil_a_log_is_replaced(world: World, correlation_id: str) -> None:
    reply = await world.ask("GET", "/livez", x_correlation_id=correlation_id)

    assert reply.headers["X-Correlation-ID"] not in ("", correlation_id)


async def test_correlation_ids_that_are_made_differ(world: World) -> None:
    made = {(await world.ask("GET", "/livez")).headers["X-Correlation-ID"] for _ in range(5)}

    assert len(made) == 5


async def test_server_timing_says_where_the_time_of_a_new_turn_went(world: World) -> None:
    names = [entry.partition(";")[0] for entry in (await world.say()).headers["Server-Timing"].split(", ")]

    assert names == ["bff", "gateway", "begin", "question"]


async def test_a_page_of_a_known_origin_may_read_the_response_and_its_headers(world: World) -> None:
    reply = await world.ask("GET", PATH, origin=PAGE_ORIGIN)

    assert reply.headers["Access-Control-Allow-Origin"] == PAGE_ORIGIN
    assert reply.headers["Vary"] == "Origin"
    exposed = {name.strip() for name in reply.headers["Access-Control-Expose-Headers"].split(",")}
    assert {"Idempotency-Replayed", "X-Correlation-ID", "Server-Timing", "Retry-After"} <= exposed


async def test_a_page_of_a_known_origin_may_read_a_problem_too(world: World) -> None:
    for path in ("/no/such/route", f"{PATH}/end"):
        reply = await world.ask("GET", path, origin=PAGE_ORIGIN)
        assert reply.headers["Access-Control-Allow-Origin"] == PAGE_ORIGIN


async def test_a_page_of_another_origin_is_told_nothing(world: World) -> None:
    reply = await world.ask("GET", PATH, origin="https://elsewhere.example")

    assert "Access-Control-Allow-Origin" not in reply.headers


@pytest.mark.parametrize(("method", "path"), [("POST", f"{PATH}/messages"), ("DELETE", f"/api/v1/chat/{SESSION}")])
async def test_a_preflight_allows_what_a_page_needs(world: World, method: str, path: str) -> None:
    reply = await world.ask(
        "OPTIONS",
        path,
        authorization="",
        origin=PAGE_ORIGIN,
        access_control_request_method=method,
        access_control_request_headers="authorization, content-type, idempotency-key, x-correlation-id",
    )

    assert reply.status == 200
    assert reply.headers["Access-Control-Allow-Origin"] == PAGE_ORIGIN
    assert reply.headers["X-Correlation-ID"]


async def test_a_preflight_of_another_origin_is_refused_as_a_problem(world: World) -> None:
    reply = await world.ask("OPTIONS", PATH, origin="https://elsewhere.example", access_control_request_method="POST")

    check_problem(reply, 400, "malformed")
    assert "Access-Control-Allow-Origin" not in reply.headers

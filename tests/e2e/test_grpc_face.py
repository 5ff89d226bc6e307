"""What a backend sees with gRPC stubs: the same turns and the same refusals."""

import uuid
from collections.abc import AsyncIterator, Awaitable

import grpc
import pytest
import pytest_asyncio

from colloquy.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from libs.runtime import status
from tests.e2e.product import Product

ANSWER = "I would write the numbers down first, then choose the simplest design that holds ten times as much."


@pytest_asyncio.fixture(scope="session")
async def channel(product: Product) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(product.gateway) as opened:
        yield opened


def signed(product: Product, subject: str, *roles: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {product.token(subject, *roles)}"), ("x-correlation-id", "from-the-test"))


def reason(error: grpc.aio.AioRpcError) -> str:
    """The reason in the status's ErrorInfo."""
    return status.decode(error).reason.value


async def start(stub: "gateway_pb2_grpc.ConversationServiceAsyncStub", metadata: tuple[tuple[str, str], ...]) -> str:
    request = gateway_pb2.StartSessionRequest(kind=gateway_pb2.KIND_INTERVIEW, plan="quick")
    opened = await stub.StartSession(request, metadata=metadata, timeout=5)
    return opened.session.session_id


async def test_a_turn_over_grpc_is_the_same_for_every_call_with_its_id(
    product: Product, channel: grpc.aio.Channel
) -> None:
    stub = gateway_pb2_grpc.ConversationServiceStub(channel)
    metadata = signed(product, f"backend-{uuid.uuid4()}")
    session_id = await start(stub, metadata)
    request = gateway_pb2.SubmitTurnRequest(session_id=session_id, request_id=str(uuid.uuid4()), text=ANSWER)

    first = await stub.SubmitTurn(request, metadata=metadata, timeout=5)
    second = await stub.SubmitTurn(request, metadata=metadata, timeout=5)

    assert (first.replayed, second.replayed) == (False, True)
    assert first.turn.SerializeToString(deterministic=True) == second.turn.SerializeToString(deterministic=True)


async def test_a_streamed_turn_is_accepted_drafted_and_completed(product: Product, channel: grpc.aio.Channel) -> None:
    stub = gateway_pb2_grpc.ConversationServiceStub(channel)
    metadata = signed(product, f"backend-{uuid.uuid4()}")
    message = gateway_pb2.SubmitTurnRequest(
        session_id=await start(stub, metadata), request_id=str(uuid.uuid4()), text=ANSWER
    )

    stream = stub.StreamTurn(gateway_pb2.StreamTurnRequest(turn=message), metadata=metadata, timeout=5)
    told = [event async for event in stream]

    assert told[0].accepted.request_id == message.request_id
    assert told[-1].completed.turn.reply_text
    assert [event.WhichOneof("event") for event in told[1:-1]] == ["delta"] * (len(told) - 2)


async def test_a_service_acts_for_the_owner_it_names(product: Product, channel: grpc.aio.Channel) -> None:
    stub = gateway_pb2_grpc.ConversationServiceStub(channel)
    owner = f"candidate-{uuid.uuid4()}"
    request = gateway_pb2.StartSessionRequest(kind=gateway_pb2.KIND_INTERVIEW, plan="quick", owner_id=owner)
    opened = await stub.StartSession(request, metadata=signed(product, "backend", "service"), timeout=5)

    wanted = gateway_pb2.GetSessionRequest(session_id=opened.session.session_id)
    seen = await stub.GetSession(wanted, metadata=signed(product, owner), timeout=5)

    assert seen.session.session_id == opened.session.session_id


async def test_an_assessor_need_not_say_that_interviews_are_meant(product: Product, channel: grpc.aio.Channel) -> None:
    stub = gateway_pb2_grpc.ConversationServiceStub(channel)
    ada, assessor = signed(product, f"ada-{uuid.uuid4()}"), signed(product, "assessor", "assessor")
    interview = await start(stub, ada)
    opened = await stub.StartSession(
        gateway_pb2.StartSessionRequest(kind=gateway_pb2.KIND_CHAT), metadata=ada, timeout=5
    )

    seen = await stub.GetSession(gateway_pb2.GetSessionRequest(session_id=interview), metadata=assessor, timeout=5)
    said = await stub.ListMessages(gateway_pb2.ListMessagesRequest(session_id=interview), metadata=assessor, timeout=5)
    listed = await stub.ListSessions(gateway_pb2.ListSessionsRequest(page_size=200), metadata=assessor, timeout=5)
    chat = gateway_pb2.GetSessionRequest(session_id=opened.session.session_id)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.GetSession(chat, metadata=assessor, timeout=5)

    assert seen.session.session_id == interview
    assert len(said.messages) == 1
    assert {session.kind for session in listed.sessions} == {gateway_pb2.KIND_INTERVIEW}
    assert reason(refused.value) == "NOT_FOUND"


async def test_somebody_elses_session_and_none_get_the_same_not_found(
    product: Product, channel: grpc.aio.Channel
) -> None:
    stub = gateway_pb2_grpc.ConversationServiceStub(channel)
    theirs, absent = await start(stub, signed(product, f"ada-{uuid.uuid4()}")), str(uuid.uuid4())
    eve = signed(product, "eve")

    def calls(target: str) -> dict[str, Awaitable[object]]:
        message = gateway_pb2.SubmitTurnRequest(session_id=target, request_id=str(uuid.uuid4()), text=ANSWER)
        wanted = gateway_pb2.StreamTurnRequest(turn=message)
        return {
            "SubmitTurn": stub.SubmitTurn(message, metadata=eve, timeout=5),
            "StreamTurn": stub.StreamTurn(wanted, metadata=eve, timeout=5).read(),
            "GetSession": stub.GetSession(gateway_pb2.GetSessionRequest(session_id=target), metadata=eve, timeout=5),
            "ListMessages": stub.ListMessages(
                gateway_pb2.ListMessagesRequest(session_id=target), metadata=eve, timeout=5
            ),
            "EndSession": stub.EndSession(gateway_pb2.EndSessionRequest(session_id=target), metadata=eve, timeout=5),
        }

    told: dict[str, set[tuple[str, str | None]]] = {}
    for target in (theirs, absent):
        for method, asked in calls(target).items():
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await asked
            told.setdefault(method, set()).add((reason(caught.value), caught.value.details()))

    assert {method: {why for why, _ in answers} for method, answers in told.items()} == {
        method: {"NOT_FOUND"} for method in told
    }
    assert {len(answers) for answers in told.values()} == {1}


async def test_what_comes_later_says_so(product: Product, channel: grpc.aio.Channel) -> None:
    stub = gateway_pb2_grpc.ConversationServiceStub(channel)

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetReport(gateway_pb2.GetReportRequest(session_id=str(uuid.uuid4())), timeout=5)

    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert reason(caught.value) == "UNIMPLEMENTED"


async def test_a_call_without_a_token_is_unauthenticated(channel: grpc.aio.Channel) -> None:
    stub = gateway_pb2_grpc.ConversationServiceStub(channel)

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ListSessions(gateway_pb2.ListSessionsRequest(), timeout=5)

    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert reason(caught.value) == "UNAUTHENTICATED"


async def test_an_id_that_is_no_uuid_is_malformed(product: Product, channel: grpc.aio.Channel) -> None:
    stub = gateway_pb2_grpc.ConversationServiceStub(channel)

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetSession(
            gateway_pb2.GetSessionRequest(session_id="17"), metadata=signed(product, "ada"), timeout=5
        )

    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert reason(caught.value) == "MALFORMED"

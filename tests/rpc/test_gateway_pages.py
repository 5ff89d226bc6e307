"""Where the sweep's lists go on: history, assessment and llm are one scripted server on a port."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
import pytest_asyncio

from colloquy.assessment.v1 import assessment_pb2, assessment_pb2_grpc
from colloquy.history.v1 import history_pb2, history_pb2_grpc
from colloquy.llm.v1 import llm_pb2, llm_pb2_grpc
from libs.runtime.errors import ColloquyError, Internal, InvalidField, Malformed, Unavailable
from libs.runtime.server import Background
from services.gateway.clearable import Clearable
from services.gateway.composition import Composition
from services.gateway.contexts import Contexts
from services.gateway.erasing import Erasing
from services.gateway.recovery import Recovery
from services.gateway.settling import Settling
from services.gateway.sweep import Duty
from services.gateway.unscored import Unscored
from services.gateway.unsettled import Unsettled
from tests.rpc.gateway_world import wait_for_calls
from tests.rpc.test_gateway_attendance import refuse

Call = grpc.aio.ServicerContext[Any, Any]
DUTIES = ("unsettled", "unscored", "clearable")
PAGES = {"": "first", "first": "second", "second": ""}
"""Where each page ends, by where it starts; the second is followed by the last."""


@dataclass
class Lists:
    """Three pages with nothing to do on them, and what happens to the calls for them, None for nothing."""

    script: list[ColloquyError | None] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    async def page(self, after: str, rpc: Call) -> str:
        """Where the page after this one starts."""
        self.asked.append(after)
        if error := self.script.pop(0) if self.script else None:
            await refuse(rpc, error)
        return PAGES[after]


class History(history_pb2_grpc.HistoryServiceServicer):
    def __init__(self, lists: Lists) -> None:
        self.lists = lists

    async def ListUnsettled(  # noqa: N802
        self, request: history_pb2.ListUnsettledRequest, context: Call
    ) -> history_pb2.ListUnsettledResponse:
        end = await self.lists.page(request.after_session_id, context)
        live = history_pb2.ListUnsettledResponse.Unsettled(
            head=history_pb2.Head(session_id=end or "third"), active=history_pb2.Turn(), lease_left_ms=4000
        )
        return history_pb2.ListUnsettledResponse(streams=[live], more=bool(end))


class Assessment(assessment_pb2_grpc.AssessmentServiceServicer):
    def __init__(self, lists: Lists) -> None:
        self.lists = lists

    async def ListUnscored(  # noqa: N802
        self, request: assessment_pb2.ListUnscoredRequest, context: Call
    ) -> assessment_pb2.ListUnscoredResponse:
        return assessment_pb2.ListUnscoredResponse(next_page_token=await self.lists.page(request.page_token, context))


class Llm(llm_pb2_grpc.LlmServiceServicer):
    def __init__(self, lists: Lists) -> None:
        self.lists = lists

    async def ListClearable(  # noqa: N802
        self, request: llm_pb2.ListClearableRequest, context: Call
    ) -> llm_pb2.ListClearableResponse:
        return llm_pb2.ListClearableResponse(next_page_token=await self.lists.page(request.page_token, context))


@pytest.fixture
def lists() -> Lists:
    return Lists()


@pytest_asyncio.fixture(params=DUTIES)
async def duty(request: pytest.FixtureRequest, lists: Lists, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Duty]:
    """Each of the duties that go through a list."""
    wait_for_calls(monkeypatch)
    server = grpc.aio.server()
    history_pb2_grpc.add_HistoryServiceServicer_to_server(History(lists), server)  # type: ignore[abstract]
    assessment_pb2_grpc.add_AssessmentServiceServicer_to_server(Assessment(lists), server)  # type: ignore[abstract]
    llm_pb2_grpc.add_LlmServiceServicer_to_server(Llm(lists), server)  # type: ignore[abstract]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    background = Background()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as up:
        contexts = Contexts.over(history=up, session=up, assessment=up, llm=up)
        composition, settling = Composition(contexts), Settling(contexts, background)
        recovery = Recovery(contexts, composition, settling, background)
        unsettled = Unsettled(contexts, settling, recovery, Erasing(contexts, settling, background))
        duties: list[Duty] = [unsettled, Unscored(contexts), Clearable(contexts)]
        yield next(duty for duty in duties if duty.name == request.param)
    await server.stop(None)


async def test_a_list_is_gone_through_page_by_page_and_begun_again(duty: Duty, lists: Lists) -> None:
    more = [await duty.round() for _ in range(4)]

    assert more == [True, True, False, True]
    assert lists.asked == ["", "first", "second", ""]


async def test_a_page_that_was_not_answered_is_asked_for_again(duty: Duty, lists: Lists) -> None:
    lists.script = [None, None, Unavailable(), Unavailable()]
    await duty.round()
    await duty.round()

    for _ in range(2):
        with pytest.raises(Unavailable):
            await duty.round()
    await duty.round()

    assert lists.asked == ["", "first", "second", "second", "second"]


@pytest.mark.parametrize("refusal", [InvalidField([]), Malformed(), Internal()])
async def test_a_place_that_is_refused_is_forgotten(duty: Duty, lists: Lists, refusal: ColloquyError) -> None:
    lists.script = [None, refusal]
    await duty.round()

    with pytest.raises(type(refusal)):
        await duty.round()
    await duty.round()

    assert lists.asked == ["", "first", ""]

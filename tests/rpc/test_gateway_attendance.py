"""Who answers a message, when the ledger says each thing that it can say: history is a scripted server on a port."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import grpc
import pytest
import pytest_asyncio

from colloquy.gateway.v1 import record_pb2
from colloquy.history.v1 import history_pb2, history_pb2_grpc
from libs.runtime import context, status
from libs.runtime.errors import (
    ColloquyError,
    FieldViolation,
    Internal,
    InvalidField,
    NotFound,
    RateLimited,
    SessionClosed,
    TurnInProgress,
    Unavailable,
)
from libs.runtime.server import Background
from services.gateway import domain, usecases
from services.gateway.claim import Message
from services.gateway.composition import Composition
from services.gateway.contexts import Contexts
from services.gateway.recovery import Recovery
from services.gateway.settling import Settling
from services.gateway.stopwatch import Stopwatch
from services.gateway.usecases import Budgets, Turns
from tests.rpc.gateway_world import PATIENCE_MS, wait_for_calls

Line = history_pb2.BeginTurnResponse | ColloquyError

TWO_SECONDS = Budgets(2000, PATIENCE_MS)  # for an interview
FOLLOWED_FOR_TWO_SECONDS = 32
"""So many times at least is the ledger asked in two seconds and a little more."""
MESSAGE = Message("session", "ada", history_pb2.KIND_INTERVIEW, "request", "Hello.", None)
COMMITTED = history_pb2.Turn(
    turn_id="turn", state=history_pb2.TURN_STATE_COMMITTED, seq=2, reply_text="Hm.", record=b"", digest=b"d"
)
HEAD = history_pb2.Head(session_id="session", kind=history_pb2.KIND_INTERVIEW, max_turns=100, last_seq=1)
LAST = history_pb2.Turn(
    seq=1,
    state=history_pb2.TURN_STATE_COMMITTED,
    record=record_pb2.TurnRecord(
        next_items=[record_pb2.PlannedItem(item_id="item", skill="skill", wording="What next?")]
    ).SerializeToString(),
)


def in_progress(lease_left_ms: int) -> history_pb2.BeginTurnResponse:
    return history_pb2.BeginTurnResponse(
        in_progress=history_pb2.InProgress(turn_id="turn", lease_left_ms=lease_left_ms)
    )


def owner(*, takeover: bool = False) -> history_pb2.BeginTurnResponse:
    return history_pb2.BeginTurnResponse(
        owner=history_pb2.Owner(
            turn_id="turn", fence=1, base_seq=1, lease_ms=4000, takeover=takeover, head=HEAD, last_turn=LAST
        )
    )


REPLAY = history_pb2.BeginTurnResponse(replay=COMMITTED)


@dataclass
class Ledger(history_pb2_grpc.HistoryServiceServicer):
    """Answers BeginTurn from a script, the last line again and again; commits what it is given."""

    script: list[Line] = field(default_factory=list)
    claims: list[str] = field(default_factory=list)
    replies: list[str] = field(default_factory=list)
    slow_ms: int = 0
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    commits: "history_pb2.CommitTurnResponse.Outcome.ValueType" = history_pb2.CommitTurnResponse.OUTCOME_COMMITTED
    cannot_list: ColloquyError | None = None

    async def BeginTurn(  # noqa: N802
        self, request: history_pb2.BeginTurnRequest, context: grpc.aio.ServicerContext[object, object]
    ) -> history_pb2.BeginTurnResponse:
        self.claims.append(request.claim_id)
        self.asked.set()
        line = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        await asyncio.sleep(self.slow_ms / 1000)
        if isinstance(line, ColloquyError):
            await refuse(context, line)
        assert isinstance(line, history_pb2.BeginTurnResponse)
        return line

    async def CommitTurn(  # noqa: N802
        self, request: history_pb2.CommitTurnRequest, context: grpc.aio.ServicerContext[object, object]
    ) -> history_pb2.CommitTurnResponse:
        self.replies.append(request.reply_text)
        return history_pb2.CommitTurnResponse(outcome=self.commits, turn=COMMITTED, rev=3)

    async def ListTurns(  # noqa: N802
        self, request: history_pb2.ListTurnsRequest, context: grpc.aio.ServicerContext[object, object]
    ) -> history_pb2.ListTurnsResponse:
        if self.cannot_list:
            await refuse(context, self.cannot_list)
        return history_pb2.ListTurnsResponse(turns=[LAST], head=HEAD)


async def refuse(call: grpc.aio.ServicerContext[object, object], error: ColloquyError) -> None:
    """End a call as our servers do."""
    call.set_trailing_metadata(((status.DETAILS_KEY, status.encode(error)), ("grpc-retry-pushback-ms", "-1")))
    await call.abort(status.CODES[error.reason], error.detail)


@pytest_asyncio.fixture
async def ledger() -> AsyncIterator[Ledger]:
    yield Ledger()  # type: ignore[abstract]


@pytest_asyncio.fixture
async def turns(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Turns]:
    """The gateway's turns over the scripted ledger; every other context is down. Nobody is in a hurry."""
    wait_for_calls(monkeypatch)
    server = grpc.aio.server()
    history_pb2_grpc.add_HistoryServiceServicer_to_server(ledger, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    background = Background()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as up, grpc.aio.insecure_channel("127.0.0.1:1") as down:
        await up.channel_ready()  # a deadline of a test's is not for this
        contexts = Contexts.over(history=up, session=down, assessment=down, llm=down)
        composition, settling = Composition(contexts), Settling(contexts, background)
        recovery = Recovery(contexts, composition, settling, background)
        yield Turns(contexts, composition, settling, recovery, background, Budgets(PATIENCE_MS, PATIENCE_MS))
        await background.drain(10)
    await server.stop(None)


async def test_however_many_send_the_same_message_the_ledger_is_asked_once(turns: Turns, ledger: Ledger) -> None:
    ledger.script = [in_progress(4000), REPLAY]

    answers = await asyncio.gather(*(turns.submit(MESSAGE) for _ in range(50)))

    assert {answer.turn.turn_id for answer in answers} == {"turn"}
    assert all(answer.replayed for answer in answers)
    assert len(ledger.claims) == 2


async def test_a_caller_who_leaves_while_the_ledger_decides_leaves_no_orphan(turns: Turns, ledger: Ledger) -> None:
    ledger.script, ledger.slow_ms = [owner()], 100
    asking = asyncio.create_task(turns.submit(MESSAGE))
    await ledger.asked.wait()

    asking.cancel()
    await asyncio.wait({asking})
    answered = await turns.submit(MESSAGE)

    assert answered.turn.turn_id == "turn"
    assert ledger.replies == ["What next?"]


async def test_a_lost_reply_is_asked_for_again_under_the_same_claim(turns: Turns, ledger: Ledger) -> None:
    ledger.script = [Unavailable(), owner()]

    await turns.submit(MESSAGE)

    assert len(ledger.claims) == 2
    assert len(set(ledger.claims)) == 1


async def test_silence_of_the_ledger_is_not_confirmed(turns: Turns, ledger: Ledger) -> None:
    ledger.script = [Unavailable()]

    with pytest.raises(Unavailable) as caught:
        await turns.submit(MESSAGE)

    assert "same request id" in caught.value.detail


async def test_a_short_silence_is_ridden_out_by_who_follows(turns: Turns, ledger: Ledger) -> None:
    ledger.script = [in_progress(4000), Unavailable(), Unavailable(), Unavailable(), REPLAY]

    answered = await turns.submit(MESSAGE)

    assert answered.turn.turn_id == "turn"


async def test_who_follows_too_long_hears_what_is_left_of_the_lease(turns: Turns, ledger: Ledger) -> None:
    ledger.script = [in_progress(4000)]

    watch = Stopwatch()
    with context.serving(budget_ms=1050), pytest.raises(TurnInProgress) as caught:
        await turns.submit(MESSAGE)

    assert caught.value.retry_after_ms is not None
    assert 4000 - watch.elapsed_ms() - 1 <= caught.value.retry_after_ms <= 4000


async def test_an_impatient_follower_does_not_shorten_the_wait_of_a_patient_one(turns: Turns, ledger: Ledger) -> None:
    ledger.script = [*[in_progress(4000)] * 8, REPLAY]

    async def impatient() -> None:
        with context.serving(budget_ms=300):
            await turns.submit(MESSAGE)

    hurried = asyncio.create_task(impatient())
    patient = asyncio.create_task(turns.submit(MESSAGE))

    with pytest.raises(ColloquyError):
        await hurried
    assert (await patient).turn.turn_id == "turn"


async def test_an_expired_turn_is_taken_over_by_its_own_message(turns: Turns, ledger: Ledger) -> None:
    ledger.script = [in_progress(50), owner(takeover=True)]

    await turns.submit(MESSAGE)

    assert ledger.replies == ["What next?"]


async def test_with_too_little_time_left_an_expired_turn_is_left_alone(
    turns: Turns, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usecases, "TAKEOVER_NEEDS_MS", 2 * PATIENCE_MS)
    ledger.script = [in_progress(50), owner(takeover=True)]

    with pytest.raises(TurnInProgress):
        await turns.submit(MESSAGE)

    assert ledger.replies == []


async def test_a_follower_of_a_stream_hears_at_once_that_the_message_is_saved(turns: Turns, ledger: Ledger) -> None:
    ledger.script = [in_progress(4000), in_progress(4000), REPLAY]

    told = [event.WhichOneof("event") async for event in turns.stream(MESSAGE)]

    assert told == ["accepted", "completed"]
    assert len(ledger.claims) == 3


@pytest.mark.parametrize(
    ("script", "replayed"),
    [([owner()], False), ([owner(takeover=True)], False), ([REPLAY], True), ([in_progress(4000), REPLAY], True)],
    ids=["new", "taken over", "answered", "being answered elsewhere"],
)
async def test_a_stream_says_from_the_start_whether_another_request_makes_the_turn(
    turns: Turns, ledger: Ledger, script: list[Line], replayed: bool
) -> None:
    ledger.script = script

    told = [event async for event in turns.stream(MESSAGE)]

    assert (told[0].accepted.replayed, told[-1].completed.replayed) == (replayed, replayed)


async def test_who_joins_a_stream_hears_that_another_request_makes_the_turn(turns: Turns, ledger: Ledger) -> None:
    ledger.script, ledger.slow_ms = [owner()], 50

    first, second = await asyncio.gather(*(anext(turns.stream(MESSAGE)) for _ in range(2)))

    assert (first.accepted.replayed, second.accepted.replayed) == (False, True)


@pytest.mark.parametrize("kind", [history_pb2.KIND_UNSPECIFIED, history_pb2.KIND_CHAT])
async def test_who_follows_a_stream_that_may_be_a_chats_waits_as_long_as_a_chat_takes(
    turns: Turns, ledger: Ledger, kind: history_pb2.Kind.ValueType
) -> None:
    """Elsewhere it is written, so its first words are not to be had here: two seconds bind whoever writes it."""
    turns._budgets = TWO_SECONDS
    ledger.script = [*[in_progress(10_000)] * FOLLOWED_FOR_TWO_SECONDS, REPLAY]

    told = [event.WhichOneof("event") async for event in turns.stream(replace(MESSAGE, kind=kind))]

    assert told == ["accepted", "completed"]


async def test_two_seconds_to_the_first_word_are_a_chats_promise_and_no_limit_of_an_interview(
    turns: Turns, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(domain, "FIRST_DELTA_MS", 50)
    ledger.script, ledger.slow_ms = [owner()], 100

    told = [event.WhichOneof("event") async for event in turns.stream(MESSAGE)]

    assert told == ["accepted", "completed"]


async def test_who_follows_a_stream_until_his_own_deadline_hears_what_is_left_of_the_lease(
    turns: Turns, ledger: Ledger
) -> None:
    ledger.script, watch = [in_progress(10_000)], Stopwatch()

    with context.serving(budget_ms=1050), pytest.raises(TurnInProgress) as caught:
        async for _ in turns.stream(replace(MESSAGE, kind=history_pb2.KIND_UNSPECIFIED)):
            pass

    assert caught.value.retry_after_ms is not None
    assert 10_000 - watch.elapsed_ms() - 1 <= caught.value.retry_after_ms <= 10_000


async def test_an_interview_is_followed_for_no_longer_than_it_may_take(turns: Turns, ledger: Ledger) -> None:
    turns._budgets = TWO_SECONDS
    ledger.script, watch = [in_progress(10_000)], Stopwatch()

    with pytest.raises(TurnInProgress):
        async for _ in turns.stream(MESSAGE):
            pass

    assert watch.elapsed_ms() < 10_000


async def test_a_stream_of_no_kind_that_is_taken_over_is_answered_in_its_sessions_own_time(
    turns: Turns, ledger: Ledger
) -> None:
    ledger.script = [in_progress(50), owner(takeover=True)]

    told = [event async for event in turns.stream(replace(MESSAGE, kind=history_pb2.KIND_UNSPECIFIED))]

    assert [event.WhichOneof("event") for event in told] == ["accepted", "completed"]
    assert ledger.replies == ["What next?"]


@pytest.mark.parametrize("refusal", [SessionClosed(), RateLimited(1200), TurnInProgress(900)])
async def test_a_refusal_is_passed_on_as_it_is(turns: Turns, ledger: Ledger, refusal: ColloquyError) -> None:
    ledger.script = [refusal]

    with pytest.raises(type(refusal)) as caught:
        await turns.submit(MESSAGE)

    assert caught.value.retry_after_ms == refusal.retry_after_ms


async def test_a_repair_that_somebody_else_forestalls_is_no_busy_loop(
    turns: Turns, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usecases, "TAKEOVER_NEEDS_MS", PATIENCE_MS - 900)  # it is given up after 900 ms
    expired = history_pb2.OtherTurn(turn_id="other", fence=1, turn=history_pb2.Turn(turn_id="other", base_seq=1))
    ledger.script = [history_pb2.BeginTurnResponse(other_turn=expired)]
    ledger.commits = history_pb2.CommitTurnResponse.OUTCOME_FENCED

    with pytest.raises(TurnInProgress):
        await turns.submit(MESSAGE)

    assert ledger.replies[0] == "What next?"
    assert len(ledger.claims) <= 14


@pytest.mark.parametrize(
    ("wrong", "heard"),
    [
        (InvalidField([FieldViolation("bank_version", "Not a bank that there is.")]), Internal),
        (Unavailable(), Unavailable),
        (NotFound(), NotFound),
    ],
)
async def test_what_is_wrong_with_another_message_is_not_said_of_this_one(
    turns: Turns, ledger: Ledger, wrong: ColloquyError, heard: type[ColloquyError]
) -> None:
    expired = history_pb2.OtherTurn(turn_id="other", fence=1, turn=history_pb2.Turn(turn_id="other", base_seq=1))
    ledger.script, ledger.cannot_list = [history_pb2.BeginTurnResponse(other_turn=expired)], wrong

    with pytest.raises(heard) as caught:
        await turns.submit(MESSAGE)

    assert "bank" not in caught.value.detail
    assert not caught.value.violations

"""What each action does where it stands: on calls over a channel, on statements of a database, on the metrics port."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import aiohttp
import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from libs.runtime.client import call, open_channel, stream
from libs.runtime.db import Database, Statement
from libs.runtime.errors import DeadlineExceeded, NotFound, Unavailable
from libs.runtime.server import Server
from libs.runtime.telemetry import MetricsServer
from tests.conftest import FreshDatabase
from tests.rpc.failpoints_world import AskFor, ask_for, counts

__all__ = ["ask_for"]  # a fixture

COMMIT = "gateway.history.commit_turn"
GENERATE = "gateway.llm.stream_generate"
CREATE = Statement("create", "CREATE TABLE history.notes (id int PRIMARY KEY)")
INSERT = Statement("history_commit", "INSERT INTO history.notes (id) VALUES (%(id)s)")
NOTES = Statement("notes", "SELECT id FROM history.notes ORDER BY id")


class Ledger:
    """Stands where the gateway's calls go: CommitTurn of history, StreamGenerate of llm."""

    def __init__(self) -> None:
        self.committed: list[str] = []
        self.told: list[str] = []
        self.left = asyncio.Event()

    async def commit(self, request: StringValue, _: Any) -> StringValue:
        if request.value == "absent":
            raise NotFound
        self.committed.append(request.value)
        return request

    async def tell(self, request: StringValue, _: Any) -> AsyncIterator[StringValue]:
        try:
            for word in request.value.split():
                self.told.append(word)
                yield StringValue(value=word)
            if request.value == "wait":
                await asyncio.Event().wait()
        finally:
            self.left.set()

    def register(self, server: grpc.aio.Server) -> None:
        codec = (StringValue.FromString, StringValue.SerializeToString)
        commit = grpc.unary_unary_rpc_method_handler(self.commit, *codec)
        tell = grpc.unary_stream_rpc_method_handler(self.tell, *codec)
        server.add_registered_method_handlers("colloquy.history.v1.HistoryService", {"CommitTurn": commit})
        server.add_registered_method_handlers("colloquy.llm.v1.LlmService", {"StreamGenerate": tell})


class Gateway:
    """A client with the gateway's points."""

    def __init__(self, port: int) -> None:
        self.channel = open_channel(f"127.0.0.1:{port}")
        codec = (StringValue.SerializeToString, StringValue.FromString)
        self._commit: Any = self.channel.unary_unary("/colloquy.history.v1.HistoryService/CommitTurn", *codec)
        self._tell: Any = self.channel.unary_stream("/colloquy.llm.v1.LlmService/StreamGenerate", *codec)

    async def commit(self, text: str = "a turn", cap_ms: float = 5000) -> str:
        reply: StringValue = await call(self._commit, StringValue(value=text), cap_ms)
        return reply.value

    async def words(self, text: str, cap_ms: float = 5000) -> AsyncGenerator[str, None]:
        async with aclosing(stream(self._tell, StringValue(value=text), cap_ms)) as messages:
            async for message in messages:
                yield message.value


@asynccontextmanager
async def composed() -> AsyncIterator[tuple[Gateway, Ledger]]:
    ledger = Ledger()
    server = Server("test", ("127.0.0.1", 0), [ledger.register])
    await server.start()
    gateway = Gateway(server.port)
    try:
        yield gateway, ledger
    finally:
        await gateway.channel.close()
        await server.drain()


# -- calls -------------------------------------------------------------------------------------------------------------


async def test_a_call_with_nothing_armed_is_answered_and_counted(ask_for: AskFor) -> None:
    ask_for("gateway", "")
    async with composed() as (gateway, ledger):
        assert await gateway.commit() == "a turn"

    assert ledger.committed == ["a turn"]
    assert counts(f"{COMMIT}.before") == counts(f"{COMMIT}.after") == (1, 0)


async def test_an_error_before_a_call_is_an_unreachable_service_that_has_done_nothing(ask_for: AskFor) -> None:
    ask_for("gateway", f"{COMMIT}.before=1*error")
    async with composed() as (gateway, ledger):
        with pytest.raises(Unavailable):
            await gateway.commit()

        assert ledger.committed == []
        assert await gateway.commit() == "a turn"
    assert counts(f"{COMMIT}.before") == (2, 1)


async def test_an_error_after_a_call_is_a_lost_reply_to_what_was_done_once(ask_for: AskFor) -> None:
    ask_for("gateway", f"{COMMIT}.after=error")
    async with composed() as (gateway, ledger):
        with pytest.raises(Unavailable):
            await gateway.commit()

    assert ledger.committed == ["a turn"]


async def test_what_the_service_refuses_is_refused_and_not_done(ask_for: AskFor) -> None:
    ask_for("gateway", f"{COMMIT}.after=error")
    async with composed() as (gateway, _):
        with pytest.raises(NotFound):
            await gateway.commit("absent")

    assert counts(f"{COMMIT}.after") == (0, 0)


@pytest.mark.parametrize(("when", "done"), [("before", []), ("after", ["a turn"])])
async def test_a_sleep_ends_with_the_callers_patience(ask_for: AskFor, when: str, done: list[str]) -> None:
    ask_for("gateway", f"{COMMIT}.{when}=sleep=60000")
    async with composed() as (gateway, ledger):
        with pytest.raises(DeadlineExceeded):
            await gateway.commit(cap_ms=500)

    assert ledger.committed == done


async def test_a_short_sleep_is_only_late(ask_for: AskFor) -> None:
    ask_for("gateway", f"{COMMIT}.before=sleep=1;{COMMIT}.after=sleep=1")
    async with composed() as (gateway, _):
        assert await gateway.commit() == "a turn"

    assert counts(f"{COMMIT}.before") == counts(f"{COMMIT}.after") == (1, 1)


async def test_a_cancelled_caller_ends_a_sleep_too(ask_for: AskFor) -> None:
    ask_for("gateway", f"{COMMIT}.before=sleep=60000")
    async with composed() as (gateway, ledger):
        asking = asyncio.create_task(gateway.commit())
        async with asyncio.timeout(10):
            while counts(f"{COMMIT}.before") == (0, 0):
                assert [word async for word in gateway.words("hello")] == ["hello"]  # the round trip is the pause
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    assert ledger.committed == []


@pytest.mark.parametrize("text", ["what was said before", ""])
async def test_a_stream_with_nothing_armed_is_heard_whole(ask_for: AskFor, text: str) -> None:
    ask_for("gateway", "")
    async with composed() as (gateway, _):
        assert [word async for word in gateway.words(text)] == text.split()

    assert counts(f"{GENERATE}.before") == counts(f"{GENERATE}.after") == (1, 0)


async def test_an_error_before_a_stream_leaves_it_unasked_for(ask_for: AskFor) -> None:
    ask_for("gateway", f"{GENERATE}.before=error")
    async with composed() as (gateway, ledger):
        with pytest.raises(Unavailable):
            [word async for word in gateway.words("never said")]

    assert ledger.told == []


async def test_an_error_after_a_stream_has_begun_loses_what_has_come_and_ends_it(ask_for: AskFor) -> None:
    ask_for("gateway", f"{GENERATE}.after=error")
    async with composed() as (gateway, ledger):
        with pytest.raises(Unavailable):
            await anext(gateway.words("wait"))
        await asyncio.wait_for(ledger.left.wait(), 10)

    assert ledger.told == ["wait"]


async def test_a_sleep_in_a_stream_ends_with_the_callers_patience(ask_for: AskFor) -> None:
    ask_for("gateway", f"{GENERATE}.after=sleep=60000")
    async with composed() as (gateway, ledger):
        with pytest.raises(DeadlineExceeded):
            [word async for word in gateway.words("wait", cap_ms=500)]
        await asyncio.wait_for(ledger.left.wait(), 10)


async def test_leaving_a_stream_ends_it_at_the_service(ask_for: AskFor) -> None:
    ask_for("gateway", "")
    async with composed() as (gateway, ledger):
        async with aclosing(gateway.words("wait")) as words:
            assert await anext(words) == "wait"
        await asyncio.wait_for(ledger.left.wait(), 10)


# -- statements --------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def a_table(fresh_database: FreshDatabase) -> AsyncIterator[Database]:
    database = Database(fresh_database().dsns["history"], "history")
    await database.execute(CREATE)
    try:
        yield database
    finally:
        await database.close()


async def noted(database: Database) -> list[int]:
    return [row.id for row in await database.all(NOTES)]


@pytest.mark.parametrize(("when", "kept"), [("before", []), ("after", [1])])
async def test_an_error_at_a_transaction_is_an_outage_and_the_next_goes_through(
    fresh_database: FreshDatabase, ask_for: AskFor, when: str, kept: list[int]
) -> None:
    ask_for("history", f"history.commit.{when}=1*error")
    async with a_table(fresh_database) as database:
        with pytest.raises(Unavailable):
            await database.execute(INSERT, {"id": 1})

        assert await noted(database) == kept
        assert await database.execute(INSERT, {"id": 2}) == 1
    assert counts(f"history.commit.{when}") == (2, 1)


@pytest.mark.parametrize(("when", "kept"), [("before", []), ("after", [1, 2])])
async def test_a_transaction_of_several_statements_has_its_points_around_all_of_them(
    fresh_database: FreshDatabase, ask_for: AskFor, when: str, kept: list[int]
) -> None:
    async def note_both(database: Database) -> None:
        async with database.transaction("history_commit") as transaction:
            await transaction.execute(INSERT, {"id": 1})
            await transaction.execute(INSERT, {"id": 2})

    ask_for("history", f"history.commit.{when}=1*error")
    async with a_table(fresh_database) as database:
        with pytest.raises(Unavailable):
            await note_both(database)

        assert await noted(database) == kept
    assert counts(f"history.commit.{when}") == (1, 1)


async def test_a_sleep_at_a_transaction_delays_its_answer(fresh_database: FreshDatabase, ask_for: AskFor) -> None:
    ask_for("history", "history.commit.after=sleep=60000")
    async with a_table(fresh_database) as database:
        asking = asyncio.create_task(database.execute(INSERT, {"id": 1}))
        async with asyncio.timeout(10):
            while not await noted(database):
                pass

        assert not asking.done()
        asking.cancel()
        await asyncio.wait({asking})


async def test_statements_that_are_no_step_have_no_points(fresh_database: FreshDatabase, ask_for: AskFor) -> None:
    ask_for("history", "history.commit.before=error")
    async with a_table(fresh_database) as database:
        assert await noted(database) == []


# -- the metrics port --------------------------------------------------------------------------------------------------


@asynccontextmanager
async def metrics_port() -> AsyncIterator[Callable[..., Any]]:
    """Ask a metrics port of this process: status and text by method and body."""
    server = MetricsServer(("127.0.0.1", 0), lambda: True)
    await server.start()
    async with aiohttp.ClientSession() as http:

        async def ask(method: str, body: str | None = None) -> tuple[int, str]:
            url = f"http://127.0.0.1:{server.port}/failpoints"
            async with http.request(method, url, data=body) as response:
                return response.status, await response.text()

        yield ask
    await server.stop()


async def test_the_metrics_port_tells_what_is_armed_and_what_came_of_it(ask_for: AskFor) -> None:
    ask_for("gateway", f"{COMMIT}.before=1*error")
    async with composed() as (gateway, _), metrics_port() as ask:
        with pytest.raises(Unavailable):
            await gateway.commit()
        await gateway.commit()

        status, text = await ask("GET")

    told = json.loads(text)
    assert (status, told["service"]) == (200, "gateway")
    assert told["points"][f"{COMMIT}.before"] == {"action": "1*error", "reached": 2, "fired": 1}
    assert told["points"][f"{COMMIT}.after"] == {"action": "", "reached": 1, "fired": 0}


async def test_what_is_put_replaces_what_is_armed_and_is_counted_anew(ask_for: AskFor) -> None:
    ask_for("gateway", f"{COMMIT}.before=error")
    async with composed() as (gateway, _), metrics_port() as ask:
        with pytest.raises(Unavailable):
            await gateway.commit()

        status, _ = await ask("PUT", f"{COMMIT}.after=10%2*sleep=5")

        assert status == 200
        assert await gateway.commit() == "a turn"
        armed = json.loads((await ask("GET"))[1])["points"]
    assert armed[f"{COMMIT}.before"] == {"action": "", "reached": 1, "fired": 0}
    assert armed[f"{COMMIT}.after"]["action"] == "10%2*sleep=5"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (f"{COMMIT}.before=explode", "must be [P%][N*]"),
        ("history.comit.after=exit", "did you mean history.commit.after?"),
        ("history.commit.after=exit", "of another process: history.commit.after (history)"),
    ],
)
async def test_what_cannot_be_armed_here_is_refused_and_changes_nothing(ask_for: AskFor, body: str, said: str) -> None:
    ask_for("gateway", f"{COMMIT}.before=error")
    async with metrics_port() as ask:
        before = await ask("GET")

        status, text = await ask("PUT", body)

        assert status == 400
        assert said in text
        assert await ask("GET") == before


async def test_where_failpoints_are_not_asked_for_the_metrics_port_has_none(ask_for: AskFor) -> None:
    async with metrics_port() as ask:
        assert [(await ask("GET"))[0], (await ask("PUT", ""))[0]] == [404, 404]

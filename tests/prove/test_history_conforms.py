"""The real ledger answers every history as the model does that the search has searched, and its tables agree.

A step is one RPC, or the passing of a lease. Everything is answered twice, by `services.history` on PostgreSQL and by
the model; then the tables are read as the model would have them.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from libs.runtime.db import Statement
from services.history import statements
from services.history.commands import TurnRange
from services.history.domain import TurnState
from tests.databases import Database
from tests.db.history_world import ALICE, Connection, World, ledger
from tests.prove.histories import histories
from tests.prove.model.ledger import ABANDONED, FAILED, NOBODY, RUNNING, Reply, opened, opened_by
from tests.prove.reference import MAX_TURNS, REQUESTS, Answer, Real, Reference, comparable, stored

LEASE_MS = 3_600_000  # ends only where a history says so
OPENING = 0
LATE = 18
"""How many steps a history has before End or Erase may come."""


class Ledgers(RuleBasedStateMachine):
    """One history, told to both."""

    world: ClassVar[World]
    connection: ClassVar[Connection]
    run: ClassVar[Callable[[Awaitable[Any]], Any]]
    answers: ClassVar[Counter[str]]

    def __init__(self) -> None:
        super().__init__()
        session_id = type(self).run(self.world.opened(max_turns=MAX_TURNS, lease_ms=LEASE_MS))
        self.real = Real(self.world, self.connection, session_id)
        self.model = Reference(opened(len(REQUESTS)))
        self.claims = dict.fromkeys(REQUESTS, 0)
        self.held: list[tuple[int, int]] = []
        self.revs = [1]
        self.steps = 0

    @initialize(with_opening=st.sampled_from([False, False, True]))
    def open(self, with_opening: bool) -> None:
        """A chat, or an interview that begins with its opening."""
        if with_opening:
            limits = {"max_turns": MAX_TURNS, "lease_ms": LEASE_MS}
            self.real = type(self).run(Real.opened_by(self.world, self.connection, OPENING, 1, **limits))
            self.model = Reference(opened_by(OPENING, 1, len(REQUESTS)), opening=OPENING)
            self.claims[OPENING] = 1
            self.held.append((OPENING, 1))

    @property
    def waiting(self) -> list[int]:
        """The requests that were accepted and not answered."""
        return [it for it, turn in enumerate(self.model.ledger.turns) if turn.state in (RUNNING, ABANDONED)]

    @property
    def overtaken(self) -> list[tuple[int, int]]:
        """Claims on the active turn that are not held any more."""
        stream = self.model.ledger.stream
        return [(request, fence) for request, fence in self.held if request == stream.active and fence != stream.fence]

    @rule(request=st.sampled_from(REQUESTS), unheard=st.booleans())
    def begin(self, request: int, unheard: bool) -> None:
        """A new gateway sends a request, or the one that sent it last has not heard the answer."""
        if not unheard or not self.claims[request]:
            self.claims[request] = max(self.claims.values()) + 1
        answer = self.same(lambda it: it.begin(request, self.claims[request]))
        if answer[0] == "OWNER":
            self.held.append((request, self.model.ledger.stream.fence))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), item=st.integers(0, 2), phrased=st.booleans(), final=st.integers(0, 9))
    def commit(self, data: st.DataObject, item: int, phrased: bool, final: int) -> None:
        """Whoever has ever held a claim answers under it."""
        request, fence = data.draw(st.sampled_from(self.held[-3:]))
        reply = Reply(item, item, phrased, final=final == 0)
        self.same(lambda it: it.commit(request, fence, reply))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), in_time=st.booleans())
    def send_again(self, data: st.DataObject, in_time: bool) -> None:
        """A client sends what was not answered again, perhaps once the lease is over: another gateway takes over."""
        request = data.draw(st.sampled_from(self.waiting))
        if not in_time and self.model.ledger.stream.live:
            self.expire()
        self.begin(request, unheard=False)

    @rule(request=st.sampled_from(REQUESTS), item=st.integers(0, 2))
    def converse(self, request: int, item: int) -> None:
        """A request is sent and, if it may be, answered at once."""
        self.begin(request, unheard=False)
        if self.model.ledger.stream.active == request:
            self.same(lambda it: it.commit(request, self.model.ledger.stream.fence, Reply(item, item, True, False)))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), for_good=st.booleans())
    def release(self, data: st.DataObject, for_good: bool) -> None:
        """Whoever has ever held a claim gives it back."""
        request, fence = data.draw(st.sampled_from(self.held[-3:]))
        state, reason = (FAILED, "INVALID_FIELD") if for_good else (ABANDONED, "UNAVAILABLE")
        self.same(lambda it: it.release(request, fence, state, reason))

    @precondition(lambda self: self.overtaken)
    @rule(data=st.data())
    def wake_up_and_answer(self, data: st.DataObject) -> None:
        """An owner that paused goes on after somebody has taken over, and does not know it."""
        request, fence = data.draw(st.sampled_from(self.overtaken))
        self.same(lambda it: it.commit(request, fence, Reply(0, 0, True, False)))

    @precondition(lambda self: self.overtaken)
    @rule(data=st.data())
    def wake_up_and_give_back(self, data: st.DataObject) -> None:
        request, fence = data.draw(st.sampled_from(self.overtaken))
        self.same(lambda it: it.release(request, fence, ABANDONED, "UNAVAILABLE"))

    @precondition(lambda self: self.model.ledger.stream.live)
    @rule()
    def expire(self) -> None:
        self.model.expire()
        type(self).run(self.real.expire())

    @precondition(lambda self: self.model.ledger.stream.active != NOBODY and not self.model.ledger.stream.live)
    @rule(item=st.integers(0, 2))
    def repair(self, item: int) -> None:
        """The sweep answers what has expired, under the fence that it was found with."""
        request, fence = self.model.ledger.stream.active, self.model.ledger.stream.fence
        self.same(lambda it: it.commit(request, fence, Reply(item, item, phrased=False, final=False)))

    @precondition(lambda self: self.model.ledger.stream.acked_rev < self.model.ledger.stream.rev)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        """Somebody has settled the stream as it was at some time."""
        rev = data.draw(st.sampled_from(self.revs[-3:]))
        self.same(lambda it: it.acknowledge(rev))

    @precondition(lambda self: self.steps > LATE - 6 and self.model.ledger.stream.active != NOBODY)
    @precondition(lambda self: len(self.waiting) > 1)
    @rule(item=st.integers(0, 2))
    def conclude(self, item: int) -> None:
        """The last words are said while others, who gave their turns back, wait."""
        request, fence = self.model.ledger.stream.active, self.model.ledger.stream.fence
        self.same(lambda it: it.commit(request, fence, Reply(item, item, phrased=True, final=True)))

    @precondition(lambda self: self.steps > LATE)
    @rule()
    def end(self) -> None:
        self.same(lambda it: it.seal())

    @precondition(lambda self: self.steps > LATE + 4)
    @rule()
    def erase(self) -> None:
        self.same(lambda it: it.erase())

    @precondition(lambda self: self.model.ledger.stream.active != NOBODY)
    @rule()
    def reset(self) -> None:
        """An operator ends whatever claim is held."""
        self.same(lambda it: it.reset())

    @invariant()
    def the_tables_agree(self) -> None:
        self.steps += 1
        self.revs.append(self.model.ledger.stream.rev)
        type(self).run(self.agree())

    def same(self, ask: Callable[[Any], Any]) -> Answer:
        """Ask both, and return the answer that both give."""
        answer: Answer = ask(self.model)
        assert type(self).run(ask(self.real)) == answer
        self.answers[str(answer[0])] += 1
        return answer

    def teardown(self) -> None:
        type(self).run(self.world.check(self.real.session_id))

    async def agree(self) -> None:
        expected = self.model.ledger
        assert await self.real.read() == comparable(expected)
        if expected.stream.erased:
            return
        sight = await self.world.history.get_stream(self.real.session_id, ALICE)
        pending = [it for it in expected.turns if it.state == RUNNING] or [
            it for it in expected.turns if it.state == ABANDONED and it.base == expected.stream.last_seq
        ]
        assert (stored(sight.pending) in pending) if sight.pending else not pending, "I6"
        span = TurnRange(0, 0, 200, newest=False)
        _, listed = await self.world.history.list_turns(self.real.session_id, ALICE, span)
        assert [stored(turn) for turn in listed] == [expected.turns[it] for it in expected.chain()], "I6"
        assert all(turn.state is TurnState.COMMITTED for turn in listed)


@pytest.fixture
def machine(database: Database) -> Iterator[type[Ledgers]]:
    """The machine, on a ledger and an event loop of its own: Hypothesis calls its steps, which do not wait."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        stack = AsyncExitStack()
        Ledgers.run = runner.run  # type: ignore[assignment]
        Ledgers.world = runner.run(stack.enter_async_context(ledger(database.dsns["history"])))
        Ledgers.answers = Counter()
        Ledgers.connection = runner.run(stack.enter_async_context(Ledgers.world.connected()))
        yield Ledgers
        runner.run(stack.aclose())


ANSWERS = {
    *("OWNER", "InProgress", "OtherTurn", "REPLAY", "SESSION_CLOSED", "SESSION_LIMIT", "NOT_FOUND"),
    *("COMMITTED", "DUPLICATE", "FENCED", "ITEM_ALREADY_ASKED"),
    *("RELEASED", "SEALED", "ERASED", "RESET", "INVALID_FIELD", "ACKNOWLEDGED"),
}


@pytest.mark.timeout(3600)
def test_the_ledger_answers_as_the_model_that_was_searched(machine: type[Ledgers]) -> None:
    run_state_machine_as_test(machine, settings=histories(60, 30))

    assert set(machine.answers) == ANSWERS, "the histories meet everything that can be answered"


@pytest.mark.parametrize(
    ("name", "demand", "instead"),
    [
        ("TAKE_OVER", "fence = fence + 1", "fence = fence"),
        ("COMMIT", "AND s.fence = %(fence)s", ""),
        ("RELEASE", "AND fence = %(fence)s", ""),
        ("SEAL", "OR t.state = 'ABANDONED'", ""),
        ("COMMIT", "FROM s WHERE %(final)s AND", "FROM s WHERE false AND"),
        ("ACKNOWLEDGE", "AND s.rev = seen.rev", ""),
    ],
)
def test_a_ledger_without_one_demand_is_told_from_the_model(
    machine: type[Ledgers], monkeypatch: pytest.MonkeyPatch, name: str, demand: str, instead: str
) -> None:
    statement: Statement = getattr(statements, name)
    assert demand in statement.sql
    monkeypatch.setattr(statements, name, replace(statement, sql=statement.sql.replace(demand, instead)))

    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine, settings=settings(histories(60, 30), phases=[Phase.generate]))

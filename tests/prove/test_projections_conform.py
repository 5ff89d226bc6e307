"""The real directory and the real evidence fold what the model folds, whatever they are offered and in which order.

The ledger is the real one and grows meanwhile; runs of it are offered as somebody read them long ago, twice, with gaps,
before the session is entered and after it is erased. Scores come before their turn is folded, or after, or again.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from libs.folding.runs import Run
from libs.runtime.errors import NotFound
from services.assessment import evidence
from services.assessment.domain import ItemId, Level, Score
from services.assessment.judging import Verdict
from services.history.commands import TurnRange
from services.history.domain import Head, SessionId, Turn
from services.session.domain import SessionId as ListedId
from services.session.entries import Reading, gained
from services.session.listing import Viewer
from services.verifier.reader import Reader
from services.verifier.rows import SessionId as CheckedId
from services.verifier.verification import check
from tests.databases import Database
from tests.db.history_world import ALICE, OPERATOR, interview, owner
from tests.db.verifier_world import BANK, FACTS, PERSONAL, World, assessed, counted, listed, world
from tests.prove.histories import histories
from tests.prove.model.projections import Projection, apply

EVERYBODY = Viewer(None, None)
MAX_TURNS = 5
LATE = 20
"""How many steps a history has before Erase may come."""


class Projections(RuleBasedStateMachine):
    """One interview, folded by both."""

    world: ClassVar[World]
    run: ClassVar[Callable[[Awaitable[Any]], Any]]
    outcomes: ClassVar[Counter[str]]

    head: Head

    def __init__(self) -> None:
        super().__init__()
        self.directory, self.evidence = Projection(), Projection()
        self.turns: list[Turn] = []
        self.scores: dict[int, Level] = {}
        self.steps = 0
        type(self).run(self.open())

    async def open(self) -> None:
        new = interview(facts=FACTS.SerializeToString(), personal_facts=PERSONAL.SerializeToString())
        opened = await self.world.history.history.open_stream(new)
        await self.world.commit(owner(opened), 0, 0)
        self.session_id = opened.head.session_id
        await self.read()

    @property
    def chain(self) -> tuple[int, ...]:
        return tuple(range(len(self.turns)))

    @precondition(lambda self: not self.head.sealed and len(self.turns) < MAX_TURNS)
    @rule()
    def exchange(self) -> None:
        """The ledger grows by a turn."""
        type(self).run(self.converse())

    async def converse(self) -> None:
        held = await self.world.begun(evidence.SessionId(self.session_id))  # type: ignore[arg-type]
        await self.world.called(held, "question")
        await self.world.called(held, "judge")
        await self.world.commit(held, len(self.turns), 2)
        await self.read()

    @rule()
    def enter(self) -> None:
        """CreateSession, also once more."""
        made = type(self).run(found(self.world.directory.create(listed(self.head))))
        self.directory = entered(self.directory, made)

    @rule()
    def start(self) -> None:
        """StartInterview, also once more."""
        session_id = evidence.SessionId(self.session_id)
        made = type(self).run(found(self.world.interviews.start(session_id, FACTS.plan, BANK.version, "")))
        self.evidence = entered(self.evidence, made)

    @rule(data=st.data())
    def fold(self, data: st.DataObject) -> None:
        """ApplyTurns of both, with the turns from some seq on of the ledger as it was at some time."""
        last = data.draw(st.integers(0, len(self.turns)), label="last_seq")
        first = data.draw(st.integers(1, last + 1), label="from seq")
        sealed = self.head.sealed and last == len(self.turns)
        outcomes = []
        for name in ("directory", "evidence"):
            outcome, after = apply(getattr(self, name), self.chain[:last], first, sealed=sealed)
            setattr(self, name, after)
            outcomes.append(outcome)
            self.outcomes[outcome] += 1
        assert type(self).run(self.offer(self.turns[first - 1 : last], last, sealed)) == outcomes

    async def offer(self, turns: list[Turn], last_seq: int, sealed: bool) -> list[str]:
        listing = Run(self.session_id, tuple(map(counted, turns)), last_seq, sealed)
        [one] = await self.world.directory.apply([Reading(listing, self.head.sealed_at if sealed else None)])
        [other] = await self.world.interviews.apply(
            [Run(self.session_id, tuple(map(assessed, turns)), last_seq, sealed)]
        )
        return [one.outcome.value, other.outcome.value]

    @precondition(lambda self: len(self.turns) > 1)
    @rule(data=st.data(), level=st.integers(0, 3))
    def score(self, data: st.DataObject, level: int) -> None:
        """A judge's verdict on one answer arrives; the first one counts."""
        seq = data.draw(st.integers(2, len(self.turns)), label="seq")
        standing = type(self).run(self.judged(self.turns[seq - 1], Level(level)))
        if self.evidence.state != "OPEN":
            assert standing is None
            return
        assert standing.level == self.scores.setdefault(seq, Level(level))

    async def judged(self, turn: Turn, level: Level) -> evidence.Standing | None:
        verdict = Verdict(level, ("an index",), 0, "It names an index.", 0.9)
        scored = evidence.Scored(verdict, Score(level, 0.5), "judge/v1", "a-model")
        key = evidence.AnswerKey(evidence.SessionId(self.session_id), evidence.TurnId(turn.turn_id))
        return await self.world.evidence.score(key, ItemId(turn.item_answered), scored, 0)

    @precondition(lambda self: self.steps > LATE // 2 and not self.head.sealed)
    @rule()
    def end(self) -> None:
        type(self).run(self.world.history.history.seal_stream(SessionId(self.session_id), ALICE))
        type(self).run(self.read())

    @precondition(lambda self: self.steps > LATE and not self.head.erased)
    @rule()
    def erase(self) -> None:
        """Erase begins with the ledger; whoever has read it before may go on."""
        self.head = type(self).run(self.world.history.history.erase_stream(SessionId(self.session_id), OPERATOR))

    @precondition(lambda self: self.head.erased)
    @rule()
    def erase_session(self) -> None:
        type(self).run(self.world.directory.erase(ListedId(self.session_id)))
        self.directory = Projection("ERASED")

    @precondition(lambda self: self.head.erased)
    @rule()
    def erase_interview(self) -> None:
        type(self).run(self.world.interviews.erase(evidence.SessionId(self.session_id)))
        self.evidence = Projection("ERASED")

    @invariant()
    def both_have_folded_the_same(self) -> None:
        self.steps += 1
        type(self).run(self.agree())

    async def agree(self) -> None:
        entry = await found(self.world.directory.get(ListedId(self.session_id), EVERYBODY))
        if self.directory.state == "OPEN":
            folded = self.turns[: len(self.directory.folded)]
            assert (entry.position.applied_seq, entry.position.completed) == standing(self.directory)
            assert entry.totals == gained(counted(turn) for turn in folded), "I2"
        else:
            assert entry is None
        read = await self.world.evidence.read(evidence.SessionId(self.session_id))
        if self.evidence.state == "OPEN":
            assert read is not None
            folded = self.turns[: len(self.evidence.folded)]
            assert (read.position.applied_seq, read.position.completed) == standing(self.evidence)
            assert list(read.asked) == [turn.item_asked for turn in folded], "I2"
            scores = {ItemId(self.turns[seq - 1].item_answered): it for seq, it in self.scores.items()}
            answered = {ItemId(turn.item_answered) for turn in folded[1:]}
            assert {it.item: it.score.level for it in read.scored} == {
                item: level for item, level in scores.items() if item in answered
            }, "I2"
        else:
            assert read is None

    async def read(self) -> None:
        span = TurnRange(0, 0, 200, newest=False)
        self.head, self.turns = await self.world.history.history.list_turns(SessionId(self.session_id), ALICE, span)

    def teardown(self) -> None:
        report = type(self).run(check(Reader(self.world.pools), [CheckedId(self.session_id)]))
        assert not report.violations


def standing(projection: Projection) -> tuple[int, bool]:
    return len(projection.folded), projection.completed


def entered(projection: Projection, made: object) -> Projection:
    """A projection after its session was entered, or not, because of a tombstone."""
    assert (made is None) == (projection.state == "ERASED")
    return Projection("OPEN") if projection.state == "ABSENT" else projection


async def found(answer: Awaitable[Any]) -> Any:
    """An answer, None for NOT_FOUND."""
    try:
        return await answer
    except NotFound:
        return None


@pytest.fixture
def machine(database: Database) -> Iterator[type[Projections]]:
    """The machine, on contexts and an event loop of its own."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        stack = AsyncExitStack()
        Projections.run = runner.run  # type: ignore[assignment]
        Projections.outcomes = Counter()
        Projections.world = runner.run(stack.enter_async_context(world(database)))
        yield Projections
        runner.run(stack.aclose())


@pytest.mark.timeout(3600)
def test_projections_fold_as_the_model_that_was_searched(machine: type[Projections]) -> None:
    run_state_machine_as_test(machine, settings=histories(30, 40))

    # DIVERGED: a run that ends before the projection does, for all that can be told a ledger that was restored.
    assert set(machine.outcomes) == {"OK", "DUPLICATE", "GAP", "ABSENT", "ERASED", "DIVERGED"}, "every outcome is met"

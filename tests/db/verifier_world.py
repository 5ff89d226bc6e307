"""Sessions in all contexts on a real database, made by the services' use cases and stores, for the verifier to read."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from uuid import UUID

import psycopg

from colloquy.gateway.v1 import gateway_pb2, record_pb2
from libs.folding.runs import Digest, Run
from libs.runtime.db import Database as Pool
from libs.runtime.errors import NotFound
from services.assessment import evidence
from services.assessment.bankfile import read_banks
from services.assessment.catalogue import Catalogue
from services.assessment.domain import ItemId, Level, Score
from services.assessment.judging import Verdict
from services.assessment.store import Store as EvidenceStore
from services.assessment.usecases import Interviews
from services.history.commands import TurnRange
from services.history.domain import Head, Kind, Turn
from services.history.domain import SessionId as LedgerId
from services.history.usecases import Opened, Owner
from services.llm_gateway import domain as llm
from services.llm_gateway.store import Held, Intent
from services.llm_gateway.store import Store as CallStore
from services.session.domain import Kind as ListedKind
from services.session.domain import NanoUsd, NewSession, OwnerId, Totals
from services.session.domain import SessionId as ListedId
from services.session.entries import AppliedTurn, Reading
from services.session.store import Store as DirectoryStore
from services.session.usecases import Directory
from services.verifier.rows import SessionId
from tests.databases import Database
from tests.db import history_world
from tests.db.history_world import ALICE, chat, interview, message, owner, reply

BANK = read_banks()[0]
ITEMS = [item.id for item in BANK.items]
FACTS = record_pb2.SessionFacts(plan="backend-engineer", versions={"bank": BANK.version})
PERSONAL = record_pb2.PersonalFacts(candidate_name="Zoë", metadata={"team": "blue"})
CEILING = llm.NanoUsd(75_000)
USED = llm.Usage(100, 10, llm.NanoUsd(21_000))
SETTLED = llm.AttemptEnd(llm.AttemptState.SETTLED, USED, 200)
RESULT = llm.Completion("And then?", "stop", "a-model")


@dataclass(frozen=True, slots=True)
class World:
    """All contexts, and the database that they are in."""

    database: Database
    history: history_world.World
    directory: Directory
    interviews: Interviews
    evidence: EvidenceStore
    calls: CallStore
    pools: Mapping[str, Pool]

    async def interview(self, turns: int = 3) -> SessionId:
        """An interview with an opening and answers, each phrased and judged; folded and acknowledged."""
        opened = await self._opened()
        session_id = SessionId(opened.head.session_id)
        await self.interviews.start(evidence.SessionId(session_id), FACTS.plan, BANK.version, "")
        await self.directory.create(listed(opened.head))
        await self.commit(owner(opened), 0, 0)
        for number in range(1, turns):
            await self.exchange(session_id, number)
        await self.settle(session_id)
        return session_id

    async def chat(self, turns: int = 2, **changes: object) -> SessionId:
        """A chat, folded and acknowledged."""
        facts = record_pb2.SessionFacts(versions={"chat": "chat/v1"})
        opened = await self.history.history.open_stream(
            chat(facts=facts.SerializeToString(), personal_facts=b"", **changes)
        )
        await self.directory.create(listed(opened.head))
        session_id = SessionId(opened.head.session_id)
        for _ in range(turns):
            held = await self.begun(session_id)
            await self.called(held, "chat")
            await self.commit(held, None, 1)
        await self.settle(session_id)
        return session_id

    async def opened(self) -> SessionId:
        """An interview that only the ledger has yet."""
        return SessionId((await self._opened()).head.session_id)

    async def begun(self, session_id: SessionId) -> Owner:
        """A message that somebody answers now."""
        return owner(await self.history.history.begin_turn(message(LedgerId(session_id))))

    async def exchange(self, session_id: SessionId, number: int) -> None:
        """The candidate's answer to the item before, its judgement, and the next question."""
        held = await self.begun(session_id)
        await self.called(held, "question")
        await self.called(held, "judge")
        verdict = Verdict(Level(2), ("an index",), 0, "It names an index.", 0.9)
        scored = evidence.Scored(verdict, Score(Level(2), 0.5), "judge/v1", "a-model")
        key = evidence.AnswerKey(evidence.SessionId(session_id), evidence.TurnId(held.turn_id))
        await self.evidence.score(key, ItemId(ITEMS[number - 1]), scored, 0)
        await self.commit(held, number, 2)

    async def called(self, held: Owner, purpose: str) -> None:
        """A model call that gave a result."""
        await self.finish(await self.intended(held.head.session_id, held.turn_id, purpose))

    async def finish(self, call: Held) -> None:
        """The result of a call; what it cost is recorded though the session was erased meanwhile."""
        with suppress(NotFound):
            await self.calls.finish(call, SETTLED, llm.CallState.DONE, RESULT)

    async def _opened(self) -> Opened:
        new = interview(facts=FACTS.SerializeToString(), personal_facts=PERSONAL.SerializeToString())
        return await self.history.history.open_stream(new)

    async def intended(self, session_id: UUID, turn_id: UUID, purpose: str) -> Held:
        key = llm.CallKey(llm.SessionId(session_id), llm.TurnId(turn_id), llm.Purpose(purpose))
        offer = llm.Offer(key, llm.Prompt((llm.Message(llm.Role.USER, "Hello"),), "question/v1", 100), b"context")
        held = await self.calls.open(Intent(offer, "127.0.0.1", "a-model", b"{}", 100, CEILING, 60_000))
        assert isinstance(held, Held)
        return held

    async def commit(self, held: Owner, item: int | None, calls: int, *, final: bool = False) -> None:
        """A reply whose record shows what so many calls used."""
        used = gateway_pb2.Usage(
            prompt_tokens=calls * USED.prompt_tokens,
            completion_tokens=calls * USED.completion_tokens,
            cost_nano_usd=calls * USED.cost_nano_usd,
        )
        record = record_pb2.TurnRecord(usage=used, final=final).SerializeToString()
        asked = "" if item is None or final else ITEMS[item]
        await self.history.commit(held, reply(item_asked=asked, record=record, final=final))

    async def settle(self, session_id: SessionId) -> None:
        """Fold the ledger into the projections, and acknowledge it."""
        ledger = self.history.history
        head, turns = await ledger.list_turns(LedgerId(session_id), ALICE, TurnRange(0, 0, 100, newest=False))
        await self.directory.apply(
            [Reading(Run(session_id, tuple(map(counted, turns)), head.last_seq, head.sealed), head.sealed_at)]
        )
        if head.kind is Kind.INTERVIEW:
            await self.interviews.apply([Run(session_id, tuple(map(assessed, turns)), head.last_seq, head.sealed)])
        assert await ledger.acknowledge_streams([(head.session_id, head.rev)]) == 1

    async def erase(self, session_id: UUID) -> None:
        """As an operator has it done: the ledger, then the others, then the acknowledgement."""
        head = await self.history.history.erase_stream(LedgerId(session_id), ALICE)
        await self.directory.erase(ListedId(session_id))
        if head.kind is Kind.INTERVIEW:
            await self.interviews.erase(evidence.SessionId(session_id))
        await self.calls.erase(llm.SessionId(session_id))
        assert await self.history.history.acknowledge_streams([(head.session_id, head.rev)]) == 1

    def execute(self, statements: str) -> None:
        """Do to the tables, as their owner, what no service would."""
        with psycopg.connect(self.database.owner_dsn, autocommit=True) as connection:
            for statement in statements.split(";"):
                assert connection.execute(statement.encode()).rowcount != 0, "the statement has changed nothing"


@asynccontextmanager
async def world(database: Database) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        # A machine that stands still for a moment ends no statement.
        pools = {
            context: Pool(dsn, context, pool_size=4, statement_timeout_ms=60_000)
            for context, dsn in database.dsns.items()
        }
        for pool in pools.values():
            stack.push_async_callback(pool.close)
        ledger = await stack.enter_async_context(history_world.ledger(database.dsns["history"]))
        store = EvidenceStore(pools["assessment"])
        yield World(
            database,
            ledger,
            Directory(DirectoryStore(pools["session"])),
            Interviews(store, Catalogue.of([BANK])),
            store,
            CallStore(pools["llm"]),
            pools,
        )


def listed(head: Head) -> NewSession:
    """What the directory enters of a session."""
    facts = record_pb2.SessionFacts.FromString(head.facts)
    personal = record_pb2.PersonalFacts.FromString(head.personal_facts)
    return NewSession(
        ListedId(head.session_id),
        OwnerId(head.owner_id),
        head.tenant_id,
        ListedKind(head.kind.value),
        facts.plan,
        dict(facts.versions),
        personal.candidate_name,
        dict(personal.metadata),
        head.max_turns,
        head.created_at,
    )


def counted(turn: Turn) -> AppliedTurn:
    """What the directory folds of a committed turn."""
    used = record_pb2.TurnRecord.FromString(turn.record).usage
    totals = Totals(used.prompt_tokens, used.completion_tokens, NanoUsd(used.cost_nano_usd))
    return AppliedTurn(turn.seq, Digest(turn.previous_digest), Digest(turn.digest), totals)


def assessed(turn: Turn) -> evidence.AppliedTurn:
    """What the assessment folds of it."""
    return evidence.AppliedTurn(
        evidence.TurnId(turn.turn_id),
        turn.seq,
        Digest(turn.previous_digest),
        Digest(turn.digest),
        ItemId(turn.item_answered) if turn.item_answered else None,
        ItemId(turn.item_asked) if turn.item_asked else None,
    )

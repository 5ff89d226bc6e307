"""All the SQL of the directory.

Rows are never deleted: an erased session keeps its row as a tombstone, and whatever is written looks at it under the
row's lock: an insert meets it as the key that is taken, a fold in the version of the row that its lock was granted on.
Every statement is one transaction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg.types.json import Jsonb

from libs.folding.runs import Fold, Position
from libs.runtime.db import Database, Row, Statement
from services.session.domain import Kind, NewSession, OwnerId, SessionId, Totals
from services.session.entries import AppliedTurn, Entry, gained
from services.session.listing import Cursor, Viewer

_ENTRY = """session_id, owner_id, tenant_id, kind, plan, versions, candidate_name, metadata, max_turns, created_at,
    applied_seq, head_digest, completed_at, prompt_tokens, completion_tokens, cost_nano_usd"""

_INSERT = Statement(
    "session_insert",
    """
    INSERT INTO session.sessions (session_id, owner_id, tenant_id, kind, plan, versions, candidate_name, metadata,
                                  max_turns, created_at, applied_seq, head_digest)
    VALUES (%(session_id)s, %(owner_id)s, %(tenant_id)s, %(kind)s, %(plan)s, %(versions)s, %(candidate_name)s,
            %(metadata)s, %(max_turns)s, %(created_at)s, %(applied_seq)s, %(head_digest)s)
    ON CONFLICT (session_id) DO NOTHING
    """,
)

_GET = Statement(
    "session_get",
    f"""
    SELECT {_ENTRY}
    FROM session.sessions
    WHERE session_id = %(session_id)s AND NOT erased
      AND (%(owner_id)s::text IS NULL OR owner_id = %(owner_id)s) AND kind = ANY(%(kinds)s)
    """,  # noqa: S608 - the columns above
)

# One ordered scan for each kind, none longer than the page: an owner with ten thousand chats and no interview sees that
# at once. The keys come from `wanted` because a planner that knew the owner would, for a frequent one, rather search
# everybody's sessions of the kind.
_PAGE = """
    SELECT page.*
    FROM unnest(%(owner_ids)s::text[], %(kinds)s::text[]) AS wanted(owner_id, kind) CROSS JOIN LATERAL (
        SELECT {entry}
        FROM session.sessions AS found
        WHERE {key} AND NOT erased AND (created_at, session_id) < (%(created_at)s, %(session_id)s)
        ORDER BY created_at DESC, session_id DESC
        LIMIT %(limit)s
    ) AS page
    ORDER BY created_at DESC, session_id DESC
    LIMIT %(limit)s
    """
_PAGE_OF_OWNER = Statement(
    "session_page_of_owner",
    _PAGE.format(entry=_ENTRY, key="found.owner_id = wanted.owner_id AND found.kind = wanted.kind"),
)
_PAGE_OF_ALL = Statement("session_page_of_all", _PAGE.format(entry=_ENTRY, key="found.kind = wanted.kind"))

# The rows are locked in the order of their ids, whoever folds, so two folders wait for each other but never in a
# circle. `held` is what the lock was granted on, the newest version, although the statement's snapshot may be older
# than a wait; the update sees of `sessions` only the same row again, and takes what it compares from `held`.
_ADVANCE = Statement(
    "session_advance",
    """
    WITH held AS MATERIALIZED (
        SELECT session_id, applied_seq, head_digest, completed_at, erased,
               prompt_tokens, completion_tokens, cost_nano_usd
        FROM session.sessions
        WHERE session_id = ANY(%(session_ids)s)
        ORDER BY session_id
        FOR UPDATE
    ), step AS (
        SELECT *
        FROM unnest(%(step_ids)s::uuid[], %(base_seqs)s::bigint[], %(base_digests)s::bytea[],
                    %(base_completed)s::boolean[], %(seqs)s::bigint[], %(digests)s::bytea[],
                    %(completed)s::timestamptz[], %(refolded)s::boolean[], %(prompt_tokens)s::bigint[],
                    %(completion_tokens)s::bigint[], %(costs)s::bigint[])
          AS step(session_id, base_seq, base_digest, base_completed, seq, digest, completed_at, refolded,
                  prompt_tokens, completion_tokens, cost_nano_usd)
    ), taken AS (
        UPDATE session.sessions AS entry
        SET applied_seq = step.seq,
            head_digest = step.digest,
            completed_at = step.completed_at,
            status = CASE WHEN step.completed_at IS NULL THEN 'open' ELSE 'completed' END,
            prompt_tokens = step.prompt_tokens + CASE WHEN step.refolded THEN 0 ELSE held.prompt_tokens END,
            completion_tokens = step.completion_tokens + CASE WHEN step.refolded THEN 0 ELSE held.completion_tokens END,
            cost_nano_usd = step.cost_nano_usd + CASE WHEN step.refolded THEN 0 ELSE held.cost_nano_usd END,
            version = entry.version + 1
        FROM held JOIN step USING (session_id)
        WHERE entry.session_id = held.session_id
          AND NOT held.erased
          AND held.applied_seq = step.base_seq
          AND held.head_digest = step.base_digest
          AND (held.completed_at IS NOT NULL) = step.base_completed
        RETURNING entry.session_id
    )
    SELECT held.session_id, held.applied_seq, held.head_digest, held.completed_at IS NOT NULL AS completed,
           held.erased, taken.session_id IS NOT NULL AS taken
    FROM held LEFT JOIN taken USING (session_id)
    """,
)

# The whole of an entry is one row, so its tombstone and its clearing are one write: whoever waited for it finds both.
_ERASE = Statement(
    "session_erase",
    """
    INSERT INTO session.sessions AS entry (session_id, erased)
    VALUES (%(session_id)s, true)
    ON CONFLICT (session_id) DO UPDATE
    SET erased = true, owner_id = NULL, candidate_name = NULL, metadata = NULL, version = entry.version + 1
    WHERE NOT entry.erased
    """,
)


@dataclass(frozen=True, slots=True)
class Step:
    """A fold to be written to an entry that still stands at `base`; `sealed_at` is when its ledger was sealed."""

    session_id: UUID
    base: Position
    fold: Fold[AppliedTurn]
    sealed_at: datetime | None


@dataclass(frozen=True, slots=True)
class Found:
    """An entry as it was under its lock: where it stood (None: erased), and whether its step was then taken."""

    before: Position | None
    taken: bool


class Store:
    """The directory's table."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def insert(self, new: NewSession, start: Position) -> bool:
        """Enter a session that has folded nothing. False, and no change, where there is an entry or a tombstone."""
        return bool(
            await self._db.execute(
                _INSERT,
                {
                    "session_id": new.session_id,
                    "owner_id": new.owner_id,
                    "tenant_id": new.tenant_id or None,
                    "kind": new.kind.value,
                    "plan": new.plan or None,
                    "versions": Jsonb(dict(new.versions)),
                    "candidate_name": new.candidate_name or None,
                    "metadata": Jsonb(dict(new.metadata)),
                    "max_turns": new.max_turns,
                    "created_at": new.created_at,
                    "applied_seq": start.applied_seq,
                    "head_digest": start.head_digest,
                },
            )
        )

    async def erase(self, session_id: SessionId) -> None:
        """Make the entry a tombstone, or a tombstone where there is none."""
        await self._db.execute(_ERASE, {"session_id": session_id})

    async def get(self, session_id: SessionId, viewer: Viewer) -> Entry | None:
        """The entry, None where it is absent, erased or out of the viewer's sight: one statement, the same work."""
        params = {"session_id": session_id, "owner_id": viewer.owner_id, "kinds": _kinds(viewer)}
        row = await self._db.one(_GET, params)
        return None if row is None else _entry(row)

    async def page(self, viewer: Viewer, after: Cursor, limit: int) -> list[Entry]:
        """At most `limit` entries that follow `after`, newest first."""
        kinds = _kinds(viewer)
        params = {
            "owner_ids": [viewer.owner_id] * len(kinds),
            "kinds": kinds,
            "created_at": after.created_at,
            "session_id": after.session_id,
            "limit": limit,
        }
        rows = await self._db.all(_PAGE_OF_ALL if viewer.owner_id is None else _PAGE_OF_OWNER, params)
        return [_entry(row) for row in rows]

    async def advance(self, session_ids: Sequence[UUID], steps: Sequence[Step]) -> Mapping[UUID, Found]:
        """Lock these entries, take each step whose base is where its entry stands, and say what was found.

        One transaction. Absent sessions are left out. `steps` has at most one for each of `session_ids`.
        """
        totals = [gained(step.fold.news) for step in steps]
        params = {
            "session_ids": list(session_ids),
            "step_ids": [step.session_id for step in steps],
            "base_seqs": [step.base.applied_seq for step in steps],
            "base_digests": [step.base.head_digest for step in steps],
            "base_completed": [step.base.completed for step in steps],
            "seqs": [step.fold.position.applied_seq for step in steps],
            "digests": [step.fold.position.head_digest for step in steps],
            "completed": [step.sealed_at if step.fold.position.completed else None for step in steps],
            "refolded": [step.fold.refolded for step in steps],
            "prompt_tokens": [each.prompt_tokens for each in totals],
            "completion_tokens": [each.completion_tokens for each in totals],
            "costs": [each.cost_nano_usd for each in totals],
        }
        rows = await self._db.retrying(lambda: self._db.all(_ADVANCE, params))
        return {
            row.session_id: Found(
                None if row.erased else Position(row.applied_seq, row.head_digest, row.completed), row.taken
            )
            for row in rows
        }


def _kinds(viewer: Viewer) -> list[str]:
    return [kind.value for kind in Kind] if viewer.kind is None else [viewer.kind.value]


def _entry(row: Row) -> Entry:
    facts = NewSession(
        session_id=row.session_id,
        owner_id=OwnerId(row.owner_id),
        tenant_id=row.tenant_id or "",
        kind=Kind(row.kind),
        plan=row.plan or "",
        versions=row.versions,
        candidate_name=row.candidate_name or "",
        metadata=row.metadata or {},
        max_turns=row.max_turns,
        created_at=row.created_at,
    )
    position = Position(row.applied_seq, row.head_digest, row.completed_at is not None)
    totals = Totals(row.prompt_tokens, row.completion_tokens, row.cost_nano_usd)
    return Entry(facts, position, totals, row.completed_at)

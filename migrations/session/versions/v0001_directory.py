"""The directory of conversations: a projection of the ledger, and the tombstones of what was erased."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    # An erasure may come before the row that it erases: then the tombstone has nothing but its key.
    # A row is written once for each turn, and no index has a column that is: with room on its page for the next version
    # a fold touches the page and nothing else (HOT).
    op.execute("""
        CREATE TABLE session.sessions (
            session_id        uuid        NOT NULL,
            owner_id          text,
            tenant_id         text,
            kind              text,
            status            text        NOT NULL DEFAULT 'open',
            applied_seq       bigint      NOT NULL DEFAULT 0,
            head_digest       bytea,
            plan              text,
            versions          jsonb       NOT NULL DEFAULT '{}',
            candidate_name    text,
            metadata          jsonb,
            max_turns         integer,
            prompt_tokens     bigint      NOT NULL DEFAULT 0,
            completion_tokens bigint      NOT NULL DEFAULT 0,
            cost_nano_usd     bigint      NOT NULL DEFAULT 0,
            created_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
            completed_at      timestamptz,
            erased            boolean     NOT NULL DEFAULT false,
            version           bigint      NOT NULL DEFAULT 1,
            CONSTRAINT sessions_pkey PRIMARY KEY (session_id),
            CONSTRAINT sessions_whole_unless_erased CHECK (
                erased
                OR (owner_id IS NOT NULL AND kind IS NOT NULL AND max_turns IS NOT NULL AND head_digest IS NOT NULL)
            ),
            CONSTRAINT sessions_erased_is_empty CHECK (NOT erased OR (candidate_name IS NULL AND metadata IS NULL)),
            CONSTRAINT sessions_owner_named CHECK (owner_id <> ''),
            CONSTRAINT sessions_kind_known CHECK (kind IN ('interview', 'chat')),
            CONSTRAINT sessions_status_known CHECK (status IN ('open', 'completed')),
            CONSTRAINT sessions_completed_has_time CHECK ((status = 'completed') = (completed_at IS NOT NULL)),
            CONSTRAINT sessions_totals_count CHECK (
                applied_seq >= 0 AND prompt_tokens >= 0 AND completion_tokens >= 0 AND cost_nano_usd >= 0
            ),
            CONSTRAINT sessions_head_digest_length CHECK (octet_length(head_digest) = 32)
        ) WITH (fillfactor = 70)
    """)
    op.execute("""
        CREATE INDEX sessions_by_owner ON session.sessions (owner_id, kind, created_at DESC, session_id DESC)
        WHERE NOT erased
    """)
    op.execute("""
        CREATE INDEX sessions_by_kind ON session.sessions (kind, created_at DESC, session_id DESC) WHERE NOT erased
    """)


def downgrade() -> None:
    op.execute("DROP TABLE session.sessions")

"""The spend ledger: the account of each session, its model calls, and the attempts under each call."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE llm.sessions (
            session_id     uuid    NOT NULL,
            erased         boolean NOT NULL DEFAULT false,
            spent_nano_usd bigint  NOT NULL DEFAULT 0,
            CONSTRAINT sessions_pkey PRIMARY KEY (session_id),
            CONSTRAINT sessions_spent_counts CHECK (spent_nano_usd >= 0)
        )
    """)
    op.execute("""
        CREATE TABLE llm.calls (
            session_id        uuid        NOT NULL,
            turn_id           uuid        NOT NULL,
            purpose           text        NOT NULL,
            state             text        NOT NULL,
            fence             bigint      NOT NULL DEFAULT 1,
            lease_until       timestamptz,
            context           bytea,
            result            text,
            finish_reason     text,
            error             text,
            prompt_tokens     integer     NOT NULL DEFAULT 0,
            completion_tokens integer     NOT NULL DEFAULT 0,
            cost_nano_usd     bigint      NOT NULL DEFAULT 0,
            ceiling_nano_usd  bigint      NOT NULL DEFAULT 0,
            prompt_version    text,
            prompt_hash       bytea,
            repeats           integer     NOT NULL DEFAULT 0,
            created_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
            finished_at       timestamptz,
            CONSTRAINT calls_pkey PRIMARY KEY (session_id, turn_id, purpose),
            CONSTRAINT calls_state_known CHECK (state IN ('INFLIGHT', 'DONE', 'FAILED', 'UNKNOWN')),
            CONSTRAINT calls_inflight_is_leased CHECK (state <> 'INFLIGHT' OR lease_until IS NOT NULL),
            CONSTRAINT calls_amounts_count CHECK (
                fence > 0 AND repeats >= 0 AND prompt_tokens >= 0 AND completion_tokens >= 0
                AND cost_nano_usd >= 0 AND ceiling_nano_usd >= 0
            )
        )
    """)
    op.execute("""
        CREATE TABLE llm.attempts (
            session_id        uuid        NOT NULL,
            turn_id           uuid        NOT NULL,
            purpose           text        NOT NULL,
            attempt           integer     NOT NULL,
            provider          text        NOT NULL,
            model             text        NOT NULL,
            call_id           uuid        NOT NULL,
            state             text        NOT NULL,
            prompt_tokens     integer     NOT NULL DEFAULT 0,
            completion_tokens integer     NOT NULL DEFAULT 0,
            cost_nano_usd     bigint      NOT NULL DEFAULT 0,
            latency_ms        integer,
            error             text,
            started_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
            finished_at       timestamptz,
            CONSTRAINT attempts_pkey PRIMARY KEY (session_id, turn_id, purpose, attempt),
            CONSTRAINT attempts_call_fkey FOREIGN KEY (session_id, turn_id, purpose)
                REFERENCES llm.calls (session_id, turn_id, purpose),
            CONSTRAINT attempts_state_known CHECK (state IN ('dispatched', 'settled', 'released', 'unknown')),
            CONSTRAINT attempts_amounts_count CHECK (
                attempt > 0 AND prompt_tokens >= 0 AND completion_tokens >= 0 AND cost_nano_usd >= 0 AND latency_ms >= 0
            )
        )
    """)


def downgrade() -> None:
    op.execute("DROP TABLE llm.attempts")
    op.execute("DROP TABLE llm.calls")
    op.execute("DROP TABLE llm.sessions")

"""The spend ledger: the account of each session, its model calls, and the attempts under each call."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    # What the session's attempts cost together; those under way, or of unknown outcome, count at their ceiling.
    op.execute("""
        CREATE TABLE llm.sessions (
            session_id     uuid    NOT NULL,
            erased         boolean NOT NULL DEFAULT false,
            spent_nano_usd bigint  NOT NULL DEFAULT 0,
            CONSTRAINT sessions_pkey PRIMARY KEY (session_id),
            CONSTRAINT sessions_spent_counts CHECK (spent_nano_usd >= 0)
        )
    """)
    # `attempt` is the current one under the current fence. Amounts are those of all attempts, repeats included. `error`
    # says why the last one failed; DONE without a result has been cleared.
    op.execute("""
        CREATE TABLE llm.calls (
            session_id        uuid        NOT NULL,
            turn_id           uuid        NOT NULL,
            purpose           text        NOT NULL,
            state             text        NOT NULL,
            fence             bigint      NOT NULL,
            attempt           integer     NOT NULL DEFAULT 1,
            repeats           integer     NOT NULL DEFAULT 0,
            lease_until       timestamptz NOT NULL,
            context           bytea,
            result            text,
            finish_reason     text,
            model             text,
            error             text,
            prompt_tokens     bigint      NOT NULL DEFAULT 0,
            completion_tokens bigint      NOT NULL DEFAULT 0,
            cost_nano_usd     bigint      NOT NULL,
            prompt_version    text        NOT NULL,
            prompt_hash       bytea       NOT NULL,
            dispatched_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
            finished_at       timestamptz,
            CONSTRAINT calls_pkey PRIMARY KEY (session_id, turn_id, purpose),
            CONSTRAINT calls_state_known CHECK (state IN ('INFLIGHT', 'DONE', 'FAILED', 'UNKNOWN')),
            CONSTRAINT calls_failure_has_reason CHECK ((state IN ('FAILED', 'UNKNOWN')) = (error IS NOT NULL)),
            CONSTRAINT calls_only_done_has_result CHECK (state = 'DONE' OR result IS NULL),
            CONSTRAINT calls_ended_has_time CHECK ((state = 'INFLIGHT') = (finished_at IS NULL)),
            CONSTRAINT calls_amounts_count CHECK (
                fence > 0 AND attempt > 0 AND repeats >= 0
                AND prompt_tokens >= 0 AND completion_tokens >= 0 AND cost_nano_usd >= 0
            ),
            CONSTRAINT calls_prompt_hash_length CHECK (octet_length(prompt_hash) = 32)
        )
    """)
    # No foreign key: an attempt is inserted in the statement that writes its call, which is never deleted.
    op.execute("""
        CREATE TABLE llm.attempts (
            session_id        uuid        NOT NULL,
            turn_id           uuid        NOT NULL,
            purpose           text        NOT NULL,
            fence             bigint      NOT NULL,
            attempt           integer     NOT NULL,
            state             text        NOT NULL,
            provider          text        NOT NULL,
            model             text        NOT NULL,
            status            integer,
            error             text,
            prompt_tokens     bigint      NOT NULL DEFAULT 0,
            completion_tokens bigint      NOT NULL DEFAULT 0,
            cost_nano_usd     bigint      NOT NULL,
            dispatched_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
            finished_at       timestamptz,
            CONSTRAINT attempts_pkey PRIMARY KEY (session_id, turn_id, purpose, fence, attempt),
            CONSTRAINT attempts_state_known CHECK (state IN ('dispatched', 'settled', 'released', 'unknown')),
            CONSTRAINT attempts_ended_has_time CHECK ((state = 'dispatched') = (finished_at IS NULL)),
            CONSTRAINT attempts_released_is_free CHECK (state <> 'released' OR cost_nano_usd = 0),
            CONSTRAINT attempts_amounts_count CHECK (
                attempt > 0 AND prompt_tokens >= 0 AND completion_tokens >= 0 AND cost_nano_usd >= 0
            )
        )
    """)


def downgrade() -> None:
    op.execute("DROP TABLE llm.attempts")
    op.execute("DROP TABLE llm.calls")
    op.execute("DROP TABLE llm.sessions")

"""The ledger: the head of each conversation's stream, and its turns."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE history.streams (
            session_id      uuid        NOT NULL,
            owner_id        text        NOT NULL,
            tenant_id       text,
            kind            text        NOT NULL,
            facts           bytea       NOT NULL,
            personal_facts  bytea,
            fingerprint     bytea,
            request_id      uuid,
            max_turns       integer     NOT NULL,
            min_interval_ms integer     NOT NULL,
            lease_ms        integer     NOT NULL,
            last_seq        bigint      NOT NULL DEFAULT 0,
            fence           bigint      NOT NULL DEFAULT 0,
            rev             bigint      NOT NULL DEFAULT 1,
            acked_rev       bigint      NOT NULL DEFAULT 0,
            active_turn     uuid,
            claim_id        uuid,
            lease_until     timestamptz,
            last_begin_at   timestamptz,
            sealed          boolean     NOT NULL DEFAULT false,
            sealed_at       timestamptz,
            erased          boolean     NOT NULL DEFAULT false,
            salt            bytea,
            head_digest     bytea       NOT NULL,
            created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
            CONSTRAINT streams_pkey PRIMARY KEY (session_id),
            CONSTRAINT streams_kind_known CHECK (kind IN ('interview', 'chat')),
            CONSTRAINT streams_limits_positive CHECK (max_turns > 0 AND min_interval_ms >= 0 AND lease_ms > 0),
            CONSTRAINT streams_counters_ordered CHECK (last_seq >= 0 AND fence >= 0 AND acked_rev BETWEEN 0 AND rev),
            CONSTRAINT streams_active_turn_leased
                CHECK (active_turn IS NULL OR (claim_id IS NOT NULL AND lease_until IS NOT NULL)),
            CONSTRAINT streams_sealed_has_time CHECK (sealed = (sealed_at IS NOT NULL)),
            CONSTRAINT streams_sealed_is_quiet CHECK (NOT sealed OR active_turn IS NULL),
            CONSTRAINT streams_erased_is_empty CHECK (
                NOT erased OR (sealed AND personal_facts IS NULL AND fingerprint IS NULL AND salt IS NULL)
            ),
            CONSTRAINT streams_salt_length CHECK (octet_length(salt) = 32),
            CONSTRAINT streams_head_digest_length CHECK (octet_length(head_digest) = 32)
        )
    """)
    # The sweep's one cursor; it pages by session_id, so a stream that stays unsettled cannot keep the others waiting.
    op.execute("CREATE INDEX streams_unsettled ON history.streams (session_id) WHERE acked_rev < rev")
    op.execute("""
        CREATE TABLE history.turns (
            session_id    uuid        NOT NULL,
            turn_id       uuid        NOT NULL,
            request_id    uuid        NOT NULL,
            fingerprint   bytea,
            state         text        NOT NULL,
            reason        text,
            fence         bigint      NOT NULL,
            base_seq      bigint      NOT NULL,
            seq           bigint,
            user_text     text,
            user_tokens   integer     NOT NULL DEFAULT 0,
            reply_text    text,
            reply_tokens  integer,
            item_answered text,
            item_asked    text,
            record        bytea,
            content       bytea,
            digest        bytea,
            begun_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
            committed_at  timestamptz,
            CONSTRAINT turns_pkey PRIMARY KEY (session_id, turn_id),
            CONSTRAINT turns_request_key UNIQUE (session_id, request_id),
            CONSTRAINT turns_seq_key UNIQUE (session_id, seq),
            CONSTRAINT turns_item_asked_key UNIQUE (session_id, item_asked),
            CONSTRAINT turns_stream_fkey FOREIGN KEY (session_id) REFERENCES history.streams (session_id),
            CONSTRAINT turns_state_known CHECK (state IN ('RUNNING', 'COMMITTED', 'FAILED', 'ABANDONED')),
            CONSTRAINT turns_committed_has_seq CHECK ((state = 'COMMITTED') = (seq IS NOT NULL)),
            CONSTRAINT turns_seq_follows_base CHECK (seq = base_seq + 1),
            CONSTRAINT turns_base_seq_counts CHECK (base_seq >= 0),
            CONSTRAINT turns_committed_has_time CHECK ((state = 'COMMITTED') = (committed_at IS NOT NULL)),
            CONSTRAINT turns_failed_has_reason CHECK (state <> 'FAILED' OR reason IS NOT NULL),
            CONSTRAINT turns_content_length CHECK (octet_length(content) = 32),
            CONSTRAINT turns_digest_length CHECK (octet_length(digest) = 32)
        )
    """)
    # What the planner must believe, whatever ANALYZE has seen of a young table: a session has some twenty turns. Where
    # it believes in one, an index on (session_id, x) looks as good for finding y as that on (session_id, y).
    op.execute("ALTER TABLE history.turns ALTER COLUMN session_id SET (n_distinct = -0.05)")
    # What is pending though nobody holds it. Only the rare turn that is given back pays for this index.
    op.execute("CREATE INDEX turns_abandoned ON history.turns (session_id, base_seq, fence) WHERE state = 'ABANDONED'")


def downgrade() -> None:
    op.execute("DROP TABLE history.turns")
    op.execute("DROP TABLE history.streams")

"""What an interview has asked, what was answered, and what each answer showed."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    # An erasure may come before the row that it erases: then the tombstone has nothing but its key.
    op.execute("""
        CREATE TABLE assessment.interviews (
            session_id   uuid        NOT NULL,
            plan         text,
            bank_version text,
            limits       jsonb,
            applied_seq  bigint      NOT NULL DEFAULT 0,
            head_digest  bytea,
            sealed       boolean     NOT NULL DEFAULT false,
            erased       boolean     NOT NULL DEFAULT false,
            created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
            CONSTRAINT interviews_pkey PRIMARY KEY (session_id),
            CONSTRAINT interviews_whole_unless_erased CHECK (
                erased
                OR (plan IS NOT NULL AND bank_version IS NOT NULL AND limits IS NOT NULL AND head_digest IS NOT NULL)
            ),
            CONSTRAINT interviews_applied_seq_counts CHECK (applied_seq >= 0),
            CONSTRAINT interviews_head_digest_length CHECK (octet_length(head_digest) = 32)
        )
    """)
    op.execute("""
        CREATE TABLE assessment.asked (
            session_id uuid   NOT NULL,
            item_id    text   NOT NULL,
            seq        bigint NOT NULL,
            CONSTRAINT asked_pkey PRIMARY KEY (session_id, item_id),
            CONSTRAINT asked_seq_key UNIQUE (session_id, seq),
            CONSTRAINT asked_interview_fkey FOREIGN KEY (session_id) REFERENCES assessment.interviews (session_id),
            CONSTRAINT asked_seq_counts CHECK (seq > 0)
        )
    """)
    op.execute("""
        CREATE TABLE assessment.answers (
            session_id    uuid        NOT NULL,
            turn_id       uuid        NOT NULL,
            seq           bigint,
            item_id       text        NOT NULL,
            skill         text,
            state         text        NOT NULL DEFAULT 'PENDING',
            level         smallint,
            confidence    real,
            quotes        jsonb,
            rationale     text,
            failed_calls  integer     NOT NULL DEFAULT 0,
            judge_version text,
            scored_at     timestamptz,
            CONSTRAINT answers_pkey PRIMARY KEY (session_id, turn_id),
            CONSTRAINT answers_seq_key UNIQUE (session_id, seq),
            CONSTRAINT answers_interview_fkey FOREIGN KEY (session_id) REFERENCES assessment.interviews (session_id),
            CONSTRAINT answers_state_known CHECK (state IN ('PENDING', 'SCORED', 'UNSCORABLE')),
            CONSTRAINT answers_scored_has_level
                CHECK ((state = 'SCORED') = (level IS NOT NULL) AND (state = 'SCORED') = (scored_at IS NOT NULL)),
            CONSTRAINT answers_level_counts CHECK (level >= 0),
            CONSTRAINT answers_confidence_is_share CHECK (confidence BETWEEN 0 AND 1),
            CONSTRAINT answers_seq_counts CHECK (seq > 0),
            CONSTRAINT answers_failed_calls_count CHECK (failed_calls >= 0)
        )
    """)
    # ListUnscored: an answer waits for its score once its turn is committed, that is, once it has a seq.
    op.execute("""
        CREATE INDEX answers_unscored ON assessment.answers (session_id, seq) WHERE state = 'PENDING'
    """)


def downgrade() -> None:
    op.execute("DROP TABLE assessment.answers")
    op.execute("DROP TABLE assessment.asked")
    op.execute("DROP TABLE assessment.interviews")

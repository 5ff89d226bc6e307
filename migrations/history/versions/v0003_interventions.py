"""What operators changed by hand: who, when and why, each written in the transaction that made the change."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The id is the caller's, so that a repair whose answer got lost is not made twice. `before` and `after` say how the
    # stream stood; they and the rest of the row are never changed, and an erase leaves them: they hold nothing said.
    op.execute("""
        CREATE TABLE history.interventions (
            session_id      uuid        NOT NULL,
            intervention_id uuid        NOT NULL,
            turn_id         uuid,
            action          text        NOT NULL,
            actor           text        NOT NULL,
            reason          text        NOT NULL,
            before          jsonb       NOT NULL,
            after           jsonb       NOT NULL,
            at              timestamptz NOT NULL DEFAULT clock_timestamp(),
            CONSTRAINT interventions_pkey PRIMARY KEY (session_id, intervention_id),
            CONSTRAINT interventions_stream_fkey FOREIGN KEY (session_id) REFERENCES history.streams (session_id),
            CONSTRAINT interventions_action_known CHECK (action IN ('RESET', 'COMPLETE')),
            CONSTRAINT interventions_say_who_and_why CHECK (actor <> '' AND reason <> '')
        )
    """)


def downgrade() -> None:
    op.execute("DROP TABLE history.interventions")

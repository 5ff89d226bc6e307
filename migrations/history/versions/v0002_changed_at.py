"""When a stream last changed: it tells a session that is on its way from one that is stuck."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Of the streams that there are only this is known: none has changed since now. A constant, so no row is rewritten.
    op.execute("ALTER TABLE history.streams ADD COLUMN changed_at timestamptz NOT NULL DEFAULT now()")
    op.execute("ALTER TABLE history.streams ALTER COLUMN changed_at SET DEFAULT clock_timestamp()")


def downgrade() -> None:
    op.execute("ALTER TABLE history.streams DROP COLUMN changed_at")

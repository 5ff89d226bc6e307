"""Alembic's environment for every context: it runs on the connection, and inside the transaction, of its caller.

The caller is `migrations.migrator`, which holds the context's lock; the section of alembic.ini is the context's name.
"""

from alembic import context
from alembic.util import CommandError

connection = context.config.attributes.get("connection")
if connection is None:
    raise CommandError("migrations are applied by `colloquy migrate`, under the lock of their context")

context.configure(
    connection=connection,
    version_table="alembic_version",
    version_table_schema=context.config.config_ini_section,
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()

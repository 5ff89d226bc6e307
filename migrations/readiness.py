"""Whether a database has what a service was written for: asked by `serve`, which never migrates."""

from libs.runtime.db import Database, DatabaseError, Statement
from migrations.heads import head

_NEVER_MIGRATED = frozenset({"42P01", "3F000"})  # undefined_table, invalid_schema_name


async def is_migrated(db: Database, context: str) -> bool:
    """Whether `context`'s schema is at its head, or past it (an older service in a rolling upgrade still serves).

    Raises what `Database.one` raises, if the database cannot say.
    """
    query = Statement("applied_revision", f"SELECT version_num FROM {context}.alembic_version")  # noqa: S608 - a context
    try:
        row = await db.one(query)
    except DatabaseError as error:
        if error.sqlstate in _NEVER_MIGRATED:
            return False
        raise
    return row is not None and row.version_num >= head(context)

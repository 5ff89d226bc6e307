"""How PostgreSQL reads the tables for a statement: the nodes of the plan that a service's own role gets for it."""

import re
from collections.abc import Mapping
from typing import Any

import psycopg

from libs.runtime.db import Statement


def plan_nodes(dsn: str, statement: Statement, params: Mapping[str, object], mode: str) -> list[dict[str, Any]]:
    """All nodes of the plan of a prepared statement and what they did; what that wrote is undone.

    Args:
        mode: `custom`, made for these values, or `generic`, for any.
    """
    numbered = re.sub(r"%\((\w+)\)s", lambda match: f"${list(params).index(match[1]) + 1}", statement.sql)
    with psycopg.connect(dsn, cursor_factory=psycopg.ClientCursor) as connection:
        connection.execute(f"SET plan_cache_mode = force_{mode}_plan")
        connection.execute(f"PREPARE explained AS {numbered}")
        places = ", ".join(f"%({name})s" for name in params)
        row = connection.execute(f"EXPLAIN (FORMAT JSON, ANALYZE) EXECUTE explained({places})", params).fetchone()
        connection.rollback()
    assert row
    pending, nodes = [row[0][0]["Plan"]], []
    while pending:
        node = pending.pop()
        nodes.append(node)
        pending += node.get("Plans", [])
    return nodes

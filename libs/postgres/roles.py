"""One database, and in it a role and a schema for each context, so that none can reach another's tables."""

from collections.abc import Iterable
from dataclasses import dataclass

import psycopg
from psycopg import sql


@dataclass(frozen=True, slots=True)
class Login:
    """How one context logs in, and the schema that it owns."""

    schema: str
    role: str
    password: str


def provision(server_dsn: str, database_dsn: str, database: str, logins: Iterable[Login]) -> None:
    """Make what is missing of `database`, the roles and their schemas. Both DSNs are a superuser's; safe to repeat."""
    logins = tuple(logins)
    name = sql.Identifier(database)
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        for login in logins:
            _ensure_role(connection, login)
        if not _exists(connection, "SELECT FROM pg_catalog.pg_database WHERE datname = %s", database):
            connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
        connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name))
    with psycopg.connect(database_dsn) as connection:
        for login in logins:
            schema, role = sql.Identifier(login.schema), sql.Identifier(login.role)
            connection.execute(sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(name, role))
            connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {} AUTHORIZATION {}").format(schema, role))


def _ensure_role(connection: psycopg.Connection, login: Login) -> None:
    if _exists(connection, "SELECT FROM pg_catalog.pg_roles WHERE rolname = %s", login.role):
        return
    role = sql.Identifier(login.role)
    connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, sql.Literal(login.password)))
    # Without a path, a statement that does not name its schema fails here instead of at a customer's.
    connection.execute(sql.SQL("ALTER ROLE {} SET search_path = ''").format(role))


def _exists(connection: psycopg.Connection, query: str, name: str) -> bool:
    return connection.execute(query, (name,)).fetchone() is not None

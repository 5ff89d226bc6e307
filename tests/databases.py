"""Real PostgreSQL for the suite: databases migrated to every context's head, on whichever server there is."""

import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from libs.postgres.launcher import EmbeddedPostgres
from migrations.heads import CONTEXTS
from migrations.migrator import migrate

_IMAGE = "postgres:18-alpine"
# The suite outlives no host, so its data need not either; commits stay synchronous, as they are in production.
_THROWAWAY = {"fsync": "off", "full_page_writes": "off"}


@dataclass(frozen=True, slots=True)
class Database:
    """One migrated database: `dsns` by context, as its service gets it; `owner_dsn` may do everything in it."""

    name: str
    dsns: Mapping[str, str]
    owner_dsn: str


class Server:
    """A PostgreSQL server that may make databases, and a template that is migrated once and copied from then on."""

    def __init__(self, dsn_of: Callable[[str], str], logins_of: Callable[[str], Mapping[str, str]], admin: str) -> None:
        """`dsn_of` and `logins_of` give a database's DSNs by its name; `admin` is a database that exists."""
        self._dsn_of = dsn_of
        self._logins_of = logins_of
        self._admin = admin
        self._template = _new_name()

    def __enter__(self) -> Self:
        self._execute("CREATE DATABASE {}", self._template)
        try:
            migrate(self._logins_of(self._template))
        except BaseException:
            self.drop(self._template)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.drop(self._template)

    def create(self) -> Database:
        """A new database at every context's head, empty."""
        name = _new_name()
        self._execute("CREATE DATABASE {} TEMPLATE {}", name, self._template)
        return Database(name, self._logins_of(name), self._dsn_of(name))

    def drop(self, name: str) -> None:
        """Drop a database, whoever is still connected to it."""
        self._execute("DROP DATABASE IF EXISTS {} WITH (FORCE)", name)

    def _execute(self, statement: str, *names: str) -> None:
        with psycopg.connect(self._dsn_of(self._admin), autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


@contextmanager
def embedded_server() -> Iterator[Server]:
    """The wheel's PostgreSQL in a directory of its own, with a role for each context."""
    data_dir = Path(tempfile.mkdtemp(prefix="colloquy-test-"))
    data_dir.chmod(0o755)  # or, as root, the server's user could not enter it
    postgres = EmbeddedPostgres(data_dir, settings=_THROWAWAY)
    try:
        postgres.start()
        with Server(postgres.dsn, lambda name: postgres.roles(CONTEXTS, name), admin="postgres") as server:
            yield server
    finally:
        postgres.destroy()


@contextmanager
def container_server() -> Iterator[Server]:
    """PostgreSQL in a container, with one login for all contexts."""
    from testcontainers.community.postgres import PostgresContainer  # here, for it brings a Docker client with it

    with PostgresContainer(_IMAGE, driver=None) as container, external_server(container.get_connection_url()) as server:
        yield server


@contextmanager
def external_server(dsn: str) -> Iterator[Server]:
    """Somebody's PostgreSQL, whose one login serves all contexts and may create databases; nothing is left on it."""
    url = urlsplit(dsn)

    def dsn_of(name: str) -> str:
        return url._replace(path=f"/{name}").geturl()

    def logins_of(name: str) -> Mapping[str, str]:
        return dict.fromkeys(CONTEXTS, dsn_of(name))

    with Server(dsn_of, logins_of, admin=url.path.removeprefix("/") or "postgres") as server:
        yield server


def _new_name() -> str:
    return f"colloquy_test_{uuid.uuid4().hex[:12]}"

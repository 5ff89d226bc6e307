"""Fixtures that every directory of the suite shares.

A test that needs PostgreSQL asks for `database`, which all tests share: use fresh random session ids and leave the rows
where they are. `database.dsns["history"]` is what the history service would be given. A test that must break the
database, count its rows or own it takes `fresh_database`, a factory (about 50 ms each):

    async def test_...(database: Database) -> None:
        db = libs.runtime.db.Database(database.dsns["history"], "history")

    async def test_...(fresh_database: FreshDatabase) -> None:
        own = fresh_database()

with `from tests.databases import Database` and `from tests.conftest import FreshDatabase` for the annotations. The
server is COLLOQUY_TEST_DATABASE_URL if that is set (its login must be able to create databases), else what
`--postgres` names. Without a server these tests fail; none is skipped.
"""

import os
import signal
from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from libs.runtime import pool
from tests.databases import Database, Server, container_server, embedded_server, external_server

FreshDatabase = Callable[[], Database]

# Hypothesis times examples by the clock on the wall: a machine that stalls for 0.3 s fails one that takes no time.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--postgres",
        choices=("embedded", "container"),
        default="embedded",
        help="the server to test on, unless COLLOQUY_TEST_DATABASE_URL names one (default: the embedded one)",
    )


class Lanes(LoadFileScheduling):  # type: ignore[misc]
    """With several workers (`make test` has two), one has all the end-to-end tests: they wait more than they work, and
    share a running product. The others have the rest meanwhile, file by file."""

    def _split_scope(self, nodeid: str) -> str:
        return "tests/e2e" if nodeid.startswith("tests/e2e/") else str(super()._split_scope(nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Lanes:
    return Lanes(config, log)


def pytest_configure() -> None:
    """Have Ctrl-C again, for us and for the processes that tests start: a script's background job ignores it.

    And have services that run among the tests wait for a connection as long as it takes: a machine that stands still
    for a second or two is no outage of its database."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    pool.CONNECT_SECONDS, pool.WAIT_SECONDS = 60, 60.0


@pytest.fixture(scope="session")
def database_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """The server that every database of the suite is on; tests ask for `database` or `fresh_database`."""
    if dsn := os.environ.get("COLLOQUY_TEST_DATABASE_URL"):
        chosen = external_server(dsn)
    elif request.config.getoption("--postgres") == "container":
        chosen = container_server()
    else:
        chosen = embedded_server()
    with chosen as server:
        yield server


@pytest.fixture(scope="session")
def database(database_server: Server) -> Iterator[Database]:
    """The database that tests share: migrated, with a DSN for each context. Isolation is by random session ids."""
    shared = database_server.create()
    yield shared
    database_server.drop(shared.name)


@pytest.fixture
def fresh_database(database_server: Server) -> Iterator[FreshDatabase]:
    """A factory of migrated, empty databases that belong to this test alone and are dropped after it."""
    made: list[Database] = []

    def make() -> Database:
        made.append(database_server.create())
        return made[-1]

    yield make
    for own in made:
        database_server.drop(own.name)

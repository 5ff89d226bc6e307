"""Which PostgreSQL the commands use: the one that is configured, else the one from the wheel, while a stack runs."""

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.exc import DBAPIError

from libs.postgres.errors import LaunchError
from libs.postgres.launcher import EmbeddedPostgres
from libs.runtime.config import DATABASE_URL_FORM, ConfigError, Env
from migrations import migrator
from migrations.heads import CONTEXTS
from services.cli import environment
from services.cli.errors import CommandError
from services.cli.supervisor import FIRST_RESTART_SECONDS, LAST_RESTART_SECONDS, tell

COMMON_URL = "COLLOQUY_DATABASE_URL"
WATCH_SECONDS = 0.1


def migrate(urls: Mapping[str, str]) -> None:
    """Bring every context's schema to its head.

    Raises:
        CommandError: the database cannot be reached, or does not let us.
    """
    try:
        migrator.migrate(urls)
    except DBAPIError as error:
        why = next(iter(str(error.orig).splitlines()), type(error.orig).__name__)
        raise CommandError(f"the database cannot be used: {why}") from error


def is_configured(given: Mapping[str, str]) -> bool:
    """Whether a database is named, by any of the five variables."""
    return any(environment.is_set(given, name) for name in (COMMON_URL, *map(_variable, CONTEXTS)))


def database_urls(given: Mapping[str, str]) -> dict[str, str]:
    """The DSN of each context.

    Raises:
        ConfigError: some of them are not set, or are none.
    """
    env = Env(given)
    urls = {context: env.database_url(_variable(context), otherwise=COMMON_URL) for context in CONTEXTS}
    env.check()
    wrong = {_named(given, context): None for context, url in urls.items() if not _is_known_to_libpq(url)}
    if wrong:
        raise ConfigError([f"{name} {DATABASE_URL_FORM}" for name in wrong])
    return urls


@contextlib.contextmanager
def opened(settled: dict[str, str], data: Path) -> Iterator[EmbeddedPostgres | None]:
    """The database that is configured, or PostgreSQL from its wheel for the length of the block."""
    if is_configured(settled):
        yield None
        return
    with EmbeddedPostgres(data / "postgres") as postgres:
        settled.update({_variable(context): dsn for context, dsn in postgres.roles(CONTEXTS).items()})
        yield postgres


async def watch(postgres: EmbeddedPostgres) -> None:
    """Start PostgreSQL again where it died: it keeps its port and its data, so the services find it by themselves."""
    while True:
        await asyncio.sleep(WATCH_SECONDS)
        if not postgres.alive:
            tell("postgres ended; starting it again")
            await _start_again(postgres)


async def _start_again(postgres: EmbeddedPostgres) -> None:
    pause = FIRST_RESTART_SECONDS
    while True:
        try:
            postgres.start()  # on this thread, as it must be: everybody waits for the database anyway
        except (LaunchError, OSError) as error:
            tell(f"postgres could not be started: {error}; trying again in {pause:.1f} s")
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_RESTART_SECONDS)
        else:
            tell(f"postgres runs again, as process {postgres.pid}")
            return


def _variable(context: str) -> str:
    return f"COLLOQUY_{context.upper()}_DATABASE_URL"


def _named(given: Mapping[str, str], context: str) -> str:
    """The variable that a context's DSN came from."""
    return _variable(context) if environment.is_set(given, _variable(context)) else COMMON_URL


def _is_known_to_libpq(url: str) -> bool:
    """Whether all its options are; migrations are done over libpq's own reading of it."""
    try:
        conninfo_to_dict(url)
    except ProgrammingError:
        return False
    return True

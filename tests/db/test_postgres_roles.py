"""A role for each context: it owns its schema, and the others are closed to it."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg
import pytest

from libs.postgres.launcher import EmbeddedPostgres


@pytest.fixture(scope="module")
def postgres() -> Iterator[EmbeddedPostgres]:
    directory = Path(tempfile.mkdtemp(prefix="colloquy-roles-"))
    directory.chmod(0o755)
    with EmbeddedPostgres(directory / "postgres") as server:
        yield server
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def dsns(postgres: EmbeddedPostgres) -> Mapping[str, str]:
    return postgres.roles(("history", "llm"))


def test_a_role_makes_tables_in_the_schema_of_its_context(dsns: Mapping[str, str]) -> None:
    with psycopg.connect(dsns["history"]) as connection:
        connection.execute("CREATE TABLE history.own (word text)")

        owner = connection.execute("SELECT tableowner FROM pg_tables WHERE tablename = 'own'").fetchone()

    assert owner == ("colloquy_history",)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE llm.foreign_table (word text)",
        "SELECT * FROM llm.secret",
        "CREATE SCHEMA another",
        "CREATE TABLE public.shared (word text)",
        "CREATE ROLE another",
        "CREATE DATABASE another",
    ],
)
def test_a_role_can_do_nothing_outside_it(dsns: Mapping[str, str], statement: str) -> None:
    with psycopg.connect(dsns["llm"]) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS llm.secret (word text)")

    refused = pytest.raises(psycopg.errors.InsufficientPrivilege)
    with psycopg.connect(dsns["history"], autocommit=True) as connection, refused:
        connection.execute(statement)


def test_a_statement_that_does_not_name_its_schema_finds_nothing(dsns: Mapping[str, str]) -> None:
    with psycopg.connect(dsns["llm"]) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS llm.secret (word text)")

        with pytest.raises(psycopg.errors.UndefinedTable):
            connection.execute("SELECT * FROM secret")


def test_roles_may_be_asked_for_again_and_stay_the_same(postgres: EmbeddedPostgres, dsns: Mapping[str, str]) -> None:
    assert postgres.roles(("history", "llm")) == dsns


def test_each_role_has_a_password_of_its_own(dsns: Mapping[str, str]) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(dsns["llm"].replace("colloquy_llm", "colloquy_history"))

"""A database that breaks under a call: the client gets a clear error, and none of the database's words."""

import uuid
from pathlib import Path

import psycopg
import pytest

from tests.conftest import FreshDatabase
from tests.e2e.product import Product

WORDS = (b"does not exist", b"history.turns", b"psycopg", b"SELECT", b"Traceback", b"sqlalchemy", b"away")


@pytest.mark.timeout(120)
async def test_an_error_of_the_database_is_masked_and_the_service_recovers(
    fresh_database: FreshDatabase, tmp_path: Path
) -> None:
    database = fresh_database()
    async with Product(database, tmp_path) as product:
        ada = product.candidate()
        interview = await ada.start()
        key = str(uuid.uuid4())

        with psycopg.connect(database.dsns["history"], autocommit=True) as connection:
            connection.execute("ALTER TABLE history.turns RENAME TO away")
            broken = await ada.say(interview["interview_id"], "Does it still work?", key)
            read = await ada.request("GET", f"/api/v1/interviews/{interview['interview_id']}/messages")
            connection.execute("ALTER TABLE history.away RENAME TO turns")
        mended = await ada.say(interview["interview_id"], "Does it still work?", key)

        assert (broken.status, broken.json["reason"]) == (500, "INTERNAL")
        assert (read.status, read.json["reason"]) == (500, "INTERNAL")
        assert not [word for word in WORDS if word in broken.body + read.body]
        assert broken.json["correlation_id"] == broken.headers["X-Correlation-ID"]
        assert mended.status == 200

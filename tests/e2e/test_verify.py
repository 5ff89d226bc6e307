"""`colloquy verify` as an operator types it, on what a running product has written."""

import json
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from services.verifier.verification import Report, verify
from tests.e2e.product import Caller, Product, eventually
from tests.e2e.test_commands import colloquy


async def interview(product: Product, candidate: Caller) -> uuid.UUID:
    """An interview of two answers that is acknowledged."""
    started = await candidate.start()
    session_id = uuid.UUID(started["interview_id"])
    for text in ("An index on the column, measured before and after.", "A queue, so that nobody waits."):
        assert (await candidate.say(str(session_id), text)).status == 200
    query = "SELECT acked_rev = rev AS settled FROM history.streams WHERE session_id = %s"

    async def settled() -> bool:
        return bool(product.rows("history", query, session_id)[0]["settled"])

    await eventually(settled)
    return session_id


@contextmanager
def damaged(product: Product, session_id: uuid.UUID) -> Iterator[None]:
    """One turn's reply is another one inside the block."""
    change = "UPDATE history.turns SET reply_text = %s WHERE session_id = %s AND seq = 2 RETURNING reply_text"
    [turn] = product.rows(
        "history", "SELECT reply_text FROM history.turns WHERE session_id = %s AND seq = 2", session_id
    )
    product.rows("history", change, "Something else.", session_id)
    try:
        yield
    finally:
        product.rows("history", change, turn["reply_text"], session_id)


async def test_nothing_is_wrong_with_what_the_product_wrote(product: Product, ada: Caller) -> None:
    session_id = await interview(product, ada)

    assert await verify(product.database.dsns, [session_id], quiet=True) == Report(sessions=1)


async def test_a_sound_session_is_said_to_be_so(product: Product, ada: Caller) -> None:
    session_id = await interview(product, ada)

    code, out, err = await colloquy(product.environment, "verify", str(session_id))

    assert (code, err) == (0, "")
    assert re.fullmatch(r"sessions: 1 checked in \d+\.\d s, 0 broken \(0 violations\), 0 stale, 0 busy\n", out)


async def test_a_broken_session_is_said_to_be_so_and_the_exit_code_too(product: Product, ada: Caller) -> None:
    session_id = await interview(product, ada)

    with damaged(product, session_id):
        code, out, err = await colloquy(product.environment, "verify", str(session_id))
        _, told, _ = await colloquy(product.environment, "verify", str(session_id), "--json")

    line, summary = out.splitlines()
    assert (code, err) == (1, "")
    assert line == f"{session_id}  chain  number 2 does not say what its content digest says"
    assert re.fullmatch(r"sessions: 1 checked in \d+\.\d s, 1 broken \(1 violations\), 0 stale, 0 busy", summary)
    report = json.loads(told)
    assert report.pop("seconds") > 0
    assert report == {
        "sessions": 1,
        "broken": 1,
        "violations": [
            {
                "invariant": "chain",
                "session_id": str(session_id),
                "rule": "the_chain_holds",
                "what": "number 2 does not say what its content digest says",
            }
        ],
        "stale": [],
        "busy": [],
    }


async def test_a_session_that_there_is_not_is_no_sound_one(product: Product) -> None:
    nobody = uuid.uuid4()

    code, out, err = await colloquy(product.environment, "verify", str(nobody))

    assert (code, out, err) == (1, "", f"colloquy: no context has a session {nobody}\n")


async def test_what_is_no_session_id_is_a_mistake_of_usage(product: Product) -> None:
    code, out, err = await colloquy(product.environment, "verify", "the-last-one")

    assert (code, out) == (2, "")
    assert "invalid UUID value: 'the-last-one'" in err


async def test_a_database_that_cannot_be_read_is_one_clear_line(product: Product, tmp_path: Path) -> None:
    urls = {f"COLLOQUY_{context.upper()}_DATABASE_URL": dsn for context, dsn in product.database.dsns.items()}
    urls["COLLOQUY_ASSESSMENT_DATABASE_URL"] = "postgresql://ada:secret@127.0.0.1:1/x"

    code, out, err = await colloquy(urls, "--data", str(tmp_path), "verify")

    assert (code, out) == (1, "")
    assert re.fullmatch(
        r"colloquy: the database of assessment at 127\.0\.0\.1:1/x cannot be reached: .+ refused; start .+\n", err
    )
    assert "secret" not in err
    assert "ada" not in err


async def test_a_database_that_was_never_migrated_is_said_to_be_so(product: Product, tmp_path: Path) -> None:
    owner, name = product.database.owner_dsn, f"colloquy_test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(owner, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        try:
            url = owner.replace(product.database.name, name)
            code, _, err = await colloquy({"COLLOQUY_DATABASE_URL": url}, "--data", str(tmp_path), "verify")
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())

    assert (code, err) == (
        1,
        "colloquy: not migrated: session, history, assessment, llm; `colloquy migrate` does that\n",
    )

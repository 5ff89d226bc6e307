"""Erasing a session of the call ledger: what is left, and that no write brings anything back, whichever comes first."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from uuid import uuid4

import pytest

from libs.runtime.errors import NotFound
from services.llm_gateway import statements
from services.llm_gateway.clearing import Settled
from services.llm_gateway.domain import CallState, Completion, SessionId
from services.llm_gateway.store import Held, Intent, Store
from tests.db.erasure import open_transaction, remains, writing
from tests.db.llm_world import CEILING, COST, RELEASED, SETTLED, Ledger, intent, ledger

__all__ = ["ledger"]  # a fixture

SAID, ASKED = "And what became of Zoë Quill?", b"the item that was asked"
RESULT = Completion(SAID, "stop", "gpt-4o-mini-2024-07-18")


def an_intent(session_id: SessionId | None = None) -> Intent:
    return intent(session_id, context=ASKED)


def assert_nothing_said(ledger: Ledger, session_id: SessionId) -> None:
    """The session is a tombstone, and what its calls cost; the account adds up."""
    rows = remains(ledger.database, "llm", session_id)
    assert any(row.get("erased") for row in rows)
    assert not [said for said in (SAID, str(ASKED)) if said in str(rows)]
    assert {row["prompt_hash"] for row in rows if "prompt_hash" in row} <= {None}
    ledger.spent(intent(session_id).offer.key)


async def test_an_erase_leaves_what_calls_cost_and_how_they_ended(ledger: Ledger) -> None:
    held = await ledger.made(an_intent(), RESULT)
    key = held.intent.offer.key
    await ledger.opened(an_intent(key.session_id))
    before = {table: ledger.rows(table, key) for table in ("calls", "attempts")}

    await ledger.store.erase(key.session_id)

    assert ledger.rows("attempts", key) == before["attempts"]
    for was, left in zip(before["calls"], ledger.rows("calls", key), strict=True):
        changed = {name for name in was if was[name] != left[name]}
        assert changed - {"result"} == {"context", "prompt_hash"}
    assert ledger.spent(key) == COST + CEILING
    assert_nothing_said(ledger, key.session_id)


async def test_an_erase_again_changes_nothing(ledger: Ledger) -> None:
    held = await ledger.made(an_intent(), RESULT)
    session_id = held.intent.offer.key.session_id
    await ledger.store.erase(session_id)
    before = remains(ledger.database, "llm", session_id)

    await asyncio.gather(*(ledger.store.erase(session_id) for _ in range(4)))

    assert remains(ledger.database, "llm", session_id) == before


async def test_under_a_tombstone_nothing_is_read_opened_repeated_or_retried(ledger: Ledger) -> None:
    failed, live, never = await ledger.opened(an_intent()), await ledger.opened(an_intent()), an_intent()
    await ledger.store.finish(failed, RELEASED, CallState.FAILED, None)
    ended = await ledger.store.read(failed.intent.offer.key)
    for what in (failed.intent, live.intent, never):
        await ledger.store.erase(what.offer.key.session_id)

    for what in (failed.intent, live.intent, never):
        with pytest.raises(NotFound):
            await ledger.store.open(what)
        with pytest.raises(NotFound):
            await ledger.store.read(what.offer.key)
    assert await ledger.store.repeat(failed.intent, ended) is None
    assert await ledger.store.retry(live, RELEASED) is None
    assert ledger.rows("calls", never.offer.key) == []
    assert (ledger.spent(failed.intent.offer.key), ledger.spent(live.intent.offer.key)) == (0, CEILING)


async def test_a_result_that_comes_after_the_erase_leaves_its_cost_and_no_word(ledger: Ledger) -> None:
    held = await ledger.opened(an_intent())
    key = held.intent.offer.key
    await ledger.store.erase(key.session_id)

    with pytest.raises(NotFound):
        await ledger.store.finish(held, SETTLED, CallState.DONE, RESULT)

    assert ledger.spent(key) == COST
    assert_nothing_said(ledger, key.session_id)


# Each write against the erase, on two connections. A write gets the store it is made with, a call that is ready for it,
# and says whether it came to anything.


async def opens(store: Store, _: Held, other: Intent) -> bool:
    try:
        return isinstance(await store.open(other), Held)
    except NotFound:
        return False


async def repeats(store: Store, failed: Held, _: Intent) -> bool:
    try:
        return await store.repeat(failed.intent, await store.read(failed.intent.offer.key)) is not None
    except NotFound:
        return False


async def retries(store: Store, live: Held, _: Intent) -> bool:
    return await store.retry(live, RELEASED) is not None


async def finishes(store: Store, live: Held, _: Intent) -> bool:
    try:
        return await store.finish(live, SETTLED, CallState.DONE, RESULT) is not None
    except NotFound:
        return False


async def clears(store: Store, done: Held, _: Intent) -> bool:
    key = done.intent.offer.key
    await store.clear(Settled(key.session_id, (key.turn_id,)))
    return False


def test_every_statement_that_writes_is_tried_here() -> None:
    tried = {"llm_open", "llm_repeat", "llm_retry", "llm_finish", "llm_clear"}

    assert writing(statements) == tried | {"llm_bury", "llm_erase"}


Write = Callable[[Store, Held, Intent], Awaitable[bool]]
WRITES = pytest.mark.parametrize("write", [opens, repeats, retries, finishes, clears])


async def ready_for(write: Write, ledger: Ledger) -> tuple[Held, Intent]:
    """A call as the write wants it, and another of the same session that nobody has asked for yet."""
    held = await ledger.opened(an_intent())
    if write is repeats:
        await ledger.store.finish(held, RELEASED, CallState.FAILED, None)
    if write is clears:
        await ledger.store.finish(held, SETTLED, CallState.DONE, RESULT)
    return held, an_intent(held.intent.offer.key.session_id)


@WRITES
async def test_a_write_that_waited_for_the_erase_comes_to_nothing(ledger: Ledger, write: Write) -> None:
    held, other = await ready_for(write, ledger)
    key = held.intent.offer.key
    calls = len(ledger.rows("calls", key))
    async with open_transaction(ledger.dsn) as (erasing, transaction):
        await Store(erasing).erase(key.session_id)

        writing = asyncio.ensure_future(write(ledger.store, held, other))
        await transaction.is_waited_for()
        await transaction.commit()

        assert not await writing
    assert len(ledger.rows("calls", key)) == calls
    assert_nothing_said(ledger, key.session_id)


@WRITES
async def test_an_erase_that_waited_for_a_write_clears_what_it_wrote(ledger: Ledger, write: Write) -> None:
    held, other = await ready_for(write, ledger)
    session_id = held.intent.offer.key.session_id
    async with open_transaction(ledger.dsn) as (writing, transaction):
        assert await write(Store(writing), held, other) == (write is not clears)

        erasing = asyncio.create_task(ledger.store.erase(session_id))
        await transaction.is_waited_for()
        await transaction.commit()
        await erasing

    assert_nothing_said(ledger, session_id)


async def test_a_first_call_that_waited_for_the_erase_is_not_made(ledger: Ledger) -> None:
    first = an_intent()
    session_id = first.offer.key.session_id
    async with open_transaction(ledger.dsn) as (erasing, transaction):
        await Store(erasing).erase(session_id)

        opening = asyncio.create_task(ledger.store.open(first))
        await transaction.is_waited_for()
        await transaction.commit()

        with pytest.raises(NotFound):
            await opening
    assert ledger.rows("calls", first.offer.key) == []


async def test_an_erase_that_waited_for_a_first_call_clears_it(ledger: Ledger) -> None:
    first = an_intent()
    session_id = first.offer.key.session_id
    async with open_transaction(ledger.dsn) as (opening, transaction):
        await Store(opening).open(first)

        erasing = asyncio.create_task(ledger.store.erase(session_id))
        await transaction.is_waited_for()
        await transaction.commit()
        await erasing

    assert ledger.spent(first.offer.key) == CEILING
    assert_nothing_said(ledger, session_id)


async def test_whatever_the_order_nothing_is_left_of_what_was_said(ledger: Ledger) -> None:
    for _ in range(20):
        session_id = SessionId(uuid4())
        intents = [an_intent(session_id) for _ in range(4)]
        flights = [fly(ledger, what) for what in intents for _ in range(2)]
        steps = [*flights, ledger.store.erase(session_id), clear_all(ledger, intents)]
        random.shuffle(steps)

        await asyncio.gather(*steps)

        assert_nothing_said(ledger, session_id)


async def fly(ledger: Ledger, what: Intent) -> None:
    """What a process does with a call, as far as the tombstone lets it."""
    try:
        held = await ledger.store.open(what)
        if not isinstance(held, Held):
            return
        second = await ledger.store.retry(held, RELEASED)
        await ledger.store.finish(second or held, SETTLED, CallState.DONE, RESULT)
    except NotFound:
        pass


async def clear_all(ledger: Ledger, intents: list[Intent]) -> None:
    key = intents[0].offer.key
    await ledger.store.clear(Settled(key.session_id, tuple(what.offer.key.turn_id for what in intents)))

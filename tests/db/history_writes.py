"""What races are made of: the store's own statements with their parameters, to be held by a test's transaction, and the
tries of whoever competes with it."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar
from uuid import uuid4

from libs.runtime.errors import Unavailable
from services.history.commands import NewTurn
from services.history.domain import ClaimId, Head, SessionId, TurnId
from services.history.usecases import Owner
from tests.db.history_world import ALICE, World

T = TypeVar("T")


def from_another_gateway(new: NewTurn) -> NewTurn:
    return replace(new, claim_id=ClaimId(uuid4()))


def claiming(head: Head, new: NewTurn) -> Mapping[str, object]:
    """What `statements.CLAIM` needs to let `new` in."""
    return {
        "session_id": head.session_id,
        "rev": head.rev,
        "turn_id": TurnId(uuid4()),
        "request_id": new.request_id,
        "claim_id": new.claim_id,
        "fingerprint": b"x" * 32,
        "user_text": new.text,
        "user_tokens": 1,
        "item_answered": None,
    }


def committing(held: Owner, *, final: bool = False) -> Mapping[str, object]:
    """What `statements.COMMIT` needs to answer a claim."""
    return {
        "session_id": held.head.session_id,
        "turn_id": held.turn_id,
        "fence": held.head.fence,
        "reply_text": "from the holder",
        "reply_tokens": 3,
        "record": b"",
        "item_asked": None,
        "final": final,
    }


def sealing(head: Head) -> Mapping[str, object]:
    return {"session_id": head.session_id, "rev": head.rev, "active_turn": head.active_turn}


def erasing(head: Head) -> Mapping[str, object]:
    return {"session_id": head.session_id, "rev": head.rev}


def taking_over(held: Owner) -> Mapping[str, object]:
    return {
        "session_id": held.head.session_id,
        "rev": held.head.rev,
        "turn_id": held.turn_id,
        "claim_id": ClaimId(uuid4()),
    }


async def insist(attempt: Callable[[], Awaitable[T]]) -> T:
    """Send the same again while a busy machine answers that it may be sent again."""
    while True:
        with suppress(Unavailable):
            return await attempt()


async def head_of(world: World, session_id: SessionId) -> Head:
    return (await world.history.get_stream(session_id, ALICE)).head

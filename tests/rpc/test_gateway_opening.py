"""StartSession over a network that loses what the ledger says."""

import pytest

from libs.runtime import context
from libs.runtime.errors import Unavailable
from tests.rpc.failpoints_world import AskFor, ask_for, counts
from tests.rpc.gateway_world import World, world

__all__ = ["ask_for", "world"]

OPEN = "gateway.history.open_stream"


@pytest.mark.parametrize("kind", ["interview", "chat"])
async def test_a_lost_reply_is_asked_for_again_and_the_session_opened_once(
    world: World, ask_for: AskFor, kind: str
) -> None:
    ask_for("gateway", f"{OPEN}.after=1*error")
    gateway = world.gateway()

    session_id = await gateway.start(kind)

    assert counts(f"{OPEN}.after") == (2, 1)
    assert world.stream(session_id)["last_seq"] == (1 if kind == "interview" else 0)
    assert world.stream(session_id)["fence"] == (1 if kind == "interview" else 0)
    assert len(world.rows("SELECT session_id FROM history.streams")) == 1


async def test_a_ledger_that_stays_silent_is_asked_for_as_long_as_the_time_allows(
    world: World, ask_for: AskFor
) -> None:
    ask_for("gateway", f"{OPEN}.before=error")
    gateway = world.gateway()

    with context.serving(budget_ms=600), pytest.raises(Unavailable):
        await gateway.start("chat")

    assert 2 <= counts(f"{OPEN}.before")[0] <= 7

"""The points around an attempt at the provider."""

import pytest

from colloquy.llm.v1 import llm_pb2
from tests.databases import Database
from tests.rpc.failpoints_world import AskFor, ask_for, counts
from tests.rpc.llm_world import ScriptedProvider, a_request, provider, refuses, running_world

__all__ = ["ask_for", "provider"]  # fixtures


@pytest.mark.parametrize(
    ("when", "ended", "sent"),
    [("before", ("released", "unreachable"), 1), ("after", ("unknown", "broken"), 2)],
)
async def test_an_error_at_the_provider_is_a_connection_that_could_not_be_made_or_broke(
    database: Database, provider: ScriptedProvider, ask_for: AskFor, when: str, ended: tuple[str, str], sent: int
) -> None:
    ask_for("llm-gateway", f"llm.provider.{when}=1*error")
    request = a_request()
    async with running_world(database.dsns["llm"], provider) as world:
        await world.generate(request)

        first, second = world.attempts(request)
    assert (first["state"], first["error"]) == ended
    assert second["state"] == "settled"
    assert len(provider.received) == sent
    assert counts(f"llm.provider.{when}") == (2, 1)


async def test_a_streamed_attempt_has_the_same_points(
    database: Database, provider: ScriptedProvider, ask_for: AskFor
) -> None:
    ask_for("llm-gateway", "llm.provider.before=1*error")
    async with running_world(database.dsns["llm"], provider) as world:
        await world.stream(a_request())

    assert (counts("llm.provider.before"), counts("llm.provider.after")) == ((2, 1), (1, 0))
    assert len(provider.received) == 1


async def test_an_attempt_whose_intent_was_written_without_an_answer_is_made_all_the_same(
    database: Database, provider: ScriptedProvider, ask_for: AskFor
) -> None:
    ask_for("llm-gateway", "llm.retry.after=1*error")
    request, provider.script = a_request(), [refuses(500)]
    async with running_world(database.dsns["llm"], provider) as world:
        made = await world.generate(request)

        first, second = world.attempts(request)
    assert made.call.state == llm_pb2.CALL_STATE_DONE
    assert (first["state"], second["state"]) == ("unknown", "settled")
    assert len(provider.received) == 2
    assert counts("llm.retry.after") == (1, 1)

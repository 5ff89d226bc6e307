"""The points around an attempt at the provider."""

import pytest

from tests.databases import Database
from tests.rpc.failpoints_world import AskFor, ask_for, counts
from tests.rpc.llm_world import ScriptedProvider, a_request, provider, running_world

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

"""The verifier as its own process: what it needs to start, what it shows, how it ends."""

import asyncio
import signal

import aiohttp

from tests.conftest import FreshDatabase
from tests.rpc.processes import line_of, process

ANYWHERE = {"COLLOQUY_VERIFIER_METRICS_LISTEN": "127.0.0.1:0"}


async def test_it_is_ready_once_it_has_looked_and_leaves_when_told_to(fresh_database: FreshDatabase) -> None:
    urls = {f"COLLOQUY_{context.upper()}_DATABASE_URL": dsn for context, dsn in fresh_database().dsns.items()}
    async with process("services.verifier", {**ANYWHERE, **urls}) as verifier:
        serving = await line_of(verifier, "serving")
        pages: dict[str, tuple[int, str]] = {}
        async with aiohttp.ClientSession(f"http://127.0.0.1:{serving['metrics_port']}") as http:
            async with asyncio.timeout(20):
                while pages.get("/readyz", (0, ""))[0] != 200:
                    for path in ("/livez", "/readyz", "/metrics"):
                        async with http.get(path) as reply:
                            pages[path] = (reply.status, await reply.text())
        verifier.send_signal(signal.SIGTERM)
        code = await asyncio.wait_for(verifier.wait(), 10)

    assert serving["service"] == "verifier"
    assert pages["/livez"][0] == 200
    assert "colloquy_inconsistent_sessions 0.0" in pages["/metrics"][1]
    assert code == 0


async def test_without_database_urls_it_says_so_and_does_not_start() -> None:
    async with process("services.verifier", {"COLLOQUY_VERIFIER_METRICS_LISTEN": "nonsense"}) as verifier:
        _, errors = await asyncio.wait_for(verifier.communicate(), 20)

    problems = errors.decode().splitlines()
    assert verifier.returncode == 1
    assert len(problems) == 5
    assert problems[0] == "colloquy: COLLOQUY_VERIFIER_METRICS_LISTEN must be host:port, not 'nonsense'"

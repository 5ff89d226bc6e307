"""A service as a process of its own: started for a test, what it logs, and ended with the test."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import orjson

PATIENCE_SECONDS = 20


@asynccontextmanager
async def process(module: str, settings: Mapping[str, str]) -> AsyncIterator[Process]:
    """`python -m module` with these variables, and nothing of ours that the suite was started with."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("COLLOQUY_", "OPENAI_"))}
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, env={**inherited, **settings}, stdout=PIPE, stderr=PIPE
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.communicate()


async def line_of(service: Process, event: str) -> dict[str, Any]:
    """The next line that it logs about an event."""
    assert service.stdout is not None
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for text in service.stdout:
            line: dict[str, Any] = orjson.loads(text)
            if line["event"] == event:
                return line
    raise AssertionError(f"it ended without {event}")

"""Waiting for what tells nobody when it happens: looked at often, given up by whoever cancels the wait."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

POLL_SECONDS = 0.02

_T = TypeVar("_T")


async def until(look: Callable[[], _T | None]) -> _T:
    """What is seen once there is something to see: the first value that is true."""
    while True:
        if seen := look():
            return seen
        await asyncio.sleep(POLL_SECONDS)


async def until_told(ask: Callable[[], Awaitable[_T | None]]) -> _T:
    """The same, where looking takes its time."""
    while True:
        if told := await ask():
            return told
        await asyncio.sleep(POLL_SECONDS)

"""Which BFF the next request goes to: the next one that says it is ready, as a load balancer has it."""

import asyncio
from collections.abc import Sequence

import aiohttp

PERIOD_SECONDS = 0.1  # a BFF that is to stop says so half a second before it stops accepting
ASK_SECONDS = 0.3


class Balancer:
    """Goes round; until it watches, all are taken to be ready."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls, self._ready = urls, set(urls)
        self._next = 0

    def pick(self) -> str:
        """The next ready BFF; any where none is."""
        self._next += 1
        ready = [url for url in self._urls if url in self._ready] or self._urls
        return ready[self._next % len(ready)]

    async def watch(self, http: aiohttp.ClientSession) -> None:
        """Ask them again and again, until cancelled."""
        while True:
            await asyncio.gather(*(self._look(http, url) for url in self._urls))
            await asyncio.sleep(PERIOD_SECONDS)

    async def _look(self, http: aiohttp.ClientSession, url: str) -> None:
        try:
            async with http.get(f"{url}/readyz", timeout=aiohttp.ClientTimeout(total=ASK_SECONDS)) as response:
                ready = response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            ready = False
        if ready:
            self._ready.add(url)
        else:
            self._ready.discard(url)

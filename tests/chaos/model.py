"""The model simulator, as an operator of the suite sees it: how it behaves, and which calls it got."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

MODEL_MS = 100.0


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One request that reached the model: `key` is `session/turn/purpose`."""

    key: str
    fault: str
    outcome: str


class Model:
    """The simulator at `url`."""

    def __init__(self, http: aiohttp.ClientSession, url: str, model_ms: float = MODEL_MS) -> None:
        self._http, self._url, self._model_ms = http, url, model_ms

    async def behave(self, faults: Mapping[str, float] | None = None) -> None:
        """Answer as fast as was said at first, with these faults by probability from the next call on."""
        latency = {"median_ms": self._model_ms, "sigma": 0.3}
        body = orjson.dumps({"latency": latency, "faults": faults or {}})
        async with self._http.put(f"{self._url}/settings", data=body) as response:
            response.raise_for_status()

    @asynccontextmanager
    async def failing(self, faults: Mapping[str, float]) -> AsyncIterator[None]:
        """Inside the block calls fail so."""
        await self.behave(faults)
        try:
            yield
        finally:
            await self.behave()

    async def last(self) -> int:
        """The number of the call that ended last."""
        return int((await self._report(2**62))["last"])

    async def calls(self, since: int = 0) -> list[ModelCall]:
        """The calls that ended after that number, and those under way."""
        report = await self._report(since)
        if report["forgotten"]:
            raise RuntimeError(f"the simulator has forgotten {report['forgotten']} calls: ask for fewer turns")
        return [
            ModelCall(it["call"], it["fault"] or "", it.get("outcome", "running"))
            for it in (*report["calls"], *report["running"])
        ]

    async def _report(self, since: int) -> dict[str, Any]:
        async with self._http.get(f"{self._url}/calls", params={"since": str(since)}) as response:
            response.raise_for_status()
            report: dict[str, Any] = orjson.loads(await response.read())
            return report

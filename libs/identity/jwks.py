"""An issuer's published keys (RFC 7517, section 5), fetched when they are needed and kept.

They are fetched again when they have grown old (meanwhile the old ones count), and when a token names a key that is
not among them, but not more often than once in REFRESH_SECONDS: made-up key ids must not turn into load on the issuer.
Keys that could not be renewed go on counting: an issuer's outage must not lock everybody out.
"""

import asyncio
import time
from collections.abc import Callable, Mapping

import aiohttp
import orjson

from libs.identity import keys
from libs.identity.keys import PublicKey
from libs.runtime import telemetry
from libs.runtime.errors import Unavailable

MAX_AGE_SECONDS = 300.0
REFRESH_SECONDS = 30.0
FIRST_RETRY_SECONDS = 1.0  # while there is no key at all, nobody can be served
TIMEOUT_SECONDS = 1.0  # half of a turn
MAX_BYTES = 256 * 1024

_NEVER = float("-inf")


class KeySet:
    """The keys at `url`. `await close()` when draining.

    Args:
        clock: seconds on a monotonic clock.
    """

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._url, self._clock = url, clock
        self._by_kid: Mapping[str, PublicKey] = {}
        self._only: PublicKey | None = None
        self._fetched_at = self._tried_at = _NEVER
        self._fetching = asyncio.Lock()
        self._http: aiohttp.ClientSession | None = None
        self._renewal: asyncio.Task[None] | None = None

    async def find(self, kid: str | None) -> PublicKey | None:
        """The key with this id; for a token without one, the only key there is. Raises Unavailable without any key."""
        found = self._lookup(kid)
        if found is None:
            await self._refresh()
            if self._fetched_at == _NEVER:
                raise Unavailable("Tokens cannot be verified just now; the same request may be sent again.")
            return self._lookup(kid)
        if self._clock() - self._fetched_at >= MAX_AGE_SECONDS and (self._renewal is None or self._renewal.done()):
            self._renewal = asyncio.create_task(self._refresh(), name="jwks renewal")
        return found

    async def close(self) -> None:
        """Let go of the connection to the issuer."""
        if self._renewal:
            self._renewal.cancel()
        if self._http:
            await self._http.close()

    def _lookup(self, kid: str | None) -> PublicKey | None:
        return self._only if kid is None else self._by_kid.get(kid)

    async def _refresh(self) -> None:
        """Fetch the keys, unless that was tried a moment ago, by us or by whom we waited for."""
        async with self._fetching:
            pause = FIRST_RETRY_SECONDS if self._fetched_at == _NEVER else REFRESH_SECONDS
            if self._clock() - self._tried_at < pause:
                return
            self._tried_at = self._clock()
            try:
                document = await self._fetch()
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                telemetry.logger().warning("jwks_not_fetched", url=self._url, cause=type(error).__name__)
                return
            self._take(document)
            self._fetched_at = self._clock()

    async def _fetch(self) -> list[object]:
        if self._http is None:
            self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS))
        async with self._http.get(self._url, allow_redirects=False, raise_for_status=True) as response:
            body = await response.content.read(MAX_BYTES + 1)
            while len(body) <= MAX_BYTES and (chunk := await response.content.read(MAX_BYTES)):
                body += chunk
        if len(body) > MAX_BYTES:
            raise ValueError("the document is too large")
        document = orjson.loads(body)
        listed = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(listed, list):
            raise ValueError("the document has no list of keys")
        return listed

    def _take(self, listed: list[object]) -> None:
        usable = [(jwk, key) for jwk in listed if (key := keys.from_jwk(jwk))]
        self._by_kid = {
            jwk["kid"]: key for jwk, key in usable if isinstance(jwk, dict) and isinstance(jwk.get("kid"), str)
        }
        self._only = usable[0][1] if len(usable) == 1 else None

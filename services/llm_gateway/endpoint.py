"""The `openai` SDK's client, with a request layer that is as short as a request for a completion is simple.

The SDK's own goes through pydantic's options, three layers of headers, HTTPX and then aiohttp: 0.45 ms of CPU for each
call, and twice that on a busy machine, where aiohttp alone needs 0.08. What of it is the same for each call (what the
SDK sends along, the key, the proxy) is found out once here. The SDK's methods are used as they are: `post` comes to
`request`, which sends one request and gives back HTTPX's response or raises the SDK's errors.
"""

import ipaddress
from collections.abc import AsyncIterator
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx2
import openai

CONNECT_SECONDS: Final = 2.0
MAX_CONNECTIONS: Final = 1_000
# Between two turns a candidate thinks for a minute; without this the next turn would pay for a TLS handshake.
KEEPALIVE_SECONDS: Final = 90.0


class Endpoint(openai.AsyncOpenAI):
    """A client of one API, for the process's life; create it on the running loop.

    It makes one attempt, with no deadline but that to connect, and follows no redirect: that would be an attempt that
    nobody counts, at an address that nobody chose.

    Args:
        base_url: of the API.
        api_key: sent as a bearer token.
    """

    def __init__(self, base_url: str, api_key: str) -> None:
        super().__init__(base_url=base_url, api_key=api_key, max_retries=0)
        said = {**self.default_headers, **self.auth_headers}
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=MAX_CONNECTIONS, keepalive_timeout=KEEPALIVE_SECONDS, ssl=httpx2.create_ssl_context()
            ),
            headers={name: value for name, value in said.items() if isinstance(value, str)},  # others are left out
            timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS, sock_connect=CONNECT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # HTTPX's response does it
            proxy=_proxy_of(base_url),
        )

    async def request(
        self,
        cast_to: object,  # noqa: ARG002  always a response of HTTPX
        options: Any,
        *,
        stream: bool = False,
        stream_cls: object = None,  # noqa: ARG002  never one of the SDK's typed streams
    ) -> Any:
        """POST `options.content` to `options.url`, a whole one; the response, not read yet where it is a `stream`.

        Raises:
            openai.APIStatusError: the status is no success.
            aiohttp.ClientError: there is no response.
        """
        received = await self._session.post(
            options.url, data=options.content, headers=options.headers, allow_redirects=False
        )
        if stream and 200 <= received.status < 300:
            return httpx2.Response(received.status, headers=received.raw_headers, stream=_Stream(received))
        async with received:
            content = await received.read()
        response = httpx2.Response(received.status, headers=received.raw_headers, content=content)
        if response.is_success:
            return response
        response.request = httpx2.Request("POST", options.url)  # which the SDK's errors have
        raise self._make_status_error_from_response(response)

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()
        await super().close()


class _Stream(httpx2.AsyncByteStream):
    """The body of a response as it comes in. Closed before its end, it takes its connection with it."""

    def __init__(self, received: aiohttp.ClientResponse) -> None:
        self._received = received

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._received.content.iter_any():
            yield chunk

    async def aclose(self) -> None:
        self._received.release()


def _proxy_of(url: str) -> str | None:
    """The environment's proxy for this address; a loopback has none, as no proxy could reach it."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return None if _is_loopback(host) or proxy_bypass(host) else getproxies().get(parts.scheme)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

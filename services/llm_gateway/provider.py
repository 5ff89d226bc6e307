"""One OpenAI-compatible endpoint, through the `openai` SDK: the only module that sends anything to a provider.

The SDK is used below its typed layer. For a prompt of ten messages `chat.completions.create()` costs 2.3 ms of CPU, its
`with_raw_response` with `extra_body` 0.6 to 0.7 ms, and `post()`, the door for requests that the SDK has no method for,
0.46 to 0.6 ms: bytes in, bytes out, with its authentication, transport and errors.

It makes one attempt at a time: who repeats it knows the caller's budget. Of what a provider says, only a completion
leaves this module.
"""

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress
from typing import Final, cast

import aiohttp
import httpx2
import openai
import orjson

from services.llm_gateway.domain import Completion, Prompt
from services.llm_gateway.events import EventData
from services.llm_gateway.replies import Reply, disconnection, refusal

OPENAI_URL: Final = "https://api.openai.com/v1"
CALL_HEADER: Final = "X-Colloquy-Call"
CONNECT_SECONDS: Final = 2.0
MAX_CONNECTIONS: Final = 1_000
# Between two turns a candidate thinks for a minute; without this the next turn would pay for a TLS handshake.
KEEPALIVE_SECONDS: Final = 90.0
# What may still follow the end of a stream, before its connection can be used again.
_DRAIN_SECONDS: Final = 0.1
_OPENAI_HOST: Final = httpx2.URL(OPENAI_URL).host

OnText = Callable[[str], None]
_Options = openai.RequestOptions


class Provider:
    """A model at an endpoint, with one client for the process's life.

    Args:
        base_url: of the API, such as OPENAI_URL.
        api_key: sent as a bearer token.
        model: its name at the endpoint.
    """

    def __init__(self, base_url: str, api_key: str, model: str) -> None:
        self.name, self.model = httpx2.URL(base_url).host, model
        self._url = base_url.rstrip("/") + "/chat/completions"  # a relative one is parsed twice more
        # OpenAI's newer models know only the one, many compatible servers only the other.
        self._limit_field = "max_completion_tokens" if self.name == _OPENAI_HOST else "max_tokens"
        self._client = openai.AsyncOpenAI(
            base_url=base_url,
            api_key=api_key,
            max_retries=0,
            http_client=openai.DefaultAioHttpClient(
                timeout=httpx2.Timeout(None, connect=CONNECT_SECONDS, pool=CONNECT_SECONDS),
                limits=httpx2.Limits(max_connections=MAX_CONNECTIONS, keepalive_expiry=KEEPALIVE_SECONDS),
                follow_redirects=False,  # an attempt that nobody counts, at an address that nobody chose
                trust_env=not _is_loopback(self.name),  # a proxy cannot reach our loopback
            ),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    def body(self, prompt: Prompt, *, streamed: bool) -> bytes:
        """The request for `prompt`, as it will be sent."""
        fields: dict[str, object] = {
            "model": self.model,
            "messages": prompt.messages,
            self._limit_field: prompt.max_output_tokens,
        }
        if prompt.temperature is not None:
            fields["temperature"] = prompt.temperature
        if prompt.json_schema:
            schema = {"name": "reply", "strict": True, "schema": orjson.Fragment(prompt.json_schema)}
            fields["response_format"] = {"type": "json_schema", "json_schema": schema}
        if streamed:
            fields |= {"stream": True, "stream_options": {"include_usage": True}}
        return orjson.dumps(fields)

    async def complete(self, body: bytes, call: str, on_text: OnText | None = None) -> Completion:
        """Make one attempt; the caller limits its time by cancelling it.

        Args:
            body: from `body`, streamed if and only if `on_text` is given.
            call: joins the provider's log to ours.
            on_text: is called with each piece of the text as it arrives.

        Raises:
            ProviderError: there is no completion.
        """
        options: _Options = {"headers": {CALL_HEADER: call}}
        try:
            if on_text is None:
                return await self._whole(body, options)
            return await self._streamed(body, options, on_text)
        except openai.APIStatusError as error:
            raise refusal(error) from None
        except (openai.APIError, httpx2.HTTPError, aiohttp.ClientError) as error:
            raise disconnection(error) from None

    async def _whole(self, body: bytes, options: _Options) -> Completion:
        response = await self._client.post(self._url, cast_to=httpx2.Response, content=body, options=options)
        reply = Reply()
        reply.read(response.content, "message")
        return reply.completion()

    async def _streamed(self, body: bytes, options: _Options, on_text: OnText) -> Completion:
        stream = openai.AsyncStream[object]
        opened: object = await self._client.post(
            self._url, cast_to=httpx2.Response, content=body, options=options, stream=True, stream_cls=stream
        )
        response = cast(httpx2.Response, opened)  # `cast_to` decides, whatever the overload for streams says
        async with aclosing(response):
            return await _read(response.aiter_bytes(), on_text)


async def _read(chunks: AsyncIterator[bytes], on_text: OnText) -> Completion:
    """Read a stream to its [DONE], or to its end where a server sends none."""
    reply, events = Reply(), EventData()
    async for chunk in chunks:
        for data in events.feed(chunk):
            if data == b"[DONE]":
                reply.end()
                with suppress(TimeoutError, httpx2.HTTPError):
                    async with asyncio.timeout(_DRAIN_SECONDS):
                        async for _ in chunks:
                            pass
                return reply.completion()
            if text := reply.read(data, "delta"):
                on_text(text)
    return reply.completion()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

"""A model behind an OpenAI-compatible API, through the `openai` SDK.

The SDK is used below its typed layer. For a prompt of ten messages `chat.completions.create()` costs 2.3 ms of CPU, its
`with_raw_response` with `extra_body` 0.6 to 0.7 ms, and `post()`, the door for requests that the SDK has no method for,
0.15 ms over `Endpoint`: bytes in, bytes out, with its authentication and errors.

It makes one attempt at a time: who repeats it knows the caller's budget. Of what a provider says, only a completion
leaves this module.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress
from typing import Final, cast

import aiohttp
import httpx2
import openai
import orjson

from libs.failpoints import catalogue
from libs.runtime import failpoints
from services.llm_gateway.domain import Completion, Prompt
from services.llm_gateway.endpoint import Endpoint
from services.llm_gateway.events import EventData
from services.llm_gateway.replies import Reply, disconnection, refusal
from services.llm_gateway.settings import OPENAI_URL

CALL_HEADER: Final = "X-Colloquy-Call"
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
        self._url = base_url.rstrip("/") + "/chat/completions"
        # OpenAI's newer models know only the one, many compatible servers only the other.
        self._limit_field = "max_completion_tokens" if self.name == _OPENAI_HOST else "max_tokens"
        self._client = Endpoint(base_url, api_key)
        self._exchange = failpoints.between(self._send, lambda *_: catalogue.PROVIDER, _broken)

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
        try:
            return await self._exchange(body, {"headers": {CALL_HEADER: call}}, on_text)
        except openai.APIStatusError as error:
            raise refusal(error) from None
        except (aiohttp.ClientError, httpx2.HTTPError) as error:
            raise disconnection(error) from None

    async def _send(self, body: bytes, options: _Options, on_text: OnText | None) -> Completion:
        if on_text is None:
            return await self._whole(body, options)
        return await self._streamed(body, options, on_text)

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
    """Read a stream to its [DONE], or to its end where a server sends none.

    A reply that has come whole is paid for and shown: that its connection then breaks does not undo it.
    """
    reply, events = Reply(), EventData()
    try:
        async for chunk in chunks:
            for data in events.feed(chunk):
                if data == b"[DONE]":
                    reply.end()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_DRAIN_SECONDS):
                            async for _ in chunks:
                                pass
                    return reply.completion()
                if text := reply.read(data, "delta"):
                    on_text(text)
    except (aiohttp.ClientError, httpx2.HTTPError):
        if not reply.is_whole:
            raise
    return reply.completion()


def _broken(answered: bool) -> Exception:
    return aiohttp.ServerDisconnectedError() if answered else aiohttp.ConnectionTimeoutError()

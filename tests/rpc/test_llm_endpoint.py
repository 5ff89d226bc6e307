"""What the client of a provider's API sends and how, beyond what calls show."""

import gzip
from collections.abc import AsyncIterator

import httpx2
import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from services.llm_gateway.endpoint import Endpoint

REPLY: dict[str, list[str]] = {"choices": []}


class Seen:
    """A server that answers everything, compressed where it may, and notes what it was asked."""

    def __init__(self) -> None:
        self.requests: list[web.Request] = []
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self.server = TestServer(app)

    async def _answer(self, request: web.Request) -> web.Response:
        await request.read()
        self.requests.append(request)
        assert "gzip" in request.headers["Accept-Encoding"]
        body = gzip.compress(orjson.dumps(REPLY))
        return web.Response(body=body, content_type="application/json", headers={"Content-Encoding": "gzip"})


@pytest.fixture
async def seen() -> AsyncIterator[Seen]:
    answering = Seen()
    await answering.server.start_server()
    yield answering
    await answering.server.close()


async def post(base_url: str) -> httpx2.Response:
    endpoint = Endpoint(base_url, "sk-test")
    try:
        url = f"{base_url}/chat/completions"
        return await endpoint.post(url, cast_to=httpx2.Response, content=b"{}", options={"headers": {"X-Call": "1"}})
    finally:
        await endpoint.close()


async def test_it_sends_what_the_sdk_sends_and_reads_what_is_compressed(
    seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")

    response = await post(f"http://127.0.0.1:{seen.server.port}/v1")

    assert response.json() == REPLY
    [request] = seen.requests
    assert (request.method, request.path) == ("POST", "/v1/chat/completions")
    assert request.headers["Authorization"] == "Bearer sk-test"
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["OpenAI-Organization"] == "org-1"
    assert "OpenAI-Project" not in request.headers
    assert request.headers["X-Call"] == "1"


async def test_it_goes_through_the_environments_proxy(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{seen.server.port}")

    await post("http://models.invalid/v1")

    assert [request.host for request in seen.requests] == ["models.invalid"]


async def test_it_needs_no_proxy_for_its_own_machine(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.invalid:3128")

    response = await post(f"http://127.0.0.1:{seen.server.port}/v1")

    assert response.is_success

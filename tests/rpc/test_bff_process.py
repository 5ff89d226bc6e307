"""The BFF as its own process: what it needs to start, what it says and counts, how it ends.

Run as a module, this file is a BFF that goes on accepting for long once it is told to stop.
"""

import asyncio
import os
import signal
import socket

import aiohttp
import orjson

from colloquy.gateway.v1 import gateway_pb2 as pb
from libs.runtime.config import Env
from libs.runtime.server import run
from services.bff import server
from services.bff.__main__ import main
from tests.rpc.bff_world import PUBLIC_PEM, SESSION, TURN, a_gateway, a_token, a_turn, until
from tests.rpc.processes import line_of, process

ANYWHERE = {
    "COLLOQUY_BFF_LISTEN": "127.0.0.1:0",
    "COLLOQUY_BFF_METRICS_LISTEN": "127.0.0.1:0",
    "COLLOQUY_JWT_PUBLIC_KEY": PUBLIC_PEM,
}
PATIENT = "tests.rpc.test_bff_process"
UNHURRIED = {**ANYWHERE, "COLLOQUY_TURN_BUDGET_MS": "30000"}


async def status_of(http: aiohttp.ClientSession, url: str) -> int:
    async with http.get(url) as response:
        return response.status


async def test_told_to_stop_it_turns_unready_and_finishes_what_it_began() -> None:
    proceed = asyncio.Event()

    async def answer(_: object) -> pb.SubmitTurnResponse:
        await proceed.wait()
        return pb.SubmitTurnResponse(turn=a_turn())

    async with a_gateway() as (scripted, behind), aiohttp.ClientSession() as http:
        scripted.answers["SubmitTurn"] = answer
        async with process(PATIENT, {**UNHURRIED, "COLLOQUY_GATEWAY_TARGET": f"127.0.0.1:{behind.port}"}) as bff:
            serving = await line_of(bff, "serving")
            base, operators = (f"http://127.0.0.1:{serving[name]}" for name in ("port", "metrics_port"))
            await until(lambda: _is(http, f"{base}/readyz", 200))
            headers = {"authorization": f"Bearer {a_token()}", "idempotency-key": TURN}
            url = f"{base}/api/v1/interviews/{SESSION}/messages"
            asking = asyncio.create_task(http.post(url, json={"message_text": "hello"}, headers=headers))
            await until(lambda: bool(scripted.heard))

            bff.send_signal(signal.SIGTERM)
            await until(lambda: _is(http, f"{operators}/readyz", 503))
            late = await status_of(http, f"{base}/livez")
            proceed.set()
            answered = await asking
            body = await answered.json()
            code = await asyncio.wait_for(bff.wait(), 20)

    assert late == 200
    assert (answered.status, body["turn_id"]) == (200, TURN)
    assert code == 0


async def _is(http: aiohttp.ClientSession, url: str, status: int) -> bool:
    return await status_of(http, url) == status


async def _holds(http: aiohttp.ClientSession, url: str, text: str) -> bool:
    async with http.get(url) as response:
        return text in await response.text()


async def test_a_request_leaves_a_log_line_and_a_metric_and_nothing_that_was_said() -> None:
    token = a_token()
    async with (
        a_gateway() as (_, behind),
        aiohttp.ClientSession() as http,
        process("services.bff", {**UNHURRIED, "COLLOQUY_GATEWAY_TARGET": f"127.0.0.1:{behind.port}"}) as bff,
    ):
        serving = await line_of(bff, "serving")
        base, operators = (f"http://127.0.0.1:{serving[name]}" for name in ("port", "metrics_port"))
        await until(lambda: _is(http, f"{base}/readyz", 200))
        headers = {"authorization": f"Bearer {token}", "idempotency-key": TURN, "x-correlation-id": "support-4711"}
        url = f"{base}/api/v1/interviews/{SESSION}/messages"

        await http.post(url, json={"message_text": "my secret"}, headers=headers)
        await http.get(f"{base}/no/such/{SESSION}")
        await until(lambda: _holds(http, f"{operators}/metrics", 'route="unknown"'))
        async with http.get(f"{operators}/metrics") as response:
            metrics = await response.text()
        bff.send_signal(signal.SIGTERM)
        output, _ = await asyncio.wait_for(bff.communicate(), 20)

    lines = [orjson.loads(text) for text in output.splitlines()]
    line = next(line for line in lines if line.get("correlation_id") == "support-4711")
    assert (line["level"], line["event"], line["service"], line["code"]) == ("info", "http", "bff", 200)
    assert line["rpc"] == "POST /api/v1/interviews/{id}/messages"
    assert (line["session_id"], line["turn_id"]) == (SESSION, TURN)
    assert line["trace_id"]
    assert line["duration_ms"] > 0
    assert b"secret" not in output
    assert token.encode() not in output
    count = "colloquy_http_server_seconds_count"
    assert f'{count}{{method="POST",route="/api/v1/interviews/{{id}}/messages",status="200"}} 1.0' in metrics
    assert f'{count}{{method="GET",route="unknown",status="404"}} 1.0' in metrics
    assert SESSION not in metrics


async def test_what_is_no_http_leaves_a_log_line_under_the_id_that_its_problem_has() -> None:
    async with process("services.bff", {**ANYWHERE, "COLLOQUY_GATEWAY_TARGET": "127.0.0.1:1"}) as bff:
        serving = await line_of(bff, "serving")

        reader, writer = await asyncio.open_connection("127.0.0.1", serving["port"])
        writer.write(b"FOO /nope HTTP/1.1\r\n\r\n")
        problem = orjson.loads((await reader.read()).partition(b"\r\n\r\n")[2])
        writer.close()
        line = await line_of(bff, "http")

    assert (line["level"], line["code"], line["reason"]) == ("info", 400, "MALFORMED")
    assert line["correlation_id"] == problem["correlation_id"]


async def test_without_a_key_to_verify_tokens_with_it_says_so_and_does_not_start() -> None:
    wrong = {
        "COLLOQUY_BFF_LISTEN": "nonsense",
        "COLLOQUY_CHAT_BUDGET_MS": "long",
        "COLLOQUY_CORS_ORIGINS": "junk",
        "COLLOQUY_FAILPOINTS": "bad",
    }
    async with process("services.bff", wrong) as bff:
        _, errors = await asyncio.wait_for(bff.communicate(), 20)

    assert bff.returncode == 1
    problems = errors.decode().splitlines()
    assert {problem.split()[1] for problem in problems} == {*wrong, "COLLOQUY_JWT_PUBLIC_KEY"}
    assert len(problems) == 5


async def test_a_busy_port_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        async with process("services.bff", {**ANYWHERE, "COLLOQUY_BFF_LISTEN": listen}) as bff:
            _, errors = await asyncio.wait_for(bff.communicate(), 20)

    assert bff.returncode == 1
    assert len(errors.decode().splitlines()) == 1
    assert listen in errors.decode()


if __name__ == "__main__":
    # Half a second may be over before a test on a slow machine has asked again.
    server.NOT_SERVING_SECONDS = 4  # type: ignore[attr-defined]  # the runtime's
    raise SystemExit(run(main(Env(os.environ))))

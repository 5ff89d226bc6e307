"""The whole product for tests: six real services and the simulator on free ports, over the suite's PostgreSQL."""

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp
import psycopg
from psycopg.rows import dict_row

from services.cli import environment, stack, terminal
from services.cli.supervisor import Process, Supervisor
from tests.databases import Database
from tests.ports import free_ports

HELD = "gateway.history.commit_turn.before=sleep=60000"
"""To arm a gateway that is to be killed in mid-turn: what it would commit waits until then, however long that takes."""
RECONNECT_SECONDS = 0.5  # libs.runtime.client tries again every 0.2 s, and then asks for the health


@dataclass(slots=True)
class Reply:
    """An HTTP response, read whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    json: Any = field(repr=False)


class Product:
    """A running stack. `settings` override the environment of its processes; of the gateway there may be two."""

    def __init__(
        self, database: Database, data: Path, settings: Mapping[str, str] | None = None, *, two_gateways: bool = False
    ) -> None:
        self.database = database
        ports = iter(free_ports(len(environment.addresses()) + 2))
        given = {f"COLLOQUY_{context.upper()}_DATABASE_URL": dsn for context, dsn in database.dsns.items()}
        given |= {name: f"127.0.0.1:{next(ports)}" for name in environment.addresses()}
        given["COLLOQUY_MIN_TURN_INTERVAL_MS"] = "0"
        second, second_metrics = (f"127.0.0.1:{next(ports)}" for _ in range(2))
        if two_gateways:
            given["COLLOQUY_GATEWAY_TARGET"] = f"ipv4:{given['COLLOQUY_GATEWAY_LISTEN']},{second}"
        self.environment = environment.with_defaults({**given, **(settings or {})}, data)
        self.url = f"http://{self.environment['COLLOQUY_BFF_LISTEN']}"
        self.gateway = self.environment["COLLOQUY_GATEWAY_LISTEN"]
        self.simulator = f"http://{self.environment[environment.SIMULATOR_LISTEN]}"
        self._processes = stack.processes(self.environment, data / "logs")
        if two_gateways:
            self._processes.append(_replica(self.process("gateway"), second, second_metrics))
        self._supervisor = Supervisor(self._processes)

    async def __aenter__(self) -> Self:
        try:
            await self._supervisor.start()
        except BaseException:
            await self._supervisor.stop()
            raise
        self.http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.close()
        await self._supervisor.stop()

    def process(self, name: str) -> Process:
        """One of its processes, to be stopped."""
        return next(process for process in self._processes if process.name == name)

    def kill(self, name: str) -> None:
        """End one of its processes at once, as a crash would; it is started again."""
        running = self.process(name).running
        assert running is not None
        running.kill()

    @contextlib.asynccontextmanager
    async def killed(self, name: str) -> AsyncIterator[None]:
        """Inside the block a process that was killed is not started again."""
        process = self.process(name)
        assert process.keeper is not None
        process.keeper.cancel()
        await asyncio.wait({process.keeper})
        self.kill(name)
        async with self.stopped(process):
            yield

    async def is_reachable(self) -> bool:
        """Whether the bff has a gateway to call."""
        async with self.http.get(self.process("bff").ready_url) as response:
            return response.status == 200

    async def arm(self, name: str, failpoints: str) -> None:
        """Have faults happen in a process, whose product was given COLLOQUY_FAILPOINTS."""
        url = self.process(name).ready_url.replace("/readyz", "/failpoints")
        async with self.http.put(url, data=failpoints) as response:
            assert response.status == 200, await response.text()

    async def metric(self, name: str, sample: str) -> float:
        """A sample of a process's metrics; 0 where there is none yet."""
        async with self.http.get(self.process(name).ready_url.replace("/readyz", "/metrics")) as response:
            lines = (await response.text()).splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{sample} ")), 0.0)

    @contextlib.asynccontextmanager
    async def stopped(self, process: Process) -> AsyncIterator[None]:
        """One process does not run inside the block; afterwards it does again, and is ready."""
        await self._supervisor.stop_one(process)
        try:
            yield
        finally:
            await self._supervisor.start_one(process)
            await asyncio.sleep(RECONNECT_SECONDS)

    def token(self, subject: str, *roles: str) -> str:
        """A bearer token, by default a candidate's."""
        return terminal.token(self.environment, subject, roles or ["candidate"])

    def candidate(self, subject: str | None = None) -> "Caller":
        """A candidate of their own, unless named."""
        return self.caller(subject or f"candidate-{uuid.uuid4()}", "candidate")

    def caller(self, subject: str, *roles: str) -> "Caller":
        return Caller(self, subject, self.token(subject, *roles))

    async def set_simulator(self, **settings: object) -> None:
        """Change how the simulator behaves until the next change; without settings as it was started."""
        async with self.http.put(f"{self.simulator}/simulator/settings", json=settings) as response:
            assert response.status == 200, await response.text()

    async def model_calls(self, session_id: str) -> list[str]:
        """The purposes of the calls that the simulator got for a session, answered or running."""
        async with self.http.get(f"{self.simulator}/simulator/calls") as response:
            known = await response.json()
        calls = [call["call"] for call in (*known["calls"], *known["running"])]
        return sorted(call.split("/", 2)[2] for call in calls if call and call.startswith(f"{session_id}/"))

    def rows(self, context: str, query: str, *parameters: object) -> list[dict[str, Any]]:
        """What a context's tables hold."""
        with psycopg.connect(self.database.dsns[context], row_factory=dict_row, autocommit=True) as connection:
            return connection.execute(query.encode(), parameters).fetchall()


class Caller:
    """Somebody with a token, at the REST face."""

    def __init__(self, product: Product, subject: str, token: str) -> None:
        self._product = product
        self.subject = subject
        self.token = token

    async def request(
        self, method: str, path: str, body: object = None, *, key: str | None = None, **headers: str
    ) -> Reply:
        """Send JSON (bytes go as they are); header names have `_` for `-`."""
        sent = {
            "Authorization": f"Bearer {self.token}",
            **{name.replace("_", "-"): text for name, text in headers.items()},
        }
        if key is not None:
            sent["Idempotency-Key"] = key
        content = {"data": body} if isinstance(body, bytes) else {"json": body}
        if isinstance(body, bytes):
            sent.setdefault("Content-Type", "application/json")
        if body is None:
            content = {}
        async with self._product.http.request(method, self._product.url + path, headers=sent, **content) as response:
            read = await response.read()
            is_json = response.content_type.endswith("json")
            return Reply(
                response.status, response.headers, read, await response.json(content_type=None) if is_json else None
            )

    async def start(self, plan: str = "backend-engineer", key: str | None = None, **fields: object) -> dict[str, Any]:
        """A new interview."""
        reply = await self.request("POST", "/api/v1/interviews", {"plan": plan, **fields}, key=key or str(uuid.uuid4()))
        assert reply.status == 201, reply
        interview: dict[str, Any] = reply.json
        return interview

    async def say(self, interview_id: str, text: str, key: str | None = None, **fields: object) -> Reply:
        """One message of an interview."""
        path = f"/api/v1/interviews/{interview_id}/messages"
        return await self.request("POST", path, {"message_text": text, **fields}, key=key or str(uuid.uuid4()))

    async def stream(
        self, path: str, body: object, key: str | None = None
    ) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """The events of one message, as they come."""
        headers = {
            "Authorization": f"Bearer {self.token}",
            "Accept": "text/event-stream",
            "Idempotency-Key": key or str(uuid.uuid4()),
        }
        async with self._product.http.post(self._product.url + path, json=body, headers=headers) as response:
            assert response.status == 200, await response.text()
            async for event in events(response.content):
                yield event

    async def messages(self, interview_id: str, query: str = "") -> list[dict[str, Any]]:
        reply = await self.request("GET", f"/api/v1/interviews/{interview_id}/messages{query}")
        assert reply.status == 200, reply
        listed: list[dict[str, Any]] = reply.json["messages"]
        return listed


def _replica(gateway: Process, listen: str, metrics_listen: str) -> Process:
    """A second gateway, with ports of its own."""
    settings = {"COLLOQUY_GATEWAY_LISTEN": listen, "COLLOQUY_GATEWAY_METRICS_LISTEN": metrics_listen}
    addresses = [("127.0.0.1", int(address.rpartition(":")[2])) for address in (listen, metrics_listen)]
    log = gateway.log.with_name("gateway-2.log")
    ready = f"http://{metrics_listen}/readyz"
    return Process(
        "gateway-2", gateway.tier, gateway.command, {**gateway.environment, **settings}, log, addresses, ready
    )


async def events(content: aiohttp.StreamReader) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Server-sent events: the name and the decoded data of each."""
    name, data = "", ""
    async for raw in content:
        line = raw.decode().rstrip("\r\n")
        if line.startswith("event:"):
            name = line.removeprefix("event:").strip()
        elif line.startswith("data:"):
            data += line.removeprefix("data:").strip()
        elif not line and data:
            yield name, json.loads(data)
            name, data = "", ""


async def eventually(condition: Any, seconds: float = 10.0) -> None:
    """Wait until an async condition holds; its last answer is in the failure."""
    loop = asyncio.get_running_loop()
    give_up = loop.time() + seconds
    while not (answer := await condition()):
        assert loop.time() < give_up, f"still {answer!r} after {seconds} s"
        await asyncio.sleep(0.05)

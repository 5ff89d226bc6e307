"""The whole product as real processes on free ports, in a directory of its own, and nothing of it left afterwards.

Its PostgreSQL has the launcher's own settings, so every commit waits for the disk. No setting of the caller's
environment reaches it, so that two runs measure the same.
"""

import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import aiohttp
import orjson

from libs.identity.actor import Role
from libs.identity.minting import mint
from libs.postgres.launcher import EmbeddedPostgres
from migrations.heads import CONTEXTS
from migrations.migrator import migrate
from services.cli import database, environment, stack
from services.cli.environment import SERVICES
from services.cli.process import Process
from services.cli.supervisor import Supervisor
from tests.bench.children import BenchError
from tests.bench.figures import ModelCall
from tests.bench.workloads import Workload
from tests.ports import free_ports

_FOREIGN = ("COLLOQUY_", "OPENAI_", "OTEL_", "PG")


@dataclass(frozen=True, slots=True)
class Ground:
    """What the processes stand on: the environment they get, their directory, and PostgreSQL's postmaster."""

    environment: Mapping[str, str]
    data: Path
    postgres_pid: int


class Product:
    """The running product."""

    def __init__(self, ground: Ground, processes: Sequence[Process], http: aiohttp.ClientSession) -> None:
        self._ground, self._processes, self._http = ground, processes, http
        self.url = f"http://{ground.environment['COLLOQUY_BFF_LISTEN']}"
        self._simulator = f"http://{ground.environment[environment.SIMULATOR_LISTEN]}/simulator"

    @property
    def pids(self) -> dict[str, int]:
        """The processes by name, PostgreSQL's postmaster among them.

        Raises:
            BenchError: one has ended.
        """
        pids = {"postgres": self._ground.postgres_pid}
        for process in self._processes:
            if process.running is None or process.running.returncode is not None:
                raise BenchError(f"{process.name} ended: {process.last_words()}")
            pids[process.name] = process.running.pid
        return pids

    @property
    def metrics_urls(self) -> dict[str, str]:
        """The metrics page of each service."""
        given = self._ground.environment
        return {service.name: f"http://{given[service.metrics_listen]}/metrics" for service in SERVICES}

    def tokens(self, count: int) -> list[str]:
        """A token for each of so many candidates."""
        key = Path(self._ground.environment[environment.PRIVATE_KEY_FILE]).read_text(encoding="utf-8")
        return [mint(key, f"candidate-{number}", [Role.CANDIDATE]) for number in range(count)]

    async def set_model(self, workload: Workload) -> None:
        """Make the simulator as slow as the workload says, and let it forget its calls."""
        latency = {"median_ms": workload.model_ms, "sigma": workload.model_sigma}
        async with self._http.put(f"{self._simulator}/settings", data=orjson.dumps({"latency": latency})) as reply:
            reply.raise_for_status()
        await self.forget_calls()

    async def forget_calls(self) -> None:
        """Let the simulator forget the calls that have ended."""
        async with self._http.delete(f"{self._simulator}/calls") as reply:
            reply.raise_for_status()

    async def calls(self) -> list[ModelCall]:
        """The model calls since the last `forget_calls`, as the simulator measured them.

        Raises:
            BenchError: there were more than it remembers.
        """
        async with self._http.get(f"{self._simulator}/calls") as reply:
            report = orjson.loads(await reply.read())
        if report["forgotten"]:
            raise BenchError(f"the simulator has forgotten {report['forgotten']} calls: ask for fewer turns")
        return [
            ModelCall(call["call"], call["outcome"], _epoch_seconds(call["started_at"]), call["duration_ms"])
            for call in report["calls"]
        ]

    def complaints(self) -> Counter[str]:
        """What the services have logged above `info` so far, by service, event and reason."""
        said = Counter[str]()
        for process in self._processes:
            for line in process.log.read_bytes().splitlines():
                if line.startswith(b"{") and b'"level":"info"' not in line:
                    entry = orjson.loads(line)
                    reason = entry.get("reason") or entry.get("code", "")
                    said[f"{process.name} {entry['event']} {reason}".rstrip()] += 1
        return said


@contextmanager
def ground(inherited: Mapping[str, str]) -> Iterator[Ground]:
    """A directory, ports, keys and a migrated PostgreSQL for the length of the block. From the main thread only.

    Raises:
        LaunchError: PostgreSQL does not start.
    """
    with ExitStack() as stacked:
        data = Path(stacked.enter_context(tempfile.TemporaryDirectory(prefix="colloquy-bench-")))
        data.chmod(0o755)  # or, as root, PostgreSQL's user could not enter it
        postgres = EmbeddedPostgres(data / "postgres")
        stacked.callback(postgres.destroy)
        postgres.start()
        kept = {name: value for name, value in inherited.items() if not name.startswith(_FOREIGN)}
        settled = environment.with_defaults({**kept, **_addresses(), "COLLOQUY_MIN_TURN_INTERVAL_MS": "0"}, data)
        for context, dsn in postgres.roles(CONTEXTS).items():
            settled[f"COLLOQUY_{context.upper()}_DATABASE_URL"] = dsn
        migrate(database.database_urls(settled))
        assert postgres.pid is not None
        yield Ground(settled, data, postgres.pid)


@asynccontextmanager
async def running(on: Ground, http: aiohttp.ClientSession) -> AsyncIterator[Product]:
    """The simulator and the six services for the length of the block.

    Raises:
        SupervisorError: one of them does not start.
    """
    processes = stack.processes(on.environment, on.data / "logs")
    supervisor = Supervisor(processes)
    try:
        await supervisor.start()
        yield Product(on, processes, http)
    finally:
        await supervisor.stop()


def _addresses() -> dict[str, str]:
    """An address with a free port for everything that listens."""
    names = environment.addresses()
    return {name: f"127.0.0.1:{port}" for name, port in zip(names, free_ports(len(names)), strict=True)}


def _epoch_seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()

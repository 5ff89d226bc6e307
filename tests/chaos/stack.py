"""The product as real processes: replicas, the links between them, and PostgreSQL, in a directory that does not stay.

The processes are those of `colloquy run`, kept running by the product's own supervisor.
"""

import os
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from libs.identity.actor import Role
from libs.identity.minting import mint
from libs.runtime.config import Address
from services.cli import environment, stack
from services.cli.environment import SERVICES, SIMULATOR_LISTEN, Service
from services.cli.process import Process
from services.cli.supervisor import Supervisor
from tests.chaos import postgres
from tests.chaos.proxy import Proxy
from tests.chaos.topology import CALLS, LINKS, POSTGRES, Link, Replica
from tests.ports import free_ports

_FOREIGN = ("COLLOQUY_", "OPENAI_", "OTEL_", "PG")
_SERVICES = {service.name: service for service in SERVICES}
SIMULATOR = "simulator"
SETTINGS = {
    "COLLOQUY_MIN_TURN_INTERVAL_MS": "0",
    "COLLOQUY_CHAT_BUDGET_MS": "5000",  # so that a chat's lease ends 7 s after its owner
    "COLLOQUY_FAILPOINTS": "",  # none are armed, and the metrics ports take orders
}


@dataclass(slots=True)
class Stack:
    """A running product.

    Attributes:
        processes: by name, all but PostgreSQL, the simulator among them.
        proxies: by the name of their link; empty where the processes talk to each other directly.
        environments: what each process was started with.
    """

    supervisor: Supervisor
    host: postgres.Host
    processes: Mapping[str, Process]
    proxies: Mapping[str, Proxy]
    environments: Mapping[str, Mapping[str, str]]
    data: Path

    @property
    def urls(self) -> list[str]:
        """The BFFs."""
        listen = _SERVICES["bff"].listen
        return [f"http://{given[listen]}" for name, given in self.environments.items() if name.startswith("bff")]

    @property
    def simulator(self) -> str:
        """The model simulator's own routes."""
        given = next(iter(self.environments.values()))
        return f"http://{given[SIMULATOR_LISTEN]}/simulator"

    def gateway_addresses(self) -> list[str]:
        """The gateways, past every link."""
        listen = _SERVICES["gateway"].listen
        return [given[listen] for name, given in self.environments.items() if name.startswith("gateway")]

    def metrics_url(self, process: str) -> str:
        """The metrics port of a process."""
        return f"http://{self.environments[process][service_of(process).metrics_listen]}"

    def token(self, subject: str, *roles: Role) -> str:
        """A bearer token, by default a candidate's."""
        given = next(iter(self.environments.values()))
        key = Path(given[environment.PRIVATE_KEY_FILE]).read_text(encoding="utf-8")
        return mint(key, subject, roles or [Role.CANDIDATE])


def service_of(process: str) -> Service:
    """The service that a process is a replica of."""
    return _SERVICES[process.rstrip("-0123456789")]


@asynccontextmanager
async def running(
    replicas: Sequence[Replica],
    *,
    linked: bool = False,
    settings: Mapping[str, str] | None = None,
    logs: Path | None = None,
) -> AsyncIterator[Stack]:
    """These processes, the simulator and PostgreSQL for the length of the block; nothing of it stays.

    Args:
        linked: whether they talk to each other over proxies that can be made to fail.
        settings: of every process, in place of the defaults.
        logs: where the logs go and stay; without it they go with the rest.

    Raises:
        SupervisorError, LaunchError: something does not start.
    """
    async with AsyncExitStack() as stacked:
        data = stacked.enter_context(_directory())
        host = await stacked.enter_async_context(postgres.hosted(data / "database"))
        addresses = _addresses(replicas)
        proxies = {}
        for link in LINKS if linked else ():
            upstream = _callee(link, addresses, host)
            proxies[link.name] = await stacked.enter_async_context(Proxy(upstream))
        common = _common(data, {**SETTINGS, **(settings or {})})
        environments = {
            it.name: {**common, **addresses[it.name], **_calls(it, replicas, addresses, host, proxies)}
            for it in replicas
        }
        logs = logs or data / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        processes = _processes(replicas, environments, logs)
        supervisor = Supervisor(list(processes.values()))
        told = stacked.enter_context((logs / "supervisor.log").open("a", buffering=1, encoding="utf-8"))
        stacked.enter_context(redirect_stdout(told))
        stacked.push_async_callback(supervisor.stop)
        await supervisor.start()
        yield Stack(supervisor, host, processes, proxies, environments, data)


@contextmanager
def _directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="colloquy-chaos-") as made:
        data = Path(made)
        data.chmod(0o755)  # or, as root, PostgreSQL's user could not enter it
        yield data


def _common(data: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """What all processes are started with; no setting of the caller's environment reaches them."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    [port] = free_ports(1)
    return environment.with_defaults({**kept, **settings, SIMULATOR_LISTEN: f"127.0.0.1:{port}"}, data)


def _addresses(replicas: Sequence[Replica]) -> dict[str, dict[str, str]]:
    """The two variables that say where each process listens."""
    ports = iter(free_ports(2 * len(replicas)))
    return {
        replica.name: {
            _SERVICES[replica.service].listen: f"127.0.0.1:{next(ports)}",
            _SERVICES[replica.service].metrics_listen: f"127.0.0.1:{next(ports)}",
        }
        for replica in replicas
    }


def _calls(
    caller: Replica,
    replicas: Sequence[Replica],
    addresses: Mapping[str, Mapping[str, str]],
    host: postgres.Host,
    proxies: Mapping[str, Proxy],
) -> dict[str, str]:
    """The variables that say where a process finds whom it calls."""
    made: dict[str, str] = {}
    for callee in CALLS[caller.service]:
        links = [Link(caller.name, it.name) for it in (*replicas, POSTGRES) if it.service == callee]
        found = [_through(link, addresses, host, proxies) for link in links]
        if callee == POSTGRES.service:
            context = _SERVICES[caller.service].variable.lower()
            made[f"COLLOQUY_{context.upper()}_DATABASE_URL"] = _at(host.dsns[context], found[0])
        else:
            made[_SERVICES[callee].target] = "ipv4:" + ",".join(f"{name}:{port}" for name, port in found)
    return made


def _through(
    link: Link, addresses: Mapping[str, Mapping[str, str]], host: postgres.Host, proxies: Mapping[str, Proxy]
) -> Address:
    """Where a caller reaches its callee: at the link's proxy, if it has one."""
    if proxy := proxies.get(link.name):
        return "127.0.0.1", proxy.port
    return _callee(link, addresses, host)


def _callee(link: Link, addresses: Mapping[str, Mapping[str, str]], host: postgres.Host) -> Address:
    """Where the callee itself listens."""
    if link.callee == POSTGRES.name:
        url = urlsplit(host.owner_dsn)
        assert url.port
        return "127.0.0.1", url.port
    name, _, port = addresses[link.callee][service_of(link.callee).listen].rpartition(":")
    return name, int(port)


def _at(dsn: str, address: Address) -> str:
    """The same DSN with another host and port."""
    url = urlsplit(dsn)
    return url._replace(netloc=f"{url.username}:{url.password}@{address[0]}:{address[1]}").geturl()


def _processes(
    replicas: Sequence[Replica], environments: Mapping[str, Mapping[str, str]], logs: Path
) -> dict[str, Process]:
    """The simulator and the replicas, as `colloquy run` would start each of them."""
    made = {}
    for replica in replicas:
        for process in stack.processes(environments[replica.name], logs):
            name = replica.name if process.name == replica.service else process.name
            if process.name in (replica.service, SIMULATOR):
                made[name] = replace(process, name=name, log=logs / f"{name}.log")
    return made

"""`colloquy run`: PostgreSQL, migrations, six services and the simulator on this machine, until Ctrl-C."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy.exc import OperationalError

from libs.postgres.errors import LaunchError
from libs.postgres.launcher import EmbeddedPostgres
from migrations.heads import CONTEXTS
from migrations.migrator import migrate
from services.cli import environment, terminal
from services.cli.supervisor import Process, Supervisor, SupervisorError, tell

POSTGRES_WATCH_SECONDS = 0.5


class StackError(Exception):
    """The stack cannot start or go on; one line for the operator."""


def run(given: Mapping[str, str], data: Path, *, demo: bool) -> int:
    """Start everything, play the demo interview, stay until SIGINT or SIGTERM; the exit code."""
    try:
        data.mkdir(parents=True, exist_ok=True)
        settled = environment.with_defaults(given, data)
        with _database(settled, data) as postgres:
            migrate(database_urls(settled))
            environment.write(settled, data)
            asyncio.run(_serve(settled, data, postgres, demo=demo))
    except (StackError, LaunchError, SupervisorError, OSError) as error:
        sys.stderr.write(f"colloquy: {error}\n")
        return 1
    except OperationalError as error:
        sys.stderr.write(f"colloquy: the database cannot be used: {str(error.orig).splitlines()[0]}\n")
        return 1
    return 0


def database_urls(given: Mapping[str, str]) -> dict[str, str]:
    """The DSN of each context.

    Raises:
        StackError: one of them is not set.
    """
    urls = {}
    for context in CONTEXTS:
        own = f"COLLOQUY_{context.upper()}_DATABASE_URL"
        urls[context] = variable(given, own) or variable(given, "COLLOQUY_DATABASE_URL")
        if not urls[context]:
            raise StackError(f"{own} (or COLLOQUY_DATABASE_URL) is not set")
    return urls


def variable(given: Mapping[str, str], name: str) -> str:
    """A variable, or the content of the file that its `_FILE` twin names; empty where neither is set."""
    path = given.get(f"{name}_FILE")
    return given.get(name) or (Path(path).read_text(encoding="utf-8").strip() if path else "")


@contextlib.contextmanager
def _database(settled: dict[str, str], data: Path) -> Iterator[EmbeddedPostgres | None]:
    """The database that is configured, or PostgreSQL from its wheel for the length of the block."""
    if any("DATABASE_URL" in name for name in settled):
        yield None
        return
    with EmbeddedPostgres(data / "postgres") as postgres:
        for context, dsn in postgres.roles(CONTEXTS).items():
            settled[f"COLLOQUY_{context.upper()}_DATABASE_URL"] = dsn
        yield postgres


async def _serve(settled: Mapping[str, str], data: Path, postgres: EmbeddedPostgres | None, *, demo: bool) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    supervisor = Supervisor(processes(settled, data / "logs"))
    watching = asyncio.create_task(_watch(postgres)) if postgres else None
    try:
        if not await _unless(stop, supervisor.start()):
            return
        tell("ready")
        if demo:
            await _unless(stop, terminal.demo(settled))
        _tell_urls(settled, data)
        await stop.wait()
    finally:
        tell("stopping")
        await supervisor.stop()
        if watching:
            watching.cancel()


async def _watch(postgres: EmbeddedPostgres) -> None:
    """Start PostgreSQL again where it died: it keeps its port and its data, so the services find it by themselves."""
    while True:
        await asyncio.sleep(POSTGRES_WATCH_SECONDS)
        if not postgres.alive:
            tell("postgres ended; starting it again")
            try:
                postgres.start()  # on this thread, as it must be: everybody waits for the database anyway
            except LaunchError as error:
                tell(f"postgres did not start: {error}")
            else:
                tell(f"postgres runs again, as process {postgres.pid}")


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Do the work unless we are told to stop first; whether it was done."""
    doing, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    await asyncio.wait({doing, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if doing.done():
        doing.result()
        return True
    doing.cancel()
    await asyncio.wait({doing})
    return False


def processes(settled: Mapping[str, str], logs: Path) -> list[Process]:
    """Every process of a stack but PostgreSQL, in the order in which they start."""
    children = dict(settled)
    made = []
    if environment.uses_simulator(settled):
        address = settled[environment.SIMULATOR_LISTEN]
        children["OPENAI_BASE_URL"] = f"http://{address}/v1"
        command = [sys.executable, "-m", "services.simulator", "--port", address.rpartition(":")[2]]
        ready = f"http://{address}/v1/models"
        made.append(Process("simulator", command, children, logs / "simulator.log", ready))
    for service in environment.SERVICES:
        command = [sys.executable, "-m", service.module]
        ready = f"http://{settled[service.metrics_listen]}/readyz"
        made.append(Process(service.name, command, children, logs / f"{service.name}.log", ready))
    return made


def _tell_urls(settled: Mapping[str, str], data: Path) -> None:
    simulator = environment.uses_simulator(settled)
    tell(
        f"""
REST     http://{settled["COLLOQUY_BFF_LISTEN"]}   (documentation: /docs)
gRPC     {settled["COLLOQUY_GATEWAY_LISTEN"]}
metrics  {" ".join(settled[service.metrics_listen].rpartition(":")[2] for service in environment.SERVICES)}
model    {"the simulator, http://" + settled[environment.SIMULATOR_LISTEN] if simulator else "the configured provider"}
logs     {data / "logs"}

Interview yourself:  .venv/bin/colloquy interview
A token for curl:    .venv/bin/colloquy token --sub alice --role candidate
Everything runs; Ctrl-C stops it."""
    )

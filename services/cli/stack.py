"""`colloquy run`: PostgreSQL, migrations, services, verifier and simulator on this machine, until Ctrl-C."""

import asyncio
import importlib
import signal
import sys
from collections.abc import Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from libs.identity.keys import generate_keypair
from libs.postgres.launcher import EmbeddedPostgres
from libs.runtime import failpoints
from libs.runtime.config import ConfigError, Env
from services.cli import database, environment, terminal
from services.cli.database import database_urls as database_urls
from services.cli.supervisor import Process, Supervisor, tell, until_ports_free


def run(given: Mapping[str, str], data: Path, *, demo: bool) -> int:
    """Start everything, play the demo interview, stay until SIGINT or SIGTERM; the exit code.

    Raises:
        CommandError, ConfigError, LaunchError, OSError: it cannot be started.
    """
    # Until there is a loop to hear them; what a script runs in the background would ignore SIGINT.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    try:
        check(given)
        tell(f"starting; the logs are in {data / 'logs'}")
        data.mkdir(parents=True, exist_ok=True)
        settled = environment.with_defaults(given, data)
        asyncio.run(until_ports_free(processes(settled, data / "logs")))  # before a database is made for nothing
        with database.opened(settled, data) as postgres:
            database.migrate(database_urls(settled))
            asyncio.run(_serve(settled, data, postgres, demo=demo))
    except KeyboardInterrupt:
        tell("stopped")
    return 0


async def _serve(settled: Mapping[str, str], data: Path, postgres: EmbeddedPostgres | None, *, demo: bool) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    supervisor = Supervisor(processes(settled, data / "logs"))
    watching = asyncio.create_task(database.watch(postgres)) if postgres else None
    try:
        if not await _unless(stop, supervisor.start()):
            return
        environment.write(settled, data)  # not earlier: a start that is refused leaves the file of the stack that runs
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


def check(given: Mapping[str, str]) -> None:
    """Read what the processes of a stack will read, before anything is made.

    Raises:
        ConfigError: some of it is missing or wrong; all of that is said.
    """
    env = Env({**given, **_to_be_made(given)})
    for name, default in environment.addresses().items():
        env.listen(name, default, told=True)
    for program in environment.PROGRAMS:
        # By its name, as it is started: no service is imported here, but for the module that says what it reads.
        importlib.import_module(f"{program.module}.settings").read(env)
    failpoints.configure("run", env)  # which has no points, so that nothing is armed here
    problems: list[str] = []
    for demand in (
        (env.check, partial(database.database_urls, given)) if database.is_configured(given) else (env.check,)
    ):
        try:
            demand()
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))


def _to_be_made(given: Mapping[str, str]) -> dict[str, str]:
    """In place of what a stack makes for itself where it is not configured, values of the same form."""
    made = {}
    if not environment.names_keys(given):
        made["COLLOQUY_JWT_PUBLIC_KEY"] = generate_keypair().public_pem
    if not database.is_configured(given):
        made[database.COMMON_URL] = "postgresql://"
    if environment.uses_simulator(given):
        made["OPENAI_BASE_URL"] = "http://localhost"
    return made


def processes(settled: Mapping[str, str], logs: Path) -> list[Process]:
    """Every process of a stack but PostgreSQL.

    Raises:
        ConfigError: an address to listen on is wrong.
    """
    env, children, made = Env(settled), dict(settled), []
    addresses = {name: env.listen(name, "", told=True) for name in environment.addresses()}
    env.check()
    if environment.uses_simulator(settled):
        listen = settled[environment.SIMULATOR_LISTEN]
        children["OPENAI_BASE_URL"] = f"http://{listen}/v1"
        host, port = addresses[environment.SIMULATOR_LISTEN]
        command = [sys.executable, "-m", "services.simulator", "--host", host, "--port", str(port)]
        ready = f"http://{listen}/v1/models"
        listens = [(host, port)]
        made.append(Process("simulator", 0, command, children, logs / "simulator.log", listens, ready))
    for program in environment.PROGRAMS:
        command = [sys.executable, "-m", program.module]
        ready = f"http://{settled[program.metrics_listen]}/readyz"
        listens = [addresses[program.metrics_listen]]
        if isinstance(program, environment.Service):
            listens.append(addresses[program.listen])
        log = logs / f"{program.name}.log"
        made.append(Process(program.name, program.tier, command, children, log, listens, ready))
    return made


def _tell_urls(settled: Mapping[str, str], data: Path) -> None:
    simulator = environment.uses_simulator(settled)
    tell(
        f"""
REST     http://{settled["COLLOQUY_BFF_LISTEN"]}   (documentation: /docs)
gRPC     {settled["COLLOQUY_GATEWAY_LISTEN"]}
metrics  {" ".join(settled[program.metrics_listen].rpartition(":")[2] for program in environment.PROGRAMS)}
model    {"the simulator, http://" + settled[environment.SIMULATOR_LISTEN] if simulator else "the configured provider"}
logs     {data / "logs"}

Interview yourself:  .venv/bin/colloquy interview
A token for curl:    .venv/bin/colloquy token --sub alice --role candidate
Everything runs; Ctrl-C stops it."""
    )

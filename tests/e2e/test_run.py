"""`colloquy run` as a stranger starts it: its own PostgreSQL, an interview played, supervised, nothing left behind."""

import asyncio
import contextlib
import os
import re
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import psutil
import pytest
from aiohttp import web

from services.cli import environment, terminal
from tests.ports import free_ports
from tests.processes import has_ended

START_SECONDS = 60


class Running:
    """A `colloquy run` whose lines can be awaited."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said = ""

    async def says(self, pattern: str, seconds: float = START_SECONDS) -> re.Match[str]:
        """Read on until what was said matches."""
        assert self.process.stdout is not None
        async with asyncio.timeout(seconds):
            while not (found := re.search(pattern, self.said)):
                line = await self.process.stdout.readline()
                assert line, f"it ended, having said: {self.said}"
                self.said += line.decode()
        return found


def ports() -> dict[str, str]:
    names = environment.addresses()
    return {name: f"127.0.0.1:{port}" for name, port in zip(names, free_ports(len(names)), strict=True)}


@pytest.fixture
def data() -> Iterator[Path]:
    """A directory that PostgreSQL's user may enter, so that it keeps nothing elsewhere."""
    with tempfile.TemporaryDirectory(prefix="colloquy-run-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


@asynccontextmanager
async def colloquy_run(data: Path, *arguments: str, **variables: str) -> AsyncIterator[Running]:
    """`colloquy run` in an environment of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("COLLOQUY_", "OPENAI_"))}
    running = Running(
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services.cli", "--data", str(data), "run", *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**kept, **variables},
            start_new_session=True,
        )
    )
    try:
        yield running
    finally:
        if running.process.returncode is None:
            await interrupt(running)


async def interrupt(running: Running) -> int:
    """Press Ctrl-C; the exit code."""
    running.process.send_signal(signal.SIGINT)
    assert running.process.stdout is not None
    running.said += (await running.process.stdout.read()).decode()
    return await running.process.wait()


def children_of(running: Running) -> dict[psutil.Process, str]:
    """Its processes, and theirs, with their command lines."""
    found = {}
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(running.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                found[child] = " ".join(child.cmdline())
    return found


def alive(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    return [one for one in processes if not has_ended(one)]


def started_with(chosen: dict[str, str]) -> list[psutil.Process]:
    """Whatever was given these ports, whoever its parent is by now."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("COLLOQUY_BFF_LISTEN") == chosen["COLLOQUY_BFF_LISTEN"]:
                found.append(process)
    return found


@pytest.mark.timeout(180)
async def test_it_plays_an_interview_restarts_what_dies_and_leaves_nothing_running(data: Path) -> None:
    # What an application or our tests are told about a database of theirs is not about ours.
    others = dict.fromkeys(("DATABASE_URL", "COLLOQUY_TEST_DATABASE_URL"), "postgresql://127.0.0.1:1/theirs")
    async with colloquy_run(data, **ports(), **others) as running:
        await running.says("Everything runs")
        turns = [float(took) for took in re.findall(r"\[turn \d+, (\d+) ms", running.said)]
        children = children_of(running)
        history = next(child for child, command in children.items() if "services.history" in command)
        postgres = next(child for child, command in children.items() if "/postgres -D" in command)

        history.kill()
        await running.says(r"history ended \(SIGKILL\); starting it again")
        await running.says(r"history runs again, as process \d+")
        postgres.kill()
        await running.says(r"postgres ended; starting it again")
        await running.says(r"postgres runs again, as process \d+")
        children |= children_of(running)
        code = await interrupt(running)

    assert len(turns) >= 3
    assert max(turns) < 2000
    assert code == 0
    assert alive(children) == []


@pytest.mark.timeout(180)
async def test_a_second_start_finds_the_data_and_the_keys_of_the_first(data: Path) -> None:
    chosen = ports()
    async with colloquy_run(data, **chosen) as first:
        await first.says("Everything runs")

    async with colloquy_run(data, "--no-demo", **chosen) as second:
        await second.says("Everything runs")
        kept = environment.read({}, data)
        headers = {"Authorization": f"Bearer {terminal.token(kept, 'terminal', ['candidate'])}"}
        async with (
            aiohttp.ClientSession(f"http://{kept['COLLOQUY_BFF_LISTEN']}", headers=headers) as http,
            http.get("/api/v1/interviews") as reply,
        ):
            found = await reply.json()

    assert [interview["candidate_name"] for interview in found["interviews"]] == ["Ada"]
    assert (data / "run.env").stat().st_mode & 0o777 == 0o600


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", ["postgres", "services.simulator", "services.bff"])
async def test_ctrl_c_during_the_start_leaves_nothing_running(name: str, data: Path) -> None:
    chosen = ports()
    async with colloquy_run(data, **chosen) as running:
        children = children_of(running)
        while not any(name in command for command in children.values()):
            await asyncio.sleep(0.01)
            children |= children_of(running)

        code = await interrupt(running)

    assert code == 0
    assert "Traceback" not in running.said
    assert alive(children) == []
    assert started_with(chosen) == []


@pytest.mark.timeout(120)
async def test_a_port_that_another_stack_has_is_one_clear_line_and_exit_code_1(data: Path) -> None:
    async def ready(_: web.BaseRequest) -> web.Response:
        return web.Response(text="ready")

    chosen = ports()
    host, _, port = chosen["COLLOQUY_HISTORY_METRICS_LISTEN"].partition(":")
    other = web.ServerRunner(web.Server(ready))
    await other.setup()
    await web.TCPSite(other, host, int(port)).start()

    async with colloquy_run(data, **chosen) as refused:
        await refused.says(
            rf"colloquy: history cannot listen on {host}:{port}: another process has the port; `ss -tanp"
        )
        code = await refused.process.wait()
    await other.cleanup()

    assert code == 1
    assert refused.said.count("colloquy: ") == 1
    assert "Traceback" not in refused.said
    assert not (data / "run.env").exists()
    assert started_with(chosen) == []


@pytest.mark.timeout(60)
async def test_what_its_processes_would_refuse_is_said_at_once_and_nothing_is_made(data: Path) -> None:
    wrong = {
        "COLLOQUY_BFF_LISTEN": "nonsense",
        "COLLOQUY_GATEWAY_METRICS_LISTEN": "127.0.0.1:0",
        "COLLOQUY_TURN_BUDGET_MS": "x",
        "COLLOQUY_LOG_LEVEL": "q",
    }

    async with colloquy_run(data, **wrong) as refused:
        await refused.says("colloquy: COLLOQUY_TURN_BUDGET_MS ")
        code = await refused.process.wait()

    assert code == 1
    assert {line.split()[1] for line in refused.said.splitlines()} == wrong.keys()
    assert os.listdir(data) == []


@pytest.mark.timeout(60)
async def test_an_unreachable_database_is_one_clear_line_and_exit_code_1(data: Path) -> None:
    url = f"postgresql://colloquy:secret@127.0.0.1:{free_ports(1)[0]}/colloquy"

    async with colloquy_run(data, **ports(), COLLOQUY_DATABASE_URL=url) as refused:
        await refused.says("colloquy: the database cannot be used: ")
        code = await refused.process.wait()

    assert code == 1
    assert "secret" not in refused.said
    assert "Traceback" not in refused.said

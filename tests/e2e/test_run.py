"""`colloquy run` as a stranger starts it: its own PostgreSQL, an interview played, supervised, nothing left behind."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from services.cli import environment
from tests.e2e.product import free_ports

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
    free = iter(free_ports(2 * len(environment.SERVICES) + 1))
    chosen = {environment.SIMULATOR_LISTEN: f"127.0.0.1:{next(free)}"}
    for service in environment.SERVICES:
        chosen[service.listen] = f"127.0.0.1:{next(free)}"
        chosen[service.metrics_listen] = f"127.0.0.1:{next(free)}"
    return chosen


async def start(data: Path, *arguments: str, **variables: str) -> Running:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("COLLOQUY_", "OPENAI_"))}
    return Running(
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services.cli", "--data", str(data), "run", *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**kept, **variables},
            start_new_session=True,
        )
    )


@pytest_asyncio.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    started = await start(tmp_path, **ports())
    yield started
    if started.process.returncode is None:
        started.process.send_signal(signal.SIGINT)
        await started.process.wait()


@pytest.mark.timeout(180)
async def test_it_plays_an_interview_restarts_what_dies_and_leaves_nothing_running(running: Running) -> None:
    await running.says("Everything runs")
    turns = [float(took) for took in re.findall(r"\[turn \d+, (\d+) ms", running.said)]
    assert len(turns) >= 3
    assert max(turns) < 2000
    children = psutil.Process(running.process.pid).children(recursive=True)
    history = next(child for child in children if "services.history" in " ".join(child.cmdline()))

    history.kill()
    await running.says(r"history ended \(SIGKILL\)")
    await running.says(r"history runs again")
    children += psutil.Process(running.process.pid).children(recursive=True)
    running.process.send_signal(signal.SIGINT)

    assert await running.process.wait() == 0
    assert [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE] == []


@pytest.mark.timeout(120)
async def test_a_busy_port_is_one_clear_line_and_exit_code_1(tmp_path: Path) -> None:
    chosen = ports()
    host, _, port = chosen["COLLOQUY_HISTORY_LISTEN"].partition(":")
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), host, int(port))

    async with server:
        refused = await start(tmp_path, "--no-demo", **chosen)
        await refused.says(r"colloquy: history did not start: .*127\.0\.0\.1:" + port)
        code = await refused.process.wait()

    assert code == 1


@pytest.mark.timeout(60)
async def test_an_unreachable_database_is_one_clear_line_and_exit_code_1(tmp_path: Path) -> None:
    port = free_ports(1)[0]

    refused = await start(tmp_path, COLLOQUY_DATABASE_URL=f"postgresql://colloquy:secret@127.0.0.1:{port}/colloquy")
    await refused.says("colloquy: the database cannot be used: ")

    assert await refused.process.wait() == 1
    assert "secret" not in refused.said
    assert "Traceback" not in refused.said

"""Processes are started together or not at all, kept running, and none of them is left behind."""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from aiohttp import web

from services.cli import supervisor
from services.cli.process import Process
from services.cli.supervisor import Supervisor, SupervisorError
from tests.ports import free_ports
from tests.processes import command_of

HOST = "127.0.0.1"
SERVES = (
    "import sys; from http.server import SimpleHTTPRequestHandler, test;"
    "test(SimpleHTTPRequestHandler, port=int(sys.argv[1]), bind='127.0.0.1')"
)
SERVES_ON = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SERVES}"
REFUSES = "import sys; sys.exit('colloquy: COLLOQUY_A is not set\\ncolloquy: COLLOQUY_B is not set')"
HANGS = "import time; time.sleep(60)"
# Told to stop, it says so in a file, waits for another's, and says then that it ends.
LEAVES_AFTER = """
import pathlib, signal, sys, time
def leave(*_):
    directory = pathlib.Path(sys.argv[2])
    (directory / "{name} is told").touch()
    while not (directory / "{awaited}").exists():
        time.sleep(0.01)
    with (directory / "ended").open("a") as ended:
        ended.write("{name}\\n")
    sys.exit()
signal.signal(signal.SIGTERM, leave)
from http.server import SimpleHTTPRequestHandler, test
test(SimpleHTTPRequestHandler, port=int(sys.argv[1]), bind="127.0.0.1")
"""

Make = Callable[..., Process]
Says = Callable[[str], Awaitable[re.Match[str]]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A process on a port that was free a moment ago."""

    def made(name: str, program: str, port: int = 0, *, tier: int = 0) -> Process:
        if not port:
            [port] = free_ports(1)
        command, url = [sys.executable, "-c", program, str(port), str(tmp_path)], f"http://{HOST}:{port}/"
        return Process(name, tier, command, os.environ, tmp_path / f"{name}.log", [(HOST, port)], url)

    return made


@pytest.fixture
def says(capsys: pytest.CaptureFixture[str]) -> Says:
    """Waits until the operator was told something."""
    told = ""

    async def until(pattern: str) -> re.Match[str]:
        nonlocal told
        async with asyncio.timeout(20):
            while not (found := re.search(pattern, told)):
                told += capsys.readouterr().out
                await asyncio.sleep(0.02)
        return found

    return until


@pytest_asyncio.fixture
async def stranger() -> AsyncIterator[int]:
    """The port of somebody else, who answers everything with 200."""

    async def answer(_: web.BaseRequest) -> web.Response:
        return web.Response(text="ready")

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, HOST, 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


def running_in(directory: Path) -> list[psutil.Process]:
    """Our children that `make` made."""
    return [child for child in psutil.Process().children(recursive=True) if str(directory) in command_of(child)]


async def test_a_taken_port_is_named_before_anything_is_started(make: Make, stranger: int) -> None:
    first, second = make("simulator", SERVES), make("history", HANGS, stranger)

    with pytest.raises(SupervisorError, match=f"history cannot listen on {HOST}:{stranger}: .* `ss -tanp"):
        await Supervisor([first, second]).start()

    assert (first.running, second.running) == (None, None)


async def test_the_answer_of_somebody_else_does_not_make_a_dead_process_ready(make: Make, stranger: int) -> None:
    dead = make("history", REFUSES, stranger)
    await (await dead.spawn()).wait()

    with pytest.raises(SupervisorError, match="history did not start: COLLOQUY_A is not set; COLLOQUY_B is not set"):
        await dead.ready()


async def test_where_one_does_not_start_the_others_end_too(make: Make, tmp_path: Path) -> None:
    stack = Supervisor([make("simulator", SERVES), make("session", HANGS), make("history", REFUSES)])

    with pytest.raises(SupervisorError, match="history did not start"):
        await stack.start()
    await stack.stop()

    assert running_in(tmp_path) == []


async def test_a_start_that_is_cut_short_anywhere_leaves_nothing(make: Make, tmp_path: Path) -> None:
    spawned = set()
    for steps in range(60):
        processes = [make(name, HANGS) for name in ("simulator", "session", "history")]
        stack = Supervisor(processes)
        starting = asyncio.create_task(stack.start())
        for _ in range(steps):
            await asyncio.sleep(0)

        starting.cancel()
        await asyncio.wait({starting})
        await stack.stop()

        assert starting.cancelled()
        assert running_in(tmp_path) == []
        spawned.add(sum(process.running is not None for process in processes))
    assert {0, 3} <= spawned  # it was cut short before the first was started, and after the last


async def test_what_dies_is_started_again_and_the_operator_is_told(make: Make, says: Says, tmp_path: Path) -> None:
    history = make("history", SERVES)
    stack = Supervisor([history])
    await stack.start()
    assert history.running is not None

    history.running.kill()

    await says(r"history ended \(SIGKILL\); starting it again in 0\.2 s")
    again = await says(r"history runs again, as process (\d+)")
    assert int(again[1]) == history.running.pid
    await history.ready()
    await stack.stop()
    assert running_in(tmp_path) == []


async def test_a_restart_that_the_machine_refuses_is_tried_again(make: Make, says: Says) -> None:
    history = make("history", SERVES)
    stack = Supervisor([history])
    await stack.start()
    assert history.running is not None

    history.log.unlink()
    history.log.mkdir()
    history.running.kill()
    await says(r"history could not be started: .*Is a directory.*; trying again in 0\.4 s")
    history.log.rmdir()

    await says(r"history runs again, as process \d+")
    await stack.stop()


async def test_those_that_call_nobody_of_each_other_stop_together_and_before_whom_they_call(
    make: Make, tmp_path: Path
) -> None:
    stack = Supervisor(
        [
            make("history", LEAVES_AFTER.format(name="history", awaited="history is told"), tier=0),
            make("gateway", LEAVES_AFTER.format(name="gateway", awaited="verifier is told"), tier=1),
            make("verifier", LEAVES_AFTER.format(name="verifier", awaited="gateway is told"), tier=1),
        ]
    )
    await stack.start()

    await stack.stop()

    first, second, last = (tmp_path / "ended").read_text().split()
    assert ({first, second}, last) == ({"gateway", "verifier"}, "history")
    assert running_in(tmp_path) == []


async def test_a_process_that_does_not_stop_is_killed(
    make: Make, says: Says, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "STOP_SECONDS", 0.2)
    stack = Supervisor([make("history", SERVES_ON)])
    await stack.start()

    await stack.stop()

    await says("history did not stop")
    assert running_in(tmp_path) == []


@pytest.mark.parametrize(
    ("program", "how"),
    [
        (REFUSES, "exit code 1: COLLOQUY_A is not set; COLLOQUY_B is not set"),
        ("raise SystemExit(3)", "exit code 3"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("import os; os.kill(os.getpid(), 40)", "signal 40"),
    ],
)
async def test_how_a_process_ended_is_said(make: Make, program: str, how: str) -> None:
    process = make("history", program)
    await process.spawn()

    assert await process.end() == how


async def test_last_words_are_those_since_the_last_start(make: Make) -> None:
    history = make("history", "")
    history.log.write_text("colloquy: something that was mended long ago\n")
    await (await history.spawn()).wait()

    assert history.last_words() == "it said nothing"

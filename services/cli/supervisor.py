"""Keeps processes running: starts them, starts again what dies, and stops everything it started.

Each process runs in a session of its own, so that Ctrl-C reaches only us and the order of the end is ours; on Linux it
ends with us however we end.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

import aiohttp

import libs.postgres

READY_SECONDS = 60.0
STOP_SECONDS = 30.0
FIRST_RESTART_SECONDS = 0.2
LAST_RESTART_SECONDS = 5.0
STEADY_SECONDS = 10.0  # having run this long, a process that dies is started again at once
_CHILD = Path(libs.postgres.__file__).with_name("child.py")


class SupervisorError(Exception):
    """A process ended before it was ready, or never was; the text says which and what it said last."""


def tell(line: str) -> None:
    """Say one line to the operator, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


@dataclass(slots=True)
class Process:
    """One supervised process.

    ready_url: answers 200 once the process serves.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    ready_url: str
    running: asyncio.subprocess.Process | None = None
    keeper: asyncio.Task[None] | None = field(default=None, repr=False)

    async def spawn(self) -> asyncio.subprocess.Process:
        """Start it, with its output appended to its log."""
        prefix = (sys.executable, "-I", "-S", str(_CHILD), str(os.getpid()), str(os.geteuid()), str(os.getegid()))
        with self.log.open("ab") as log:
            self.running = await asyncio.create_subprocess_exec(
                *prefix,
                *self.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(self.environment),
                start_new_session=True,
            )
        return self.running

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self.running is not None:
            self.running.kill()

    def last_words(self) -> str:
        """The last line of its log."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines() if self.log.exists() else []
        return lines[-1] if lines else "it said nothing"


class Supervisor:
    """Runs processes from `start` until `stop`."""

    def __init__(self, processes: Sequence[Process]) -> None:
        self._processes = processes

    async def start(self) -> None:
        """Start everything and wait until all of it is ready.

        Raises:
            SupervisorError: a process ended, or did not become ready in time.
        """
        await asyncio.gather(*(self.start_one(process) for process in self._processes))

    async def stop(self) -> None:
        """Stop everything, the last started first; each has its time to finish what it does."""
        for process in reversed(self._processes):
            await self.stop_one(process)

    async def start_one(self, process: Process) -> None:
        """Start a process, wait until it is ready, and keep it running.

        Raises:
            SupervisorError: it ended, or did not become ready in time.
        """
        process.log.parent.mkdir(parents=True, exist_ok=True)
        await process.spawn()
        await _ready(process)
        process.keeper = asyncio.create_task(self._keep(process), name=f"keep-{process.name}")

    async def stop_one(self, process: Process) -> None:
        """Stop a process for good; it has its time to finish what it does."""
        if process.keeper:
            process.keeper.cancel()
            await asyncio.wait({process.keeper})
        running = process.running
        if running is None or running.returncode is not None:
            return
        running.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await running.wait()
        except TimeoutError:
            running.kill()
            await running.wait()

    async def _keep(self, process: Process) -> None:
        """Start a process again whenever it ends, at first at once and then more slowly."""
        pause, loop = FIRST_RESTART_SECONDS, asyncio.get_running_loop()
        while process.running is not None:
            began = loop.time()
            code = await process.running.wait()
            pause = FIRST_RESTART_SECONDS if loop.time() - began > STEADY_SECONDS else pause
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            tell(f"{process.name} ended ({how}); starting it again in {pause:.1f} s")
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_RESTART_SECONDS)
            started = await process.spawn()
            tell(f"{process.name} runs again, as process {started.pid}")


async def _ready(process: Process) -> None:
    loop = asyncio.get_running_loop()
    give_up = loop.time() + READY_SECONDS
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as http:
        while True:
            if process.running is not None and process.running.returncode is not None:
                raise SupervisorError(f"{process.name} did not start: {process.last_words()}")
            with suppress(aiohttp.ClientError, TimeoutError):
                async with http.get(process.ready_url) as response:
                    if response.status == HTTPStatus.OK:
                        return
            if loop.time() > give_up:
                raise SupervisorError(f"{process.name} is not ready in {READY_SECONDS:.0f} s: {process.last_words()}")
            await asyncio.sleep(0.1)

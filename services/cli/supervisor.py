"""Keeps processes running: starts them, starts again what dies, and stops everything it started."""

import asyncio
import sys
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import suppress
from typing import Any

from libs.runtime.server import GRACE_SECONDS, NOT_SERVING_SECONDS, StartError, until_free
from services.cli.process import Process as Process
from services.cli.process import SupervisorError as SupervisorError

# Above the longest drain: not serving, the calls in flight, the background tasks, and what is closed after them.
STOP_SECONDS = NOT_SERVING_SECONDS + GRACE_SECONDS + GRACE_SECONDS + 5.0
FIRST_RESTART_SECONDS = 0.2
LAST_RESTART_SECONDS = 5.0
STEADY_SECONDS = 10.0  # having run this long, a process that dies is started again at once


def tell(line: str) -> None:
    """Say one line to the operator, at once. That nobody listens any more is no reason to leave processes alone."""
    with suppress(OSError):
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


async def until_ports_free(processes: Sequence[Process]) -> None:
    """Return once every port is free; on one that is not, a stranger would answer that our process is ready.

    Raises:
        SupervisorError: one stays taken.
    """
    await _together(_until_free(process) for process in processes)


class Supervisor:
    """Runs processes from `start` until `stop`."""

    def __init__(self, processes: Sequence[Process]) -> None:
        self._processes = processes

    async def start(self) -> None:
        """Start everything and wait until all of it is ready. `stop` is due also where this fails or is cancelled.

        Raises:
            SupervisorError: a port is taken, a process ended, or did not become ready in time.
        """
        await until_ports_free(self._processes)
        await _together(_until_ready(process) for process in self._processes)
        for process in self._processes:
            process.raise_if_ended()
            self._keep_running(process)

    async def stop(self) -> None:
        """Stop everything, callers before those they call; each has its time to finish what it does."""
        for tier in sorted({process.tier for process in self._processes}, reverse=True):
            await _together(self.stop_one(process) for process in self._processes if process.tier == tier)

    async def start_one(self, process: Process) -> None:
        """Start a process, wait until it is ready, and keep it running.

        Raises:
            SupervisorError: it ended, or did not become ready in time.
        """
        await _until_ready(process)
        self._keep_running(process)

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
            tell(f"{process.name} did not stop in {STOP_SECONDS:.0f} s; killing it")
            running.kill()
            await running.wait()

    def _keep_running(self, process: Process) -> None:
        process.keeper = asyncio.create_task(_keep(process), name=f"keep-{process.name}")


async def _keep(process: Process) -> None:
    """Start a process again whenever it ends, at first at once and then more slowly."""
    pause, loop = FIRST_RESTART_SECONDS, asyncio.get_running_loop()
    while True:
        began = loop.time()
        how = await process.end()
        if loop.time() - began > STEADY_SECONDS:
            pause = FIRST_RESTART_SECONDS
        tell(f"{process.name} ended ({how}); starting it again in {pause:.1f} s")
        pause = await _start_again(process, pause)


async def _start_again(process: Process, pause: float) -> float:
    """Start it after `pause` seconds, however often that takes; the pause before the next time."""
    while True:
        await asyncio.sleep(pause)
        pause = min(2 * pause, LAST_RESTART_SECONDS)
        try:
            running = await process.spawn()
        except OSError as error:  # no memory, no file descriptor, no space: it may pass
            tell(f"{process.name} could not be started: {error}; trying again in {pause:.1f} s")
        else:
            tell(f"{process.name} runs again, as process {running.pid}")
            return pause


async def _until_free(process: Process) -> None:
    try:
        for address in process.listens:
            await until_free(address)
    except StartError as error:
        raise SupervisorError(f"{process.name} {error}") from None


async def _until_ready(process: Process) -> None:
    await process.spawn()
    await process.ready()


async def _together(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do all of it. Where one part fails the others are cancelled and awaited, and its error is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            for one in work:
                group.create_task(one)
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None

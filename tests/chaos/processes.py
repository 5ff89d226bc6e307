"""What is done to running processes: signals, and orders to their failpoints."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import aiohttp
import psutil

from services.cli.process import Process
from tests.chaos.polling import until, until_told
from tests.chaos.postgres import Host
from tests.chaos.stack import Stack
from tests.processes import has_ended


async def running(process: Process) -> asyncio.subprocess.Process:
    """The process once it runs: it may be between two lives."""
    return await until(lambda: process.running if process.running and process.running.returncode is None else None)


async def postmaster(host: Host) -> psutil.Process:
    """PostgreSQL's first process once there is one."""
    return await until(host.postmaster)


async def backends(host: Host) -> list[psutil.Process]:
    """PostgreSQL's processes that serve our connections, once there are some."""
    first = await postmaster(host)
    return await until(lambda: [it for it in first.children() if _serves_us(it)])


async def ended(process: psutil.Process) -> None:
    """Return once a process that is not our child has ended."""
    await until(lambda: has_ended(process))


@asynccontextmanager
async def stopped(pids: Sequence[int]) -> AsyncIterator[int]:
    """Inside the block these processes do not run (SIGSTOP); how many of them the kernel has stopped."""
    for pid in pids:
        _signal(pid, signal.SIGSTOP)
    try:
        yield sum([await _is_stopped(pid) for pid in pids])
    finally:
        for pid in pids:
            _signal(pid, signal.SIGCONT)


async def arm(http: aiohttp.ClientSession, stack: Stack, process: str, orders: str) -> None:
    """Replace what is armed in a process, as soon as it takes orders."""
    await until_told(lambda: _armed(http, f"{stack.metrics_url(process)}/failpoints", orders))


async def fired(http: aiohttp.ClientSession, stack: Stack, process: str) -> int:
    """How often the failpoints of a process have fired since they were armed."""
    async with http.get(f"{stack.metrics_url(process)}/failpoints") as response:
        response.raise_for_status()
        return sum(int(point["fired"]) for point in (await response.json())["points"].values())


async def _armed(http: aiohttp.ClientSession, url: str, orders: str) -> bool:
    try:
        async with http.put(url, data=orders) as response:
            if response.status == 400:
                raise ValueError(await response.text())
            return response.ok
    except (aiohttp.ClientError, TimeoutError):
        return False


def _serves_us(backend: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):  # autovacuum's come and go
        return any("colloquy_" in word for word in backend.cmdline())
    return False


async def _is_stopped(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        await until(lambda: process.status() in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE))
        return process.status() == psutil.STATUS_STOPPED
    return False


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)

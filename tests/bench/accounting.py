"""Who used how much CPU, and what for: process times from the kernel, calls and statements from the metrics ports."""

import asyncio
from collections.abc import Mapping

import aiohttp
import psutil
from prometheus_client.parser import text_string_to_metric_families

from tests.bench.children import BenchError
from tests.bench.figures import Tally

_COUNTED = {"colloquy_rpc_server_seconds": "method", "colloquy_db_statement_seconds": "statement"}

# A guest's time is in its user's already; waiting for a disk leaves the core to others.
_NOT_BUSY = frozenset({"idle", "iowait", "guest", "guest_nice"})


def cpu_ms(pids: Mapping[str, int]) -> dict[str, float]:
    """The CPU time that each process has used so far, in user and kernel mode, with all its descendants.

    The kernel adds what a child used to its parent when that reaps it, so PostgreSQL's backends count also where they
    have come and gone in between (Linux; proc(5), cutime and cstime).

    Raises:
        BenchError: one of the processes is gone.
    """
    used = {}
    for name, pid in pids.items():
        try:
            root = psutil.Process(pid)
            used[name] = _used_ms(root) + sum(_used_or_reaped_ms(child) for child in root.children(recursive=True))
        except psutil.NoSuchProcess:
            raise BenchError(f"{name} ended during the measurement") from None
    return used


def machine_ms() -> float:
    """The time that the machine's cores have been busy so far, with whatever it was; what the host took counts too."""
    times = psutil.cpu_times()._asdict()
    return 1000 * float(sum(seconds for what, seconds in times.items() if what not in _NOT_BUSY))


async def work_done(http: aiohttp.ClientSession, metrics_urls: Mapping[str, str]) -> dict[str, Tally]:
    """RPCs served and statements executed so far, by service and name (a method's, or a statement's label).

    Raises:
        BenchError: a metrics port does not answer.
    """
    try:
        pages = await asyncio.gather(*(_page(http, url) for url in metrics_urls.values()))
    except (aiohttp.ClientError, TimeoutError) as error:
        raise BenchError(f"a metrics port does not answer: {error}") from error
    done: dict[str, Tally] = {}
    for service, page in zip(metrics_urls, pages, strict=True):
        for family in text_string_to_metric_families(page):
            if (label := _COUNTED.get(family.name)) is None:
                continue
            for sample in family.samples:
                kind = sample.name.rpartition("_")[2]
                if kind in ("count", "sum"):
                    name = f"{service} {sample.labels[label].rpartition('/')[2]}"
                    more = Tally(sample.value, 0.0) if kind == "count" else Tally(0.0, sample.value)
                    done[name] = done.get(name, Tally(0.0, 0.0)).plus(more)
    return done


async def _page(http: aiohttp.ClientSession, url: str) -> str:
    async with http.get(url) as response:
        return await response.text()


def _used_ms(process: psutil.Process) -> float:
    times = process.cpu_times()
    return 1000 * (times.user + times.system + times.children_user + times.children_system)


def _used_or_reaped_ms(process: psutil.Process) -> float:
    """A child that has ended meanwhile is counted in its parent."""
    try:
        return _used_ms(process)
    except psutil.NoSuchProcess:
        return 0.0

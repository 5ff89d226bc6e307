"""Processes of the benchmark itself (generator, yardstick): our modules, talked to by lines, gone when we are."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import libs.postgres

ROOT = Path(__file__).parents[2]
_CHILD = Path(libs.postgres.__file__).with_name("child.py")


class BenchError(Exception):
    """The benchmark cannot go on; one line for whoever started it."""


class Child:
    """A running module and its standard streams."""

    def __init__(self, module: str, process: asyncio.subprocess.Process) -> None:
        self._module, self._process = module, process
        self.pid = process.pid

    async def tell(self, line: bytes) -> None:
        """Send it a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + b"\n")
        await self._process.stdin.drain()

    async def hear(self, expected: bytes) -> None:
        """Wait for a line.

        Raises:
            BenchError: it said something else, or ended; why is on stderr.
        """
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if line.rstrip() != expected:
            raise BenchError(f"{self._module} ended before it said {expected.decode()!r}")

    async def rest(self) -> bytes:
        """What it writes until it ends, now that it will be told no more.

        Raises:
            BenchError: it failed; why is on stderr.
        """
        output, _ = await self._process.communicate(b"")  # which closes its input; None would not
        if self._process.returncode != 0:
            raise BenchError(f"{self._module} failed with exit code {self._process.returncode}")
        return output


@asynccontextmanager
async def child(module: str, *arguments: str) -> AsyncIterator[Child]:
    """Run a module of ours for the length of the block, in a session of its own: Ctrl-C is ours to handle."""
    prefix = (sys.executable, "-I", "-S", str(_CHILD), str(os.getpid()), str(os.geteuid()), str(os.getegid()))
    process = await asyncio.create_subprocess_exec(
        *prefix,
        *(sys.executable, "-m", module, *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        start_new_session=True,
    )
    try:
        yield Child(module, process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()

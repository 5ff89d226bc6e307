"""One process that we run: how it is started, when it is ready, how it ended.

It runs in a session of its own, so that Ctrl-C reaches only us and the order of the end is ours; on Linux it ends with
us however we end.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

import aiohttp

import libs.postgres
from libs.runtime.config import Address
from services.cli.errors import CommandError

READY_SECONDS = 90.0  # above the time for which a port is waited for
ASK_SECONDS = 2.0
PAUSE_SECONDS = 0.1
LAST_BYTES = 16_384
_CHILD = Path(libs.postgres.__file__).with_name("child.py")
_COMPLAINT = "colloquy: "  # what begins each line of a service that refuses to start


class SupervisorError(CommandError):
    """A process ended before it was ready, or never was; the text says which and what it said last."""


@dataclass(slots=True)
class Process:
    """One supervised process.

    tier: it calls those of lower tiers only, and so stops before them.
    listens: every address that it will listen on.
    ready_url: at one of them; answers 200 once the process serves.
    """

    name: str
    tier: int
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    listens: Sequence[Address]
    ready_url: str
    running: asyncio.subprocess.Process | None = None
    keeper: asyncio.Task[None] | None = field(default=None, repr=False)
    _log_start: int = field(default=0, repr=False)

    async def spawn(self) -> asyncio.subprocess.Process:
        """Start it, with its output appended to its log.

        Raises:
            OSError: the machine does not let us.
        """
        prefix = (sys.executable, "-I", "-S", str(_CHILD), str(os.getpid()), str(os.geteuid()), str(os.getegid()))
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._log_start = log.tell()
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

    async def ready(self) -> None:
        """Wait until it says that it is ready.

        Raises:
            SupervisorError: it ended, or did not become ready in time.
        """
        try:
            async with (
                asyncio.timeout(READY_SECONDS),
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ASK_SECONDS)) as http,
            ):
                while True:
                    if await self._says_so(http):
                        return
                    await asyncio.sleep(PAUSE_SECONDS)
        except TimeoutError:
            late = f"{self.name} is not ready after {READY_SECONDS:.0f} s: {self.last_words()}"
            raise SupervisorError(late) from None

    def raise_if_ended(self) -> None:
        """Raises SupervisorError if it does not run."""
        if self.running is None or self.running.returncode is not None:
            raise SupervisorError(f"{self.name} did not start: {self.last_words()}")

    async def end(self) -> str:
        """Wait until it has ended; how it did, for a line to the operator."""
        assert self.running is not None
        code = await self.running.wait()
        if code >= 0:
            complaint = self._complaint()
            return f"exit code {code}: {complaint}" if complaint else f"exit code {code}"
        try:
            return signal.Signals(-code).name
        except ValueError:  # a real-time signal has no name
            return f"signal {-code}"

    def last_words(self) -> str:
        """What it complained of since it was started, else the last line of its log."""
        lines = self._lines()
        return self._complaint() or (lines[-1] if lines else "it said nothing")

    async def _says_so(self, http: aiohttp.ClientSession) -> bool:
        try:
            async with http.get(self.ready_url) as response:
                answered = response.status == HTTPStatus.OK
        except (aiohttp.ClientError, TimeoutError):
            answered = False
        self.raise_if_ended()  # also after a good answer, which then was not its own
        return answered

    def _complaint(self) -> str:
        said = [line.removeprefix(_COMPLAINT) for line in self._lines() if line.startswith(_COMPLAINT)]
        return "; ".join(said)

    def _lines(self) -> list[str]:
        """The last lines that it wrote to its log since it was started."""
        if not self.log.exists():
            return []
        with self.log.open("rb") as log:
            log.seek(max(self._log_start, log.seek(0, os.SEEK_END) - LAST_BYTES))
            return log.read().decode(errors="replace").splitlines()

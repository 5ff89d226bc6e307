"""The postmaster's process: started until it says that it is ready, ended until it is reaped."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, Final

from libs.postgres.errors import LaunchError
from libs.postgres.home import Home

HOST: Final = "127.0.0.1"
_RECOVERY_SECONDS: Final = 60.0  # after a crash the log is replayed before it is ready
_BUSY_PORT_SECONDS: Final = 2.0
_FAST: Final = (signal.SIGINT, 20.0)  # ends the sessions and writes a checkpoint
_IMMEDIATE: Final = (signal.SIGQUIT, 5.0)  # just ends; the next start recovers


def launch(
    home: Home, settings: Mapping[str, str], port: int, log: Path, guard: int
) -> tuple[subprocess.Popen[bytes], int]:
    """Start a postmaster on `home` and wait until it is ready; its process and port (`port` 0: a free one).

    It and every process of its own inherit the descriptor `guard`. Raises LaunchError, with the reason in one line.
    """
    deadline = time.monotonic() + _BUSY_PORT_SECONDS
    while True:
        chosen = port or _free_port()
        process = _spawn(home, {**settings, "listen_addresses": HOST, "port": str(chosen)}, log, guard)
        try:
            ready = _await_ready(process, home.cluster / "postmaster.pid", log)
        except BaseException:
            end(process, immediate=True)
            raise
        if ready:
            return process, chosen
        if "Address already in use" not in log.read_text(errors="replace"):
            raise LaunchError(f"PostgreSQL did not start: {last_words(log)} (all of it in {log})")
        if time.monotonic() >= deadline:
            raise LaunchError(f"port {chosen} on {HOST} is busy: stop what listens there, or choose another")
        time.sleep(0.1)


def end(process: subprocess.Popen[bytes], *, immediate: bool) -> None:
    """End the postmaster, by force if it must be, and reap it; its children end when they miss it."""
    for number, patience_seconds in (_IMMEDIATE,) if immediate else (_FAST, _IMMEDIATE):
        process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience_seconds)
            return
    process.kill()
    process.wait()


def fresh_log(log: Path) -> BinaryIO:
    """Open an empty `log`; what it held goes to `<log>.1`, for whoever asks why the server before this one ended."""
    if log.exists():
        os.replace(log, log.with_name(f"{log.name}.1"))
    return log.open("wb")


def last_words(log: Path) -> str:
    """The line of `log` that says why a program ended: the last fatal one, else the last."""
    lines = log.read_text(errors="replace").strip().splitlines()
    fatal = [line for line in lines if "FATAL" in line or "error:" in line]
    return (fatal or lines or ["without a word"])[-1].strip()


def _spawn(home: Home, settings: Mapping[str, str], log: Path, guard: int) -> subprocess.Popen[bytes]:
    command: list[str | Path] = [home.programs / "postgres", "-D", home.cluster]
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]
    with fresh_log(log) as output:
        return home.account.spawn(command, stdout=output.fileno(), keep=(guard,))


def _await_ready(process: subprocess.Popen[bytes], pid_file: Path, log: Path) -> bool:
    """Whether the server got ready; False if it ended. It must say so itself: on its port somebody else may answer."""
    deadline = time.monotonic() + _RECOVERY_SECONDS
    while process.poll() is None:
        with contextlib.suppress(FileNotFoundError):
            lines = pid_file.read_text().splitlines()
            # Line 1 and line 8 of postmaster.pid (src/include/utils/pidfile.h).
            if len(lines) >= 8 and lines[0] == str(process.pid) and lines[7].strip() == "ready":
                return True
        if time.monotonic() >= deadline:
            raise LaunchError(f"PostgreSQL is not ready after {_RECOVERY_SECONDS:.0f} s: {last_words(log)}")
        time.sleep(0.01)
    return False


def _free_port() -> int:
    """A port that is free now; another process may still take it first, and then the next one is tried."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port

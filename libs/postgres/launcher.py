"""PostgreSQL as a child process: made at the first start, found again at the next, gone when we are.

It never loses a committed row, whoever is killed and when; leaves no process behind; touches no directory but its own.
So: TCP on 127.0.0.1 with a password and no socket file, locks of the kernel's instead of trust in a stale
`postmaster.pid`, and a new cluster gets its name only once it is whole.
"""

import atexit
import base64
import hashlib
import hmac
import os
import shutil
import subprocess
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from libs.postgres import cluster, home, locks, roles, server
from libs.postgres.errors import LaunchError

_PREDECESSOR_SECONDS: Final = 30.0  # a server whose launcher was killed may still be shutting down

# For short statements from a few hundred connections on one small machine. They go on the command line, so that no file
# can say otherwise.
_SETTINGS: Final[Mapping[str, str]] = {
    "unix_socket_directories": "",  # the path to a socket may be too long; a port is not
    "max_connections": "200",
    "shared_buffers": "128MB",
    "max_wal_size": "1GB",
    "checkpoint_timeout": "15min",
    "fsync": "on",
    "synchronous_commit": "on",
    "jit": "off",  # compiling takes longer than any statement of ours
    "max_parallel_workers_per_gather": "0",  # they need /dev/shm, which containers keep small
    "timezone": "UTC",
    "log_timezone": "UTC",
    "lc_messages": "C",  # the launcher reads them
    # What a candidate said must not reach the log with a statement that failed: neither its text nor the "failing row".
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}


class EmbeddedPostgres:
    """One server on one data directory, from `start` to `stop`; also a context manager.

    `data_dir` is made where it is missing; `port` 0 takes a free one; `settings` are PostgreSQL parameters in place of
    the defaults above. Start it from the main thread: the kernel ends the server with the thread that started it.
    """

    def __init__(self, data_dir: Path, port: int = 0, settings: Mapping[str, str] | None = None) -> None:
        self._data_dir = data_dir.resolve()
        self._port = port
        self._settings = {**_SETTINGS, **(settings or {})}
        self._base = self._data_dir
        self._password = ""
        self._claim: int | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """The port it listens on; it stays the same when this object is started again."""
        return self._port

    @property
    def pid(self) -> int | None:
        """The postmaster's process id; None before `start` and after `stop`."""
        return self._process.pid if self._process else None

    @property
    def alive(self) -> bool:
        """Whether the server runs. False too once it has died by itself: `start` then starts it again."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> Path:
        """What the server wrote since its last start; the start before that is beside it, as `postgres.log.1`."""
        return self._data_dir / "postgres.log"

    def start(self) -> None:
        """Start the server and return when it accepts connections: half a second the first time, longer after a crash.

        Raises LaunchError: the directory is in use, the port is busy, the data is out of reach, PostgreSQL said no.
        """
        if threading.current_thread() is not threading.main_thread():
            raise LaunchError("PostgreSQL ends with the thread that starts it, so that must be the main thread")
        self.stop()
        try:
            self._start()
        except OSError as error:
            self.stop()
            raise LaunchError(f"PostgreSQL cannot use {self._data_dir}: {error}") from error
        except BaseException:
            self.stop()
            raise
        atexit.register(self.stop)

    def stop(self, *, immediate: bool = False) -> None:
        """End the server and reap it; harmless where none runs. `immediate` leaves a recovery to the next start."""
        atexit.unregister(self.stop)
        if self._process is not None:
            server.end(self._process, immediate=immediate)
            self._process = None
        if self._claim is not None:
            os.close(self._claim)
            self._claim = None

    def destroy(self) -> None:
        """End the server and delete its data, wherever it was kept."""
        self.stop(immediate=True)
        for directory in {self._base, self._data_dir}:
            shutil.rmtree(directory, ignore_errors=True)

    def dsn(self, database: str = "postgres") -> str:
        """A connection URI for the superuser."""
        return self._dsn(cluster.SUPERUSER, self._password, database)

    def roles(self, contexts: Iterable[str], database: str = "colloquy") -> dict[str, str]:
        """Make what is missing of `database` and of each context's role and schema; the DSNs by context.

        A role owns exactly the schema that is named like its context, and has no right in any other.
        """
        logins = [roles.Login(context, f"colloquy_{context}", self._derived(context)) for context in contexts]
        roles.provision(self.dsn(), self.dsn(database), database, logins)
        return {login.schema: self._dsn(login.role, login.password, database) for login in logins}

    def _start(self) -> None:
        self._data_dir.mkdir(parents=True, exist_ok=True)
        self._claim = locks.acquire(self._data_dir / "launcher.lock")
        if self._claim is None:
            raise LaunchError(f"PostgreSQL in {self._data_dir} is in use already: stop the process that started it")
        settled = home.settle(self._data_dir)
        self._base = settled.base
        self._password = cluster.password_of(self._data_dir, settled.cluster)
        guard = locks.acquire(self._data_dir / "server.lock", _PREDECESSOR_SECONDS)
        if guard is None:
            raise LaunchError(
                f"the PostgreSQL before this one still holds {self._data_dir}, or another was started there"
            )
        try:
            cluster.make_cluster(settled, self._password, self.log, guard)
            # Whatever process this names, it is no server of ours: each of those would still hold the guard.
            (settled.cluster / "postmaster.pid").unlink(missing_ok=True)
            self._process, self._port = server.launch(settled, self._settings, self._port, self.log, guard)
        finally:
            os.close(guard)  # the server's processes keep it from here on, and nobody else does

    def _derived(self, context: str) -> str:
        """The password of a context's role: made from the superuser's, so that there is one secret to keep."""
        digest = hmac.digest(self._password.encode(), context.encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")

    def _dsn(self, user: str, password: str, database: str) -> str:
        return f"postgresql://{user}:{password}@{server.HOST}:{self._port}/{database}"

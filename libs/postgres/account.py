"""Who PostgreSQL runs as: it refuses root, so as root its programs run as an unprivileged user that exists already."""

import contextlib
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from libs.postgres.errors import LaunchError

_UNPRIVILEGED = ("postgres", "nobody", "daemon")
_PATIENCE_SECONDS = 5.0
_CLOSED = 33  # an exit status of ours, which neither Python nor the shell uses
_CHILD = Path(__file__).with_name("child.py")
# Nothing of the caller's environment may steer it (PGDATA, PGOPTIONS, LD_PRELOAD ...); messages are matched, hence C.
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C"}


@dataclass(frozen=True, slots=True)
class Account:
    """A user of this machine, by number."""

    uid: int
    gid: int

    def spawn(
        self, command: Sequence[str | Path], *, stdout: int = subprocess.DEVNULL, keep: Sequence[int] = ()
    ) -> subprocess.Popen[bytes]:
        """Start `command` as this user, in a session of its own, to end (on Linux) when the calling thread does.

        `stdout` is a file descriptor for both output streams; `keep` are descriptors that the program inherits.
        """
        prefix = (sys.executable, "-I", "-S", str(_CHILD), str(os.getpid()), str(self.uid), str(self.gid))
        return subprocess.Popen(  # noqa: S603 - a fixed program and paths of ours, no shell
            [*prefix, *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.STDOUT,
            cwd="/",  # PostgreSQL insists on a working directory that its user may enter
            env=_ENVIRONMENT,
            start_new_session=True,
            pass_fds=keep,
        )

    def run(self, command: Sequence[str | Path], *, stdout: int = subprocess.DEVNULL, keep: Sequence[int] = ()) -> int:
        """`spawn` it and wait for its end; the exit status. Interrupted, it leaves nothing of it running."""
        process = self.spawn(command, stdout=stdout, keep=keep)
        try:
            return process.wait()
        except BaseException:
            _end(process)
            raise

    def can_reach(self, *paths: Path) -> bool:
        """Whether this user may traverse to every one of `paths`, read it and enter or execute it: tried, not computed.

        Raises LaunchError where nothing can be run as this user at all (a container without other users, say).
        """
        script = f'for path; do test -r "$path" && test -x "$path" || exit {_CLOSED}; done'
        status = self.run(["/bin/sh", "-c", script, "sh", *paths])
        if status not in (0, _CLOSED):
            raise LaunchError(f"no program can be run as user {self.uid}, and PostgreSQL must not run as root")
        return status == 0


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program and what it has started: initdb has children, which give their shared memory back if asked."""
    for number, patience_seconds in ((signal.SIGTERM, _PATIENCE_SECONDS), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience_seconds)
            return


def account_for(cluster: Path) -> Account:
    """The user to run `cluster` as: ourselves, unless we are root; then its owner, or else an unprivileged user.

    Raises LaunchError where root finds no such user.
    """
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid())
    if cluster.exists() and (owner := cluster.stat()).st_uid != 0:
        return Account(owner.st_uid, owner.st_gid)
    for name in _UNPRIVILEGED:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    raise LaunchError(f"PostgreSQL does not run as root, and none of the users {', '.join(_UNPRIVILEGED)} exists")

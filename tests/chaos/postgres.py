"""PostgreSQL in a process of its own, started again by the product's own watch whenever it ends.

    python -m tests.chaos.postgres DIRECTORY

Writes the DSNs to DIRECTORY/dsns.json, says `ready`, and goes on until its standard input ends; then nothing is left of
the server. A process of its own because starting a server blocks, and the load and its links must not stand still.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import orjson
import psutil

from libs.postgres.launcher import EmbeddedPostgres
from migrations.heads import CONTEXTS
from migrations.migrator import migrate
from services.cli import database
from tests.bench.children import child

DATABASE = "colloquy"
_DSNS = "dsns.json"


@dataclass(frozen=True, slots=True)
class Host:
    """The process that keeps a server running. `dsns` are by context, `owner_dsn` may read everything."""

    pid: int
    dsns: dict[str, str]
    owner_dsn: str

    def postmaster(self) -> psutil.Process | None:
        """The server's first process, None while there is none."""
        return next((it for it in psutil.Process(self.pid).children() if it.name() == "postgres"), None)


@asynccontextmanager
async def hosted(data: Path) -> AsyncIterator[Host]:
    """A migrated server for the length of the block."""
    async with child("tests.chaos.postgres", str(data)) as host:
        await host.hear(b"ready")
        dsns = orjson.loads((data / _DSNS).read_bytes())
        try:
            yield Host(host.pid, dsns["contexts"], dsns["owner"])
        finally:
            await host.rest()


def main() -> int:
    """Serve until standard input ends."""
    data = Path(sys.argv[1])
    data.mkdir(mode=0o755, exist_ok=True)
    postgres = EmbeddedPostgres(data / "postgres")
    try:
        postgres.start()
        contexts = postgres.roles(CONTEXTS, DATABASE)
        migrate(contexts)
        (data / _DSNS).write_bytes(orjson.dumps({"contexts": contexts, "owner": postgres.dsn(DATABASE)}))
        print("ready", flush=True)
        with redirect_stdout(sys.stderr):  # what the watch tells; nobody reads our output any more
            asyncio.run(_watch(postgres))
    finally:
        postgres.destroy()
    return 0


async def _watch(postgres: EmbeddedPostgres) -> None:
    watching = asyncio.create_task(database.watch(postgres))
    await asyncio.to_thread(sys.stdin.buffer.read)
    watching.cancel()


if __name__ == "__main__":
    sys.exit(main())

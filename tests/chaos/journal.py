"""What clients know, written down before they act on it: an id before it is sent, a reply once it has been read.

A line of JSON for each entry, on disk when `write` returns. So whatever a client was told, this file can witness, and
a client that died could send its ids again.
"""

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self

import orjson


class What(StrEnum):
    """What happened, as the client saw it."""

    OPEN = "open"
    """A session is about to be asked for; `body` is what is sent."""
    OPENED = "opened"
    """It stands; `body` is the whole reply, the opening message in it."""
    SEND = "send"
    """A message is about to be sent for the first time; `body` is what is sent, with the message in it."""
    ACCEPTED = "accepted"
    """The product has said that the message is saved, as `turn`."""
    ANSWERED = "answered"
    """The turn was answered; `body` is the whole reply."""
    REFUSED = "refused"
    """The request will never be answered, and `reason` says why."""
    GAVE_UP = "gave up"
    """No answer came before the client's deadline; `reason` is what came instead, the last time."""
    LEFT = "left"
    """The client is gone for good and will not ask again."""
    END, ENDED = "end", "ended"
    """An End of the session is about to be sent; it was acknowledged."""
    ERASE, ERASED = "erase", "erased"
    """The same of an Erase."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line. Absent where it does not apply: all but `what`, `client` and the request.

    Attributes:
        client: who; the subject of the client's token.
        request: the request's id.
        session: empty while the client has not been told.
        text: the message as it was sent.
        at: seconds since the epoch.
    """

    what: What
    client: str
    request: str
    session: str = ""
    kind: str = ""
    text: str = ""
    turn: str = ""
    body: str = ""
    reason: str = ""
    at: float = 0.0


class Journal:
    """One file for all clients; entries that come while the disk is busy share the next fsync."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._flushing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._file = self._path.open("ab")
        return self

    async def __aexit__(self, *_: object) -> None:
        while self._flushing:
            await asyncio.wait({self._flushing})
        self._file.close()

    async def write(self, entry: Entry) -> None:
        """Append an entry, with the time; it is on disk when this returns."""
        line = orjson.dumps(_stamped(entry), option=orjson.OPT_APPEND_NEWLINE)
        on_disk: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((line, on_disk))
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush(), name="journal")
        await asyncio.shield(on_disk)

    async def _flush(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                await asyncio.to_thread(self._write, [line for line, _ in batch])
                for _, on_disk in batch:
                    on_disk.set_result(None)
        finally:
            self._flushing = None

    def _write(self, lines: Sequence[bytes]) -> None:
        self._file.write(b"".join(lines))
        self._file.flush()
        os.fsync(self._file.fileno())


def read(path: Path) -> list[Entry]:
    """All entries, in the order in which they were written."""
    fields = map(orjson.loads, path.read_bytes().splitlines())
    return [Entry(**{**it, "what": What(it["what"])}) for it in fields]


def _stamped(entry: Entry) -> dict[str, object]:
    known = {name: value for name in Entry.__slots__ if (value := getattr(entry, name))}
    return {**known, "at": time.time()}

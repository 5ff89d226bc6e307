"""What clients write down is on disk before they go on."""

import asyncio
from pathlib import Path

from tests.chaos.journal import Entry, Journal, What, read


async def test_an_entry_can_be_read_as_soon_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "journal"

    async with Journal(path) as journal:
        await journal.write(Entry(What.SEND, "ada", "r1", session="s1", text="Ünïcode\n\u2028 and a line"))
        [entry] = read(path)

    assert (entry.what, entry.client, entry.request, entry.session) == (What.SEND, "ada", "r1", "s1")
    assert entry.text == "Ünïcode\n\u2028 and a line"
    assert entry.at > 0


async def test_entries_that_come_together_are_all_there_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "journal"

    async with Journal(path) as journal:
        await asyncio.gather(*(journal.write(Entry(What.SEND, "ada", f"r{number}")) for number in range(100)))

    assert [entry.request for entry in read(path)] == [f"r{number}" for number in range(100)]


async def test_an_entry_is_written_though_its_writer_leaves(tmp_path: Path) -> None:
    path = tmp_path / "journal"

    async with Journal(path) as journal:
        writing = asyncio.create_task(journal.write(Entry(What.SEND, "ada", "r1")))
        await asyncio.sleep(0)
        writing.cancel()

    assert [entry.request for entry in read(path)] == ["r1"]

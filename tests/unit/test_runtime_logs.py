"""Log lines: what they hold, when they appear, and what must not stop a service."""

import asyncio
import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from libs.runtime import context, logs


def run(script: str, level: str = "info") -> list[dict[str, Any]]:
    """The lines that a process of its own writes: configuring logs is done once in a process's life."""
    start = f"from libs.runtime import context, logs, telemetry; telemetry.configure('test', {level!r})\n"
    finished = subprocess.run(
        [sys.executable, "-c", start + textwrap.dedent(script)], capture_output=True, text=True, check=True
    )
    assert finished.stderr == ""
    return [json.loads(line) for line in finished.stdout.splitlines()]


def written(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = tmp_path / "log"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    monkeypatch.setattr(logs, "_journal", logs.Journal(descriptor, service="test"))
    yield path
    os.close(descriptor)


def test_an_event_has_the_fields_of_the_contract() -> None:
    (line,) = run("""
        with context.serving({"x-correlation-id": "c-1"}, rpc="S/M"):
            context.bind(session_id="s-1", turn_id="t-1")
            logs.logger().info("turn_recovered", how="bank")
    """)

    assert list(line) == [
        "time",
        "level",
        "event",
        "service",
        "version",
        "correlation_id",
        "trace_id",
        "rpc",
        "session_id",
        "turn_id",
        "how",
    ]
    assert line["time"].endswith("Z")
    assert (line["level"], line["event"], line["service"]) == ("info", "turn_recovered", "test")
    assert (line["correlation_id"], line["session_id"], line["how"]) == ("c-1", "s-1", "bank")


def test_only_the_level_asked_for_and_above_is_written() -> None:
    script = "for level in ('debug', 'info', 'warning', 'error'): getattr(logs.logger(), level)(level)"

    assert [line["level"] for line in run(script, "warning")] == ["warning", "error"]


def test_an_exception_is_a_traceback_without_local_variables() -> None:
    (line,) = run("""
        def answer(text):
            raise LookupError("no such item")
        try:
            answer("what " + "the candidate said")
        except LookupError:
            logs.logger().exception("failed")
    """)

    assert line["level"] == "error"
    assert "LookupError: no such item" in line["exception"]
    assert "what the candidate said" not in line["exception"]


def test_the_standard_librarys_logging_ends_in_the_same_lines() -> None:
    (line,) = run("""
        import logging
        logging.getLogger("aiohttp").info("chatter")
        logging.getLogger("grpc").warning("%s is odd", "this")
    """)

    assert (line["level"], line["event"], line["logger"], line["message"]) == ("warning", "log", "grpc", "this is odd")


def test_what_is_pending_is_written_when_the_process_ends() -> None:
    lines = run("""
        import asyncio
        async def main():
            for number in range(3):
                logs.logger().info("event", number=number)
        asyncio.run(main())
    """)

    assert [line["number"] for line in lines] == [0, 1, 2]


async def test_lines_of_a_running_loop_appear_together_a_moment_later(log: Path) -> None:
    for number in range(3):
        logs.later(logs.line, "info", "event", time.time(), None, {"number": number})
    assert written(log) == []

    async with asyncio.timeout(5):
        while not written(log):  # noqa: ASYNC110 (the file has no event to wait for)
            await asyncio.sleep(0.005)

    assert [line["number"] for line in written(log)] == [0, 1, 2]


async def test_a_line_that_cannot_be_written_takes_no_other_with_it(log: Path) -> None:
    logs.later(logs.line, "info", "bad", time.time(), None, {"field": "\ud800"})
    logs.later(logs.line, "info", "good", time.time(), context.Call({}, ""), {})
    logs.flush()

    assert [line["event"] for line in written(log)] == ["note_failed", "good"]


def test_a_reader_that_has_gone_does_not_stop_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(logs, "_journal", logs.Journal(writer))

    logs.later(bytes, b"to nobody\n")

    os.close(writer)

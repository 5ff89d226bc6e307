"""The pace of the sweep, and that nothing but the drain ends it."""

import asyncio
from typing import ClassVar

import pytest

from libs.runtime import context
from libs.runtime.errors import InvalidField, TurnInProgress, Unavailable
from libs.runtime.server import Background
from services.gateway import sweep
from services.gateway.sweep import AT_ONCE, Sweep, each


class Told:
    """A duty whose rounds do what they are told, and then nothing."""

    name: ClassVar = "told"
    period_seconds: ClassVar = 0.001

    def __init__(self, *rounds: bool | Exception) -> None:
        self.rounds = list(rounds)
        self.left_ms: int | None = None
        self.over = asyncio.Event()

    async def round(self) -> bool:
        self.left_ms = context.remaining_ms()
        if not self.rounds:
            self.over.set()
            return False
        told = self.rounds.pop(0)
        if isinstance(told, Exception):
            raise told
        return told


async def test_whatever_happens_in_a_round_there_is_another_until_the_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "MORE_SECONDS", 0.001)
    background = Background()
    held_up, defective = Told(Unavailable(), True, Unavailable(), False), Told(ZeroDivisionError(), True)

    Sweep(background, [held_up, defective]).start()
    await held_up.over.wait()
    await defective.over.wait()
    await background.drain(5)

    assert 0 < (held_up.left_ms or 0) <= sweep.ROUND_MS


async def test_a_session_that_fails_stops_no_other() -> None:
    done: list[str] = []

    async def succeed() -> None:
        done.append("done")

    async def fail() -> None:
        raise InvalidField([])

    async def break_down() -> None:
        raise ZeroDivisionError

    async def be_busy() -> None:
        raise TurnInProgress(500)

    work = [("a", fail), ("b", break_down), ("c", be_busy), *[(str(number), succeed) for number in range(3 * AT_ONCE)]]

    assert await each(work)
    assert len(done) == 3 * AT_ONCE


async def test_a_context_that_does_not_answer_is_noticed() -> None:
    async def fail() -> None:
        raise Unavailable

    async def succeed() -> None:
        pass

    assert not await each([("a", succeed), ("b", fail), ("c", succeed)])


async def test_only_some_sessions_are_worked_on_at_a_time() -> None:
    at_work, most = 0, 0

    async def work() -> None:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await asyncio.sleep(0)
        at_work -= 1

    await each((str(number), work) for number in range(5 * AT_ONCE))

    assert most == AT_ONCE

"""Failpoints in the suite's own process, which then is one of a service's."""

from collections.abc import Callable
from typing import Any

import pytest

from libs.runtime import failpoints
from libs.runtime.config import Env

AskFor = Callable[[str, str], None]


@pytest.fixture
def ask_for(monkeypatch: pytest.MonkeyPatch) -> AskFor:
    """Makes this process one of a service with these failpoints, until the test ends; before anything is opened."""
    monkeypatch.setattr(failpoints, "_points", None)

    def ask(service: str, text: str) -> None:
        env = Env({"COLLOQUY_FAILPOINTS": text})
        failpoints.configure(service, env)
        env.check()

    return ask


def counts(point: str) -> tuple[int, int]:
    """How often it was reached, and fired."""
    points = failpoints.asked_for()
    assert points is not None
    counted: Any = points.state()["points"]
    return counted[point]["reached"], counted[point]["fired"]

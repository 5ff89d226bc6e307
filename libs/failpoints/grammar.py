"""What shall happen at which failpoint, as text: `history.commit.after=exit; llm.provider.before=10%3*sleep=500`.

    failpoints = [ failpoint *( ";" failpoint ) ]
    failpoint  = name "=" [ percent "%" ] [ times "*" ] ( "exit" / "error" / "sleep=" milliseconds )

After FreeBSD's fail(9), whose `return` is our `error`. The percentage is drawn each time that the point is reached;
`times` is how often it fires at most.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

_ACTION: Final = re.compile(r"(?:([0-9]{1,3})%)?(?:([0-9]{1,9})\*)?(?:(exit|error)|sleep=([0-9]{1,9}))")


class Effect(StrEnum):
    """What happens when a failpoint fires.

    EXIT: the process ends at once, with nothing cleaned up. ERROR: what was about to be done is not done, or its
    answer gets lost. SLEEP: it is late.
    """

    EXIT = "exit"
    ERROR = "error"
    SLEEP = "sleep"


@dataclass(frozen=True, slots=True)
class Action:
    """An effect, and how often it comes: in `percent` of the times that the point is reached, `times` times at most
    (None: without end). `sleep_ms` counts for SLEEP alone."""

    effect: Effect
    sleep_ms: int = 0
    percent: int = 100
    times: int | None = None

    def __str__(self) -> str:
        percent = "" if self.percent == 100 else f"{self.percent}%"
        times = "" if self.times is None else f"{self.times}*"
        return f"{percent}{times}{self.effect}" + (f"={self.sleep_ms}" if self.effect is Effect.SLEEP else "")


class GrammarError(ValueError):
    """The text does not say what shall happen; the message is a sentence about its first fault."""


def read(text: str) -> dict[str, Action]:
    """The action for each failpoint that the text names, whether or not there is such a one.

    Raises:
        GrammarError: it is not of the grammar above, or names one twice.
    """
    actions: dict[str, Action] = {}
    for part in filter(None, map(str.strip, text.split(";"))):
        name, separator, action = map(str.strip, part.partition("="))
        if not name or not separator:
            raise GrammarError(f"{part!r} must be NAME=ACTION")
        if name in actions:
            raise GrammarError(f"{name} is named twice")
        actions[name] = _action(name, action)
    return actions


def write(actions: Mapping[str, Action]) -> str:
    """The text that `read` reads as these actions."""
    return ";".join(f"{name}={action}" for name, action in actions.items())


def _action(name: str, text: str) -> Action:
    matched = _ACTION.fullmatch(text)
    if matched is None:
        raise GrammarError(f"{name} must be [P%][N*] and one of exit, error and sleep=MS, not {text!r}")
    percent, times, plain, sleep_ms = matched.groups()
    action = Action(
        Effect(plain or Effect.SLEEP),
        int(sleep_ms or 0),
        100 if percent is None else int(percent),
        None if times is None else int(times),
    )
    if not 1 <= action.percent <= 100:
        raise GrammarError(f"{name} must have a percentage from 1 to 100, not {action.percent}")
    if action.times == 0:
        raise GrammarError(f"{name} must fire at least once")
    return action

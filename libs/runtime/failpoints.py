"""Failpoints at work: faults on command at named points of this process, for tests; in production there are none.

`configure` comes before anything is opened in `__main__`. What has points (a channel, a database, the provider, the
metrics port) asks here once, when it is made. Where COLLOQUY_FAILPOINTS is not set, `between` gives back the very
function that it was given and `routes` nothing: no call and no statement knows that failpoints exist.
"""

import asyncio
import difflib
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Final, ParamSpec, TypeVar

from aiohttp import web

from libs.failpoints import catalogue, grammar
from libs.failpoints.grammar import Action, Effect, GrammarError
from libs.runtime import logs
from libs.runtime.config import Env

VARIABLE: Final = "COLLOQUY_FAILPOINTS"
EXIT_CODE: Final = 137
"""What a shell says of a process that SIGKILL has ended."""

_Args = ParamSpec("_Args")
_Result = TypeVar("_Result")
Broken = Callable[[bool], Exception]
"""What an `error` looks like to whoever takes a step, by whether the step has been taken."""


@dataclass(slots=True)
class Trial:
    """What is armed at a point, and what has come of it since it was armed."""

    action: Action | None
    reached: int = 0
    fired: int = 0

    def reach(self, draw: float) -> Action | None:
        """Count that the point is reached; what happens there, by a draw from [0, 1)."""
        self.reached += 1
        action = self.action
        if action is None or self.fired == action.times or draw * 100 >= action.percent:
            return None
        self.fired += 1
        return action


class Points:
    """The points of one process."""

    def __init__(self, service: str, actions: Mapping[str, Action]) -> None:
        self._service = service
        self._steps = {step.seam: step for step in catalogue.STEPS if step.service == service}
        self._trials: dict[str, Trial] = {}
        self.arm(actions)

    def arm(self, actions: Mapping[str, Action]) -> None:
        """Arm these points of ours, disarm all others, and count anew."""
        names = [name for step in self._steps.values() for name in (step.before, step.after)]
        self._trials = {name: Trial(actions.get(name)) for name in names}

    def lacks(self, actions: Mapping[str, Action]) -> list[str]:
        """The points among these that are another process's."""
        return [name for name in actions if name not in self._trials]

    def state(self) -> dict[str, object]:
        """What is armed, and how often each point was reached and has fired since."""
        points = {
            name: {"action": str(trial.action or ""), "reached": trial.reached, "fired": trial.fired}
            for name, trial in self._trials.items()
        }
        return {"service": self._service, "points": points}

    @asynccontextmanager
    async def around(self, seam: str, broken: Broken) -> AsyncIterator[None]:
        """Where `seam` is a step's, let happen before and after the block what is armed there."""
        step = self._steps.get(seam)
        if step is not None:
            await self._reach(step.before, broken, taken=False)
        yield
        if step is not None:
            await self._reach(step.after, broken, taken=True)

    async def _reach(self, point: str, broken: Broken, *, taken: bool) -> None:
        action = self._trials[point].reach(random.random())
        if action is None:
            return
        logs.logger().warning("failpoint_fired", failpoint=point, action=str(action))
        match action.effect:
            case Effect.EXIT:
                logs.flush()
                os._exit(EXIT_CODE)
            case Effect.SLEEP:
                await asyncio.sleep(action.sleep_ms / 1000)
            case Effect.ERROR:
                raise broken(taken)


_points: Points | None = None


def configure(service: str, env: Env) -> None:
    """Arm what COLLOQUY_FAILPOINTS says, in the process of `service`; `env` reports what is wrong with it."""
    global _points
    production = env.choice("COLLOQUY_ENV", ("development", "production"), "development") == "production"
    text = env.given(VARIABLE)
    if text is None or (production and not text):
        return
    if production:
        env.reject(VARIABLE, "must not be set in production")
        return
    try:
        _points = Points(service, parse(text))
    except GrammarError as error:
        env.reject(VARIABLE, f"cannot be used: {error}")


def parse(text: str) -> dict[str, Action]:
    """What is to be armed, at points of whichever process.

    Raises:
        GrammarError: it cannot be read, or names a point that there is not.
    """
    actions = grammar.read(text)
    for name in actions:
        if name not in catalogue.POINTS:
            near = difflib.get_close_matches(name, catalogue.POINTS, n=1)
            hint = f"did you mean {near[0]}?" if near else "`colloquy failpoints` lists them"
            raise GrammarError(f"there is no failpoint {name}; {hint}")
    return actions


def asked_for() -> Points | None:
    """This process's points; None where failpoints are not asked for."""
    return _points


def between(
    work: Callable[_Args, Awaitable[_Result]], seam: Callable[_Args, str], broken: Broken
) -> Callable[_Args, Awaitable[_Result]]:
    """`work` between its points; `work` itself where failpoints are not asked for.

    Args:
        seam: which step a call with these arguments is.
        broken: what its caller gets to see of an `error`.
    """
    points = _points
    if points is None:
        return work

    async def passed(*args: _Args.args, **kwargs: _Args.kwargs) -> _Result:
        async with points.around(seam(*args, **kwargs), broken):
            return await work(*args, **kwargs)

    return passed


def around(seam: str, broken: Broken) -> AbstractAsyncContextManager[None]:
    """A block between its points, where failpoints are asked for; what is called often has `between`."""
    return nullcontext() if _points is None else _points.around(seam, broken)


def routes() -> Sequence[web.RouteDef]:
    """What the metrics port serves besides, so that a process that runs can be armed: GET and PUT /failpoints."""
    points = _points
    if points is None:
        return ()

    async def tell(_: web.Request) -> web.Response:
        return web.json_response(points.state())

    async def arm(request: web.Request) -> web.Response:
        try:
            actions = parse(await request.text())
        except GrammarError as error:
            return web.Response(status=400, text=f"{error}\n")
        if others := points.lacks(actions):
            where = ", ".join(f"{name} ({catalogue.POINTS[name].service})" for name in others)
            return web.Response(status=400, text=f"of another process: {where}\n")
        points.arm(actions)
        return web.json_response(points.state())

    return [web.get("/failpoints", tell), web.put("/failpoints", arm)]

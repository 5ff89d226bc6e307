"""The sweep: whatever nobody comes back to is brought to its end by any gateway that runs.

Any number of replicas sweep at once, since nothing that two of them do takes effect twice. A round is a bounded amount
of work; its lists go on where the round before has stopped, so that what cannot be done now keeps nothing else waiting;
and while a context does not answer the rounds come more slowly.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import ClassVar, Protocol

from libs.runtime import context, telemetry
from libs.runtime.errors import ColloquyError, DeadlineExceeded, TurnInProgress, Unavailable
from libs.runtime.server import Background

ROUND_MS = 10_000
MORE_SECONDS = 0.1  # before a round that goes on with a long list
MOST_PERIODS = 3  # between rounds while a context does not answer: with a lease of 4 s still an answer within 15 s
AT_ONCE = 8

Work = Callable[[], Awaitable[object]]


class Duty(Protocol):
    """Something to look after, with a round of it every `period_seconds` or so."""

    name: ClassVar[str]
    period_seconds: ClassVar[float]

    async def round(self) -> bool:
        """Do a bounded amount of it; whether there is more to do at once. Raises ColloquyError: it was held up."""
        ...


class Sweep:
    """Looks after its duties, each in a loop of its own, until the process drains."""

    def __init__(self, background: Background, duties: Sequence[Duty]) -> None:
        self._background = background
        self._duties = duties

    def start(self) -> None:
        for duty in self._duties:
            self._background.spawn(self._repeat(duty), name=f"sweep {duty.name}")

    async def _repeat(self, duty: Duty) -> None:
        periods, pause_seconds = 1, random.uniform(0, duty.period_seconds)
        while await self._background.rest(pause_seconds * random.uniform(0.75, 1.25)):
            more = False
            try:
                with context.serving(budget_ms=ROUND_MS, rpc=f"sweep/{duty.name}"):
                    more = await duty.round()
                periods = 1
            except ColloquyError as error:
                periods = min(periods + 1, MOST_PERIODS)
                telemetry.logger().warning("sweep_held_up", duty=duty.name, reason=str(error.reason))
            except Exception as error:  # a defect, which must not end the sweep
                periods = MOST_PERIODS
                telemetry.logger().error("sweep_failed", duty=duty.name, exc_info=error)
            pause_seconds = MORE_SECONDS if more else periods * duty.period_seconds


async def each(work: Iterable[tuple[str, Work]]) -> bool:
    """Do what there is to do for each session (its id first), some at a time. What fails is told in the log and stops
    nothing else; whether every context has answered."""
    at_once, failed = asyncio.Semaphore(AT_ONCE), list[tuple[str, ColloquyError]]()

    async def one(session_id: str, do: Work) -> None:
        async with at_once:
            try:
                await do()
            except TurnInProgress:  # somebody, or a model, is still at it
                pass
            except ColloquyError as error:
                failed.append((session_id, error))
            except Exception as error:
                telemetry.logger().error("sweep_failed", session_id=session_id, exc_info=error)

    await asyncio.gather(*(one(session_id, do) for session_id, do in work))
    if failed:
        session_id, error = failed[0]
        telemetry.logger().warning("sweep_left", left=len(failed), session_id=session_id, reason=str(error.reason))
    return not any(isinstance(error, (Unavailable, DeadlineExceeded)) for _, error in failed)

"""Work that goes on after the call which started it: a turn that its caller left, a fold that no reply waits for."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from libs.runtime import context, logs


class Background:
    """Tasks that outlive the call which started them; a drain waits for them."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._draining = asyncio.Event()

    def spawn(self, work: Coroutine[Any, Any, Any], name: str, budget_ms: float | None = None) -> asyncio.Task[Any]:
        """Run `work` without the caller's cancel or deadline; `budget_ms` becomes the deadline of its own calls.

        The caller's ids stay on its log lines. A failure that nobody awaits is logged.
        """
        with context.detach(budget_ms):
            task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    @property
    def is_draining(self) -> bool:
        """Whether the process is on its way out: what can be left to others should be."""
        return self._draining.is_set()

    async def rest(self, seconds: float) -> bool:
        """The pause of a task that is a loop: whether it is to go on. The drain ends the pause at once."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._draining.wait()
        return not self.is_draining

    async def drain(self, seconds: float) -> None:
        """Wait for all tasks, also those started meanwhile; after `seconds` cancel what is left."""
        self._draining.set()
        deadline = asyncio.get_running_loop().time() + seconds
        while self._tasks and (left := deadline - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait(self._tasks, timeout=left)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            logs.logger().error("background_task_failed", task=task.get_name(), exc_info=error)

"""Streams that have moved since they were last known to be settled (acked_rev < rev).

One list holds expired turns, projections that lag, half-made sessions, and ends and erasures that were not finished.
"""

import asyncio
import random
from collections.abc import Sequence
from functools import partial
from typing import ClassVar

from colloquy.history.v1 import history_pb2
from libs.runtime.client import call
from libs.runtime.errors import ColloquyError, DeadlineExceeded, Unavailable
from services.gateway import telling
from services.gateway.contexts import Contexts
from services.gateway.erasing import Erasing
from services.gateway.projections import Run, run_of
from services.gateway.recovery import Recovery
from services.gateway.settling import MAX_BATCH, Settling
from services.gateway.sweep import Work, each

MIN_AGE_MS = 2000  # what moved later is usually being settled by whoever moved it
LIST_CAP_MS = 2000


class Unsettled:
    """What is unsettled, a page at a time, round and round."""

    name: ClassVar = "unsettled"
    period_seconds: ClassVar = 2.0

    def __init__(self, contexts: Contexts, settling: Settling, recovery: Recovery, erasing: Erasing) -> None:
        self._history = contexts.history
        self._settling = settling
        self._recovery = recovery
        self._erasing = erasing
        self._after = ""
        self._held_up = False

    async def round(self) -> bool:
        """Do for each stream of a page what it lacks; whether there are more pages.

        Raises:
            Unavailable: in this pass over the list a context did not answer; what was not held up by that is done.
        """
        request = history_pb2.ListUnsettledRequest(
            max_streams=MAX_BATCH, min_age_ms=MIN_AGE_MS, after_session_id=self._after
        )
        try:
            page = await call(self._history.ListUnsettled, request, LIST_CAP_MS)
        except ColloquyError as error:
            if not isinstance(error, (Unavailable, DeadlineExceeded)):
                # Refused: perhaps for where it was to go on, so the list is begun again.
                self._after, self._held_up = "", False
            raise
        self._after = page.streams[-1].head.session_id if page.more else ""
        work: list[tuple[str, Work]] = []
        quiet: list[Run] = []
        for stream in page.streams:
            if stream.erased:
                work.append((stream.head.session_id, partial(self._erasing.finish, stream.head)))
            elif not stream.HasField("active"):
                quiet.append(run_of(stream.head))
            elif not stream.lease_left_ms:
                work.append((stream.head.session_id, partial(self._repair, stream)))
        random.shuffle(work)  # should time run out, then not always for the same ones
        self._held_up |= not all(await asyncio.gather(each(work), self._settle(quiet)))
        if not self._held_up:
            telling.SWEPT.set_to_current_time()
        if page.more:  # the next pages may need another context; the pause comes at the end of the list
            return True
        held_up, self._held_up = self._held_up, False
        if held_up:
            raise Unavailable
        return False

    async def _repair(self, stream: history_pb2.ListUnsettledResponse.Unsettled) -> None:
        expired = history_pb2.OtherTurn(turn_id=stream.active.turn_id, fence=stream.head.fence, turn=stream.active)
        await self._recovery.repair(stream.head.session_id, expired)

    async def _settle(self, quiet: Sequence[Run]) -> bool:
        """Streams on which nobody is at work: nearly all projections hold them, and only the word of it was lost."""
        if not quiet:
            return True
        left = await self._settling.settle(quiet)
        caught_up = await each((session_id, partial(self._settling.catch_up, session_id)) for session_id in left.behind)
        return caught_up and not left.unanswered

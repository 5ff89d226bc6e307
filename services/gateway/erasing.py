"""The erasure of a session: the ledger's tombstone is what counts, the other contexts follow.

From the tombstone on nothing commits and every read is NOT_FOUND. The others make tombstones of their own, under which
nothing that was on its way brings content back; so they can do it in any order, and one that does not answer is
asked again by the sweep.
"""

import asyncio

from colloquy.history.v1 import history_pb2
from colloquy.llm.v1 import llm_pb2
from libs.runtime import context, telemetry
from libs.runtime.client import call
from libs.runtime.errors import ColloquyError
from libs.runtime.server import Background
from services.gateway.contexts import Contexts
from services.gateway.projections import run_of
from services.gateway.settling import Settling

LEDGER_CAP_MS = 1000
FOLLOW_CAP_MS = 2000
REPLY_MS = 200  # of the caller's time, kept for the way back


class Erasing:
    """EraseSession."""

    def __init__(self, contexts: Contexts, settling: Settling, background: Background) -> None:
        self._contexts = contexts
        self._settling = settling
        self._background = background

    async def erase(self, session_id: str, viewer: history_pb2.Viewer) -> None:
        """Erase a session. The other contexts are waited for only as long as the caller does.

        Raises:
            NotFound: it is absent, or not the viewer's.
            Unavailable, DeadlineExceeded: not confirmed; the same request is safe.
        """
        request = history_pb2.EraseStreamRequest(session_id=session_id, viewer=viewer)
        head = (await call(self._contexts.history.EraseStream, request, LEDGER_CAP_MS)).head
        if head.acked_rev < head.rev:
            finishing = self._background.spawn(self._finish_quietly(head), name="erase", budget_ms=FOLLOW_CAP_MS)
            left_ms = context.remaining_ms()
            waits_ms = FOLLOW_CAP_MS if left_ms is None else min(FOLLOW_CAP_MS, left_ms - REPLY_MS)
            await asyncio.wait({finishing}, timeout=max(0, waits_ms) / 1000)

    async def finish(self, head: history_pb2.Head) -> None:
        """Have the other contexts erase what they hold of an erased session, and acknowledge it once all of them have.

        Raises:
            ColloquyError: one of them has not.
        """
        projections = self._settling.projections(head.kind)
        erasures = [projection.erase(head.session_id) for projection in projections]
        erasures.append(self._erase_calls(head.session_id))
        for failure in await asyncio.gather(*erasures, return_exceptions=True):
            if isinstance(failure, BaseException):
                raise failure
        await self._settling.acknowledge([run_of(head)])

    async def _erase_calls(self, session_id: str) -> None:
        await call(self._contexts.llm.EraseSession, llm_pb2.EraseSessionRequest(session_id=session_id), FOLLOW_CAP_MS)

    async def _finish_quietly(self, head: history_pb2.Head) -> None:
        try:
            await self.finish(head)
        except ColloquyError as error:
            telemetry.logger().warning("erase_unfinished", session_id=head.session_id, reason=str(error.reason))

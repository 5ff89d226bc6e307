"""Results of model calls that nobody asks for again: those of settled turns, an hour after their calls have ended. What
the calls cost stays.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import ClassVar

from colloquy.history.v1 import history_pb2
from colloquy.llm.v1 import llm_pb2
from libs.runtime.client import call
from libs.runtime.errors import ColloquyError, DeadlineExceeded, Unavailable
from services.gateway.contexts import Contexts
from services.gateway.sweep import each

MIN_AGE_MS = 3_600_000
PAGE_TURNS = 500
CAP_MS = 2000
SETTLED = (history_pb2.TURN_STATE_COMMITTED, history_pb2.TURN_STATE_FAILED)


class Clearable:
    """What may be cleared, a page at a time, round and round."""

    name: ClassVar = "clearable"
    period_seconds: ClassVar = 60.0

    def __init__(self, contexts: Contexts) -> None:
        self._llm = contexts.llm
        self._history = contexts.history
        self._page_token = ""

    async def round(self) -> bool:
        """Clear the results of the turns of a page which the ledger says are settled; whether there are more pages.

        Raises:
            Unavailable: a context did not answer.
        """
        request = llm_pb2.ListClearableRequest(max_turns=PAGE_TURNS, min_age_ms=MIN_AGE_MS, page_token=self._page_token)
        try:
            page = await call(self._llm.ListClearable, request, CAP_MS)
        except ColloquyError as error:
            if not isinstance(error, (Unavailable, DeadlineExceeded)):
                self._page_token = ""  # refused: perhaps for where it was to go on, so the list is begun again
            raise
        self._page_token = page.next_page_token
        settled = await self._settled(page.turns) if page.turns else {}
        if not await each((session_id, partial(self._clear, session_id, ids)) for session_id, ids in settled.items()):
            raise Unavailable
        return bool(self._page_token)

    async def _settled(self, turns: Iterable[llm_pb2.ListClearableResponse.Turn]) -> Mapping[str, Sequence[str]]:
        """Those of the turns that will never be answered again, by session."""
        keys = [
            history_pb2.BatchGetTurnsRequest.TurnKey(session_id=turn.session_id, turn_id=turn.turn_id) for turn in turns
        ]
        found = await call(self._history.BatchGetTurns, history_pb2.BatchGetTurnsRequest(turns=keys), CAP_MS)
        settled = defaultdict[str, list[str]](list)
        for turn in found.turns:
            if turn.state in SETTLED:
                settled[turn.session_id].append(turn.turn_id)
        return settled

    async def _clear(self, session_id: str, turn_ids: Sequence[str]) -> None:
        request = llm_pb2.ClearResultsRequest(session_id=session_id, turn_ids=turn_ids)
        await call(self._llm.ClearResults, request, CAP_MS)

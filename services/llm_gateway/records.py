"""What is done with the records that calls leave: tell of them, and forget what they say once nobody needs it."""

from services.llm_gateway.clearing import Clearable, ClearableRequest, Settled, TurnKey
from services.llm_gateway.domain import SessionId
from services.llm_gateway.entries import CallEntry
from services.llm_gateway.store import Store


class Records:
    """The use cases, on one ledger."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def calls(self, turn: TurnKey) -> list[CallEntry]:
        """The calls of a turn by purpose, an erased session's too."""
        return await self._store.entries(turn)

    async def clearable(self, request: ClearableRequest) -> Clearable:
        """A page of the turns that still hold a result or a context."""
        return await self._store.clearable(request)

    async def clear(self, settled: Settled) -> None:
        """Clear results and contexts; what is under a live lease stays."""
        await self._store.clear(settled)

    async def erase(self, session_id: SessionId) -> None:
        """Leave a tombstone, and nothing that was said or asked; again changes nothing."""
        await self._store.erase(session_id)

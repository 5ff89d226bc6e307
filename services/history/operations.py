"""What operators do to the ledger and see of it: repairs by hand, and one turn whole."""

from typing import Final
from uuid import UUID

from libs.runtime.errors import FieldViolation, InvalidField, NotFound, RequestIdReused, Unavailable
from services.history.commands import Viewer
from services.history.domain import Head, OwnerId, SessionId
from services.history.interventions import Action, Inspection, Intervention, NewIntervention
from services.history.store import Store

MAX_INTERVENTIONS_LISTED: Final = 100
_ANYBODYS: Final = Viewer(OwnerId(""), any_owner=True, kind=None)
_MAX_ATTEMPTS: Final = 8  # as in `usecases`
_OPENING_STAYS: Final = (
    "cannot reset the opening of an interview: wait for the sweep, which says it once its lease is over, or complete"
    " the session"
)


class Operations:
    """The operators' use cases. Who may ask for them is not the ledger's to say."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def intervene(self, new: NewIntervention) -> tuple[Head, Intervention]:
        """Repair a stream by hand; the head as it is now, and the record of the repair.

        Raises:
            NotFound: the stream is absent or erased.
            RequestIdReused: something else was done under this id.
            InvalidField: the opening of an interview is not RESET.
        """
        for _ in range(_MAX_ATTEMPTS):
            done = await self._store.intervention(new.session_id, new.intervention_id)
            if done is not None and not done.answers(new):
                raise RequestIdReused
            sight = await self._store.stream(new.session_id, _ANYBODYS)
            if sight is None:
                raise NotFound
            if done is not None:
                return sight.head, done
            if new.action is Action.RESET and sight.opens:
                # Given back, it would let a message in before it, and the request that opened the session could never
                # be answered.
                raise InvalidField([FieldViolation("action", _OPENING_STAYS)])
            made = await self._store.intervene(sight, new)
            if made is not None:
                return made
        raise Unavailable

    async def interventions(self, session_id: SessionId) -> list[Intervention]:
        """What was done to a stream by hand, the oldest first."""
        return await self._store.interventions(session_id, MAX_INTERVENTIONS_LISTED)

    async def turn(self, session_id: SessionId, turn_or_request_id: UUID) -> Inspection:
        """One turn.

        Raises:
            NotFound: the session has none of this id, nor of a request of this id.
        """
        inspection = await self._store.inspection(session_id, turn_or_request_id)
        if inspection is None:
            raise NotFound
        return inspection

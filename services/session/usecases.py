"""What the directory does: enter a session, fold the ledger into entries, show them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from libs.folding.runs import Outcome, Position, check_batch, first_digest, fold
from libs.runtime import telemetry
from libs.runtime.errors import NotFound
from services.session.domain import NewSession, SessionId, Totals
from services.session.entries import Entry, Reading
from services.session.listing import Cursor, Page, PageRequest, Viewer
from services.session.store import Found, Step, Store

_EVERYONE = Viewer(owner_id=None, kind=None)


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of a run, and where its entry stands; None where there is no entry to show."""

    session_id: UUID
    outcome: Outcome
    position: Position | None = None


class Directory:
    """The use cases, on one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def create(self, new: NewSession) -> Entry:
        """Enter a session, or find it as it is there. Raises NotFound if it was erased."""
        start = Position(0, first_digest(new.session_id))
        if await self._store.insert(new, start):
            return Entry(new, start, Totals())
        return await self.get(new.session_id, _EVERYONE)

    async def get(self, session_id: SessionId, viewer: Viewer) -> Entry:
        """Raises NotFound: absent, erased, or not for this viewer."""
        entry = await self._store.get(session_id, viewer)
        if entry is None:
            raise NotFound
        return entry

    async def erase(self, session_id: SessionId) -> None:
        """Leave a tombstone, whatever there was; again changes nothing."""
        await self._store.erase(session_id)

    async def page(self, viewer: Viewer, request: PageRequest) -> Page:
        """A page of what this viewer may see."""
        entries = await self._store.page(viewer, request.after, request.size + 1)
        if len(entries) <= request.size:
            return Page(tuple(entries), None)
        last = entries[request.size - 1].facts
        return Page(tuple(entries[: request.size]), Cursor(last.created_at, last.session_id))

    async def apply(self, readings: Sequence[Reading]) -> list[Applied]:
        """Fold each run into its entry; the results are in the order of the runs.

        Most runs continue where their entries stand, so that is tried first, unseen, for all in one statement, which
        also tells where the others stand. Those are folded from there and tried again. Such a try fails only because
        somebody else has moved that entry meanwhile, so of all who fold a session one always gets on.

        Raises:
            InvalidField: too many runs, or two of one session.
        """
        check_batch([reading.run for reading in readings])
        results: dict[UUID, Applied] = {}
        steps = {reading.run.session_id: _step(reading, base) for reading in readings if (base := reading.run.base)}
        while waiting := [reading for reading in readings if reading.run.session_id not in results]:
            found = await self._store.advance([reading.run.session_id for reading in waiting], list(steps.values()))
            tried, steps = steps, {}
            for reading in waiting:
                session_id = reading.run.session_id
                settled = _settle(reading, tried.get(session_id), found)
                if isinstance(settled, Step):
                    steps[session_id] = settled
                else:
                    results[session_id] = settled
        return [results[reading.run.session_id] for reading in readings]


def _step(reading: Reading, base: Position) -> Step:
    return Step(reading.run.session_id, base, fold(base, reading.run), reading.sealed_at)


def _settle(reading: Reading, tried: Step | None, found: Mapping[UUID, Found]) -> Applied | Step:
    """The run's result, or the step to try now that it is known where its entry stands."""
    session_id = reading.run.session_id
    entry = found.get(session_id)
    if entry is None:
        return Applied(session_id, Outcome.ABSENT)
    if entry.before is None:
        return Applied(session_id, Outcome.ERASED)
    if tried is not None and entry.taken:
        if tried.fold.refolded:
            _alert(reading, tried)
        return Applied(session_id, Outcome.OK, tried.fold.position)
    now = _step(reading, entry.before)
    return now if now.fold.outcome is Outcome.OK else Applied(session_id, now.fold.outcome, entry.before)


def _alert(reading: Reading, step: Step) -> None:
    telemetry.logger().error(
        "projection_refolded",
        session_id=str(step.session_id),
        discarded_seq=step.base.applied_seq,
        applied_seq=step.fold.position.applied_seq,
        last_seq=reading.run.last_seq,
    )

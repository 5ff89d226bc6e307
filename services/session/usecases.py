"""What the directory does: enter a session, fold the ledger into entries, show them."""

from collections.abc import Mapping
from dataclasses import dataclass

from libs.runtime import telemetry
from libs.runtime.errors import NotFound
from services.session.domain import (
    Batch,
    Entry,
    NewSession,
    Outcome,
    Position,
    Run,
    SessionId,
    Totals,
    first_digest,
    fold,
)
from services.session.listing import Cursor, Page, PageRequest, Viewer
from services.session.store import Found, Step, Store

_EVERYONE = Viewer(owner_id=None, kind=None)


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of a run, and where its entry stands; None where there is no entry to show."""

    session_id: SessionId
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

    async def page(self, viewer: Viewer, request: PageRequest) -> Page:
        """A page of what this viewer may see."""
        entries = await self._store.page(viewer, request.after, request.size + 1)
        if len(entries) <= request.size:
            return Page(tuple(entries), None)
        last = entries[request.size - 1].facts
        return Page(tuple(entries[: request.size]), Cursor(last.created_at, last.session_id))

    async def apply(self, batch: Batch) -> list[Applied]:
        """Fold each run into its entry; the results are in the batch's order.

        Most runs continue where their entries stand, so that is tried first, unseen, for all in one statement, which
        also tells where the others stand. Those are folded from there and tried again. Such a try fails only because
        somebody else has moved that entry meanwhile, so of all who fold a session one always gets on.
        """
        results: dict[SessionId, Applied] = {}
        steps = {run.session_id: Step(run.session_id, run.base, fold(run.base, run)) for run in batch.runs if run.base}
        while waiting := [run for run in batch.runs if run.session_id not in results]:
            found = await self._store.advance([run.session_id for run in waiting], list(steps.values()))
            tried, steps = steps, {}
            for run in waiting:
                settled = _settle(run, tried.get(run.session_id), found)
                if isinstance(settled, Step):
                    steps[run.session_id] = settled
                else:
                    results[run.session_id] = settled
        return [results[run.session_id] for run in batch.runs]


def _settle(run: Run, tried: Step | None, found: Mapping[SessionId, Found]) -> Applied | Step:
    """The run's result, or the step to try now that it is known where its entry stands."""
    entry = found.get(run.session_id)
    if entry is None:
        return Applied(run.session_id, Outcome.ABSENT)
    if entry.before is None:
        return Applied(run.session_id, Outcome.ERASED)
    if tried is not None and entry.taken:
        if tried.fold.refolded:
            _alert(run, tried)
        return Applied(run.session_id, Outcome.OK, tried.fold.position)
    now = fold(entry.before, run)
    if now.outcome is Outcome.OK:
        return Step(run.session_id, entry.before, now)
    return Applied(run.session_id, now.outcome, entry.before)


def _alert(run: Run, step: Step) -> None:
    telemetry.logger().error(
        "projection_refolded",
        session_id=str(run.session_id),
        discarded_seq=step.base.applied_seq,
        applied_seq=step.fold.position.applied_seq,
        last_seq=run.last_seq,
    )

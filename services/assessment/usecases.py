"""What assessment does with an interview: start it, fold its ledger, choose what to ask next."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from libs.folding.runs import Outcome, Position, Run, check_batch, first_digest, fold
from libs.runtime import telemetry
from libs.runtime.errors import NotFound
from services.assessment import domain, selection
from services.assessment.catalogue import Catalogue
from services.assessment.domain import Ask, BankVersion, Decision
from services.assessment.evidence import AppliedTurn, Interview, Pins, SessionId, TurnId, asked_in
from services.assessment.store import Folded, Found, Step, Store

LedgerRun: TypeAlias = Run[AppliedTurn]


@dataclass(frozen=True, slots=True)
class Resolved:
    """A plan on offer, and what an interview of it pins."""

    pins: Pins
    max_items: int


@dataclass(frozen=True, slots=True)
class Choice:
    """What to ask after `applied_seq` turns."""

    applied_seq: int
    decision: Decision
    closing: str
    bank_version: BankVersion


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of a run, and where its interview stands; None where there is none to show."""

    session_id: SessionId
    outcome: Outcome
    position: Position | None = None


class Interviews:
    """The interviews, as the ledger tells them, and the choice of what to ask."""

    def __init__(self, store: Store, catalogue: Catalogue) -> None:
        self._store = store
        self._catalogue = catalogue

    def resolve(self, plan: str) -> Resolved:
        """Raises InvalidField: no such plan."""
        bank, found = self._catalogue.offered(plan)
        return Resolved(Pins(found.name, bank.version), found.max_items)

    async def start(
        self, session_id: SessionId, plan: str, bank_version: str, candidate_name: str
    ) -> tuple[Choice, str]:
        """Make the interview, or find it; the choice where it stands, and the opening message.

        Raises:
            InvalidField: no such plan or bank.
            NotFound: it was erased.
        """
        bank, found = self._catalogue.pinned(bank_version, plan)
        start = Position(0, first_digest(session_id))
        interview = Interview(Pins(found.name, bank.version), start, (), ())
        if not await self._store.start(session_id, interview.pins, start):
            interview = await self._read(session_id)
        return self._choice(interview), self._opening(interview.pins, candidate_name)

    async def plan(self, run: LedgerRun) -> Choice:
        """Choose what to ask after the run.

        The one turn that usually is not folded yet is taken into account and left to `apply`, which folds many in one
        transaction. More than one is a repair, and folded.

        Raises:
            NotFound: the interview is absent or erased.
        """
        interview, made = await self._read_with(run)
        if made.refolded or len(made.news) > 1:
            await self.apply([run])
            interview, made = await self._read_with(run)
        if made.outcome is Outcome.OK and not made.refolded:
            interview = replace(interview, position=made.position, asked=interview.asked + asked_in(made.news))
        elif made.outcome is Outcome.DIVERGED and interview.position.applied_seq <= run.last_seq:
            # What is folded here is another ledger: all of this one is needed.
            interview = Interview(interview.pins, Position(0, first_digest(run.session_id)), (), ())
        return self._choice(interview)

    async def erase(self, session_id: SessionId) -> None:
        """Leave a tombstone, and nothing that repeats or describes what was said; again changes nothing."""
        await self._store.erase(session_id)

    async def apply(self, runs: Sequence[LedgerRun]) -> list[Applied]:
        """Fold each run into its interview; the results are in the order of the runs.

        Most runs continue where their interviews stand, so that is tried first, unseen, for all in one statement, which
        also tells where the others stand. Those are folded from there and tried again. Such a try fails only because
        somebody else has moved that interview meanwhile, so of all who fold a session one always gets on.

        Raises:
            InvalidField: too many runs, or two of one session.
        """
        check_batch(runs)
        results: dict[SessionId, Applied] = {}
        steps = {SessionId(run.session_id): _step(run, run.base) for run in runs if run.base}
        while waiting := [run for run in runs if run.session_id not in results]:
            ids = [SessionId(run.session_id) for run in waiting]
            found = await self._store.advance(ids, list(steps.values()))
            tried, steps = steps, {}
            for session_id, run in zip(ids, waiting, strict=True):
                settled = _settle(run, tried.get(session_id), found)
                if isinstance(settled, Step):
                    steps[session_id] = settled
                else:
                    results[session_id] = settled
        return [results[SessionId(run.session_id)] for run in runs]

    async def _read_with(self, run: LedgerRun) -> tuple[Interview, Folded]:
        """The interview as it stands, with the score of the run's last turn, and what the run would make of it."""
        interview = await self._read(SessionId(run.session_id), run.turns[-1].turn_id if run.turns else None)
        return interview, fold(interview.position, run)

    async def _read(self, session_id: SessionId, turn_id: TurnId | None = None) -> Interview:
        interview = await self._store.read(session_id, turn_id)
        if interview is None:
            raise NotFound
        return interview

    def _choice(self, interview: Interview) -> Choice:
        bank, plan = self._catalogue.pinned(interview.pins.bank_version, interview.pins.plan)
        decision = selection.decide(bank, plan, interview.asked, interview.scored)
        return Choice(interview.position.applied_seq, decision, plan.closing, bank.version)

    def _opening(self, pins: Pins, candidate_name: str) -> str:
        bank, plan = self._catalogue.pinned(pins.bank_version, pins.plan)
        decision = selection.decide(bank, plan, (), ())
        assert isinstance(decision, Ask), "a plan asks at least one item"
        return domain.opening_message(plan, decision.items[0], candidate_name)


def _step(run: LedgerRun, base: Position) -> Step:
    return Step(SessionId(run.session_id), base, fold(base, run))


def _settle(run: LedgerRun, tried: Step | None, found: Mapping[SessionId, Found]) -> Applied | Step:
    """The run's result, or the step to try now that it is known where its interview stands."""
    session_id = SessionId(run.session_id)
    interview = found.get(session_id)
    if interview is None:
        return Applied(session_id, Outcome.ABSENT)
    if interview.before is None:
        return Applied(session_id, Outcome.ERASED)
    if tried is not None and interview.taken:
        if tried.fold.refolded:
            _alert(run, tried)
        return Applied(session_id, Outcome.OK, tried.fold.position)
    now = fold(interview.before, run)
    if now.outcome is Outcome.OK:
        return Step(session_id, interview.before, now)
    return Applied(session_id, now.outcome, interview.before)


def _alert(run: LedgerRun, step: Step) -> None:
    telemetry.logger().error(
        "projection_refolded",
        session_id=str(run.session_id),
        discarded_seq=step.base.applied_seq,
        applied_seq=step.fold.position.applied_seq,
        last_seq=run.last_seq,
    )

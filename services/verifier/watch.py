"""The loop: a few sessions every few seconds, those that have just changed and, one after the other, all there are.

It is there to be told of what nobody has thought of, not to be quick about it: `colloquy verify` checks everything at
once. Any number of processes may watch; they do not know of each other.
"""

import random
from collections.abc import Awaitable, Callable
from typing import Final

from libs.runtime import telemetry
from services.verifier.reader import START, Reader
from services.verifier.rows import SessionId
from services.verifier.rules import Violation
from services.verifier.verification import check

PERIOD_SECONDS: Final = (4.0, 6.0)
CHANGING: Final = 5
"""Unsettled sessions that are looked at in a round, and again in the next one, when they have settled as a rule."""
WALKED: Final = 5
"""Sessions by which a round comes nearer to having seen all."""
DOUBTED: Final = 5
"""Broken sessions that are looked at again in a round, whether they still are."""
MAX_BROKEN: Final = 10_000
"""More than these need not be known by name to be an alarm; others are found once some of these are mended."""

_INCONSISTENT = telemetry.gauge(
    "inconsistent_sessions", "Sessions in which an invariant was found broken, and still is."
)
_CHECKED = telemetry.counter(
    "sessions_verified_total", "Checks of a session; where this stands still nothing is checked."
)


class Watch:
    """What is known so far: where the walks stand, and which sessions are broken."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._changing_after = self._walked_to = START
        self._changing: list[SessionId] = []
        self._broken: dict[SessionId, frozenset[str]] = {}
        self.ready = False
        """Whether the last round could read all contexts."""

    async def keep(self, rest: Callable[[float], Awaitable[bool]]) -> None:
        """Go on with rounds; `rest` pauses for so many seconds and says whether to go on."""
        while True:
            await self._try()
            if not await rest(random.uniform(*PERIOD_SECONDS)):
                return

    async def round(self) -> None:
        """Check a few sessions. Raises what `Database.one` raises."""
        chosen = await self._choose()
        report = await check(self._reader, sorted(chosen))
        _CHECKED.inc(report.sessions)
        found: dict[SessionId, list[Violation]] = {}
        for violation in report.violations:
            found.setdefault(violation.session_id, []).append(violation)
        for session_id in chosen.difference(report.busy):
            self._learn(session_id, found.get(session_id, []))
        _INCONSISTENT.set(len(self._broken))

    async def _try(self) -> None:
        try:
            if not self.ready and (behind := await self._reader.behind()):
                telemetry.logger().warning("not_migrated", contexts=behind)
                return
            await self.round()
        except Exception as error:  # whatever it is, the gauge must not stand still for ever
            self.ready = False
            telemetry.logger().warning(
                "verification_failed", cause=f"{type(error).__name__}: {error.__cause__ or error}"
            )
        else:
            self.ready = True

    async def _choose(self) -> set[SessionId]:
        """Whom this round is about; the next one goes on from there, whatever becomes of this one."""
        before, self._changing = self._changing, await self._reader.unsettled(self._changing_after, CHANGING)
        self._changing_after = self._changing[-1] if len(self._changing) == CHANGING else START
        walked = await self._reader.page(self._walked_to, WALKED)
        self._walked_to = walked[-1] if len(walked) == WALKED else START
        doubted = list(self._broken)[:DOUBTED]
        return {*before, *self._changing, *walked, *doubted}

    def _learn(self, session_id: SessionId, violations: list[Violation]) -> None:
        """Remember what is broken, the newest last, and tell it when it is news."""
        known = self._broken.pop(session_id, frozenset())
        rules = frozenset(violation.rule for violation in violations)
        if rules and len(self._broken) < MAX_BROKEN:
            self._broken[session_id] = rules
        if rules - known:
            invariants = sorted({violation.invariant for violation in violations})
            telemetry.logger().error(
                "session_inconsistent", session_id=str(session_id), invariants=invariants, rules=sorted(rules)
            )
        if known and not rules:
            telemetry.logger().info("session_consistent_again", session_id=str(session_id))

"""What the protocol demands, a switch each, and how large a world is searched.

A mutant is the protocol without one of its demands (`tests.prove.mutants`).
"""

from dataclasses import dataclass

COMMIT_DEMANDS = frozenset({"active", "fence", "base", "open", "running"})
"""What CommitTurn demands: the turn is the active one, under this fence, the ledger still ends at its base, the stream
is not sealed, the turn is RUNNING."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The protocol; each switch that is off takes one demand away.

    rev_is_compared: BeginTurn writes only where the rev is still the one that it has read.
    same_id_takes_over: an expired turn is taken over by its own request id only.
    takeover_bumps_fence: a takeover makes the fences that were given before worthless.
    base_is_fixed: a turn is committed right after its base or not at all: a takeover and a commit demand it, and CHECK
        (seq = base_seq + 1) holds it.
    commit_demands: which of its demands CommitTurn makes.
    last_commit_fails_given_back: the commit that closes the stream fails what was given back, as End does.
    release_checks_fence: ReleaseTurn ends the claim that it names, no later one.
    end_seals: End closes the stream.
    seal_bumps_fence: so do End and Erase.
    calls_are_remembered: a model call that is under way or done is not made again.
    context_comes_with_call: what a call was made for is stored with its intent and comes back with its result.
    repeat_bumps_fence: a call that is made again makes late results of the earlier one worthless.
    plan_is_at_base: a plan is used only if it was made on the turn's base.
    items_are_unique: UNIQUE(session_id, item_asked).
    folds_come_first: a stream is acknowledged after every projection has folded it.
    ack_checks_rev: and only if it has not moved on since.
    erase_leaves_tombstone: in every context, also where no row was.
    sweep_makes_what_is_absent: a half-made session is finished from its facts.
    """

    rev_is_compared: bool = True
    same_id_takes_over: bool = True
    takeover_bumps_fence: bool = True
    base_is_fixed: bool = True
    commit_demands: frozenset[str] = COMMIT_DEMANDS
    last_commit_fails_given_back: bool = True
    release_checks_fence: bool = True
    end_seals: bool = True
    seal_bumps_fence: bool = True
    calls_are_remembered: bool = True
    context_comes_with_call: bool = True
    repeat_bumps_fence: bool = True
    plan_is_at_base: bool = True
    items_are_unique: bool = True
    folds_come_first: bool = True
    ack_checks_rev: bool = True
    erase_leaves_tombstone: bool = True
    sweep_makes_what_is_absent: bool = True


PROTOCOL = Rules()


@dataclass(frozen=True, slots=True)
class Scope:
    """How large a world is: one session, for sessions share nothing.

    messages: the request id of each message that clients send; "AAB" is two requests, one of them sent twice at once.
    sweeps: how many replicas repair.
    interview: else a chat, which has no items and one projection.
    items: how many the plan has.
    max_turns: of the session.
    late: how many requests the network may keep to itself and deliver when their sender has given up.
    flights: how many provider calls may be under way under one fence of a call; 0 where the llm-gateway cannot be
        reached.
    faults: how many crashes, lost replies and failures; None for any number.
    ends, erases: whether these may come, at any moment.
    resets: whether an operator may end whatever claim is held, at any moment.
    half_made: whether the projections are absent when the first message comes.
    """

    messages: str = "AAB"
    sweeps: int = 1
    interview: bool = True
    items: int = 2
    max_turns: int = 9
    late: int = 0
    flights: int = 1
    faults: int | None = None
    ends: bool = True
    erases: bool = True
    resets: bool = False
    half_made: bool = True

    @property
    def requests(self) -> int:
        return len(set(self.messages))

    def __str__(self) -> str:
        kind = "chat" if not self.interview else "interview" if self.flights else "interview without a model"
        faults = (
            "any number of faults" if self.faults is None else f"{self.faults} faults" if self.faults else "no fault"
        )
        extras = {
            f"{self.sweeps} sweeps": self.sweeps > 1,
            f"{self.late} late": self.late,
            f"{self.flights} flights": self.flights > 1,
            f"{self.max_turns} turns at most": self.max_turns <= self.requests,
            "half-made": self.half_made,
            "End": self.ends,
            "Erase": self.erases,
            "Reset": self.resets,
        }
        return ", ".join([f"{kind} {self.messages}", faults, *(name for name, there in extras.items() if there)])

"""A message that was offered, and the claim on its turn once the ledger has granted it."""

import uuid
from dataclasses import dataclass

from colloquy.history.v1 import history_pb2
from services.gateway.domain import Budget
from services.gateway.stopwatch import Stopwatch


@dataclass(frozen=True, slots=True)
class Message:
    """What a client sends. Equal messages are one request: whatever refuses one refuses the other."""

    session_id: str
    owner_id: str
    kind: history_pb2.Kind.ValueType
    request_id: str
    text: str
    in_reply_to: int | None

    def begin(self, window: history_pb2.WindowLimit, claim_id: uuid.UUID) -> history_pb2.BeginTurnRequest:
        return history_pb2.BeginTurnRequest(
            session_id=self.session_id,
            owner_id=self.owner_id,
            kind=self.kind,
            request_id=self.request_id,
            user_text=self.text,
            in_reply_to=self.in_reply_to,
            claim_id=str(claim_id),
            window=window,
        )


@dataclass(frozen=True, slots=True)
class Claim:
    """The right, and the duty, to answer one turn until its lease ends."""

    owner: history_pb2.Owner
    text: str
    watch: Stopwatch
    granted: Budget
    streamed: bool = False
    repair: bool = False

    @property
    def session_id(self) -> str:
        return self.owner.head.session_id

    @property
    def item_answered(self) -> str:
        """The item that the message answers: what the last committed turn asked; empty for none."""
        return self.owner.last_turn.item_asked

    @property
    def committed_by(self) -> str:
        if self.repair:
            return "repair"
        return "takeover" if self.owner.takeover else "owner"

    @property
    def is_interview(self) -> bool:
        return self.owner.head.kind == history_pb2.KIND_INTERVIEW

    def plan_cap_ms(self) -> float:
        return self.granted.plan_cap_ms(self.watch.elapsed_ms())

    def model_cap_ms(self) -> float:
        """What is left for the models; negative once the commit must go out."""
        return self.watch.left_ms(self.granted.model_ms)

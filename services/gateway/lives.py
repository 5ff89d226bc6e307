"""What operators are shown of the contexts' rows: turns, calls, repairs. Translation only; no text passes."""

from colloquy.gateway.v1 import gateway_pb2, operations_pb2, record_pb2
from colloquy.history.v1 import history_pb2
from colloquy.history.v1 import operations_pb2 as ledger_pb2
from colloquy.llm.v1 import llm_pb2
from services.gateway.records import VIEWED_KIND

INTERVENTION = {
    operations_pb2.Repair.ACTION_RESET: ledger_pb2.Intervention.ACTION_RESET,
    operations_pb2.Repair.ACTION_COMPLETE: ledger_pb2.Intervention.ACTION_COMPLETE,
}
_ACTION = {intervention: action for action, intervention in INTERVENTION.items()}
Life = operations_pb2.GetTurnLifeResponse


def of(found: ledger_pb2.GetTurnResponse) -> Life:
    """A turn as the ledger has it."""
    life = Life(stream=_stream(found), turn=_turn(found))
    if found.turn.record:
        life.account.CopyFrom(_account(record_pb2.TurnRecord.FromString(found.turn.record)))
    return life


def repair(made: ledger_pb2.Intervention) -> operations_pb2.Repair:
    """A repair as it was put on record."""
    return operations_pb2.Repair(
        repair_id=made.intervention_id,
        action=_ACTION.get(made.action, operations_pb2.Repair.ACTION_UNSPECIFIED),
        turn_id=made.turn_id,
        actor=made.actor,
        reason=made.reason,
        before=_standing(made.before),
        after=_standing(made.after),
        at=made.at,
    )


def model_call(entry: llm_pb2.CallEntry) -> Life.Call:
    """A model call with its attempts."""
    return Life.Call(
        purpose=entry.purpose,
        state=llm_pb2.CallState.Name(entry.state).removeprefix("CALL_STATE_"),
        fence=entry.fence,
        repeats=entry.repeats,
        lease_left_ms=entry.lease_left_ms,
        error=entry.error,
        usage=_usage(entry.usage),
        model=entry.model,
        prompt_version=entry.prompt_version,
        dispatched_at=entry.dispatched_at,
        finished_at=entry.finished_at if entry.HasField("finished_at") else None,
        cleared=entry.cleared,
        attempts=map(_attempt, entry.attempts),
    )


def _stream(found: ledger_pb2.GetTurnResponse) -> Life.Stream:
    head = found.head
    return Life.Stream(
        session_id=head.session_id,
        kind=VIEWED_KIND[head.kind],
        last_seq=head.last_seq,
        fence=head.fence,
        sealed=head.sealed,
        erased=found.erased,
        settled=head.acked_rev == head.rev,
    )


def _turn(found: ledger_pb2.GetTurnResponse) -> Life.LedgerTurn:
    turn = found.turn
    return Life.LedgerTurn(
        turn_id=turn.turn_id,
        request_id=turn.request_id,
        state=history_pb2.TurnState.Name(turn.state).removeprefix("TURN_STATE_"),
        reason=turn.reason,
        fence=found.fence,
        base_seq=turn.base_seq,
        seq=turn.seq,
        lease_left_ms=found.lease_left_ms,
        begun_at=turn.begun_at,
        committed_at=turn.committed_at if turn.HasField("committed_at") else None,
        user_tokens=found.user_tokens,
        reply_tokens=found.reply_tokens,
        item_answered=turn.item_answered,
        item_asked=turn.item_asked,
    )


def _account(record: record_pb2.TurnRecord) -> Life.Account:
    return Life.Account(
        committed_by=record.committed_by,
        degraded=record.degraded,
        timing=record.timing,
        usage=record.usage,
        versions=record.versions,
        scored=record.scored,
    )


def _attempt(made: llm_pb2.Attempt) -> Life.Attempt:
    return Life.Attempt(
        fence=made.fence,
        attempt=made.attempt,
        state=llm_pb2.AttemptState.Name(made.state).removeprefix("ATTEMPT_STATE_"),
        provider=made.provider,
        model=made.model,
        status=made.status,
        error=made.error,
        usage=_usage(made.usage),
        dispatched_at=made.dispatched_at,
        finished_at=made.finished_at if made.HasField("finished_at") else None,
    )


def _usage(usage: llm_pb2.Usage) -> gateway_pb2.Usage:
    return gateway_pb2.Usage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        cost_nano_usd=usage.cost_nano_usd,
    )


def _standing(standing: ledger_pb2.Intervention.Standing) -> operations_pb2.Repair.Standing:
    return operations_pb2.Repair.Standing(
        fence=standing.fence,
        last_seq=standing.last_seq,
        sealed=standing.sealed,
        active_turn=standing.active_turn,
        lease_left_ms=standing.lease_left_ms,
    )
